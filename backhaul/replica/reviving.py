"""Reviving: an edit of a record that was deleted elsewhere, so long ago that nothing of it is left (`record-gone`).

Sent again as it is, it would be refused for ever: there is nothing to edit. Whoever has it sent again all the same
wants the record, so it goes out as the whole row that is here by then, and makes the record anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.replica import outbox, rekeying, tables
from backhaul.wire import Value, encode

REASON = "record-gone"

_key = msgspec.json.Decoder(list[Value]).decode


def bring_back(connection: Connection, parked: Sequence[Mapping[str, Any]], ids: Collection[int]) -> None:
    """Have the first of the parked changes of each such record say the whole row; what came after it is in that, and
    says nothing more. Of a row that was deleted here, too, all that is left to say is that."""
    gone = {(row["table_name"], row["key"]) for row in parked if row["id"] in ids and row["reason"] == REASON}
    if not gone:
        return
    known = {one.table.name: one.table for one in tables.checked(connection)}
    told: list[tuple[int, str, str | None]] = []
    for name, key in sorted(gone):
        table = known.get(name)
        if table is None:
            continue
        row = rekeying.row_as_it_is(connection, table, _key(key))
        first, *others = (
            one["id"] for one in parked if one["id"] in ids and (one["table_name"], one["key"]) == (name, key)
        )
        told.append((first, "delete", None) if row is None else (first, "insert", encode(row).decode()))
        told += [(one, "delete", None) if row is None else (one, "update", "{}") for one in others]
    outbox.retell(connection, told)
