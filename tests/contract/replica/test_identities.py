"""Several processes, and several machines, of one replica: when it becomes a successor they all go on as that one, and
the server does not make one identity after the other."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from backhaul.clock import SystemClock, stamp, stamp_to_text
from backhaul.database import open_database
from backhaul.errors import Refused, SignInRequired, TryLater
from backhaul.remotes.http import HttpRemote
from backhaul.replica import pull, push
from backhaul.server import auth
from backhaul.wire import OutgoingOp, Page, Pushed, Registered, Versions
from config.credentials import keeper, read_identity, write_token
from tests.contract.replica.conftest import SHOP, WORDS
from tests.replicas import Replica, Undisturbed, make_postgresql_replica, make_replica
from tests.services import PostgreSQL, SyncServer, sync_server

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

SECONDS = 20.0  # a barrier that is not reached by then is a failure


class Machine:
    """A folder with a token of its own, from which each process opens a remote."""

    def __init__(self, url: str, state: Path) -> None:
        self.url, self.state = url, state
        state.mkdir(exist_ok=True)

    def remote(self, kind: type[HttpRemote] = HttpRemote) -> HttpRemote:
        identity = read_identity(self.state)
        remote = kind(self.url, identity.token)
        remote.belong(identity.replica, keeper(self.state))
        return remote

    def another(self, state: Path) -> Machine:
        shutil.copytree(self.state, state)
        return Machine(self.url, state)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyncServer]:
    with sync_server(tmp_path / "server") as server:
        yield server


@pytest.fixture
def machine(server: SyncServer, tmp_path: Path) -> Machine:
    return Machine(server.url, tmp_path / "state")


Make = Callable[[str], Replica]


@pytest.fixture
def make(server: SyncServer, machine: Machine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(kind: str) -> Replica:
            remote = stack.enter_context(closing(HttpRemote(server.url)))
            remote.belong(None, keeper(machine.state))
            schema, code = SHOP.format(**WORDS[kind]), server.enrol()
            if kind == "sqlite":
                made = make_replica(tmp_path / "app.sqlite", remote, schema=schema, code=code)
            else:
                cluster: PostgreSQL = request.getfixturevalue("cluster")
                made = make_postgresql_replica(cluster.database(), remote, schema=schema, code=code, home=tmp_path)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def replica(make: Make, kind: str) -> Replica:
    replica = make(kind)
    replica.write("INSERT INTO tag VALUES ('early', 'sent')")
    replica.sync()
    return replica


def be_forked(machine: Machine, replica: Replica) -> None:
    """The other copy goes on under the identity that this database has: its numbers are given out twice."""
    [(known,)] = replica.asked("SELECT replica FROM backhaul_replica")
    [(last,)] = replica.asked("SELECT last_send_seq FROM backhaul_lane")
    ops = [
        OutgoingOp(
            op=f"{number:032x}",
            seq=number,
            table="tag",
            key=Raw(b'["of the copy %d"]' % number),
            kind="insert",
            hlc=stamp_to_text(stamp(SystemClock().now())),
            base=0,
            group=None,
            fields=Raw(b'{"label":"copy"}'),
        )
        for number in range(last + 1, last + 6)
    ]
    with closing(machine.remote()) as copy:
        if copy.signed_in_as != known:
            copy.speak_for(known)
        copy.push(ops)


def identity(replica: Replica) -> str:
    return str(replica.asked("SELECT replica FROM backhaul_replica")[0][0])


def identities(server: SyncServer) -> list[str]:
    return [str(row[0]) for row in asked(server, "SELECT replica FROM server_replica ORDER BY created_at, replica")]


def asked(server: SyncServer, statement: str) -> list[Any]:
    with closing(open_database(server.settings.url)) as database, database.reading() as connection:
        return list(connection.exec_driver_sql(statement))


def run(role: str, replica: Replica, remote: HttpRemote, context: Undisturbed | None = None) -> None:
    options: Any = {"clock": replica.clock, "context": context or Undisturbed()}
    if role == "pull":
        pull.pull(replica.database, remote, **options)
    else:
        push.push(replica.database, remote, batch=2, **options)


def labels(replica: Replica) -> list[tuple[Any, ...]]:
    return replica.rows("tag")


def test_three_processes_that_find_a_fork_together_end_as_one_identity(
    server: SyncServer, machine: Machine, replica: Replica
) -> None:
    be_forked(machine, replica)
    for number in range(3):
        replica.write("INSERT INTO tag VALUES (?, 'waits')", f"w{number}")
    rested, together = threading.Event(), threading.Barrier(3, timeout=SECONDS)

    class Together(HttpRemote):
        """All three have been told of the fork, and ask at one moment."""

        def pull(self, cursor: str, limit: int, *, sent: int | None = None, settled: int | None = None) -> Page:
            try:
                return super().pull(cursor, limit, sent=sent, settled=settled)
            except Refused:
                assert rested.wait(SECONDS), "nothing is on its way any more, so all of them may ask"
                raise

        def succeed(self, was: str, knows: Versions = ()) -> Registered:
            rested.set()
            together.wait()
            return super().succeed(was, knows)

    def process(role: str) -> None:
        with closing(machine.remote(Together)) as remote, suppress(TryLater):
            run(role, replica, remote)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(process, ["push", "pull", "pull"]))
    assert len(identities(server)) == 1 + 3
    one = identity(replica)
    for role in ("pull", "push", "pull", "push"):
        with closing(machine.remote()) as remote:
            run(role, replica, remote)
    assert identity(replica) == one
    assert len(identities(server)) == 1 + 3, "who starts then asks for no other one"
    assert replica.outbox() == []
    applied = asked(server, "SELECT count(*), count(DISTINCT op_id) FROM server_applied")
    assert [tuple(row) for row in applied] == [(9, 9)]
    assert {row[0] for row in labels(replica)} >= {"early", "w0", "w1", "w2", "of the copy 3"}
    unused = "SELECT count(*) FROM server_replica WHERE position IS NULL"
    assert [tuple(row) for row in asked(server, unused)] == [(2,)], "these hold no tombstone back"


def test_two_machines_on_one_database_go_on_when_one_of_them_makes_it_a_successor(
    server: SyncServer, machine: Machine, make: Make, tmp_path: Path
) -> None:
    replica = make("postgresql")
    replica.write("INSERT INTO tag VALUES ('early', 'sent')")
    replica.sync()
    other = machine.another(tmp_path / "other")
    be_forked(other, replica)
    with closing(machine.remote()) as remote:
        run("pull", replica, remote)
    assert len(identities(server)) == 2
    for number, one in enumerate([other, machine] * 2):
        replica.write("INSERT INTO tag VALUES (?, 'waits')", f"w{number}")
        for role in ("push", "pull"):
            with closing(one.remote()) as remote:
                run(role, replica, remote)
                assert remote.signed_in_as == identity(replica)
    assert len(identities(server)) == 2
    assert replica.outbox() == []
    assert read_identity(machine.state).replica == identity(replica), "to revoke this one is to stop this machine"
    be_forked(machine, replica)
    with closing(other.remote()) as remote:
        run("pull", replica, remote)
    for one in (machine, other):
        with closing(one.remote()) as remote:
            run("pull", replica, remote)
    assert len(identities(server)) == 3


def test_a_push_that_another_machine_overtakes_goes_on_as_the_successor(
    server: SyncServer, machine: Machine, replica: Replica, tmp_path: Path
) -> None:
    """Its first batch is sent as the one, the second one as the other."""
    other = machine.another(tmp_path / "other")
    for number in range(4):
        replica.write("INSERT INTO tag VALUES (?, 'waits')", f"w{number}")
    sent_as: list[str | None] = []

    class Overtaken(HttpRemote):
        def push(self, ops: Any) -> Pushed:
            sent_as.append(self.signed_in_as)
            return super().push(ops)

    class Between(Undisturbed):
        def check(self) -> None:
            if len(sent_as) == 1:
                be_forked(other, replica)
                with closing(other.remote()) as remote:
                    run("pull", replica, remote)

    before = identity(replica)
    with closing(machine.remote(Overtaken)) as remote:
        run("push", replica, remote, Between())
    assert sent_as == [before, identity(replica)]
    assert before != identity(replica)
    with closing(other.remote()) as remote:
        run("pull", replica, remote)
    assert len(identities(server)) == 2
    assert replica.outbox() == []


def test_who_has_become_a_successor_is_refused_when_that_one_is_revoked(
    server: SyncServer, machine: Machine, replica: Replica, tmp_path: Path
) -> None:
    other = machine.another(tmp_path / "other")
    be_forked(other, replica)
    with closing(machine.remote()) as remote:
        run("pull", replica, remote)
    with closing(open_database(server.settings.url)) as database, database.writing() as connection:
        assert auth.revoke(connection, identity(replica), server.clock.now())
    for one in (machine, other):
        with closing(one.remote()) as remote, pytest.raises(SignInRequired):
            run("pull", replica, remote)
    assert len(identities(server)) == 2


def test_a_token_of_none_that_the_database_was_makes_it_a_successor_once(
    server: SyncServer, machine: Machine, replica: Replica
) -> None:
    """Only the database was put back, or who signed in again was killed in between."""
    with closing(HttpRemote(server.url)) as unrelated:
        registered = unrelated.register(server.enrol(), [], "again", was=identity(replica))
    write_token(machine.state, registered.token, registered.replica)
    for role in ("push", "pull", "push", "pull"):
        with closing(machine.remote()) as remote:
            run(role, replica, remote)
    assert identity(replica) == read_identity(machine.state).replica
    assert len(identities(server)) == 3
