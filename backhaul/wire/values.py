"""The values of a record, as they travel.

A value is null, a string, an integer (64 bits, signed: read it as an integer, not as a double), a real (a JSON number
with a point or an exponent), a boolean, or one of the objects `{"hex": "00ff"}` (bytes) and `{"real": "Infinity"}` /
`{"real": "-Infinity"}`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Atom = None | bool | Integer | float | str
Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]


class Tagged(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A value that JSON has no form for: `hex` or `real`. Or what an op does to a column that is merged by a strategy
    of DELTAS: `add` (a counter; decimals as text), `put` and `cut` (a set), `update` (a text: a Yjs update), `was` and
    `now` (custom and manual). Or a text in the feed: `text` and `state`, the Yjs document that it is of."""

    hex: Hex | UnsetType = UNSET
    real: Literal["Infinity", "-Infinity", "NaN"] | UnsetType = UNSET
    add: int | str | UnsetType = UNSET
    put: list[Any] | UnsetType = UNSET
    cut: list[Any] | UnsetType = UNSET
    update: Hex | UnsetType = UNSET
    was: Atom | Tagged | UnsetType = UNSET
    now: Atom | Tagged | UnsetType = UNSET
    text: str | UnsetType = UNSET
    state: Hex | UnsetType = UNSET


Value = Atom | Tagged
encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="sorted").encode


def canonical_key(key: list[Any]) -> str:
    """The text of a key that is equal exactly when the keys are; the same text as SQLite's json_array makes."""
    return _canonical(key).decode()


def to_plain(value: Any) -> Any:
    """A wire value as Python holds it: bytes for hex, a float for a real beyond JSON."""
    if type(value) is Tagged:
        if value.text is not UNSET:
            return value.text
        return bytes.fromhex(value.hex) if value.hex is not UNSET else float(str(value.real))
    return value


def from_plain(value: Any) -> Value:
    """A Python value of a database row as it travels."""
    if isinstance(value, bytes | bytearray | memoryview):
        return Tagged(hex=bytes(value).hex())
    if isinstance(value, float) and not math.isfinite(value):
        return Tagged(real="NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")
    return value  # type: ignore[no-any-return]  # the database's own scalar types are the wire's
