"""Reading a database's tables: what `init` finds, and whether a table can be synced.

SQLite's own pragmas say it exactly (https://www.sqlite.org/pragma.html: table_list, table_xinfo, foreign_key_list);
PostgreSQL's catalogue is read by inspection_postgresql.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from backhaul.errors import TableUnfit, TableUnknown
from backhaul.replica import inspection_postgresql, numbering
from backhaul.statements import on_postgresql
from backhaul.wire import Column, Reference, Table

OURS = "backhaul_"
FRACTIONAL = ("REAL", "FLOA", "DOUB")  # type names that give a column REAL affinity (SQLite: datatype3.html, 3.1)


def find_tables(connection: Connection, names: Sequence[str] = ()) -> tuple[list[Table], list[TableUnfit]]:
    """The named tables; or, with no name, every table that can be synced, and why each of the others cannot.

    Raises TableUnknown or TableUnfit for a named one.
    """
    present = _table_names(connection)
    for name in names:
        if name not in present:
            raise TableUnknown(f"there is no table {name!r}", hint=f"the tables are: {', '.join(present) or 'none'}")
    found: list[Table] = []
    unfit: list[TableUnfit] = []
    for name in names or present:
        try:
            found.append(describe(connection, name))
        except TableUnfit as reason:
            if names:
                raise
            unfit.append(reason)
    return found, unfit


def describe(connection: Connection, name: str) -> Table:
    """The table as it is now. Raises TableUnfit when its records cannot be told apart, or not exactly."""
    if on_postgresql(connection):
        return inspection_postgresql.describe(connection, name)
    rows = connection.execute(
        text("SELECT name, type, pk, hidden FROM pragma_table_xinfo(:name)"), {"name": name}
    ).all()
    stored = [row for row in rows if row.hidden == 0]  # generated columns are computed on every side
    key = [row for row in sorted(stored, key=lambda row: row.pk) if row.pk > 0]
    if not key:
        raise TableUnfit(
            f"table {name!r} has no primary key",
            hint=f"give {name!r} a primary key, or name the tables to sync with --table",
        )
    for column in key:
        if any(part in column.type.upper() for part in FRACTIONAL):
            raise TableUnfit(
                f"table {name!r}: the primary key column {column.name!r} holds fractional numbers ({column.type})",
                hint="use an INTEGER, TEXT or BLOB key: two computers may not agree on a fraction's last digit",
            )
    references = _references(connection, name)
    return Table(
        name=name,
        columns=[Column(name=column.name, type=column.type) for column in stored],
        key=[column.name for column in key],
        keys=numbering.choose(connection, name, [(column.name, column.type) for column in key], references).keys,
        references=references,
    )


def references_of_others(connection: Connection, tracked: Sequence[str]) -> dict[str, list[Reference]]:
    """The foreign keys of the tables that are not synced, by table."""
    others = [name for name in _table_names(connection) if name not in tracked]
    read = inspection_postgresql.references if on_postgresql(connection) else _references
    return {name: found for name in others if (found := read(connection, name))}


def app_triggers(connection: Connection, names: Sequence[str]) -> list[str]:
    """The app's own triggers on these tables, but for those that are kept still where records arrive (muting.py)."""
    if on_postgresql(connection):
        return inspection_postgresql.app_triggers(connection, names)
    statement = """
        SELECT name, tbl_name FROM sqlite_master
        WHERE type = 'trigger' AND name NOT LIKE 'backhaul\\_%' ESCAPE '\\' AND sql NOT LIKE '%/*backhaul*/%'
        ORDER BY name
    """
    return [row.name for row in connection.execute(text(statement)) if row.tbl_name in names]


def _table_names(connection: Connection) -> list[str]:
    if on_postgresql(connection):
        inspection_postgresql.check_encoding(connection)
        return [name for name in inspection_postgresql.table_names(connection) if not name.startswith(OURS)]
    statement = """
        SELECT name FROM pragma_table_list
        WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
        ORDER BY name
    """
    return [name for (name,) in connection.execute(text(statement)) if not name.startswith(OURS)]


def _references(connection: Connection, name: str) -> list[Reference]:
    statement = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(:name) ORDER BY id, seq'
    found: dict[int, Reference] = {}
    for number, parent, column, target in connection.execute(text(statement), {"name": name}):
        reference = found.setdefault(number, Reference(columns=[], table=parent, target=[]))
        reference.columns.append(column)
        reference.target.append(target or "")
    for reference in found.values():
        if "" in reference.target:  # REFERENCES parent, without columns: its primary key
            reference.target = _primary_key(connection, reference.table)
    return list(found.values())


def _primary_key(connection: Connection, name: str) -> list[str]:
    statement = "SELECT name FROM pragma_table_info(:name) WHERE pk > 0 ORDER BY pk"
    return [column for (column,) in connection.execute(text(statement), {"name": name})]
