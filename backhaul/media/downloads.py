"""The ledger of downloads: the only file that writes `backhaul_download`.

    ask -> wanted -> advance ... -> finish -> gone        park, from wanted -> parked -> ask

Each verb but `ask` returns whether it took place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, delete, select, text, update

from backhaul.schema import download as table
from backhaul.statements import insert, members
from backhaul.wire import encode

State = Literal["wanted", "parked"]


@dataclass(frozen=True, kw_only=True)
class Download:
    """A content on its way here. size: None until the server has told. received: bytes that are here.

    reason: why it is parked, or what the last run found.
    """

    sha256: str
    asked_at: int
    state: State = "wanted"
    size: int | None = None
    received: int = 0
    reason: str | None = None


def ask(connection: Connection, sha256: str, *, now: int) -> None:
    """Into wanted; also from parked, where it begins anew. One that is wanted stays as it is."""
    made = insert(connection, table).values(sha256=sha256, asked_at=now, state="wanted", received=0)
    anew = {"state": "wanted", "asked_at": now, "size": None, "received": 0, "reason": None}
    connection.execute(
        made.on_conflict_do_update(index_elements=[table.c.sha256], set_=anew, where=table.c.state == "parked")
    )


def ask_all(connection: Connection, contents: Sequence[str], *, now: int) -> None:
    """The same of many that are neither wanted nor parked."""
    rows = [{"sha256": one, "asked_at": now, "state": "wanted", "received": 0} for one in contents]
    connection.execute(insert(connection, table).on_conflict_do_nothing(), rows)


def lacking(connection: Connection, contents: Collection[str]) -> list[str]:
    """Those that are neither kept here, nor on their way here, nor were put here."""
    statement = f"""
        WITH named (wanted) AS ({members(connection, "contents")})
        SELECT wanted FROM named
        WHERE NOT EXISTS (SELECT 1 FROM backhaul_content WHERE sha256 = wanted)
          AND NOT EXISTS (SELECT 1 FROM backhaul_download WHERE sha256 = wanted)
          AND NOT EXISTS (SELECT 1 FROM backhaul_upload WHERE sha256 = wanted)
        ORDER BY wanted
    """  # noqa: S608 - our own text
    return list(connection.execute(text(statement), {"contents": encode(sorted(contents)).decode()}).scalars())


def advance(connection: Connection, sha256: str, *, size: int, received: int) -> bool:
    """Stays wanted: so many bytes are here."""
    return _changed(connection, sha256, {"size": size, "received": received})


def note(connection: Connection, sha256: str, *, reason: str) -> bool:
    """Stays wanted: what this run has found."""
    return _changed(connection, sha256, {"reason": reason})


def restart(connection: Connection, sha256: str, *, reason: str) -> bool:
    """Stays wanted: what was here is spoilt."""
    return _changed(connection, sha256, {"received": 0, "reason": reason})


def park(connection: Connection, sha256: str, *, reason: str) -> bool:
    """wanted -> parked: it will not come."""
    return _changed(connection, sha256, {"state": "parked", "reason": reason})


def finish(connection: Connection, sha256: str) -> bool:
    """wanted or parked -> gone: the content is here."""
    return bool(connection.execute(delete(table).where(table.c.sha256 == sha256)).rowcount)


def get(connection: Connection, sha256: str) -> Download | None:
    row = connection.execute(select(table).where(table.c.sha256 == sha256)).mappings().one_or_none()
    return None if row is None else Download(**row)


def wanted(connection: Connection) -> set[str]:
    return set(connection.execute(select(table.c.sha256).where(table.c.state == "wanted")).scalars())


def _changed(connection: Connection, sha256: str, values: dict[str, Any]) -> bool:
    chosen = update(table).where(table.c.sha256 == sha256, table.c.state == "wanted")
    return bool(connection.execute(chosen.values(**values)).rowcount)
