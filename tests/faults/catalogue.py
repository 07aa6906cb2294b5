"""The catalogue: everything that strikes a stage, by name. A fault strikes while changes wait on both replicas.

What a fault does is done when its function returns, but for a proxy's rule and a dead server: those end with the scene.
"""

from __future__ import annotations

import resource
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from sqlalchemy import event

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.errors import Busy, DatabaseBusy, SignInRequired, Unreachable
from backhaul.remotes.http import HttpRemote
from backhaul.replica import pull, push
from tests.chaos.dying import DEATH, kill_at
from tests.checker import processes
from tests.faults.proxy import PROTOCOL, Answer, PassOn, Request, Rule, first, halved, lost, says, truncated, unsent
from tests.faults.small_disk import full_disk
from tests.faults.stage import IMPATIENT, Stage
from tests.replicas import MovedClock, Undisturbed

LARGE = 400_000  # bytes of a photo that no full disk takes
ROOM = 100_000


@dataclass(frozen=True, kw_only=True)
class Fault:
    """strikes: on a stage where both replicas have written. only: on which database; "" is on both."""

    name: str
    strikes: Callable[[Stage], None]
    only: str = ""

    def __str__(self) -> str:
        return self.name


# ------------------------------------------------------------------------------------------------ on the way


def strange(status: int, *headers: tuple[str, str]) -> Rule:
    """What a network says in the server's place."""
    return says(status, *headers, body=b"<html>sign in</html>")


def slow(_request: Request, pass_on: PassOn) -> Answer:
    answer = pass_on()
    time.sleep(2 * IMPATIENT[1])  # a server that answers too late: the fault itself
    return answer


ON_THE_WAY: dict[str, Rule] = {
    "never arrives": unsent,
    "is answered, and the answer is lost": lost,
    "is answered, and the answer is cut off": truncated,
    "is answered with half a frame": halved,
    "is answered too late": slow,
    "meets a sign-in page": strange(200),
    "meets a redirect": strange(302, ("Location", "http://127.0.0.1:1/")),
    "meets a broken gateway": strange(502),
    "meets an error of the server": says(500, PROTOCOL, body=b"{}", media_type="application/problem+json"),
}


def _on_the_way(path: str, rule: Rule) -> Callable[[Stage], None]:
    def strikes(stage: Stage) -> None:
        stage.a.sync()  # so that there is something to pull
        stage.between.rule = first(2, rule, path=path)
        journey = stage.push if path == "/v1/push" else stage.pull
        with stage.impatient() if rule is slow else nullcontext():
            assert isinstance(journey(stage.b), Unreachable)
            stage.hasten(stage.b)
            assert isinstance(journey(stage.b), Unreachable)

    return strikes


# ------------------------------------------------------------------------------------------------ what a server says


def _signed_out(stage: Stage) -> None:
    """A token is refused again and again: one request a run, and everything is kept."""
    body = b'{"type":"https://backhaul.invalid/problems/token-invalid","title":"no","status":401}'
    stage.between.rule = says(401, PROTOCOL, body=body, media_type="application/problem+json")
    waiting, asked = stage.b.states(), stage.between.requests
    for _ in range(5):
        assert isinstance(stage.push(stage.b), SignInRequired)
    assert stage.between.requests == asked + 5
    assert sum(stage.b.states().values()) == sum(waiting.values())


def _busy(status: int, *, as_date: bool) -> Callable[[Stage], None]:
    def strikes(stage: Stage) -> None:
        """Whoever is asked to wait sends nothing meanwhile, and goes on by itself."""
        now = datetime.now(UTC)
        wait = format_datetime(now + timedelta(seconds=1), usegmt=True) if as_date else "1"
        headers = [("Retry-After", wait), ("Date", format_datetime(now, usegmt=True)), PROTOCOL]
        stage.between.rule = first(1, says(status, *headers), path="/v1/push")
        clock, stage.b.clock = stage.b.clock, MovedClock(SystemClock().now())
        assert isinstance(stage.push(stage.b), Busy)
        asked = stage.between.requests
        stage.push(stage.b)
        assert stage.between.requests == asked
        stage.b.clock = clock
        stage.pull(stage.b)

    return strikes


# ------------------------------------------------------------------------------------------------ who dies


def _server_dies(stage: Stage, *, then: Callable[[PassOn], None]) -> None:
    def rule(_request: Request, pass_on: PassOn) -> None:
        then(pass_on)
        stage.kill_server()

    stage.between.rule = first(1, rule, path="/v1/push")
    assert isinstance(stage.push(stage.b), Unreachable)
    assert isinstance(stage.pull(stage.b), Unreachable)


AT_WORK = [
    ("backhaul.server.store:Store.push", "before"),
    ("backhaul.server.scopes:advance", "after"),
    ("backhaul.server.store:Store.push", "after"),
]


def _server_dies_at_work(stage: Stage) -> None:
    """While it works on a push: it has the whole request, and dies before, in and after its transaction."""
    for step, when in AT_WORK:
        stage.serve_with(serve_until, step, when)
        assert isinstance(stage.push(stage.b), Unreachable)
        assert stage.death_of_server() == DEATH
        stage.serve()
        stage.hasten(stage.b)


def serve_until(step: str, when: str, *given: Any) -> None:
    kill_at(step, when, 1)
    processes.serve_on(*given)


def _ignoring_errors(pass_on: PassOn) -> None:
    try:
        pass_on()
    except Exception:
        return


def _journey_dies(name: str) -> Callable[[Stage], None]:
    """The process is killed while it waits for an answer that the server has given."""

    def strikes(stage: Stage) -> None:
        arrived, killed = threading.Event(), threading.Event()

        def rule(_request: Request, pass_on: PassOn) -> None:
            pass_on()
            arrived.set()
            killed.wait(60)

        stage.a.sync()
        stage.between.rule = first(1, rule, path=f"/v1/{name}")
        process = processes.start(run_once, name, stage.b.database.engine.url.render_as_string(), *_sign_in(stage))
        assert arrived.wait(60)
        processes.kill(process)
        killed.set()

    return strikes


def run_once(name: str, database_url: str, url: str, token: str) -> None:
    """One journey, as a process of its own."""
    database = open_database(database_url)
    remote = HttpRemote(url, token, timeout=(5.0, 20.0))
    journey: Any = {"push": push.push, "pull": pull.pull}[name]
    journey(database, remote, clock=SystemClock(), context=Undisturbed())


def _sign_in(stage: Stage) -> tuple[str, str]:
    remote: Any = stage.b.remote
    return stage.between.url, remote._connection._authorization.removeprefix("Bearer ")


# ------------------------------------------------------------------------------------------------ no room


def _replica_is_full(stage: Stage) -> None:
    """SQLite finds no page for what comes in. What was there stays as it was."""
    _send_large(stage)
    engine = stage.b.database.engine
    pages = stage.b.app.execute("PRAGMA page_count").fetchone()[0]

    def limit(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")

    event.listen(engine, "connect", limit)
    engine.dispose()
    before = stage.b.rows("customer")
    assert isinstance(stage.pull(stage.b), DatabaseBusy)
    assert stage.b.rows("customer") == before
    event.remove(engine, "connect", limit)
    engine.dispose()


def _replica_meets_its_quota(stage: Stage) -> None:
    """The system refuses to let a file grow, and says another thing than that the disk is full."""
    _send_large(stage)
    before = stage.b.rows("customer")
    stage.b.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is to be written has to find new room
    process = processes.start(run_limited, "pull", stage.b.database.engine.url.render_as_string(), *_sign_in(stage))
    process.join(60)
    assert process.exitcode == DatabaseBusy.exit_status
    assert stage.b.rows("customer") == before


def run_limited(name: str, database_url: str, url: str, token: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
    try:
        run_once(name, database_url, url, token)
    except DatabaseBusy as error:
        raise SystemExit(error.exit_status) from error


def _replicas_disk_is_full(stage: Stage) -> None:
    """PostgreSQL finds no room on the disk for what comes in. What was there stays as it was."""
    _send_large(stage)
    before = stage.b.rows("customer")
    with full_disk(stage.b.database.engine.url.render_as_string(hide_password=False)):
        for _ in range(2):
            said = stage.pull(stage.b)
            assert isinstance(said, DatabaseBusy)
            assert "the disk is full" in str(said)
        assert stage.b.rows("customer") == before


def _servers_disk_is_full(stage: Stage) -> None:
    """The server says that it cannot, and takes nothing of what it could not keep."""
    assert stage.server_url is not None
    stage.b.write("UPDATE customer SET photo = ? WHERE id = ?", secrets.token_bytes(LARGE), stage.first + 2)
    with full_disk(stage.server_url):
        assert isinstance(stage.push(stage.b), Busy | Unreachable)
        assert set(stage.b.states()) == {"sent"}


def _send_large(stage: Stage) -> None:
    stage.a.write("UPDATE customer SET photo = ? WHERE id = ?", secrets.token_bytes(LARGE), stage.first + 2)
    stage.a.sync()


def _server_meets_its_quota(stage: Stage) -> None:
    """It answers that it cannot, loses nothing, and is well again when there is room."""
    stage.kill_server()
    with closing(sqlite3.connect(stage.data / "server.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is to be written has to find new room
    stage.b.write("UPDATE customer SET photo = ? WHERE id = ?", bytes(LARGE), stage.first + 2)
    stage.serve_with(serve_limited)
    assert isinstance(stage.push(stage.b), Busy | Unreachable)
    assert set(stage.b.states()) == {"sent"}
    stage.kill_server()


def serve_limited(*given: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
    processes.serve_on(*given)


# ------------------------------------------------------------------------------------------------ put back


def _server_is_put_back(stage: Stage) -> None:
    """To a state from before all that both have pushed since, and were told was taken."""
    put_back = stage.back_up_server()
    for replica in (stage.a, stage.b, stage.a, stage.b):
        replica.sync()
    put_back()


def _server_is_put_back_and_goes_on(stage: Stage) -> None:
    """The same, and before b hears of it, others have got the places in the feed that b had seen."""
    put_back = stage.back_up_server()
    stage.b.sync()
    put_back()
    for _ in range(3):
        stage.pull(stage.a)
        stage.push(stage.a)
    for number in range(20):
        stage.a.write("UPDATE customer SET name = ? WHERE id = ?", f"name {number}", stage.first + 2)
        stage.push(stage.a)


def _replica_is_put_back(stage: Stage) -> None:
    """To a state from before its push: it says the same once more, as other changes under the same numbers."""
    put_back = stage.back_up_b()
    stage.b.sync()
    put_back()


def _replica_is_put_back_and_has_lost(stage: Stage) -> None:
    """The same, and another one has overwritten meanwhile what it says once more."""
    put_back = stage.back_up_b()
    stage.b.sync()
    stage.a.sync()
    stage.a.write("UPDATE customer SET phone = ? WHERE id = ?", f"of {stage.first + 10}", stage.first + 1)
    stage.a.sync()
    put_back()


def _replica_is_put_back_and_goes_on(stage: Stage) -> None:
    """The same, and the app writes something else before it pushes; what it had written after the backup is there."""
    stage.b.sync()
    put_back = stage.back_up_b()
    stage.b.write("UPDATE customer SET name = 'forgotten here' WHERE id = ?", stage.first + 1)
    stage.b.sync()
    put_back()
    stage.b.write("UPDATE customer SET name = 'after' WHERE id = ?", stage.first + 2)
    for number in range(5):
        stage.b.write("UPDATE customer SET photo = ? WHERE id = ?", bytes([number]), stage.first + 1)
    stage.push(stage.b)


# ------------------------------------------------------------------------------------------------ the list

FAULTS: Sequence[Fault] = [
    *(Fault(name=f"a push {name}", strikes=_on_the_way("/v1/push", rule)) for name, rule in ON_THE_WAY.items()),
    *(Fault(name=f"a pull {name}", strikes=_on_the_way("/v1/pull", rule)) for name, rule in ON_THE_WAY.items()),
    Fault(name="the token is refused again and again", strikes=_signed_out),
    Fault(name="429 with seconds", strikes=_busy(429, as_date=False)),
    Fault(name="429 with a date", strikes=_busy(429, as_date=True)),
    Fault(name="503 with seconds", strikes=_busy(503, as_date=False)),
    Fault(name="503 with a date", strikes=_busy(503, as_date=True)),
    Fault(name="the server dies before a push", strikes=lambda stage: _server_dies(stage, then=lambda _: None)),
    Fault(
        name="the server dies after a push",
        strikes=lambda stage: _server_dies(stage, then=lambda on: _ignoring_errors(on)),
    ),
    Fault(name="the server dies at work", strikes=_server_dies_at_work),
    Fault(name="a push dies as it waits", strikes=_journey_dies("push")),
    Fault(name="a pull dies as it waits", strikes=_journey_dies("pull")),
    Fault(name="the replica's database is full", strikes=_replica_is_full, only="sqlite"),
    Fault(name="the replica meets its quota", strikes=_replica_meets_its_quota, only="sqlite"),
    Fault(name="the replica's disk is full", strikes=_replicas_disk_is_full, only="postgresql"),
    Fault(name="the server's disk is full", strikes=_servers_disk_is_full, only="postgresql"),
    Fault(name="the server is put back", strikes=_server_is_put_back),
    Fault(name="the server is put back and goes on", strikes=_server_is_put_back_and_goes_on),
    Fault(name="the replica is put back", strikes=_replica_is_put_back),
    Fault(name="the replica is put back and has lost", strikes=_replica_is_put_back_and_has_lost),
    Fault(name="the replica is put back and goes on", strikes=_replica_is_put_back_and_goes_on),
    Fault(name="the server meets its quota", strikes=_server_meets_its_quota, only="sqlite"),
]
