"""Changes whose trigger could not tell what they said (`not-captured`): a column was renamed or dropped before `init`.

What they said is not known, but what became of it is: the row. So when such a change is to go out, it says the whole
row as it is by then, or that the row is gone. A column that is merged by what was done to it is left out of an update:
what was done is not known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.errors import Misused
from backhaul.replica import outbox, rekeying, tables
from backhaul.wire import Table, Value, encode

REASON = "not-captured"
NO_KEY = "[]"

_key = msgspec.json.Decoder(list[Value]).decode


def tell_as_it_is(connection: Connection, parked: Sequence[Mapping[str, Any]], ids: Collection[int]) -> None:
    """Have those of the parked changes that were not captured say the row as it is. Raises Misused when not even the
    key of one is known."""
    silent = [row for row in parked if row["id"] in ids and row["reason"] == REASON]
    if not silent:
        return
    known = {one.table.name: one.table for one in tables.checked(connection)}
    told = []
    for row in silent:
        if row["key"] == NO_KEY:
            raise Misused(
                f"what the change {row['op_id']} was about is not known: its key could not be read",
                hint="see with backhaul verify what the server lacks, write it once more, and discard this change",
            )
        table = known.get(row["table_name"])
        if table is not None and row["kind"] != "delete":
            told.append((row["id"], *_said(connection, table, row)))
    outbox.retell(connection, told)


def _said(connection: Connection, table: Table, row: Mapping[str, Any]) -> tuple[str, str | None]:
    """Kind and fields."""
    fields = rekeying.row_as_it_is(connection, table, _key(row["key"]))
    if fields is None:
        return "delete", None
    if row["kind"] == "update":
        fields = {name: value for name, value in fields.items() if name not in table.deltas()}
    return row["kind"], encode(fields).decode()
