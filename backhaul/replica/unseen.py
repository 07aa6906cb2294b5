"""Ledger of backhaul_unseen: what the feed has told of records and the app has not seen, because a change of ours lies
over it.

A change names as its base the feed position that the pull had reached when it was captured; the server takes it that
the app had seen everything up to there. Of the fields that are withheld under a change of ours it had not. So what is
written into them is sent with the base that is true of them, or an edit of another replica would be lost without a
word. A row is gone once nothing of ours lies over its record any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.replica import rows as app_rows
from backhaul.statements import as_bytes, members, on_postgresql, run, run_together, text
from backhaul.wire import Table, encode

ALL = "*"  # in place of field names: whatever is done to the record is done unseen

_names = msgspec.json.Decoder(frozenset[str]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM backhaul_unseen")).scalar_one())


def any_(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT EXISTS (SELECT 1 FROM backhaul_unseen)")).scalar_one())


def note(connection: Connection, table: str, hidden: Mapping[str, Collection[str]], *, seen: int) -> None:
    """Of these records these fields are told and not shown. hidden: by key (JSON). seen: the position that the app has
    seen; of what was noted before, it had seen less."""
    if not hidden:
        return
    known = _of(connection, table, hidden)
    rows: list[tuple[str, str, int, str]] = []
    for key, names in hidden.items():
        base, before = known.get(key, (seen, frozenset()))
        rows.append((table, key, min(base, seen), _said(before | set(names))))
    _keep(connection, rows)


def narrow(connection: Connection, table: str, over: Mapping[str, Collection[str]]) -> None:
    """These records were fetched and are shown, but for the fields that our changes still lie over. over: by key."""
    kept: list[tuple[str, str, int, str]] = []
    gone: list[str] = []
    for key, (base, before) in (_of(connection, table, over) if any_(connection) else {}).items():
        left = before if ALL in over[key] else set(over[key]) if ALL in before else before & set(over[key])
        if left:
            kept.append((table, key, base, _said(left)))
        else:
            gone.append(key)
    _keep(connection, kept)
    forget(connection, [(table, key) for key in gone])


def forget(connection: Connection, places: Iterable[tuple[str, str]]) -> None:
    """A person has decided about these records (table and key), and saw what there is."""
    rows = list(places)
    if rows:
        run(connection, "DELETE FROM backhaul_unseen WHERE table_name = ? AND key = ?", rows)


def forget_settled(connection: Connection, tables: Sequence[Table]) -> None:
    """Nothing of ours waits of these records any more, nor is the app about to write them: what is here is what the
    feed has told. tables: all that are synced."""
    if not any_(connection):
        return
    settled = "FROM backhaul_unseen WHERE (table_name, key) NOT IN (SELECT table_name, key FROM backhaul_outbox)"
    places = connection.execute(text(f"SELECT table_name, key {settled}"))
    app_rows.hold_all(connection, tables, [(row.table_name, row.key) for row in places])
    connection.execute(text(f"DELETE {settled}"))


def forget_base(connection: Connection) -> None:
    """The positions were of a past that the server has lost."""
    connection.execute(text("UPDATE backhaul_unseen SET base = 0"))


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name."""
    statement = "UPDATE backhaul_unseen SET table_name = :new WHERE table_name = :old"
    connection.execute(text(statement), {"old": old, "new": new})


def rename(connection: Connection, table: str, names: Mapping[str, str]) -> None:
    """The table's columns have other names. names: old -> new."""
    statement = text("SELECT key, base, fields FROM backhaul_unseen WHERE table_name = :table")
    rows = connection.execute(statement, {"table": table}).all()
    _keep(connection, [(table, row.key, row.base, _said(names.get(n, n) for n in _names(row.fields))) for row in rows])


def true_bases(connection: Connection, *, first: int, last: int) -> dict[int, int]:
    """Of what waits to be sent between these outbox ids: id -> the position that the app had really seen, where that is
    less than the change says. (A backfill says what its row held, and is left alone.)"""
    join = "JOIN" if on_postgresql(connection) else "CROSS JOIN"  # SQLite: the changes first, there are few
    statement = f"""
        SELECT change.id, change.kind, {as_bytes(connection, "change.fields")}, unseen.base, unseen.fields
        FROM backhaul_outbox AS change {join} backhaul_unseen AS unseen
          ON unseen.table_name = change.table_name AND unseen.key = change.key
        WHERE change.state = 'pending' AND change.id BETWEEN :first AND :last AND change.base > unseen.base
          AND (change.kind = 'update' OR change.kind = 'insert' OR change.kind = 'delete')
    """  # noqa: S608 - the parts are constants
    rows = connection.execute(text(statement), {"first": first, "last": last})
    return {row[0]: row[3] for row in rows if _touches(row[1], row[2], _names(row[4]))}


def _touches(kind: str, fields: bytes | None, hidden: frozenset[str]) -> bool:
    if kind != "update" or ALL in hidden or fields is None:
        return True
    try:
        return not hidden.isdisjoint(_members(bytes(fields).decode(errors="replace")))
    except msgspec.MsgspecError:
        return True


def _of(connection: Connection, table: str, keys: Iterable[str]) -> dict[str, tuple[int, frozenset[str]]]:
    statement = f"""
        SELECT key, base, fields FROM backhaul_unseen
        WHERE table_name = :table AND key IN ({members(connection, "keys")})
    """  # noqa: S608 - the parts are constants
    rows: Iterable[Any] = connection.execute(text(statement), {"table": table, "keys": encode(list(keys)).decode()})
    return {row.key: (row.base, _names(row.fields)) for row in rows}


def _keep(connection: Connection, rows: list[tuple[str, str, int, str]]) -> None:
    statement = """
        INSERT INTO backhaul_unseen (table_name, key, base, fields) VALUES (?, ?, ?, ?)
        ON CONFLICT (table_name, key) DO UPDATE SET base = excluded.base, fields = excluded.fields
    """
    together = """
        INSERT INTO backhaul_unseen (table_name, key, base, fields)
        SELECT * FROM unnest(?::text[], ?::text[], ?::bigint[], ?::text[])
        ON CONFLICT (table_name, key) DO UPDATE SET base = excluded.base, fields = excluded.fields
    """
    run_together(connection, statement, rows, together=together)


def _said(names: Iterable[str]) -> str:
    return encode(sorted(names)).decode()
