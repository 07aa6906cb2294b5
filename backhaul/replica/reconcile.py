"""Reconcile: pull, push, pull, and then compare: the number of records and a fingerprint of every table.

Both sides must speak of the same moment. The server names the feed position that its digest was read at; ours is read
in one snapshot together with our own position and with what still waits. Where they differ, or something waits, the
comparison says `moving` and means nothing: the next one will tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.digest import fingerprint, row_hash
from backhaul.remotes.base import Remote
from backhaul.replica import checkpoint, outbox, tables
from backhaul.replica.arriving import Arriving, untold
from backhaul.replica.capture import row_expressions
from backhaul.replica.context import Context
from backhaul.replica.names import field_names
from backhaul.replica.pull import pull
from backhaul.replica.push import push
from backhaul.statements import on_postgresql, quoted, run
from backhaul.wire import Table, TableDigest, Value, canonical_key, from_plain

CHUNK = 2_000  # rows held at once
_key = msgspec.json.Decoder(list[Value]).decode
_fields = msgspec.json.Decoder(dict[str, Value]).decode
NAMED = 10  # keys of rows that cannot be equal
ROUNDS = 3  # a busy feed moves between the pull and the comparison; after these tries it is said so


@dataclass(frozen=True)
class Illegible:
    """Rows that hold text which is no UTF-8. keys: of the first of them, as JSON."""

    rows: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One table on both sides. here, there: (count, fingerprint); None where that side does not know the table.

    not_utf8: the keys of rows whose text is no UTF-8 (the first of them, and how many there are): it cannot travel, so
    such a row is never equal.
    """

    table: str
    here: tuple[int, str] | None
    there: tuple[int, str] | None
    not_utf8: Illegible = Illegible()

    @property
    def equal(self) -> bool:
        return self.here == self.there and not self.not_utf8.rows


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """moving: why the tables cannot be held against each other now; None when they can."""

    tables: list[Compared]
    moving: str | None

    @property
    def equal(self) -> bool:
        return self.moving is None and all(one.equal for one in self.tables)


def reconcile(
    database: Database, remote: Remote, *, clock: Clock, context: Context, arriving: Arriving = untold
) -> Comparison:
    """arriving: as of the pull."""
    for _ in range(ROUNDS):
        pull(database, remote, clock=clock, context=context, arriving=arriving)
        push(database, remote, clock=clock, context=context, arriving=arriving)
        pull(database, remote, clock=clock, context=context, arriving=arriving)
        comparison = compare(database, remote, context=context)
        if comparison.moving is None:
            break
    return comparison


def compare(database: Database, remote: Remote, *, context: Context) -> Comparison:
    """Hold both sides against each other, changing nothing."""
    context.check()
    digest = remote.digest()
    there = {one.table: one for one in digest.tables}
    with database.reading() as connection:
        tracked = [one.table for one in tables.checked(connection)]
        moving = _moving(connection, digest.position)
        here = {table.name: _digest(connection, table, there.get(table.name)) for table in tracked}
    compared = [
        Compared(table=name, here=_pair(here[name][0]), there=_pair(there.get(name)), not_utf8=here[name][1])
        for name in sorted(here)
    ]
    return Comparison(tables=compared, moving=moving)


def _moving(connection: Connection, position: int) -> str | None:
    waiting = outbox.waiting(connection)
    known = checkpoint.read(connection).position
    if waiting:
        return f"{waiting} changes wait to be sent"
    if outbox.overtaken(connection, 1):
        return "records wait to be fetched once more"
    if known != position:
        return f"the server is at position {position}, this replica at {known}"
    return None


def _digest(connection: Connection, table: Table, there: TableDigest | None) -> tuple[TableDigest, Illegible]:
    """Reckoned as the other side has reckoned its own: by the kinds that the scope has agreed on.

    The driver stops at text that is no UTF-8; then all is read once more, with a mark for each such byte.
    """
    kinds = there.kinds if there else {}
    try:
        return _summed(connection, table, kinds)
    except OperationalError as error:
        if on_postgresql(connection) or "decode" not in str(error.orig):
            raise
    driver: Any = connection.connection.dbapi_connection
    plain = driver.text_factory
    driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    try:
        return _summed(connection, table, kinds, marked=True)
    finally:
        driver.text_factory = plain


def _summed(
    connection: Connection, table: Table, kinds: dict[str, str], *, marked: bool = False
) -> tuple[TableDigest, Illegible]:
    """marked: what is no UTF-8 comes as lone surrogates, and is reckoned as its replacement."""
    count, total, illegible, keys = 0, 0, 0, list[str]()
    for key, fields in _rows(connection, table):
        try:
            total += row_hash(table.name, key, fields, kinds)
        except UnicodeEncodeError:
            if not marked:
                raise
            legible = [_legible(part) for part in key]
            total += row_hash(table.name, legible, {name: _legible(said) for name, said in fields.items()}, kinds)
            illegible += 1
            keys += [canonical_key(legible)] if len(keys) < NAMED else []
        count += 1
    digest = TableDigest(table=table.name, count=count, fingerprint=fingerprint([total]))
    return digest, Illegible(rows=illegible, keys=tuple(keys))


def _legible(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _rows(connection: Connection, table: Table) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Key and fields of every row, as wire values."""
    names, columns = field_names(table), ", ".join(map(quoted, table.key + field_names(table)))
    width = len(table.key)
    if on_postgresql(connection):  # the driver would make Python's own types of the values, and lose their text
        columns = ", ".join(row_expressions(connection, table, "held"))
    statement = f"SELECT {columns} FROM {quoted(table.name)} AS held"  # noqa: S608 - the catalogue's own names, quoted
    with run(connection, statement, stream=True) as result:
        rows: Iterator[Any] = chain.from_iterable(result.partitions(CHUNK))
        for row in rows:
            if on_postgresql(connection):
                yield _key(row[0]), _fields(row[1])
            else:
                values = [from_plain(value) for value in row]
                yield values[:width], dict(zip(names, values[width:], strict=True))


def _pair(digest: TableDigest | None) -> tuple[int, str] | None:
    return (digest.count, digest.fingerprint) if digest else None
