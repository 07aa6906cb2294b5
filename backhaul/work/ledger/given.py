"""Rows of the caller's, however many, in one parameter, or one for each column: what an UPDATE is told of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnClause, Connection, FromClause, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from backhaul.statements import on_postgresql


def given(connection: Connection, columns: Sequence[ColumnClause[Any]], rows: Sequence[tuple[Any, ...]]) -> FromClause:
    """A table `given` of these rows. columns: with their types."""
    if on_postgresql(connection):
        values = zip(*rows, strict=True)
        arrays = [literal(list(some), ARRAY(one.type)) for one, some in zip(columns, values, strict=True)]
        return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()
    told = msgspec.json.encode(rows).decode()
    each: Any = func.json_each(told).table_valued("value").c.value
    members = [func.json_extract(each, f"$[{place}]").label(one.name) for place, one in enumerate(columns)]
    return select(*members).subquery("given")
