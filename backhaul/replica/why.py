"""Why a record is not synced yet, in one line: its state, what it waits for, when it is tried next, the last error."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping

from backhaul.clock import iso
from backhaul.errors import TableUnknown, Unknown
from backhaul.replica import aside, attachments, backfill, checkpoint, conflicts, outbox, tables
from backhaul.replica.contested import Entry
from backhaul.replica.rows import is_the_key, key_values
from backhaul.statements import quoted, run
from backhaul.wire import Table, canonical_key


def why_record(connection: Connection, table_name: str, key: list[Any], *, now: int) -> str:
    """key: wire values, in the order of the primary key. Raises TableUnknown, Unknown."""
    said = _why_row(connection, table_name, key, now=now)
    attached = attachments.of_record(connection, table_name, canonical_key(key))
    if attached is None:
        return said
    media = {one.table.name: one.media for one in tables.all_tracked(connection)}.get(table_name)
    return f"{said}; {attached.said('transform' if media is not None and media.transform else 'attach')}"


def _why_row(connection: Connection, table_name: str, key: list[Any], *, now: int) -> str:
    table = _table(connection, table_name)
    if len(key) != len(table.key):
        raise Unknown(f"the key of {table_name} is {', '.join(table.key)}", hint="a composite key as JSON: '[1, 2]'")
    if table_name in tables.altered(connection, tables.all_tracked(connection)):
        return (
            f"held: table {table_name} was altered since `backhaul init`; nothing goes out or in before: backhaul init"
        )
    set_aside = aside.of_record(connection, table_name, canonical_key(key))
    if set_aside is not None:
        said = f"aside: this database refuses what the server has of it: {set_aside['reason']}"
        return f"{said}; since {iso(set_aside['since'])}; tried again with each pull"
    waiting = [row for row in outbox.of_record(connection, table_name, canonical_key(key)) if row["kind"] != "void"]
    if waiting:
        return _of_change(_most_telling(waiting), more=len(waiting) - 1, now=now)
    contested = conflicts.of_record(connection, table_name, canonical_key(key))
    if contested is not None:
        return _of_withheld(contested)
    if not _exists(connection, table, key):
        raise Unknown(f"there is no record {canonical_key(key)} in {table_name}, and no change of it waits")
    if table_name in backfill.remaining(connection):
        return "pending: there before `init`; the backfill of its table is under way and will send it"
    return f"synced: the server has every change of it (feed position {checkpoint.read(connection).position})"


def _table(connection: Connection, name: str) -> Table:
    known = {one.table.name: one.table for one in tables.all_tracked(connection)}
    if name not in known:
        raise TableUnknown(f"table {name!r} is not synced", hint=f"synced tables: {', '.join(known)}")
    return known[name]


def _of_withheld(entry: Entry) -> str:
    """Nothing of ours waits of this record itself, but of what it is a part of."""
    said = f"what the server has of it, version {entry.version}, is not laid in here"
    if entry.number is None:
        return f"withheld: {said}: a change of ours to its aggregate is on its way"
    return f"conflict: {said}: its aggregate waits for you: backhaul conflicts show {entry.number}"


def _most_telling(rows: list[RowMapping]) -> RowMapping:
    order = {"parked": 0, "conflict": 1, "held": 2, "sent": 3, "pending": 4, "acked": 5}
    return min(rows, key=lambda row: (order[row["state"]], row["id"]))


def _of_change(row: RowMapping, *, more: int, now: int) -> str:
    also = f" (and {more} later or earlier changes of it)" if more else ""
    return _state_line(row, now) + also


def _state_line(row: RowMapping, now: int) -> str:
    captured = f"{row['kind']} captured {iso(row['captured_at'])}"
    match row["state"]:
        case "parked":
            said = f"parked: {row['reason']}: {row['detail']}; {captured}"
            return f"{said}; retry or give up: backhaul parked retry|discard {row['op_id']}"
        case "conflict":
            said = f"conflict: {row['reason']}: {row['detail']}; {captured}"
            return f"{said}; it waits for you: backhaul conflicts show {row['conflict_id']}"
        case "held":
            return f"held: {row['reason']}: {row['detail']}; {captured}"
        case "acked" if row["version"] is None:
            return f"acked: {captured}; the server has it; the next pull fetches what became of the record"
        case "acked":
            return f"acked: {captured}; the server has it as version {row['version']}; the next pull passes it"
        case "pending":
            return f"pending: {captured}; waits for the next push"
    tried = f"{row['attempts']} tries, last: {row['reason'] or 'no answer yet'}"
    if row["next_at"] > now:
        return f"sent: {captured}; {tried}; next try {iso(row['next_at'])}"
    if row["lease_until"] > now:
        return f"sent: {captured}; on its way; if no answer comes, again after {iso(row['lease_until'])}"
    return f"sent: {captured}; {tried}; waits for the next push"


def _exists(connection: Connection, table: Table, key: list[Any]) -> bool:
    where = is_the_key(connection, table)
    statement = f"SELECT 1 FROM {quoted(table.name)} WHERE {where}"  # noqa: S608 - the catalogue's own names, quoted
    return run(connection, statement, key_values(connection, table, key)).first() is not None
