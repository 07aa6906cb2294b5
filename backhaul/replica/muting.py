"""The app's own triggers, kept still while records of others are written.

What a trigger does where the app writes is captured there, and arrives beside the row; a trigger that fires again
where it arrives does it twice. With `[tables.NAME] triggers = "mute"`, `init` puts a condition before the trigger's
own one, and takes it away when that is no longer said. Said by a person alone: a trigger may also do what is needed on
every replica, like keeping an index of words in a table that is not synced.
"""

from __future__ import annotations

import re

from sqlalchemy import Connection, text

from backhaul.replica.numbering import ASIDE
from backhaul.statements import literal, on_postgresql, quoted, run

MARK = "/*backhaul*/"
_STILL = MARK + " coalesce((SELECT muted FROM backhaul_replica), 0) = 0 " + MARK  # noqa: S608 - constants
_STILL_POSTGRESQL = "current_setting('backhaul.muted', true) IS DISTINCT FROM '1'"
_BEGIN = re.compile(r"(?<!\.)\bBEGIN\b(?=\s+(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\b)", re.IGNORECASE)
_WHEN = re.compile(r"\bWHEN\b", re.IGNORECASE)
_KEPT = "backhaul: "  # PostgreSQL: how the trigger was made stands in its comment


def keep_still(connection: Connection, table: str) -> list[str]:
    """Put the condition before the table's own triggers; returns the names of those that did not have it."""
    if on_postgresql(connection):
        return _keep_still_postgresql(connection, table)
    changed = []
    for name, sql in _triggers(connection, table):
        if MARK not in sql:
            _make_anew(connection, name, with_condition(sql))
            changed.append(name)
    return changed


def let_go(connection: Connection, table: str) -> list[str]:
    """Take it away again; returns the names of those that had it."""
    if on_postgresql(connection):
        return _let_go_postgresql(connection, table)
    changed = []
    for name, sql in _triggers(connection, table):
        if MARK in sql:
            _make_anew(connection, name, without_condition(sql))
            changed.append(name)
    return changed


def with_condition(sql: str) -> str:
    """CREATE TRIGGER of SQLite, with our condition before its own."""
    bare = ASIDE.sub(lambda found: " " * len(found[0]), sql)
    begin = _BEGIN.search(bare)
    assert begin is not None, "a trigger has a body"
    when = _WHEN.search(bare, 0, begin.start())
    if when is None:
        return f"{sql[: begin.start()]}WHEN {_STILL} {sql[begin.start() :]}"
    own = sql[when.end() : begin.start()].strip() + "\n"  # it may end in a comment
    return f"{sql[: when.start()]}WHEN {_STILL} AND ({own}) {MARK}{sql[begin.start() :]}"


def without_condition(sql: str) -> str:
    """The same, as it was."""
    head, _, rest = sql.partition(f"WHEN {_STILL} ")
    if not rest.startswith("AND ("):
        return head + rest
    condition, _, body = rest.removeprefix("AND (").partition(f"\n) {MARK}")
    return f"{head}WHEN {condition} {body}"


def _triggers(connection: Connection, table: str) -> list[tuple[str, str]]:
    statement = """
        SELECT name, sql FROM sqlite_master
        WHERE type = 'trigger' AND tbl_name = :table AND name NOT LIKE 'backhaul\\_%' ESCAPE '\\' ORDER BY name
    """
    return [(row.name, row.sql) for row in connection.execute(text(statement), {"table": table})]


def _make_anew(connection: Connection, name: str, sql: str) -> None:
    run(connection, f"DROP TRIGGER {quoted(name)}")
    run(connection, sql)


def _keep_still_postgresql(connection: Connection, table: str) -> list[str]:
    changed = []
    for name, sql, said in _triggers_postgresql(connection, table):
        if said.startswith(_KEPT):
            continue
        head, _, call = sql.rpartition(" EXECUTE ")
        before, when, condition = head.partition(" WHEN (")
        own = f" AND ({condition.removesuffix(')')})" if when else ""
        made = f"{before} WHEN ({_STILL_POSTGRESQL}{own}) EXECUTE {call}"
        _replace_postgresql(connection, table, name, made, comment=_KEPT + sql)
        changed.append(name)
    return changed


def _let_go_postgresql(connection: Connection, table: str) -> list[str]:
    changed = []
    for name, _, said in _triggers_postgresql(connection, table):
        if said.startswith(_KEPT):
            _replace_postgresql(connection, table, name, said.removeprefix(_KEPT), comment=None)
            changed.append(name)
    return changed


def _replace_postgresql(connection: Connection, table: str, name: str, sql: str, *, comment: str | None) -> None:
    on = f"{quoted(name)} ON {quoted(table)}"
    run(connection, f"DROP TRIGGER {on}")
    run(connection, sql)
    if comment is not None:
        run(connection, f"COMMENT ON TRIGGER {on} IS {literal(comment)}")


def _triggers_postgresql(connection: Connection, table: str) -> list[tuple[str, str, str]]:
    """Name, definition, comment; of those that fire as usual (not disabled, not for a replication role alone)."""
    statement = """
        SELECT tgname, pg_get_triggerdef(oid) AS sql, coalesce(obj_description(oid, 'pg_trigger'), '') AS said
        FROM pg_trigger
        WHERE tgrelid = to_regclass(quote_ident(:table)) AND NOT tgisinternal AND tgenabled = 'O'
          AND tgname NOT LIKE 'backhaul\\_%'
        ORDER BY tgname
    """
    return [(row.tgname, row.sql, row.said) for row in connection.execute(text(statement), {"table": table})]
