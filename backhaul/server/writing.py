"""What the server writes itself: an op of the writer `server`, made of values as a replica makes its own of captures.

It goes the way of every op from there. Since it is made inside the transaction that applies it, it has seen everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.clock import stamp_to_text
from backhaul.merge import State, delta, documents
from backhaul.server import records
from backhaul.server.problems import refusal
from backhaul.server.tables import Shape
from backhaul.wire import Op, canonical_key, from_plain, strategy_name


def op_of(
    connection: Connection,
    scope: str,
    shapes: Mapping[str, Shape],
    place: tuple[str, Sequence[Any]],
    fields: Mapping[str, Any],
    *,
    hlc: int,
    position: int,
) -> Op:
    """The op that gives the record these values; it is made, if it is not there. Raises Refused: `value-invalid`."""
    table, key = place[0], [from_plain(part) for part in place[1]]
    shape = shapes.get(table)
    name = table, canonical_key(key)
    state = records.find(connection, scope, [name]).get(name)
    there = state if state is not None and state.born and not state.deleted else None
    try:
        said = {column: msgspec.to_builtins(from_plain(value)) for column, value in fields.items()}
    except TypeError as error:
        raise refusal("value-invalid", str(error)[:500]) from error
    if shape is not None and there is None:
        said = dict.fromkeys(shape.columns - set(shape.key)) | said
    elif shape is not None and there is not None:
        said = {column: _done(shape, there, column, value) for column, value in said.items()}
    told = {
        "op": token_hex(16),
        "seq": 1,
        "table": table,
        "key": msgspec.to_builtins(key),
        "kind": "insert" if there is None else "update",
        "hlc": stamp_to_text(hlc),
        "base": position,
        "fields": said,
    }
    try:
        return msgspec.json.decode(msgspec.json.encode(told), type=Op)
    except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError) as error:
        raise refusal("value-invalid", str(error)[:500]) from error


def _done(shape: Shape, state: State, column: str, value: Any) -> Any:
    """What must be done to the column for it to have this value."""
    strategy, was = strategy_name(shape.merge.get(column, "lww")), state.fields.get(column)
    try:
        if strategy == "counter":
            return {"add": delta.added(was, value)}
        if strategy == "set":
            return delta.put_and_cut(was, value)
        if strategy == "text":
            held = documents.document_of(was, state.states.get(column))
            return {"update": delta.edited(held, was, value)[0].hex()}
    except ValueError as error:
        raise refusal("value-invalid", f"{column}: {error}") from error
    return value
