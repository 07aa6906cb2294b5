"""Capture of the files that rows name: triggers that write them down in the transaction that names them.

So none is missed, whoever writes, and what is to wait for its file is known to by the time that it could be sent. A row
that was written by sync names a file of another machine: of those nothing is written down. One that no longer names a
file, whoever has seen to that, takes it from the list.

Known limit: a key that is changed while its file is on the way has the file read once more.
"""

from __future__ import annotations

from hashlib import blake2b

from sqlalchemy import Connection, text

from backhaul.replica import capture, capture_postgresql
from backhaul.replica.media_columns import MediaColumn
from backhaul.statements import literal, on_postgresql, quoted, run
from backhaul.wire import Table

COLUMNS = "table_name, key, path, together, named_at"
TRIGGER = "backhaul_files"  # on PostgreSQL


def install(connection: Connection, table: Table, media: MediaColumn | None) -> str:
    """Make all triggers of the table anew, also those that capture its changes; returns the shape (capture.shapes)."""
    capture.install(connection, table)
    if on_postgresql(connection):
        _install_postgresql(connection, table, media)
    else:
        for statement in trigger_statements(table, media) if media else ():
            connection.exec_driver_sql(statement)
    return capture.shapes(connection, [table.name]).get(table.name, "")


def forget(connection: Connection, name: str) -> None:
    """No table is called so any more: what was made for it and does not go with the triggers goes, too."""
    capture.forget(connection, name)
    if on_postgresql(connection):
        run(connection, f"DROP FUNCTION IF EXISTS {_function(connection, name)}()")


def name_all(connection: Connection, table: Table, media: MediaColumn, *, ours: bool) -> None:
    """The files of rows that were there before. ours: all of them were written here; else those of which nothing was
    told yet, if that can be seen."""
    if not (ours or media.sha256):
        return
    key, _ = capture.row_expressions(connection, table, "named")
    column = f"named.{quoted(media.column)}"
    untold = "" if ours else f" AND named.{quoted(media.sha256)} IS NULL"
    now = capture_postgresql.NOW if on_postgresql(connection) else capture.NOW
    statement = f"""
        INSERT INTO backhaul_attachment ({COLUMNS})
        SELECT {literal(table.name)}, {key}, {column}, {_together(media)}, {now}
        FROM {quoted(table.name)} AS named WHERE {column} <> ''{untold}
    """  # noqa: S608 - the catalogue's own names, quoted
    run(connection, statement)


def trigger_statements(table: Table, media: MediaColumn) -> list[str]:
    """CREATE TRIGGER of SQLite for insert, update and delete."""
    name, column = quoted(table.name), quoted(media.column)
    old_key, new_key = capture.key_expression(table.key, "OLD"), capture.key_expression(table.key, "NEW")
    names_one = f"typeof(NEW.{column}) = 'text' AND NEW.{column} <> ''"
    of_old = f"table_name = {literal(table.name)} AND key = {old_key} AND path = OLD.{column}"
    same_path = f"OLD.{column} IS NEW.{column} COLLATE BINARY"
    same_key = " AND ".join(f"OLD.{quoted(c)} IS NEW.{quoted(c)} COLLATE BINARY" for c in table.key)
    known = f"EXISTS (SELECT 1 FROM backhaul_attachment WHERE {of_old})"  # noqa: S608 - the catalogue's names, quoted
    insert = f"""  INSERT INTO backhaul_attachment ({COLUMNS})
  SELECT {literal(table.name)}, {new_key}, NEW.{column}, {_together(media)}, {capture.NOW}
  FROM backhaul_replica WHERE muted = 0"""  # noqa: S608 - the same
    forget = f"  DELETE FROM backhaul_attachment WHERE {of_old};"  # noqa: S608 - the same
    moved = f"{insert} AND {names_one} AND (NOT ({same_path}) OR {known});\n{forget}"
    bodies = {
        "insert": (f"AFTER INSERT ON {name} WHEN {names_one}", f"{insert};"),
        "update": (f"AFTER UPDATE ON {name} WHEN NOT ({same_path} AND {same_key})", moved),
        "delete": (f"AFTER DELETE ON {name}", forget),
    }
    return [
        f"CREATE TRIGGER {quoted(f'backhaul_file_{event}_{table.name}')} {when} BEGIN\n{body}\nEND"
        for event, (when, body) in bodies.items()
    ]


def _together(media: MediaColumn) -> int:
    return int(media.visible == "with-media")


def _install_postgresql(connection: Connection, table: Table, media: MediaColumn | None) -> None:
    function = _function(connection, table.name)
    run(connection, f"DROP TRIGGER IF EXISTS {TRIGGER} ON {quoted(table.name)}")
    run(connection, f"DROP FUNCTION IF EXISTS {function}()")
    if media is None:
        return
    run(connection, _function_statement(table, media, function))
    when = f"AFTER INSERT OR UPDATE OR DELETE ON {quoted(table.name)} FOR EACH ROW"
    run(connection, f"CREATE TRIGGER {TRIGGER} {when} EXECUTE FUNCTION {function}()")


def _function_statement(table: Table, media: MediaColumn, function: str) -> str:
    """A key that cannot be told harms no commit: its change is parked (see capture_postgresql.py), and so is its file's
    way."""
    column, name, schema = quoted(media.column), literal(table.name), function.rpartition(".")[0]
    settings = "\n".join(f"    SET {said} = {literal(value)}" for said, value in capture_postgresql.SPELLING.items())
    body = f"""
DECLARE
    gone text; here text; was text; names text; known boolean := false;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        gone := {capture_postgresql.key_expression(table, "OLD")};
        was := CAST(OLD.{column} AS text);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        here := {capture_postgresql.key_expression(table, "NEW")};
        names := CAST(NEW.{column} AS text);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF gone = here COLLATE "C" AND was IS NOT DISTINCT FROM names COLLATE "C" THEN
            RETURN NULL;
        END IF;
        known := EXISTS (SELECT 1 FROM {schema}.backhaul_attachment
                         WHERE table_name = {name} AND key = gone AND path = was);
    END IF;
    IF names <> '' AND {capture_postgresql.AUDIBLE}
       AND (known OR was IS DISTINCT FROM names COLLATE "C") THEN
        INSERT INTO {schema}.backhaul_attachment ({COLUMNS})
        VALUES ({name}, here, names, {_together(media)}, {capture_postgresql.NOW});
    END IF;
    IF gone IS NOT NULL THEN
        DELETE FROM {schema}.backhaul_attachment WHERE table_name = {name} AND key = gone AND path = was
           AND (gone, was) IS DISTINCT FROM (here, names);
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END"""  # noqa: S608 - generated from the catalogue's own names, quoted
    return f"""
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
{settings}
AS {literal(body)}"""


def _function(connection: Connection, table: str) -> str:
    schema = quoted(connection.execute(text("SELECT current_schema()")).scalar_one())
    return f"{schema}.backhaul_files_{blake2b(table.encode(), digest_size=8).hexdigest()}"
