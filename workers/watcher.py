"""The watch over the outbox: notices what was written without our hook (plain sqlite3, another language).

SQLite counts the commits of others for every connection (`PRAGMA data_version`); asking costs microseconds. Only when
the number has moved is anything else looked at. On PostgreSQL the triggers ring (listener.py); because they ring but a
few times a second, and a bell can be missed, the outbox is looked at every second all the same.
"""

from __future__ import annotations

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.replica import refill
from backhaul.work.ledger import Work
from workers.waking import wake_push


class Watch:
    """Of one database, by one connection."""

    def __init__(self) -> None:
        self._seen: int | None = None

    def moved(self, connection: Connection) -> bool:
        """Whether others can have committed anything since this was asked last."""
        if connection.dialect.name != "sqlite":
            return True
        version: int = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        before, self._seen = self._seen, version
        return version != before

    def forget(self) -> None:
        """What has moved was not looked at."""
        self._seen = None

    def push(self, database: Database, now: int) -> Work | None:
        """The push, when it is to be rung for. Once: while its message waits, say in a closed queue, more of them would
        only pile up."""
        refill.turn(database, now=now)  # before the app's next rows take numbers of another replica
        push = wake_push(database, now)
        return push if push is not None and not push.rung_at else None
