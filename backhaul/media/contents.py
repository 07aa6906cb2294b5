"""The ledger of kept contents: the only file that writes `backhaul_content`.

    keep -> a row -> on_server -> evict        forget: what is spoilt or gone        use, pin: any time

A row is written in the transaction in which its file has arrived in the store, and goes before its file does: a crash
in between leaves a file without a row, which `tidy` takes away, and never a row without a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, exists, func, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from backhaul.schema import content as table
from backhaul.schema import upload

_NEEDED = exists().where(upload.c.sha256 == table.c.sha256, upload.c.kept, upload.c.state != "done")
_EVICTABLE = and_(table.c.on_server, ~table.c.pinned, ~_NEEDED)


@dataclass(frozen=True, kw_only=True)
class Content:
    """size: bytes. on_server: whether the server has said that it has it, whole and checked. pinned: whether it stays,
    whatever the budget."""

    sha256: str
    size: int
    kept_at: int
    used_at: int
    on_server: bool
    pinned: bool


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Bytes: of all, of those that could go, and of those that are pinned. contents: how many there are."""

    contents: int
    bytes: int
    evictable: int
    pinned: int


def keep(connection: Connection, sha256: str, *, size: int, now: int) -> None:
    """It is in the store. One that was there already was used."""
    of_dialect = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    values = {"sha256": sha256, "size": size, "kept_at": now, "used_at": now, "on_server": False, "pinned": False}
    made = of_dialect(table).values(values)
    connection.execute(made.on_conflict_do_update(index_elements=[table.c.sha256], set_={"used_at": now}))


def keep_again(connection: Connection, sizes: Mapping[str, int]) -> None:
    """They are in the store, and their rows were lost; used at no time that is known. sizes: by SHA-256."""
    values = {"kept_at": 0, "used_at": 0, "on_server": False, "pinned": False}
    if sizes:
        connection.execute(insert(table), [{"sha256": name, "size": size} | values for name, size in sizes.items()])


def on_server(connection: Connection, sha256: str) -> bool:
    """The server has it. Whether it is kept here."""
    return bool(connection.execute(update(table).where(table.c.sha256 == sha256).values(on_server=True)).rowcount)


def all_on_server(connection: Connection, contents: Collection[str]) -> None:
    """It has all of these, whichever of them are kept here."""
    connection.execute(update(table).where(table.c.sha256.in_(contents)).values(on_server=True))


def use(connection: Connection, sha256: str, *, now: int) -> bool:
    """Somebody reads it."""
    return bool(connection.execute(update(table).where(table.c.sha256 == sha256).values(used_at=now)).rowcount)


def pin(connection: Connection, sha256: str, *, pinned: bool = True) -> bool:
    """It stays, or may go again. Whether it is kept here."""
    return bool(connection.execute(update(table).where(table.c.sha256 == sha256).values(pinned=pinned)).rowcount)


def evict(connection: Connection, size: int, *, most: int) -> list[str]:
    """They are kept no more: the least recently used, until they are as many bytes as this, at most so many contents.

    Never one that the server does not have, that is pinned, or that an upload still needs.
    """
    running = func.sum(table.c.size).over(order_by=(table.c.used_at, table.c.sha256))
    ranked = select(table.c.sha256, table.c.size, running.label("running")).where(_EVICTABLE).subquery()
    chosen = select(ranked.c.sha256).where(ranked.c.running - ranked.c.size < size).order_by(ranked.c.running)
    gone = delete(table).where(table.c.sha256.in_(chosen.limit(most)), _EVICTABLE).returning(table.c.sha256)
    return list(connection.execute(gone).scalars())


def kept(connection: Connection) -> Kept:
    def bytes_of(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(table.c.size).filter(condition), 0)

    query = select(func.count(), bytes_of(true()), bytes_of(_EVICTABLE), bytes_of(table.c.pinned))
    number, size, evictable, pinned = (int(found) for found in connection.execute(query).one())
    return Kept(contents=number, bytes=size, evictable=evictable, pinned=pinned)


def forget(connection: Connection, contents: Collection[str]) -> int:
    """They are kept no more; how many were."""
    if not contents:
        return 0
    chosen = delete(table).where(table.c.sha256.in_(bindparam("contents", expanding=True)))
    return connection.execute(chosen, {"contents": list(contents)}).rowcount


def beginning(connection: Connection, prefix: str) -> dict[str, int]:
    """Those whose SHA-256 begins so, each with its size."""
    query = select(table.c.sha256, table.c.size).where(table.c.sha256 >= prefix, table.c.sha256 < prefix + "g")
    return {row.sha256: row.size for row in connection.execute(query)}


def get(connection: Connection, sha256: str) -> Content | None:
    row = connection.execute(select(table).where(table.c.sha256 == sha256)).mappings().one_or_none()
    return None if row is None else Content(**row)
