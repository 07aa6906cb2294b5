"""Work that waits for a table hears of everything that sync writes into it, and of the app's own changes before they
leave the outbox: by whichever journey it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backhaul.bell import SilentBell
from backhaul.errors import Refused
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.session import Session
from backhaul.work import ledger
from backhaul.work.changes import look_at_tables, noting
from backhaul.work.constraints import TableTrigger
from config.settings import Settings
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica
from tests.unit.work.bench import Bench
from workers.cli.journeys import JOURNEYS

QUIET = 10_000
Journey = Callable[[Replica], object]


def session(replica: Replica) -> Session:
    return Session(replica.database, replica.clock, lambda: replica.remote, arriving=noting(replica.clock))


def command(name: str) -> Journey:
    def typed(replica: Replica) -> None:
        settings = Settings(home=replica.path.parent)
        known = {"database": replica.database, "remote": replica.remote, "clock": replica.clock}
        here = SimpleNamespace(**known, settings=settings, bell=SilentBell())
        JOURNEYS[name](cast(Any, here), cast(Any, replica.context))

    return typed


JOURNEYS_THAT_PULL: dict[str, Journey] = {
    "backhaul pull": command("pull"),
    "backhaul reconcile": command("reconcile"),
    "a session's download": lambda replica: session(replica).download_all_server_changes(60),
}


def waiting(replica: Replica, table: str) -> Callable[[], bool]:
    """Work that waits for the table. Returns whether it has heard of a change."""
    bench = Bench(replica.database, replica.clock)
    work = bench.enqueue(triggers=(TableTrigger(table),), trigger_update_ms=QUIET, trigger_most_ms=3 * QUIET)
    return lambda: bench.row(work).due_at < ledger.NEVER


@pytest.mark.parametrize("journey", JOURNEYS_THAT_PULL.values(), ids=JOURNEYS_THAT_PULL)
def test_an_own_change_is_heard_of_though_nobody_looked_before_it_left(make: MakeReplica, journey: Journey) -> None:
    a = make("a")
    heard = waiting(a, "customer")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.push()
    journey(a)
    assert a.outbox() == []
    assert look_at_tables(a.database, a.clock.now()) == 0  # who looks now finds nothing any more
    assert heard()


@pytest.mark.parametrize("how", ["backhaul push", "a session's upload"])
def test_a_push_that_has_to_hear_first_what_is_gone_tells_of_what_comes(
    make: MakeReplica, server: MemoryServer, how: str
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()

    class Late(MemoryRemote):
        heard = False

        def push(self, ops: Sequence[Any]) -> Any:
            if not self.heard:
                raise Refused("pull first", problem="cursor-expired", status=410)
            return super().push(ops)

        def pull(self, *some: Any, **said: Any) -> Any:
            self.heard = True
            return super().pull(*some, **said)

    assert isinstance(b.remote, MemoryRemote)
    remote = Late(server)
    remote.replica, b.remote = b.remote.replica, remote
    heard = waiting(b, "customer")
    b.write("INSERT INTO invoice (id, customer_id) VALUES (7, 1)")
    if how == "backhaul push":
        command("push")(b)
    else:
        session(b).upload_all_local_changes(60)
    assert [row[1] for row in b.rows("customer")] == ["Ada"]
    assert heard()
