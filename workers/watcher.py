"""The watch over the outbox: notices what was written without our hook (plain sqlite3, another language).

SQLite counts the commits of others for every connection (`PRAGMA data_version`); asking costs microseconds. Only when
the number has moved is anything else looked at. On PostgreSQL the triggers ring (listener.py); because they ring but a
few times a second, and a bell can be missed, the outbox is looked at every second all the same.
"""

from __future__ import annotations

from typing import Any

from backhaul.database import Database, translated
from backhaul.replica import refill
from backhaul.work.ledger import Work
from workers.waking import wake_push


class Watch:
    """Of one database, by one connection at a time: what another one counts says nothing of the time before it."""

    def __init__(self) -> None:
        self._seen: tuple[Any, int] | None = None

    def moved(self, database: Database) -> bool:
        """Whether others can have committed anything since this was asked last. It begins no transaction: most looks
        find that nothing has moved, and ask for nothing else. Raises DatabaseBusy."""
        if not database.sqlite:
            return True
        with translated(), database.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            (version,) = driver.execute("PRAGMA data_version").fetchone()
        before, self._seen = self._seen, (driver, version)
        return before != self._seen

    def forget(self) -> None:
        """What has moved was not looked at."""
        self._seen = None

    def push(self, database: Database, now: int) -> Work | None:
        """The push, when it is to be rung for. Once: while its message waits, say in a closed queue, more of them would
        only pile up."""
        refill.turn(database, now=now)  # before the app's next rows take numbers of another replica
        push = wake_push(database, now)
        return push if push is not None and not push.rung_at else None
