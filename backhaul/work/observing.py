"""Work as it changes: an iterator that asks again whenever the database has moved, in the thread of who iterates.

There is no queue between: who is slow sees the last of several changes. SQLite says in a word whether another
connection has written; PostgreSQL is asked anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing
from dataclasses import replace

from sqlalchemy import Connection

from backhaul.database import Database, translated
from backhaul.work.row import Work

SQLITE_SECONDS = 0.05
POSTGRESQL_SECONDS = 0.25

Ask = Callable[[Connection], list[Work]]


def observe(
    database: Database,
    ask: Ask,
    *,
    ids: Collection[str] | None = None,
    timeout: float | None = None,
    pause: Callable[[float], None] = time.sleep,
    elapsed: Callable[[], float] = time.monotonic,
) -> Iterator[Work]:
    """Each work that is asked for, as it is, and again whenever it has changed (a renewed lease is no change).

    timeout: seconds until it ends. ids: it ends, too, when all of these are finished, or gone after they were seen.
    Raises DatabaseBusy.
    """
    end = None if timeout is None else elapsed() + timeout
    seen: dict[str, Work] = {}
    with translated(), closing(_moves(database)) as moves:
        while True:
            if next(moves):
                with database.reading() as connection:
                    found = ask(connection)
                for work in found:
                    if seen.get(work.id) != _still(work):
                        seen[work.id] = _still(work)
                        yield work
                there = {work.id: work for work in found}
                if ids is None:  # what is forgotten there is forgotten here
                    seen = {work_id: work for work_id, work in seen.items() if work_id in there}
                elif all(_over(one, there, seen) for one in ids):
                    return
            left = None if end is None else end - elapsed()
            if left is not None and left <= 0:
                return
            seconds = SQLITE_SECONDS if database.sqlite else POSTGRESQL_SECONDS
            pause(seconds if left is None else min(seconds, left))


def _over(work_id: str, there: dict[str, Work], seen: dict[str, Work]) -> bool:
    return there[work_id].finished if work_id in there else work_id in seen


def _still(work: Work) -> Work:
    """Without what moves while nothing happens."""
    return replace(work, lease_until=0, rung_at=0)


def _moves(database: Database) -> Generator[bool, None, None]:
    """Whether anything may have been written since the last time; True at first."""
    if not database.sqlite:
        while True:
            yield True
    with database.engine.connect() as connection:
        # Outside of any transaction: within one, nothing is ever seen to move.
        driver = connection.connection.dbapi_connection
        assert driver is not None
        before: object = None
        while True:
            cursor = driver.cursor()
            cursor.execute("PRAGMA data_version")
            now = cursor.fetchone()
            cursor.close()
            yield now != before
            before = now
