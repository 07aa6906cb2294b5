"""The ledger of uploads: the only file that writes `backhaul_upload`. The states are told in `schema.py`.

    register -> pending -> begin -> sending -> advance ... -> finish -> done     (many at once: take_all, finish_all)
                   ^                   |
                   +----- restart -----+        park, from pending or sending -> parked

Each verb returns whether it took place: False means that the row was no longer in a state it leads out of, or that
another run has taken the upload since: a verb that is given a fence counts only for the run that holds it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, true, tuple_, update

from backhaul.errors import Unknown
from backhaul.schema import upload as table
from backhaul.statements import text

State = Literal["pending", "sending", "done", "parked"]
OPEN: tuple[State, ...] = ("pending", "sending")
STATES: tuple[State, ...] = (*OPEN, "done", "parked")
MOST_LISTED = 1_000


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file on its way out. path: absolute; "" where bytes were put. kept: whether what is sent is kept in the store,
    and not the file at this path. sha256: lower-case hexadecimal. sent: bytes that the server has.

    url: of the upload on the server, while there is one. queue, worker: who sent the last byte.
    reason: why it is parked, or why it was last begun anew. priority: higher is sent earlier. asked_at: when the server
    said, of many at once, that it did not have it.
    """

    id: str
    path: str
    name: str
    media_type: str
    size: int
    sha256: str
    modified_ns: int
    created_at: int
    kept: bool = False
    fence: int = 0
    state: State = "pending"
    url: str | None = None
    sent: int = 0
    queue: str | None = None
    worker: str | None = None
    reason: str | None = None
    finished_at: int | None = None
    priority: int = 0
    asked_at: int | None = None

    @property
    def file(self) -> Path:
        return Path(self.path)


def register(connection: Connection, upload: Upload) -> None:
    """Into pending."""
    values = {column.name: getattr(upload, column.name) for column in table.columns}
    connection.execute(insert(table).values(values))


def take(connection: Connection, upload_id: str) -> bool:
    """Stays as it is: it is the caller's from now on, whose fence is the row's; whoever had it before has lost it."""
    chosen = update(table).where(table.c.id == upload_id, table.c.state.in_(OPEN))
    return _changed(connection, chosen.values(fence=table.c.fence + 1))


def take_all(connection: Connection, ids: Collection[str]) -> list[Upload]:
    """The same of many that were not begun; those that it takes place for, as they are then."""
    chosen = update(table).where(table.c.id.in_(ids), table.c.state == "pending")
    taken = connection.execute(chosen.values(fence=table.c.fence + 1).returning(table)).mappings()
    return [Upload(**row) for row in taken]


def holds(connection: Connection, upload_id: str, *, fence: int) -> bool:
    """Whether nobody has taken it since."""
    statement = "SELECT fence FROM backhaul_upload WHERE id = :id AND state IN ('pending', 'sending')"
    return connection.execute(text(statement), {"id": upload_id}).scalar_one_or_none() == fence


def begin(connection: Connection, upload_id: str, *, url: str, fence: int | None = None) -> bool:
    """pending -> sending: there is an empty upload at this address now."""
    return _changed(
        connection,
        update(table)
        .where(table.c.id == upload_id, table.c.state == "pending", _held(fence))
        .values(state="sending", url=url, sent=0),
    )


def advance(
    connection: Connection,
    upload_id: str,
    *,
    url: str,
    sent: int,
    queue: str | None,
    worker: str | None,
    fence: int | None = None,
) -> bool:
    """Stays sending: the server has so many bytes. Of another upload's address, the news is old and changes nothing."""
    statement = f"""
        UPDATE backhaul_upload SET sent = :sent, queue = :queue, worker = :worker
        WHERE id = :id AND state = 'sending' AND url = :url {"" if fence is None else "AND fence = :fence"}
    """  # noqa: S608 - a constant
    values = {"id": upload_id, "url": url, "sent": sent, "queue": queue, "worker": worker, "fence": fence}
    return bool(connection.execute(text(statement), values).rowcount)


def restart(connection: Connection, upload_id: str, *, url: str, reason: str, fence: int | None = None) -> bool:
    """sending -> pending: the upload at this address is lost, or spoilt."""
    return _changed(
        connection,
        update(table)
        .where(table.c.id == upload_id, table.c.state == "sending", table.c.url == url, _held(fence))
        .values(state="pending", url=None, sent=0, reason=reason),
    )


def confirm(connection: Connection, upload_id: str, *, modified_ns: int) -> bool:
    """Stays as it is: the file was touched, and still holds the same bytes."""
    return _changed(
        connection,
        update(table).where(table.c.id == upload_id, table.c.state.in_(OPEN)).values(modified_ns=modified_ns),
    )


def finish(connection: Connection, upload_id: str, *, now: int) -> bool:
    """pending or sending -> done: the server has the whole content, checked."""
    return _changed(
        connection,
        update(table)
        .where(table.c.id == upload_id, table.c.state.in_(OPEN))
        .values(state="done", sent=table.c.size, reason=None, finished_at=now),
    )


def finish_all(
    connection: Connection, taken: Collection[Upload], *, now: int, queue: str | None = None, worker: str | None = None
) -> list[str]:
    """pending or sending -> done, of those that nobody has taken since; the ids of these. queue, worker: who sent them;
    None: the server had them."""
    held = tuple_(table.c.id, table.c.fence).in_([(one.id, one.fence) for one in taken])
    values = {
        "state": "done",
        "sent": table.c.size,
        "reason": None,
        "finished_at": now,
        "queue": queue,
        "worker": worker,
    }
    chosen = update(table).where(held, table.c.state.in_(OPEN)).values(values).returning(table.c.id)
    return list(connection.execute(chosen).scalars())


def mark_asked(connection: Connection, ids: Collection[str], *, now: int | None) -> None:
    """Stays as it is: the server was asked for it. now: None: it is to be asked again."""
    connection.execute(update(table).where(table.c.id.in_(ids)).values(asked_at=now))


def park(connection: Connection, upload_id: str, *, reason: str, now: int, fence: int | None = None) -> bool:
    """pending or sending -> parked: it cannot be sent."""
    return _changed(
        connection,
        update(table)
        .where(table.c.id == upload_id, table.c.state.in_(OPEN), _held(fence))
        .values(state="parked", reason=reason, finished_at=now),
    )


def forget_parked(connection: Connection, *upload_ids: str) -> bool:
    """parked -> gone: the file was put once more, or will be."""
    return _changed(connection, delete(table).where(table.c.id.in_(upload_ids), table.c.state == "parked"))


def get(connection: Connection, upload_id: str) -> Upload:
    """Raises Unknown."""
    row = connection.execute(select(table).where(table.c.id == upload_id)).mappings().one_or_none()
    if row is None:
        raise Unknown(f"there is no upload {upload_id}", hint="`backhaul media list` shows them all")
    return Upload(**row)


def listed(connection: Connection, *, state: State | None = None, most: int = MOST_LISTED) -> list[Upload]:
    """The newest first."""
    query = select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(most)
    if state is not None:
        query = query.where(table.c.state == state)
    return [Upload(**row) for row in connection.execute(query).mappings()]


def needed(connection: Connection, prefix: str) -> set[str]:
    """The kept contents whose SHA-256 begins so, and that are still to be sent, or parked."""
    query = select(table.c.sha256).where(table.c.sha256 >= prefix, table.c.sha256 < prefix + "g")
    return set(connection.execute(query.where(table.c.kept, table.c.state != "done")).scalars())


def counts(connection: Connection) -> dict[State, int]:
    """How many uploads are in each state; every state is named."""
    query = select(table.c.state, func.count()).group_by(table.c.state)
    found = {row[0]: row[1] for row in connection.execute(query)}
    return {state: found.get(state, 0) for state in STATES}


def _held(fence: int | None) -> ColumnElement[bool]:
    return true() if fence is None else table.c.fence == fence


def _changed(connection: Connection, statement: Any) -> bool:
    return bool(connection.execute(statement).rowcount)
