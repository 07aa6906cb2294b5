"""The feed: what has changed since a cursor, records as they are now, and the digest that proves two sides equal.

Nothing here writes. Everything is read in one snapshot, streamed, and put together without parsing what can be
passed on as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import Connection, Row

from backhaul.clock import stamp_to_text
from backhaul.digest import fingerprint, row_hash
from backhaul.server import cursors, leaps, names, pasts, records, scopes, tables
from backhaul.server.names import SAME, Renaming
from backhaul.server.problems import refusal
from backhaul.wire import MOST_OPS, MOST_PAGE, Digest, TableDigest, canonical_key

PAGE_BYTES = 4 * 2**20  # of fields, beyond which a page ends with its group
MOST_PAGE_BYTES = 16 * 2**20  # beyond which it ends within one: clients hold 32 MiB

_raw_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_any = msgspec.json.Decoder().decode


class OutgoingRecord(Struct, omit_defaults=True):
    """A wire.Record on its way out: the key, and the fields of a whole record, spliced in without a parse."""

    table: str
    key: Raw
    version: int
    whole: bool = False
    deleted: bool = False
    fields: Raw | dict[str, Raw] = msgspec.field(default_factory=dict)


class OutgoingPage(Struct):
    """A wire.Page on its way out."""

    records: list[OutgoingRecord]
    cursor: str
    position: int
    head: int
    more: bool
    hlc: str
    now: int


class Part(Struct, frozen=True, kw_only=True):
    """What a round is about, when it is not about everything: one table, or some columns of it."""

    table: str
    columns: frozenset[str] = frozenset()


class Heard(NamedTuple):
    """position: up to which the replica has everything; below zero at the beginning. forgotten: up to which the server
    remembers no deletion, or whose positions mean two things (see leaps.py): it is noted at once who is past that."""

    position: int
    forgotten: int


def pull(
    connection: Connection,
    secret: bytes,
    scope: str,
    replica: str,
    cursor: str,
    limit: int,
    now: int,
    part: Part | None = None,
) -> tuple[OutgoingPage, Heard]:
    """The next page after the cursor. Raises Refused `cursor-expired`, and `server-restored` with the cursor of the
    last position that the server and the replica have in common.

    Returns what the replica has heard of, too.
    """
    known = scopes.head(connection, scope)
    feed, head = known.feed, known.position
    place = cursors.unseal(secret, scope, feed, cursor)
    leapt = leaps.all_of(connection, scope, head)
    if cursor:
        pasts.check_is_of_this_past(connection, secret, scope, place, known, leapt, now)
        pasts.check_is_young(place, known)
    if place.renamings != _renamings(connection, scope, place):
        place = msgspec.structs.replace(place, start=(place.start[0], "", ""))
    limit = min(limit, MOST_PAGE)
    page = _Page(place.floor, replica, part.columns if part else frozenset())
    with closing(
        records.since(connection, scope, place.start, limit + MOST_OPS + 1, part.table if part else "")
    ) as rows:
        start = page.fill(rows, limit)
    following = _next(place, start, known, now)
    following = msgspec.structs.replace(following, renamings=_renamings(connection, scope, following))
    outgoing = OutgoingPage(
        records=page.records,
        cursor=cursors.seal(secret, scope, feed, following),
        position=_reached(start, head),
        head=head,
        more=start is not None,
        hlc=stamp_to_text(page.hlc),
        now=now,
    )
    return outgoing, Heard(place.floor, max(known.horizon, known.collected, *(one.common + 1 for one in leapt)))


def whole(connection: Connection, scope: str, keys: Sequence[tuple[str, list[Any]]]) -> list[OutgoingRecord]:
    """The records as they are now. Raises Refused `answer-too-large` when they are too much for one answer."""
    found, size = [], 0
    for row in records.rows(connection, scope, {(table, canonical_key(key)) for table, key in keys}):
        size += len(row.fields) + len(row.states)
        if size > MOST_PAGE_BYTES:
            raise refusal("answer-too-large", f"the records are larger than {MOST_PAGE_BYTES} bytes; ask for fewer")
        if row.deleted or row.born:
            found.append(_outgoing(row, cursors.BEGINNING))
    return found


def digest(connection: Connection, scope: str, now: int, spoken: Renaming = SAME) -> Digest:
    """Count and fingerprint of the live records of every table. spoken: what the asking replica calls them."""
    position = scopes.head(connection, scope).position
    shapes = tables.shapes(connection, scope)
    kinds = {name: names.under(shape.kinds, spoken.columns_of(name)) for name, shape in shapes.items()}
    sums = dict.fromkeys(shapes, (0, 0))
    for row in records.alive(connection, scope):
        count, total = sums[row.table_name]
        fields = names.under(_any(row.fields), spoken.columns_of(row.table_name))
        hashed = row_hash(spoken.table(row.table_name), _any(row.key), fields, kinds[row.table_name])
        sums[row.table_name] = count + 1, total + hashed
    return Digest(
        tables=[
            TableDigest(table=spoken.table(name), count=count, fingerprint=fingerprint([total]), kinds={**kinds[name]})
            for name, (count, total) in sums.items()
        ],
        position=position,
        now=now,
    )


class _Page:
    """The records of one page, for a replica that has seen everything up to the floor.

    columns: nothing but these, of live records.
    """

    def __init__(self, floor: int, replica: str, columns: frozenset[str] = frozenset()) -> None:
        self.columns = columns
        self.floor = floor
        self.replica = replica
        self.records: list[OutgoingRecord] = []
        self.hlc = 0

    def fill(self, rows: Iterator[Row[Any]], limit: int) -> tuple[int, str, str] | None:
        """Take rows until the page is full and its last group is whole; where the next page starts, if there is one."""
        count = size = version = 0
        last = (0, "", "")
        for row in rows:
            if row.version != version and (count >= limit or size >= PAGE_BYTES):
                return version + 1, "", ""
            if size >= MOST_PAGE_BYTES or count >= limit + MOST_OPS:
                return last
            version, last = row.version, (row.version, row.table_name, row.key)
            count, size = count + 1, size + len(row.fields) + len(row.states)
            self._take(row)
        return None

    def _take(self, row: Row[Any]) -> None:
        if self.floor != cursors.BEGINNING and _is_own(row, self.replica, self.floor):
            return
        self.hlc = max(self.hlc, row.hlc, *(stamp[0] for stamp in records.stamps_of(row).values()))
        record = _outgoing(row, self.floor)
        if self.columns:
            fields = _raw_fields(record.fields) if isinstance(record.fields, Raw) else record.fields
            record.whole, record.fields = False, {name: fields[name] for name in self.columns if name in fields}
        if record.fields or not self.columns:
            self.records.append(record)


def _is_own(row: Row[Any], replica: str, floor: int) -> bool:
    """Whether all that is new in the record was written by the replica that asks, and stands as it has written it."""
    stamps = records.stamps_of(row)
    kept = records.states_of(row)
    if row.deleted or row.born > floor:
        # An edit of another one that lost may have kept the record alive, whose row is gone where the delete was made.
        merged = any(name or any(edit[1] != replica for edit in kept[name]) for name in kept)
        return bool(row.writer == replica) and not merged and all(stamp[1] == replica for stamp in stamps.values())
    new = {name: stamp[1] for name, stamp in stamps.items() if stamp[2] > floor}
    return all(writer == replica and name not in kept for name, writer in new.items())


def _outgoing(row: Row[Any], floor: int) -> OutgoingRecord:
    record = OutgoingRecord(table=row.table_name, key=Raw(row.key.encode()), version=row.version)
    if row.deleted:
        record.deleted = True
    elif row.born > floor:
        record.whole, record.fields = True, _with_documents(row, Raw(row.fields.encode()))
    else:
        newer = {name for name, stamp in records.stamps_of(row).items() if stamp[2] > floor}
        told = {name: value for name, value in _raw_fields(row.fields).items() if name in newer}
        record.fields = _with_documents(row, told)
    return record


def _with_documents(row: Row[Any], told: Raw | dict[str, Raw]) -> Raw | dict[str, Raw]:
    """The fields, where a text that was edited comes with its document."""
    if row.states == records.NOTHING:
        return told
    documents = {name: kept["yjs"] for name, kept in records.states_of(row).items() if name and "yjs" in _dict(kept)}
    if not documents:
        return told
    fields = _raw_fields(told) if isinstance(told, Raw) else told
    for name, state in documents.items():
        if name in fields:
            fields[name] = Raw(b'{"text":%b,"state":"%b"}' % (bytes(fields[name]), state.encode()))
    return fields


def _dict(kept: Any) -> dict[str, Any]:
    return kept if type(kept) is dict else {}


def _reached(start: tuple[int, str, str] | None, head: int) -> int:
    """The version of the last record listed: the whole of it, or what a page that ends within a group holds of it."""
    if start is None:
        return head
    version, table, _ = start
    return version if table else version - 1


def _next(place: cursors.Place, start: tuple[int, str, str] | None, head: scopes.Head, now: int) -> cursors.Place:
    if start is None:
        place = cursors.Place(floor=head.position, start=(head.position + 1, "", ""), began=head.position)
    else:
        began = head.position if place.began == cursors.BEGINNING else place.began
        place = cursors.Place(floor=place.floor, start=start, began=began)
    return msgspec.structs.replace(place, seen=head.position, nonce=head.nonce, at=now)


def _renamings(connection: Connection, scope: str, place: cursors.Place) -> int:
    """How many names tables had before. A page that ends within a version goes on by the names of tables: with another
    name the order is another, too, and the version is told from its beginning once more."""
    if not place.start[1]:
        return 0
    return len(tables.newest_names_of(tables.shapes(connection, scope)).tables)
