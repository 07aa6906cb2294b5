"""Capture on PostgreSQL: a trigger function for each tracked table, written out for its columns.

It may never fail the app's commit, whatever a column holds and whatever became of the table since. So what can fail,
making JSON of the row, stands in a block of its own (which writes nothing, and so costs no transaction id); a change
that cannot be told is kept as parked, with the reason. It waits for nobody: it reads the one row of backhaul_replica,
and rows that are read are never waited for. It runs as whoever ran `init` (SECURITY DEFINER), so that the app's own
users need no right on our tables; the search path is nailed down for that.

Values are told as the type writes them, under settings of the function's own (ISO dates, UTC, shortest digits), not
under the session's. Whether a value changed is asked by its bytes (`*<>`): 1.0 and 1.00 are two numerics, and equal.

The group is the transaction's id. Capture is muted by a setting of the transaction, `backhaul.muted`. A bell (NOTIFY)
is rung at most a few times a second by one session, because NOTIFY makes commits wait for each other; and never where
transactions may be prepared, because PREPARE TRANSACTION refuses one that has rung.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b

from sqlalchemy import Connection, text

from backhaul.replica.names import OUTBOX_COLUMNS, column_types, field_names, root_columns
from backhaul.replica.rows_postgresql import INTEGERS, cast_type
from backhaul.statements import literal, quoted, run
from backhaul.wire import Table

CHANNEL = "backhaul"
# How values are written: the same on every machine, whatever the session says.
SPELLING = {
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
PLAIN = (*INTEGERS, "boolean", "text", "character varying", "bpchar", "uuid", "numeric", "bytea", "json", "jsonb")
FLOATS = ("real", "double precision")
NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
TRIGGERS = {
    "backhaul_row": "AFTER INSERT OR DELETE ON {table} FOR EACH ROW WHEN ({audible})",
    "backhaul_update": "AFTER UPDATE ON {table} FOR EACH ROW WHEN ({audible} AND OLD.* OPERATOR(pg_catalog.*<>) NEW.*)",
    "backhaul_truncate": "BEFORE TRUNCATE ON {table} FOR EACH STATEMENT WHEN ({audible})",
}
AUDIBLE = "current_setting('backhaul.muted', true) IS DISTINCT FROM '1'"


def install(connection: Connection, table: Table) -> None:
    """Make the table's function and triggers anew."""
    schema = quoted(connection.execute(text("SELECT current_schema()")).scalar_one())
    run(connection, function_statement(table, schema))
    for name, when in TRIGGERS.items():
        run(connection, f"DROP TRIGGER IF EXISTS {name} ON {quoted(table.name)}")
        said = when.format(table=quoted(table.name), audible=AUDIBLE)
        run(connection, f"CREATE TRIGGER {name} {said} EXECUTE FUNCTION {schema}.{_function_name(table.name)}()")


def shapes(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """For each table, a hash of its columns, its key, and our triggers on it: another one means it was altered.

    It is asked with each step of a journey: table by table, for a join with what they all have reads all of that."""
    statement = """
        SELECT relname, part
        FROM (
            SELECT DISTINCT to_regclass(quote_ident(name)) AS oid FROM unnest(CAST(:names AS text[])) AS name
        ) AS named
        JOIN pg_class AS class ON class.oid = named.oid
        CROSS JOIN LATERAL (
            SELECT 1 AS sort, CAST(attnum AS bigint) AS number,
                   concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attgenerated) AS part
            FROM pg_attribute WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped
            UNION ALL
            SELECT 2, 0, concat_ws(' ', 'key', indkey) FROM pg_index WHERE indrelid = class.oid AND indisprimary
            UNION ALL
            SELECT 3, row_number() OVER (ORDER BY tgname), concat_ws(' ', tgname, tgtype, tgenabled, md5(prosrc))
            FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
            WHERE tgrelid = class.oid AND tgname LIKE 'backhaul\\_%'
        ) AS parts
        ORDER BY relname, sort, number
    """
    parts: dict[str, list[str]] = {}
    for table, part in connection.execute(text(statement), {"names": list(names)}):
        parts.setdefault(table, []).append(part)
    return {table: blake2b("\n".join(said).encode(), digest_size=16).hexdigest() for table, said in parts.items()}


def is_installed(connection: Connection, name: str) -> bool:
    """Whether all triggers of ours are on the table."""
    statement = "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(quote_ident(:name)) AND tgname = ANY(:names)"
    return len(connection.execute(text(statement), {"name": name, "names": list(TRIGGERS)}).all()) == len(TRIGGERS)


def forget(connection: Connection, name: str) -> None:
    """Drop the function of a table that has another name by now, and another function."""
    schema = quoted(connection.execute(text("SELECT current_schema()")).scalar_one())
    run(connection, f"DROP FUNCTION IF EXISTS {schema}.{_function_name(name)}()")


def spell_exactly(connection: Connection) -> None:
    """For this transaction: values are written as the triggers write them."""
    said = ", ".join(f"set_config({literal(name)}, {literal(value)}, true)" for name, value in SPELLING.items())
    connection.execute(text(f"SELECT {said}"))


def function_statement(table: Table, schema: str) -> str:
    name, types = literal(table.name), column_types(table)
    key_old, key_new = key_expression(table, "OLD"), key_expression(table, "NEW")
    spelling = SPELLING if any(cast_type(declared) not in PLAIN for declared in types.values()) else {}
    settings = "\n".join(f"    SET {setting} = {literal(value)}" for setting, value in spelling.items())
    outbox = f"INSERT INTO {schema}.backhaul_outbox ({OUTBOX_COLUMNS}"
    checkpoint = f"FROM {schema}.backhaul_replica"
    body = f"""
DECLARE
    gone text; root text; here text; said text; trouble text; change text := lower(TG_OP);
    at bigint := {NOW}; bucket text := CAST(at >> 8 AS text);
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        BEGIN
            {outbox})
            SELECT CAST(pg_current_xact_id() AS text), {name}, {key_expression(table, "lost")}, 'delete',
                   {_root(table, "lost")}, at, mark.seen_hlc, mark.position
            FROM {schema}.{quoted(table.name)} AS lost, {schema}.backhaul_replica AS mark;
        EXCEPTION WHEN OTHERS THEN
            trouble := SQLERRM;
        END;
        change := 'delete';
    ELSE
        BEGIN
            IF TG_OP <> 'INSERT' THEN
                gone := {key_old};
                root := {_root(table, "OLD")};
            END IF;
            IF TG_OP <> 'DELETE' THEN
                here := {key_new};
            END IF;
            IF TG_OP = 'UPDATE' AND gone = here COLLATE "C" THEN
                said := {_changed_fields(table)};
                gone := NULL;
            ELSIF TG_OP <> 'DELETE' THEN
                said := {fields_expression(table, "NEW")};
                change := 'insert';
            END IF;
        EXCEPTION WHEN OTHERS THEN
            trouble := SQLERRM;
        END;
        IF trouble IS NULL THEN
            IF gone IS NOT NULL THEN
                {outbox})
                SELECT CAST(pg_current_xact_id() AS text), {name}, gone, 'delete', root, at, seen_hlc, position
                {checkpoint};
            END IF;
            IF here IS NOT NULL AND (change = 'insert' OR said <> '{{}}') THEN
                {outbox})
                SELECT CAST(pg_current_xact_id() AS text), {name}, here, change, said, at, seen_hlc, position
                {checkpoint};
            END IF;
        ELSIF gone <> here COLLATE "C" THEN
            change := 'insert';
            {outbox})
            SELECT CAST(pg_current_xact_id() AS text), {name}, gone, 'delete', root, at, seen_hlc, position
            {checkpoint};
        END IF;
    END IF;
    IF trouble IS NOT NULL THEN
        {outbox}, state, op_id, reason, detail, settled_at)
        SELECT CAST(pg_current_xact_id() AS text), {name}, coalesce(here, gone, '[]'), change, '{{}}', at,
               seen_hlc, position, 'parked', md5(random()::text || at::text), 'not-captured', left(trouble, 500), at
        {checkpoint};
    END IF;
    IF current_setting('backhaul.rung', true) IS DISTINCT FROM bucket
       AND current_setting('max_prepared_transactions') = '0' THEN
        PERFORM set_config('backhaul.rung', bucket, false), pg_notify('{CHANNEL}', '');
    END IF;
    RETURN NULL;
END"""  # noqa: S608 - generated from the catalogue's own names, quoted
    return f"""
CREATE OR REPLACE FUNCTION {schema}.{_function_name(table.name)}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
{settings}
AS {literal(body)}"""


def key_expression(table: Table, row: str) -> str:
    """SQL for the JSON array of a row's key."""
    types = column_types(table)
    parts = [_json_expression(f"{row}.{quoted(column)}", types[column]) for column in table.key]
    return "'[' || " + " || ',' || ".join(parts) + " || ']'"


def _root(table: Table, row: str) -> str:
    """SQL for what a delete says of the row's aggregate."""
    columns = root_columns(table)
    return fields_expression(table, row, columns) if columns else "NULL"


def fields_expression(table: Table, row: str, columns: Sequence[str] | None = None) -> str:
    """SQL for the JSON object of a row's fields, or of some of them."""
    types = column_types(table)
    members = [
        f"{literal((',' if number else '{') + _member(c))} || {_json_expression(f'{row}.{quoted(c)}', types[c])}"
        for number, c in enumerate(field_names(table) if columns is None else columns)
    ]
    return " || ".join(members) + " || '}'" if members else "'{}'"


def _changed_fields(table: Table) -> str:
    types, deltas = column_types(table), table.deltas()
    members = []
    for c in field_names(table):
        old, new = f"OLD.{quoted(c)}", f"NEW.{quoted(c)}"
        value = _json_expression(new, types[c])
        if c in deltas:
            value = f"""'{{"was":' || {_json_expression(old, types[c])} || ',"now":' || {value} || '}}'"""
        changed = f"CAST(ROW({old}) AS record) OPERATOR(pg_catalog.*<>) CAST(ROW({new}) AS record)"
        members.append(f"CASE WHEN {changed} THEN {literal(',' + _member(c))} || {value} ELSE '' END")
    return "'{' || substr(" + " || ".join(members or ["''"]) + ", 2) || '}'"


def _json_expression(value: str, declared: str) -> str:
    said, base = f"CAST({value} AS text)", cast_type(declared)
    if base in INTEGERS or base == "boolean":
        return f"coalesce({said}, 'null')"
    if base == "bytea":
        return f"coalesce('{{\"hex\":\"' || encode({value}, 'hex') || '\"}}', 'null')"
    if base in FLOATS:
        special = f"{said} IN ('NaN', 'Infinity', '-Infinity')"
        return (
            f"CASE WHEN {value} IS NULL THEN 'null' WHEN {special} THEN '{{\"real\":\"' || {said} || '\"}}'"
            f" WHEN {said} ~ '[.e]' THEN {said} ELSE {said} || '.0' END"
        )
    if base == "money":  # its own text depends on the server's language
        said = f"CAST(CAST({value} AS numeric) AS text)"
    return f"coalesce(CAST(to_json({said}) AS text), 'null')"


def _function_name(table: str) -> str:
    """Of a length that PostgreSQL does not cut."""
    return f"backhaul_capture_{blake2b(table.encode(), digest_size=8).hexdigest()}"


def _member(column: str) -> str:
    return json.dumps(column, ensure_ascii=False) + ":"
