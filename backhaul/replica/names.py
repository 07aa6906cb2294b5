"""Names of a tracked table as they are used in SQL."""

from __future__ import annotations

from backhaul.wire import Table

OUTBOX_COLUMNS = "group_id, table_name, key, kind, fields, captured_at, seen_hlc, base"  # of a captured change


def field_names(table: Table) -> list[str]:
    """The columns that are not the key: what the fields of a change or a record are."""
    return [column.name for column in table.columns if column.name not in table.key]


def column_types(table: Table) -> dict[str, str]:
    return {column.name: column.type for column in table.columns}


def root_columns(table: Table) -> list[str]:
    """The fields by which a part of an aggregate names its root: a captured delete says them, for the row is gone."""
    named = next((one.columns for one in table.references if table.aggregate and one.table == table.aggregate), [])
    return [column for column in named if column not in table.key]
