"""Where the rows that are here differ from what a server has that was put back: what it has lost, and what it has
otherwise. What it has lies staged.

A `manual` field that it has lost is offered as an edit in sight of what both have in common: it comes back, and a
person is asked where another replica has written another value since, or brought it back. A replica that had not seen
all that the backup holds cannot tell what is lost from what it has not pulled yet, and takes what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from backhaul.replica import checkpoint, conflicts, deltas
from backhaul.replica.capture import row_expressions
from backhaul.replica.names import field_names
from backhaul.replica.renumbering import Offer
from backhaul.statements import quoted, run
from backhaul.wire import DELTAS, Record, Table, canonical_key

_fields = msgspec.json.Decoder(dict[str, Any]).decode


class Difference(NamedTuple):
    """said: what is offered; or a record of the server that is to stand here, too. here, there: the record's fields,
    as far as they are known."""

    said: Offer | Record
    here: dict[str, Any]
    there: dict[str, Any]

    @property
    def table(self) -> str:
        return self.said.table

    @property
    def key(self) -> str:
        return key_of(self.said)


class _Columns(NamedTuple):
    """plain: of which the last write stands. manual: about which a person decides. merged: made of what was done."""

    plain: list[str]
    manual: list[str]
    merged: list[str]


def of_table(
    connection: Connection, table: Table, known: checkpoint.Checkpoint, *, unknown: Sequence[str], whole: bool
) -> Iterator[Difference]:
    """unknown: columns whose values have not come yet. whole: the records are of aggregates."""
    names = [name for name in field_names(table) if name not in unknown]
    columns = _columns(table, names, whole=whole)
    withheld = {entry.key for entry in conflicts.rooted(connection) if entry.table == table.name}
    key, fields = row_expressions(connection, table, "held")
    rows_here = f"""
        SELECT {key}, {fields}, stage.record FROM {quoted(table.name)} AS held
        LEFT JOIN backhaul_stage AS stage ON stage.table_name = ? AND stage.key = {key}
    """  # noqa: S608 - the catalogue's own names, quoted
    with run(connection, rows_here, (table.name,), stream=True) as rows:
        for row in rows:
            held, said, staged = tuple(row)
            here = {name: value for name, value in _fields(said).items() if name in names}
            record = msgspec.json.decode(staged, type=Record) if staged else None
            there = _plain(record)
            if record is not None and held in withheld:
                yield Difference(record, here, there)  # what is here is not what this replica knew
                continue
            for offer in _lost((table.name, held), here, record, columns, known, whole=whole):
                yield Difference(offer, here, there)
            if record is not None and not record.deleted:
                for otherwise in _otherwise(record, here, columns, known):
                    yield Difference(otherwise, here, there)
    rows_there = f"""
        SELECT key, version, record FROM backhaul_stage
        WHERE table_name = ? AND deleted = 0
          AND key NOT IN (SELECT {key} FROM {quoted(table.name)} AS held)
          AND key NOT IN (SELECT key FROM backhaul_aside WHERE table_name = ?)
    """  # noqa: S608 - the same
    with run(connection, rows_there, (table.name, table.name), stream=True) as rows:
        for row in rows:
            key_there, version, said = tuple(row)
            record = msgspec.json.decode(said, type=Record)
            theirs = version > known.common_position or key_there in withheld
            yield Difference(record if theirs else Offer(table.name, key_there, "delete", None), {}, _plain(record))


def key_of(said: Offer | Record) -> str:
    """As JSON."""
    return said.key if isinstance(said, Offer) else canonical_key(said.key)


def _columns(table: Table, names: Sequence[str], *, whole: bool) -> _Columns:
    """What is of an aggregate is judged by that alone, also where a person decides about each field."""
    deltas_of = {name: table.strategy(name) for name in names if table.strategy(name) in DELTAS}
    manual = [name for name, strategy in deltas_of.items() if strategy == "manual"]
    plain = [name for name in names if name not in deltas_of or (whole and name in manual)]
    merged = [name for name in deltas_of if name not in manual]
    return _Columns(plain, [] if whole else manual, merged)


def _lost(
    place: tuple[str, str],
    here: dict[str, Any],
    record: Record | None,
    columns: _Columns,
    known: checkpoint.Checkpoint,
    *,
    whole: bool,
) -> Iterator[Offer]:
    """Of one row that is here. A record of an aggregate stands or waits with the rest of it, as no backfill does."""
    plain, manual = ({name: here.get(name) for name in some} for some in (columns.plain, columns.manual))
    if record is None and whole:
        yield Offer(*place, "insert", here)
    elif record is None:
        yield Offer(*place, "backfill", here)  # it takes nothing from a record that another replica offers, too
        yield Offer(*place, "update", plain)
        if manual:
            yield Offer(*place, "update", manual)  # for itself: what a person decides keeps nothing else
    elif record.deleted:
        yield Offer(*place, "insert", here)
    else:
        there = _plain(record)
        if lost := _differing(plain, there):
            yield Offer(*place, "update", lost)
        if _may_be_lost(record, known) and (lost := _differing(manual, there)):
            if record.version <= known.common_position:  # it was written in sight of what is there
                lost = {name: {"was": there.get(name), "now": value} for name, value in lost.items()}
            yield Offer(*place, "update", lost, known.common_position)


def _may_be_lost(record: Record, known: checkpoint.Checkpoint) -> bool:
    return record.version <= known.common_position or bool(known.common_all)


def _otherwise(
    record: Record, here: dict[str, Any], columns: _Columns, known: checkpoint.Checkpoint
) -> Iterator[Record]:
    """Of a row that is here and there: what is made of what was done to it, and has lost some of that; and about what a
    person decides, where that is not offered."""
    names = columns.merged + ([] if _may_be_lost(record, known) else columns.manual)
    differing = {
        name: value
        for name, value in record.fields.items()
        if name in names and not same(here.get(name), deltas.plain(msgspec.to_builtins(value)))
    }
    if differing:
        yield msgspec.structs.replace(record, whole=False, fields=differing)


def _plain(record: Record | None) -> dict[str, Any]:
    return {name: msgspec.to_builtins(value) for name, value in record.fields.items()} if record is not None else {}


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ours.items() if not same(value, theirs.get(name))}


def same(ours: Any, theirs: Any) -> bool:
    """As databases hold them: true is 1 to SQLite, and a decimal may be spelt in more than one way."""
    if ours == theirs:
        return True
    if ours is None or theirs is None or isinstance(ours, dict) or isinstance(theirs, dict):
        return False
    try:
        return Decimal(str(ours)) == Decimal(str(theirs))
    except InvalidOperation:
        return False
