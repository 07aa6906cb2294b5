"""What is withheld of aggregates that a change of ours touches, where a recovery has to tell what this replica knew, or
what the server has no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, text

from backhaul.merge.aggregate import Place
from backhaul.replica import conflicts, deltas, outbox
from backhaul.replica.contested import Entry
from backhaul.replica.differences import same
from backhaul.replica.roots import decode_key, fields_of, rows
from backhaul.replica.tables import Tracked
from backhaul.wire import Record, Value


def forget_what_stands_here(connection: Connection, tracked: Sequence[Tracked]) -> None:
    """Of a record that is here as the server had told, but for what waits of it, nothing is withheld: mostly it told
    what this replica itself had done. So what a server has lost of that is offered, as of any other record."""
    tables = {one.table.name: one.table for one in tracked}
    by_table: dict[str, list[Entry]] = {}
    for entry in conflicts.rooted(connection):
        if entry.state == "withheld" and entry.table in tables:
            by_table.setdefault(entry.table, []).append(entry)
    for name, entries in by_table.items():
        here = rows(connection, tables[name], [entry.key for entry in entries])
        waits: dict[str, set[str]] = {}
        for change in outbox.unsettled_of(connection, name):
            waits.setdefault(change.key, set()).update(fields_of(change.fields))
        known = [one for one in entries if _stands(one, here.get(one.key), waits.get(one.key, set()))]
        conflicts.release(connection, known)


def not_come(connection: Connection) -> list[Place]:
    """At the end of a round that told of everything: what is withheld, or shown in a conflict, of records that did not
    come. The server has them no more."""
    statement = """
        SELECT table_name, key FROM backhaul_conflict
        WHERE (state = 'withheld' OR state = 'open') AND there <> 'absent'
          AND (table_name, key) NOT IN (SELECT table_name, key FROM backhaul_stage)
    """
    return [(table, key) for table, key in connection.execute(text(statement))]


def absent(place: Place) -> Record:
    """A record that the server does not have, nor a tombstone of it."""
    return Record(table=place[0], key=decode_key(place[1]), version=0, deleted=True)


def _stands(entry: Entry, here: Mapping[str, Value] | None, waits: set[str]) -> bool:
    """waits: the fields that changes of ours name."""
    if entry.there in ("deleted", "absent") or here is None:
        return here is None and entry.there in ("deleted", "absent")
    told = {name: deltas.plain(msgspec.to_builtins(value)) for name, value in entry.theirs.items() if name not in waits}
    return entry.there in ("whole", "changed") and all(
        same(msgspec.to_builtins(here.get(name)), value) for name, value in told.items()
    )
