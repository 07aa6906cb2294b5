"""What a person does about parked changes: send them again, or give them up; the list is the outbox's.

Giving up a change means that the server's state of the record comes back, under what else of ours waits. First of all,
what waits and depends on a parked change is parked, too: else it would go out as if nothing had been before it. Of an
aggregate that goes with it: a total that was made on top of what is given up is not that of the lines that are left.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Unknown
from backhaul.remotes.base import Remote
from backhaul.replica import checkpoint, deltas, dependents, outbox, refetch, reviving, tables, uncaptured
from backhaul.replica import rows as app_rows
from backhaul.replica.apart import Ours
from backhaul.wire import Table, Tagged, Value

DEPENDS = ("depends-on-parked", "depends-on-refused", "depends-on-held")
OP_ID = re.compile(r"\b[0-9a-f]{32}\b")

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def retry(database: Database, op_ids: Sequence[str], *, now: int) -> int:
    """Send these parked changes (or, with none named, all) again, as new ops, and with them what came after them on
    the same records or in the same transactions. An edit of a record that is gone brings it back. Raises Unknown, and
    Misused for one that cannot be told any more."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        rows = chosen(connection, op_ids)
        _hold(connection, rows)
        park_dependents(connection, now=now)
        parked = outbox.parked(connection)
        ids = _with_what_follows(parked, rows)
        uncaptured.tell_as_it_is(connection, parked, ids)
        reviving.bring_back(connection, parked, ids)
        return outbox.requeue(connection, ids, now=now)


def discard(database: Database, remote: Remote, op_ids: Sequence[str]) -> int:
    """Give these parked changes up, and those of the same aggregates that were parked because of them; their records
    become what the server has. Returns how many. Raises Unknown, TryLater, Refused; Misused: of an aggregate that
    another replica has changed meanwhile, a part cannot be given up while another part waits."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        rows = chosen(connection, op_ids)
        if not rows:
            return 0
        park_dependents(connection, now=max(row["settled_at"] for row in rows))  # when their fate was sealed
        rows = _with_what_is_made_of_them(connection, rows)
    ids = [row["id"] for row in rows]
    written: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["key"] != uncaptured.NO_KEY:
            written.setdefault((row["table_name"], row["key"]), set()).update(_written(row["fields"]))
    return refetch.lay_under(
        database, remote, written, lambda connection: _give_up(connection, ids, written), absent="delete"
    )


def _with_what_is_made_of_them(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """With what was parked because of those that are of aggregates."""
    aggregates = Ours(connection, tables.checked(connection)).roots.tables
    parked = outbox.parked(connection)
    going = set(with_all_that_waits(parked, [row["id"] for row in rows], of=aggregates))
    return [row for row in parked if row["id"] in going]


def _written(fields: str | None) -> Collection[str]:
    try:
        return _fields(fields) if fields else ()
    except msgspec.MsgspecError:  # what an app's trigger wrote may be no JSON
        return ()


def _hold(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Let the app end what it is doing to the records of these changes: it waits with them, and is told with them."""
    parked = outbox.parked(connection)
    ids = set(_with_what_follows(parked, rows))
    places = [(row["table_name"], row["key"]) for row in parked if row["id"] in ids and row["key"] != uncaptured.NO_KEY]
    app_rows.hold_all(connection, [one.table for one in tables.checked(connection)], places)


def _give_up(connection: Connection, ids: Sequence[int], places: Collection[tuple[str, str]]) -> int:
    given_up = outbox.discard(connection, ids)
    deltas.thaw(connection, [one.table for one in tables.all_tracked(connection)], places)
    return given_up


def park_dependents(connection: Connection, *, now: int) -> None:
    """What waits, or is held, and depends on a parked change is parked, too."""
    tracked = tables.checked(connection)
    while causes := dependents.find(connection, tracked) | dependents.find(connection, tracked, state="held"):
        outbox.park_dependents(connection, causes, now=now)


def chosen(connection: Connection, op_ids: Sequence[str]) -> list[Mapping[str, Any]]:
    """The named parked changes, and those of their transactions; with none named, all. Raises Unknown."""
    rows = outbox.parked(connection)
    if not op_ids:
        return rows
    known = {row["op_id"]: row for row in rows}
    for op_id in op_ids:
        if op_id not in known:
            raise Unknown(f"no parked change {op_id!r}", hint="list them: backhaul parked list")
    groups = {known[op_id]["group_id"] for op_id in op_ids} - {None}  # a transaction goes, or is given up, as a whole
    return [row for row in rows if row["op_id"] in op_ids or row["group_id"] in groups]


def _with_what_follows(
    parked: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, Any]], of: Collection[str] | None = None
) -> list[int]:
    """The ids of the chosen changes and of the parked ones that may not stay behind: a later change of a record must
    not come to stand before an earlier one, and a transaction goes whole. of: the tables of such records; else all."""
    ids = {row["id"] for row in chosen}
    while True:
        groups = {row["group_id"] for row in parked if row["id"] in ids} - {None}
        first: dict[tuple[str, str], int] = {}
        for row in reversed(parked):
            if row["id"] in ids and _is(row, of):
                first[(row["table_name"], row["key"])] = row["id"]
        more = {
            row["id"]
            for row in parked
            if row["group_id"] in groups or row["id"] > first.get((row["table_name"], row["key"]), row["id"])
        }
        if more <= ids:
            return sorted(ids)
        ids |= more


def with_all_that_waits(
    parked: Sequence[Mapping[str, Any]], ids: Sequence[int], of: Collection[str] | None = None
) -> list[int]:
    """The ids of these changes, of what may not stay behind (see above), and of what was parked because of them. of:
    beside transactions, only what is of these tables goes with each other."""
    taken = set(ids)
    while True:
        more = taken | set(_with_what_follows(parked, [row for row in parked if row["id"] in taken], of))
        causes = {row["op_id"] for row in parked if row["id"] in more and _is(row, of)}
        more |= {
            row["id"]
            for row in parked
            if _is(row, of) and row["reason"] in DEPENDS and not causes.isdisjoint(_named(row["detail"]))
        }
        if more == taken:
            return sorted(taken)
        taken = more


def _is(row: Mapping[str, Any], of: Collection[str] | None) -> bool:
    return of is None or row["table_name"] in of


def _named(detail: str | None) -> list[str]:
    return OP_ID.findall(detail or "")


def table_of(connection: Connection, op_id: str) -> Table | None:
    """The table that a parked change is of, if it is still synced. Raises Unknown."""
    name = chosen(connection, [op_id])[0]["table_name"]
    return next((one.table for one in tables.all_tracked(connection) if one.table.name == name), None)


def value_of(text: str) -> Value:
    """A wire value, written as JSON. Raises MsgspecError."""
    value: Value = msgspec.json.decode(text, type=Value)
    return value


def exported(row: Mapping[str, Any]) -> dict[str, Any]:
    """A parked change as a person or a program reads it."""
    return {
        "op": row["op_id"],
        "group": row["group_id"],
        "table": row["table_name"],
        "key": _readable(msgspec.json.decode(row["key"])),
        "kind": row["kind"],
        "fields": msgspec.json.decode(row["fields"]) if row["fields"] else None,
        "captured_at": row["captured_at"],
        "reason": row["reason"],
        "detail": row["detail"],
    }


def _readable(key: list[Any]) -> list[Any]:
    return [part.hex if isinstance(part, Tagged) else part for part in key]
