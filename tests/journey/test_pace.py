"""How much goes at once, against a real server behind a proxy that times out, is slow, or refuses by size: it gets
smaller, it grows again, it is remembered and told, and nothing is lost or doubled on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from backhaul import aimd
from backhaul.client import read_status
from backhaul.errors import TimedOut
from backhaul.media.put import put
from backhaul.media.transfer import upload
from backhaul.media.uploads import Upload
from backhaul.remotes import answers, pace
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.pace import Pace
from backhaul.remotes.tus import TusRemote
from backhaul.wire import Push, inflate
from tests.faults.proxy import Answer, PassOn, Proxy, Request, Rule, proxy, says
from tests.journey.test_answers import AheadClock, drain
from tests.replicas import Replica, make_replica
from tests.services import SyncServer, sync_server
from tests.unit.media.conftest import no_work

SCOPES = count(1)
TIMED_OUT = says(504, body=b"<html>Gateway timeout</html>")
TOO_LARGE = says(413, body=b"<html>Too large</html>")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def between(server: SyncServer) -> Iterator[Proxy]:
    with proxy(server.url) as made:
        yield made


@pytest.fixture
def make(server: SyncServer, between: Proxy, tmp_path: Path) -> Iterator[Any]:
    made: list[Replica] = []
    scope = f"scope {next(SCOPES)}"

    def make_one(name: str) -> Replica:
        replica = make_replica(tmp_path / f"{name}.sqlite", HttpRemote(between.url), code=server.enrol(scope))
        replica.clock = AheadClock()
        replica.token = replica.remote._connection._authorization.removeprefix("Bearer ")  # type: ignore[attr-defined]
        replica.remote.close()
        endpoint = Endpoint(replica.database, replica.clock)
        replica.remote = HttpRemote(between.url, replica.token, endpoint=endpoint, timeout=(5, 2))  # type: ignore[attr-defined]
        made.append(replica)
        return replica

    yield make_one
    for replica in made:
        replica.remote.close()
        replica.close()


def fill(replica: Replica, first: int, last: int, *, size: int = 100) -> None:
    with replica.app:
        rows = [(key, "x" * size) for key in range(first, last + 1)]
        replica.app.executemany("INSERT INTO customer (id, name) VALUES (?, ?)", rows)


def dials(replica: Replica, direction: str) -> dict[str, Pace]:
    status = read_status(replica.database, replica.clock.now())
    return {one.dial: one for one in status.pace if one.direction == direction}


def beyond(most: int, otherwise: Rule, said: list[tuple[int, int]]) -> Rule:
    """A server, or what stands before it, that takes so many ops in one message, and answers otherwise to more."""

    def rule(request: Request, pass_on: PassOn) -> Answer | None:
        if request.path != "/v1/push":
            return pass_on()
        ops = len(msgspec.json.decode(inflate(request.body, request.headers.get("Content-Encoding")), type=Push).ops)
        answer = pass_on() if ops <= most else otherwise(request, pass_on)
        said.append((ops, answer.status if answer is not None else 0))
        return answer

    return rule


@pytest.mark.parametrize(("otherwise", "status"), [(TIMED_OUT, 504), (TOO_LARGE, 413)], ids=["times out", "refuses"])
def test_messages_are_halved_until_they_get_through_and_grow_again_when_they_may(
    make: Any, between: Proxy, otherwise: Rule, status: int
) -> None:
    a, b = make("a"), make("b")
    said: list[tuple[int, int]] = []
    between.rule = beyond(300, otherwise, said)
    fill(a, 1, 1_200)
    drain(a)
    tried = [ops for ops, answer in said if answer == status]
    assert tried[:2] == [1_000, 500]
    assert max(ops for ops, answer in said if answer == 200) <= 300
    found = dials(a, "push")["ops"]
    assert 100 <= found.value <= 305
    assert found.usual == 1_000
    assert found.decided_at <= a.clock.now()
    said.clear()

    fill(a, 1_201, 1_400)
    drain(a)
    assert said[0][0] == 200  # another run, as another process would be: it does not begin with a thousand again
    assert said[0][1] == 200

    between.rule = lambda _, pass_on: pass_on()
    before = dials(a, "push")["ops"].value
    fill(a, 1_401, 2_600)
    drain(a)
    after = dials(a, "push")["ops"]
    assert before + 4 <= after.value <= before + 60
    assert after.reason == pace.WENT_WELL
    b.pull()
    a.pull()
    assert a.states() == {}
    assert b.rows("customer") == a.rows("customer")
    assert len(b.rows("customer")) == 2_600


def test_a_server_that_does_not_answer_in_time_halves_the_message_and_a_short_one_changes_nothing(
    make: Any, between: Proxy
) -> None:
    a = make("a")
    a.remote._connection._timeout = (5, 0.2)
    between.rule = beyond(0, lambda request, pass_on: stuck(), [])
    fill(a, 1, 3)
    with pytest.raises(TimedOut):
        a.push()
    assert dials(a, "push") == {}
    a.clock.ahead += 300_000
    between.rule = lambda _, pass_on: pass_on()
    a.remote._connection._timeout = (5, 30)
    drain(a)
    fill(a, 4, 1_003)
    a.remote._connection._timeout = (5, 0.2)
    between.rule = beyond(0, lambda request, pass_on: stuck(), [])
    with pytest.raises(TimedOut):
        a.push()
    found = dials(a, "push")
    assert found["ops"].value == 500
    assert found["ops"].before == 1_000
    assert "did not answer in time" in found["ops"].reason
    assert found["bytes"].value < found["bytes"].before


def test_a_short_message_that_never_gets_through_shrinks_to_a_single_group(make: Any, between: Proxy) -> None:
    a, b = make("a"), make("b")
    said: list[tuple[int, int]] = []
    between.rule = beyond(2, TIMED_OUT, said)
    fill(a, 1, 2)
    for key in range(3, 10):
        fill(a, key, key)
    tries = 0
    while any(state in ("pending", "sent") for state in a.states()):
        with suppress(TimedOut):
            a.push()
        a.clock.ahead += 300_000
        tries += 1
        assert tries < 20
    assert said[0] == (9, 504)
    assert max(ops for ops, answer in said if answer == 200) == 2
    b.pull()
    assert len(b.rows("customer")) == 9


def stuck() -> None:
    threading.Event().wait(1)


def test_a_slow_link_halves_and_says_how_slow(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make("a")
    fill(a, 1, 1_000)
    monkeypatch.setattr(pace, "SLOW_MS", -1)
    monkeypatch.setattr(aimd, "SLOW_MS", -1)
    a.push()
    found = dials(a, "push")["ops"]
    assert (found.value, found.before) == (500, 1_000)
    assert found.reason.startswith("an exchange took ")


def test_a_page_is_asked_for_smaller_at_once_or_the_next_time_and_remembered(
    make: Any, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = make("a"), make("b")
    fill(a, 1, 900, size=300)
    a.push()
    asked: list[str] = []

    def noting(request: Request, pass_on: PassOn) -> Answer:
        if request.path.startswith("/v1/pull"):
            asked.append(request.path.rpartition("limit=")[2].partition("&")[0])
        return pass_on()

    between.rule = noting
    monkeypatch.setattr(answers, "MOST_ANSWER", 150_000)
    b.pull()
    assert asked[:4] == ["2000", "1000", "500", "250"]
    assert set(asked[3:]) <= {"250", *map(str, range(250, 400))}
    assert dials(b, "pull")["records"].value < 400
    assert len(b.rows("customer")) == 900
    monkeypatch.undo()

    times: list[str] = []

    def slow(request: Request, pass_on: PassOn) -> Answer | None:
        if request.path.startswith("/v1/pull"):
            times.append(request.path)
        return pass_on() if not request.path.startswith("/v1/pull") else TIMED_OUT(request, pass_on)

    between.rule = slow
    before = dials(b, "pull")["records"].value
    with pytest.raises(TimedOut):
        b.pull()
    assert dials(b, "pull")["records"].value == before // 2
    assert len(times) == 1  # the run ends, and the next one asks for less
    for _ in range(8):
        with pytest.raises(TimedOut):
            b.pull()
    assert dials(b, "pull")["records"].value == 1  # or large records would never come over a thin link
    between.rule = noting
    asked.clear()
    fill(a, 901, 920)
    a.push()
    b.pull()
    assert asked[0] == "1"
    assert len(b.rows("customer")) == 920


def test_a_batch_costs_as_many_statements_whatever_is_learned(make: Any, between: Proxy) -> None:
    a = make("a")
    statements: list[str] = []
    event.listen(a.database.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))

    def cost(first: int, number: int) -> int:
        fill(a, first, first + number - 1)
        statements.clear()
        a.push(batch=number)
        return len(statements)

    usual = cost(1, 300)
    assert cost(1_001, 600) == usual
    said: list[tuple[int, int]] = []
    between.rule = beyond(300, TOO_LARGE, said)
    fill(a, 2_001, 2_600)
    a.push(batch=600)
    between.rule = lambda _, pass_on: pass_on()
    learned = [cost(10_000 * step, 100 * step) for step in (1, 2)]
    assert learned[0] - usual <= 1  # what is turned is written down
    assert learned[1] - usual <= 1


def test_a_proxy_that_takes_small_chunks_gets_small_chunks(
    make: Any, between: Proxy, server: SyncServer, tmp_path: Path
) -> None:
    a = make("a")
    sizes: list[int] = []

    def small(request: Request, pass_on: PassOn) -> Answer | None:
        if request.method != "PATCH":
            return pass_on()
        sizes.append(len(request.body))
        return pass_on() if len(request.body) <= 150_000 else TOO_LARGE(request, pass_on)

    between.rule = small
    file = tmp_path / "film"
    file.write_bytes(bytes(range(256)) * 4_000)
    this = put_file(a, file, no_work)
    remote = TusRemote(between.url, a.token)
    upload(a.database, remote, this.id, clock=a.clock, context=a.context)
    assert remote.has(this.sha256)
    assert sizes[:3] == [65_536, 262_144, 131_072]
    found = dials(a, "upload")["bytes"]
    assert found.value <= 262_144
    sizes.clear()
    other = tmp_path / "other"
    other.write_bytes(b"y" * 500_000)
    that = put_file(a, other, no_work)
    upload(a.database, remote, that.id, clock=a.clock, context=a.context)
    assert sizes[0] == found.value
    remote.close()


def put_file(replica: Replica, file: Path, enqueue: Any) -> Upload:
    return put(replica.database, file, enqueue=enqueue, now=replica.clock.now())
