"""What Backhaul does on PostgreSQL while an app is in the middle of a transaction, by events and not by time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from tests.replicas import Replica
from tests.waiting import eventually

Answer = TypeVar("Answer")

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def address(replica: Replica) -> str:
    return replica.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def look_for_deadlocks_after(replica: Replica, time: str) -> None:
    """In every session that begins from now on; as PostgreSQL's `deadlock_timeout` says it."""
    with psycopg.connect(address(replica), autocommit=True) as beside:
        beside.execute(f"ALTER DATABASE {replica.database.engine.url.database} SET deadlock_timeout = '{time}'")  # type: ignore[arg-type]
    replica.database.engine.dispose()


def in_the_middle(replica: Replica, statement: str, act: Callable[[], Answer]) -> Answer:
    """Act while an app has executed this and not committed it yet; it commits once it is waited for."""
    look_for_deadlocks_after(replica, "2min")  # and it is waited for half as long, whatever else this machine does
    with psycopg.connect(address(replica)) as app, psycopg.connect(address(replica), autocommit=True) as beside:
        app.execute(statement)  # type: ignore[arg-type]

        def commit() -> None:
            eventually(lambda: beside.execute(WAITING).fetchone() == (1,), what="somebody waits for the app")
            app.commit()

        with ThreadPoolExecutor(1) as other:
            committed = other.submit(commit)
            try:
                return act()
            finally:
                committed.result()
