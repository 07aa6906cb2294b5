"""Ledger of backhaul_replica: who this replica is, how far it has pulled, and which numbers it has given out.

One row. The triggers read it with every change; only this file writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backhaul.clock import stamp_from_text
from backhaul.errors import NotInitialised
from backhaul.statements import on_postgresql, text
from backhaul.wire import Page, Registered


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    replica: str
    scope: str
    remote: str
    home: str
    created_at: int
    seen_hlc: int
    position: int
    cursor: str
    last_pull_at: int | None
    last_hlc: int
    given_out: int  # how many numbers, over all lanes
    frozen_id: int
    last_push_at: int | None
    clock_offset_ms: int
    origin: str
    former_id: int
    recovering: str
    common_position: int
    common_hlc: int
    common_all: int
    staged_cursor: str
    staged_hlc: int

    @property
    def fetched(self) -> str:
        """The cursor of the next page."""
        return self.staged_cursor or self.cursor

    @property
    def compares(self) -> bool:
        """Whether it is being found out what a server has lost that was put back (see restored.py)."""
        return self.recovering in ("restored", "offer")


READ = text("""
    SELECT replica, scope, remote, home, created_at, seen_hlc, position, cursor, last_pull_at,
           last_hlc, frozen_id, last_push_at, clock_offset_ms,
           origin, former_id, recovering, common_position, common_hlc, common_all, staged_cursor, staged_hlc,
           (SELECT coalesce(sum(last_send_seq - (lane << 48)), 0) FROM backhaul_lane) AS given_out
    FROM backhaul_replica
""")
FIRST = text("SELECT 1 FROM backhaul_replica")
UNDEFINED_TABLE = "42P01"
# SQLAlchemy's inspector takes ten times as long for it.
PRESENT = {
    "sqlite": text("SELECT 1 FROM sqlite_master WHERE name = 'backhaul_replica'"),
    "postgresql": text("SELECT to_regclass('backhaul_replica')"),
}


def begin(connection: Connection, registered: Registered, *, remote: str, home: str, now: int) -> None:
    """A fresh replica, nothing pulled and nothing sent."""
    statement = """
        INSERT INTO backhaul_replica (id, replica, scope, remote, home, created_at, origin)
        VALUES (1, :replica, :scope, :remote, :home, :now, :replica)
    """
    values = {"replica": registered.replica, "scope": registered.scope, "remote": remote, "home": home, "now": now}
    connection.execute(text(statement), values)


def read(connection: Connection) -> Checkpoint:
    """Raises NotInitialised when `init` has not been here."""
    try:  # and not whether the table is there: every step of every journey begins with this
        row = connection.execute(READ).first()
    except DBAPIError as error:
        if not _is_missing(error):
            raise
        row = None
    if row is None:
        raise NotInitialised("this database is no replica yet", hint="run: backhaul init --help")
    return Checkpoint(**row._mapping)


def exists(connection: Connection) -> bool:
    return _present(connection) and connection.execute(FIRST).first() is not None


def _present(connection: Connection) -> bool:
    return connection.execute(PRESENT[connection.dialect.name]).scalar() is not None


def _is_missing(error: DBAPIError) -> bool:
    return "no such table" in str(error.orig) or getattr(error.orig, "sqlstate", "") == UNDEFINED_TABLE


def hold(connection: Connection) -> None:
    """Until the end of this transaction, no other one that moves the replica's numbers: claims, settlements, pages.

    SQLite has one writer anyway. On PostgreSQL the one row is locked; triggers only read it, and do not wait for that.
    """
    if on_postgresql(connection):
        connection.execute(text("SELECT 1 FROM backhaul_replica FOR UPDATE"))


def mute(connection: Connection) -> None:
    """From here to `unmute`, in this transaction, changes are not captured; and only in this one. (On SQLite nobody
    else sees the row: we hold the write. On PostgreSQL it is a setting of the transaction.)"""
    _say_muted(connection, 1)


def unmute(connection: Connection) -> None:
    _say_muted(connection, 0)


def _say_muted(connection: Connection, muted: int) -> None:
    if on_postgresql(connection):
        connection.execute(text("SELECT set_config('backhaul.muted', :muted, true)"), {"muted": str(muted)})
    else:
        connection.execute(text("UPDATE backhaul_replica SET muted = :muted"), {"muted": muted})


def mark_group(connection: Connection, group: str | None) -> None:
    """The changes that are captured from here on, in this transaction, are of this group. (PostgreSQL's triggers take
    the transaction for it.)"""
    if not on_postgresql(connection):
        connection.execute(text("UPDATE backhaul_replica SET group_id = :group"), {"group": group})


def clear_stale_mark(connection: Connection) -> None:
    """Take away the group of a transaction that ended past the hook (a raw COMMIT): we write, so nobody else does."""
    connection.execute(text("UPDATE backhaul_replica SET group_id = NULL WHERE group_id IS NOT NULL"))


def pulled(connection: Connection, page: Page, *, since: str, now: int) -> None:
    """The page from `since` is applied, in this same transaction.

    The position that captured changes have seen moves at the end of a round alone: within it the feed has passed a
    position, but not yet every record that was made before it.
    """
    statement = """
        UPDATE backhaul_replica
        SET cursor = :cursor, position = CASE WHEN :more OR position >= :position THEN position ELSE :position END,
            seen_hlc = CASE WHEN seen_hlc >= :hlc THEN seen_hlc ELSE :hlc END, last_pull_at = :now, staged_cursor = ''
        WHERE cursor = :since
    """
    known = read(connection)
    values = {
        "since": since,
        "cursor": page.cursor,
        "position": page.position,
        "more": page.more,
        "hlc": max(stamp_from_text(page.hlc), known.staged_hlc if known.staged_cursor else 0),
        "now": now,
    }
    connection.execute(text(statement), values)


def pull_from_the_beginning(connection: Connection) -> None:
    """The next pull fetches everything anew; the position that captured changes have seen stays known."""
    connection.execute(text("UPDATE backhaul_replica SET cursor = '', staged_cursor = ''"))


def forget_position(connection: Connection) -> None:
    """Captured changes have seen nothing, until the next round is through."""
    connection.execute(text("UPDATE backhaul_replica SET position = 0"))


def pull_elsewhere(connection: Connection) -> None:
    """The next pull fetches everything from a server that has another past; nothing that it has was seen."""
    statement = "UPDATE backhaul_replica SET cursor = '', staged_cursor = '', recovering = ''"
    connection.execute(text(statement))


def staged(connection: Connection, page: Page, *, since: str) -> None:
    """The page from `since` is staged, in this same transaction, and not applied yet: nothing of it was seen."""
    statement = """
        UPDATE backhaul_replica
        SET staged_cursor = :cursor,
            staged_hlc = CASE WHEN staged_cursor <> '' AND staged_hlc > :hlc THEN staged_hlc ELSE :hlc END
        WHERE (CASE staged_cursor WHEN '' THEN cursor ELSE staged_cursor END) = :since
    """
    values = {"since": since, "cursor": page.cursor, "hlc": stamp_from_text(page.hlc)}
    connection.execute(text(statement), values)


def compared(connection: Connection, *, since: str, cursor: str) -> None:
    """In a recovery, pages up to this cursor are staged, in this same transaction, to be held against what is here."""
    statement = "UPDATE backhaul_replica SET staged_cursor = :cursor WHERE staged_cursor = :since"
    connection.execute(text(statement), {"cursor": cursor, "since": since})


def signed_in(connection: Connection, registered: Registered, *, former_id: int) -> None:
    """This database is another replica now. Its changes up to `former_id` may have been sent by the one it was."""
    statement = "UPDATE backhaul_replica SET replica = :replica, scope = :scope, former_id = :former_id"
    values = {"replica": registered.replica, "scope": registered.scope, "former_id": former_id}
    connection.execute(text(statement), values)


def renumbered(connection: Connection, *, former_id: int) -> None:
    """What waits has other numbers now; up to this outbox id it may have been sent under the old ones."""
    connection.execute(text("UPDATE backhaul_replica SET former_id = :former_id"), {"former_id": former_id})


def recover(connection: Connection, step: str) -> None:
    """The next step of a recovery (see recover.py); "" when it is over."""
    connection.execute(text("UPDATE backhaul_replica SET recovering = :step"), {"step": step})


def server_restored(connection: Connection, *, cursor: str, position: int, seen_all: bool) -> None:
    """The server and this replica have the past up to this position in common, and nothing after it. seen_all: what the
    server has after it was written since. Stamps that the server has taken of ours, and no pull has passed, say nothing
    of how old the rows are that others wrote."""
    statement = """
        UPDATE backhaul_replica
        SET cursor = :cursor, staged_cursor = '', common_position = :position, common_hlc = seen_hlc,
            common_all = :seen_all
    """
    values = {"cursor": cursor, "position": position, "seen_all": int(seen_all)}
    connection.execute(text(statement), values)


def frozen(connection: Connection, frozen_id: int) -> None:
    """No change up to this outbox id is pending any more."""
    statement = "UPDATE backhaul_replica SET frozen_id = :frozen_id WHERE frozen_id < :frozen_id"
    connection.execute(text(statement), {"frozen_id": frozen_id})


def passed(connection: Connection, hlc: int) -> None:
    """The pull has passed changes of ours with stamps up to this: the rows are as new as that."""
    connection.execute(text("UPDATE backhaul_replica SET seen_hlc = :hlc WHERE seen_hlc < :hlc"), {"hlc": hlc})


def stamped(connection: Connection, hlc: int) -> None:
    """The server has taken changes with stamps up to this: the next ones are stamped after it."""
    connection.execute(text("UPDATE backhaul_replica SET last_hlc = :hlc WHERE last_hlc < :hlc"), {"hlc": hlc})


def pushed(connection: Connection, now: int) -> None:
    connection.execute(text("UPDATE backhaul_replica SET last_push_at = :now"), {"now": now})


def keep_offset(connection: Connection, offset: int) -> None:
    """The server's clock minus ours, in milliseconds."""
    connection.execute(text("UPDATE backhaul_replica SET clock_offset_ms = :offset"), {"offset": offset})
