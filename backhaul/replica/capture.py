"""Capture: the triggers that write every change of a tracked table into the outbox, in the same transaction.

A trigger sees what any writer does: an ORM, bulk statements, raw SQL, another language. An insert stores all fields
beside the key, an update those that changed, a delete none; a change of the primary key is a delete and an insert. The
row of backhaul_replica tells the trigger the group, what the app had seen, and whether capture is muted (remote changes
are being applied in this transaction).

This page is SQLite's; PostgreSQL's triggers are in capture_postgresql.py.

Values become JSON exactly: SQLite's own json_quote would cut a real to fifteen digits and refuse a blob, so reals go
through printf() with eighteen digits (its own quote() has fifteen where it takes them for enough, and errs) and blobs
through hex().

A column that is merged by what was done to it (wire.DELTAS) tells of an update as {"was": ..., "now": ...}; what was
done is made of that at the freeze (deltas.py), where a value that cannot be used harms no commit of the app's.

Known limit: INSERT OR REPLACE that removes *another* row through a UNIQUE constraint fires no delete trigger unless the
writer's connection has recursive_triggers on (https://www.sqlite.org/lang_conflict.html); `verify` finds such a row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b

from sqlalchemy import Connection

from backhaul.replica import capture_postgresql
from backhaul.replica.names import OUTBOX_COLUMNS, field_names, root_columns
from backhaul.statements import literal, on_postgresql, quoted, text
from backhaul.wire import Column, Table

NOW = "CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)"  # milliseconds since 1970
EVENTS = ("insert", "update", "rekey", "delete")


def install(connection: Connection, table: Table) -> None:
    """Make the table's triggers anew."""
    if on_postgresql(connection):
        capture_postgresql.install(connection, table)
        return
    for name in _installed(connection, table.name):
        connection.exec_driver_sql(f"DROP TRIGGER {quoted(name)}")
    for statement in trigger_statements(table):
        connection.exec_driver_sql(statement)


def shapes(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """For each table, a hash of its definition and of its triggers of ours: another one means it was altered."""
    if on_postgresql(connection):
        return capture_postgresql.shapes(connection, names)
    statement = """
        SELECT tbl_name, name, sql FROM sqlite_master
        WHERE tbl_name IN (SELECT value FROM json_each(:names))
          AND (type = 'table' OR type = 'trigger' AND name LIKE 'backhaul\\_%' ESCAPE '\\')
        ORDER BY tbl_name, type, name
    """
    parts: dict[str, list[str]] = {}
    for table, name, sql in connection.execute(text(statement), {"names": json.dumps(list(names))}):
        parts.setdefault(table, []).append(f"{name}\n{sql}")
    return {table: blake2b("\n".join(said).encode(), digest_size=16).hexdigest() for table, said in parts.items()}


def is_installed(connection: Connection, name: str) -> bool:
    """Whether all triggers of ours are on the table: a table that was copied, dropped and renamed has lost them."""
    if on_postgresql(connection):
        return capture_postgresql.is_installed(connection, name)
    events = {found.split("_")[1] for found in _installed(connection, name)}
    return events.issuperset(EVENTS)


def forget(connection: Connection, name: str) -> None:
    """No table is called so any more: what was made for it and does not go with the triggers goes, too."""
    if on_postgresql(connection):
        capture_postgresql.forget(connection, name)


def _installed(connection: Connection, name: str) -> list[str]:
    """Our triggers on the table; a table that was renamed has them still, under its old name."""
    statement = """
        SELECT name FROM sqlite_master
        WHERE type = 'trigger' AND tbl_name = :name AND name LIKE 'backhaul\\_%' ESCAPE '\\'
    """
    return list(connection.execute(text(statement), {"name": name}).scalars())


def row_expressions(connection: Connection, table: Table, row: str) -> tuple[str, str]:
    """SQL for the JSON of a row's key and of its fields, as the triggers write them, in this transaction."""
    if on_postgresql(connection):
        capture_postgresql.spell_exactly(connection)
        return capture_postgresql.key_expression(table, row), capture_postgresql.fields_expression(table, row)
    return key_expression(table.key, row), fields_expression(field_names(table), row)


def trigger_statements(table: Table) -> list[str]:
    """CREATE TRIGGER for insert, update, a change of the key, and delete."""
    name = quoted(table.name)
    rest = field_names(table)
    same_key = " AND ".join(f"OLD.{quoted(c)} IS NEW.{quoted(c)} COLLATE BINARY" for c in table.key)
    differs = {column.name: _differs(column) for column in table.columns}
    changed = " OR ".join(differs[c] for c in rest) or "0"
    insert = _write(table, "insert", "NEW", fields_expression(rest, "NEW"))
    update = _write(table, "update", "NEW", _changed_fields_expression({c: differs[c] for c in rest}, table.deltas()))
    root = root_columns(table)
    delete = _write(table, "delete", "OLD", fields_expression(root, "OLD") if root else "NULL")
    bodies = {
        "insert": (f"AFTER INSERT ON {name}", insert),
        "update": (f"AFTER UPDATE ON {name} WHEN ({same_key}) AND ({changed})", update),
        "rekey": (f"AFTER UPDATE {_of_the_key(table)}ON {name} WHEN NOT ({same_key})", f"{delete}\n{insert}"),
        "delete": (f"AFTER DELETE ON {name}", delete),
    }
    return [
        f"CREATE TRIGGER {quoted(_trigger_name(event, table.name))} {when} BEGIN\n{body}\nEND"
        for event, (when, body) in bodies.items()
    ]


def _of_the_key(table: Table) -> str:
    """Only statements that name a column of the key can change it; but an INTEGER key can be named `rowid`, too."""
    types = {column.name: column.type.upper() for column in table.columns}
    if len(table.key) == 1 and types[table.key[0]] == "INTEGER":
        return ""
    return f"OF {', '.join(map(quoted, table.key))} "


def key_expression(key: Sequence[str], row: str) -> str:
    """SQL for the JSON array of a row's key."""
    return "'[' || " + " || ',' || ".join(_json_expression(f"{row}.{quoted(column)}") for column in key) + " || ']'"


def fields_expression(columns: Sequence[str], row: str) -> str:
    """SQL for the JSON object of a row's fields."""
    if not columns:
        return "'{}'"
    members = [
        f"{literal((',' if number else '{') + _member(c))} || {_json_expression(f'{row}.{quoted(c)}')}"
        for number, c in enumerate(columns)
    ]
    return " || ".join(members) + " || '}'"


def _differs(column: Column) -> str:
    """SQL for whether a column's value changed. In a column without affinity 1 and 1.0 are two values, and equal."""
    old, new = f"OLD.{quoted(column.name)}", f"NEW.{quoted(column.name)}"
    differs = f"{old} IS NOT {new} COLLATE BINARY"
    if column.type and "BLOB" not in column.type.upper():
        return differs
    return f"({differs} OR typeof({old}) <> typeof({new}))"


def _changed_fields_expression(differs: Mapping[str, str], deltas: Collection[str]) -> str:
    """differs: for each field, SQL for whether it changed. deltas: those whose old value is told, too."""
    members = [
        f"CASE WHEN {changed} THEN {literal(',' + _member(c))} || {_changed_expression(c, c in deltas)} ELSE '' END"
        for c, changed in differs.items()
    ]
    return "'{' || substr(" + " || ".join(members or ["''"]) + ", 2) || '}'"


def _changed_expression(column: str, with_old: bool) -> str:
    now = _json_expression(f"NEW.{quoted(column)}")
    if not with_old:
        return now
    return f"""'{{"was":' || {_json_expression(f"OLD.{quoted(column)}")} || ',"now":' || {now} || '}}'"""


def _json_expression(value: str) -> str:
    real = (
        f'CASE {value} WHEN 9e999 THEN \'{{"real":"Infinity"}}\' WHEN -9e999 THEN \'{{"real":"-Infinity"}}\''
        f" ELSE printf('%!.18g', {value}) END"  # seventeen digits are read back as another double now and then
    )
    blob = f"'{{\"hex\":\"' || lower(hex({value})) || '\"}}'"
    return f"CASE typeof({value}) WHEN 'real' THEN {real} WHEN 'blob' THEN {blob} ELSE json_quote({value}) END"


def _write(table: Table, kind: str, row: str, fields: str) -> str:
    return f"""  INSERT INTO backhaul_outbox ({OUTBOX_COLUMNS})
  SELECT group_id, {literal(table.name)}, {key_expression(table.key, row)}, '{kind}', {fields},
         {NOW}, seen_hlc, position
  FROM backhaul_replica WHERE muted = 0;"""  # noqa: S608 - generated from the catalogue's own names, quoted


def _trigger_name(event: str, table: str) -> str:
    return f"backhaul_{event}_{table}"


def _member(column: str) -> str:
    return json.dumps(column, ensure_ascii=False) + ":"
