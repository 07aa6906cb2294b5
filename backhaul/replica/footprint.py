"""What a change is about, and what it depends on: whether two of them may be on their way in two lanes at once.

Two may not when they are of one record, when one refers to the other's record, or when one deletes a record and the
other takes away one that refers to such. The things are kept as digests of eight bytes: two that are alike by accident
keep one change waiting for another, which does no harm.

Changes of aggregates, and of tables whose references do not name a primary key, always go in the first lane: what
depends on what is not told by keys there.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from itertools import groupby, islice
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row

from backhaul.replica.tables import Tracked
from backhaul.wire import MOST_OPS, Table, canonical_key

SIZE = 8
CHILDREN_OF = b"\0"  # no table is called so
_key = msgspec.json.Decoder(list[Any]).decode
_fields = msgspec.json.Decoder(dict[str, Any]).decode


class Footprint(NamedTuple):
    """changes: what is written. needs: what is only referred to. Both as digests."""

    changes: set[bytes]
    needs: set[bytes]

    @staticmethod
    def read(kept: bytes) -> Iterable[bytes]:
        return (kept[at : at + SIZE] for at in range(0, len(kept), SIZE))

    def meets(self, other: Footprint) -> bool:
        """Whether the order of the two matters."""
        return not (
            self.changes.isdisjoint(other.changes)
            and self.changes.isdisjoint(other.needs)
            and self.needs.isdisjoint(other.changes)
        )

    def add(self, other: Footprint) -> None:
        self.changes.update(other.changes)
        self.needs.update(other.needs)


class Parent(NamedTuple):
    """A table that is referred to by its key. columns: those that say the key, in its order."""

    table: str
    columns: tuple[str, ...]


class Tables:
    """How the tracked tables hang together."""

    def __init__(self, tracked: Sequence[Tracked]) -> None:
        known = {one.table.name: one.table for one in tracked}
        self._keys = {name: tuple(table.key) for name, table in known.items()}
        self._parents: dict[str, list[Parent]] = {}
        self._referred_to: set[str] = set()
        self.first_lane: set[str] = set()
        for table in known.values():
            if table.aggregate:
                self.first_lane |= {table.name, table.aggregate}
            self._enter(table, known)
        self._entangled = self._referred_to | self._parents.keys()

    def _enter(self, child: Table, known: Mapping[str, Table]) -> None:
        for reference in child.references:
            parent = known.get(reference.table)
            if parent is None:
                continue
            said = dict(zip(reference.target, reference.columns, strict=True))
            if said.keys() != set(parent.key):
                self.first_lane |= {child.name, parent.name}
                continue
            columns = tuple(said[name] for name in parent.key)
            self._parents.setdefault(child.name, []).append(Parent(parent.name, columns))
            self._referred_to.add(parent.name)

    def footprint(self, changes: Iterable[Row[Any]]) -> Footprint:
        """Of changes that go together."""
        found = Footprint(set(), set())
        for change in changes:
            table: str = change.table_name
            if table not in self._entangled:
                found.changes.add(_digest(table.encode(), change.key))  # its trigger spells a key in one way
                continue
            key = _key(change.key)
            found.changes.add(_digest(table.encode(), canonical_key(key).encode()))
            if change.kind == "delete" and table in self._referred_to:
                found.changes.add(_digest(CHILDREN_OF, table.encode()))
            parents = self._parents.get(table)
            if parents:
                self._refer(found, change, key, parents)
        return found

    def _refer(self, found: Footprint, change: Row[Any], key: list[Any], parents: Sequence[Parent]) -> None:
        fields = _fields(change.fields) if change.fields else {}
        known = fields | dict(zip(self._keys[change.table_name], key, strict=False))
        for parent in parents:
            told = [known.get(column) for column in parent.columns]
            if all(value is not None for value in told):
                found.needs.add(_digest(parent.table.encode(), canonical_key(told).encode()))
            let_go = change.kind == "update" and not fields.keys().isdisjoint(parent.columns)
            if change.kind == "delete" or let_go:
                found.needs.add(_digest(CHILDREN_OF, parent.table.encode()))


class Free:
    """What a lane may take now: groups that are entangled neither with what other lanes have on their way, nor with one
    before them that was left out.

    elsewhere: the other lanes' footprint; None when that may be anything, and nothing is free.
    """

    def __init__(self, tables: Tables, lane: int, elsewhere: Footprint | None) -> None:
        self._tables = tables
        self._lane = lane
        self._elsewhere = elsewhere
        self._found: dict[int, Footprint] = {}
        self.left_out = False

    def among(self, rows: Generator[Row[Any], None, None]) -> Generator[Row[Any], None, None]:
        """Of changes in their order, each group together, those that are free."""
        self._found, self.left_out = {}, self._elsewhere is None
        if self._elsewhere is None:
            rows.close()
            return
        taboo = Footprint(set(self._elsewhere.changes), set(self._elsewhere.needs))
        with closing(rows):
            for _, group in groupby(rows, key=lambda row: row.group_id or row.id):
                held = list(islice(group, MOST_OPS + 1))  # with one more than can be sent, its taker refuses it
                footprint = self._tables.footprint(held)
                if footprint.meets(taboo) or (self._lane and self._is_of_the_first(held)):
                    taboo.add(footprint)
                    self.left_out = True
                    continue
                self._found[held[0].id] = footprint
                yield from held

    def footprint(self, taken: Sequence[Row[Any]]) -> Footprint:
        """Of those that were taken."""
        together = Footprint(set(), set())
        for row in taken:
            if row.id in self._found:
                together.add(self._found[row.id])
        return together

    def _is_of_the_first(self, held: Sequence[Row[Any]]) -> bool:
        return not self._tables.first_lane.isdisjoint(row.table_name for row in held)


def _digest(kind: bytes, said: bytes) -> bytes:
    return blake2b(b"%b\0%b" % (kind, said), digest_size=SIZE).digest()
