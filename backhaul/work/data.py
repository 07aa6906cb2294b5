"""The small JSON objects that travel with work: input, output and progress. WorkManager's limit holds: 10 KiB each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backhaul.errors import Misused

MOST_BYTES = 10_240
_canonical = msgspec.json.Encoder(order="sorted").encode


def encode_data(what: str, value: Mapping[str, Any]) -> str:
    """The text of the object. Raises Misused when it is no JSON object, would not come back as it is, or is too big."""
    return encoded(what, value)[0]


def encoded(what: str, value: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The same, and the object as it is read from that text: a copy of the one that was given."""
    if not isinstance(value, Mapping):
        raise _not_json(what)
    value = dict(value)
    try:
        text = _canonical(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _not_json(what) from error
    if len(text) > MOST_BYTES:
        raise Misused(
            f"the {what} takes {len(text)} bytes, more than the {MOST_BYTES} that work may carry",
            hint="keep the data in a table or a file, and give the work its key or path",
        )
    read: dict[str, Any] = msgspec.json.decode(text)
    if read != value:  # a date, bytes, a tuple, NaN: written without a word, read as another thing
        raise _not_json(what)
    return text.decode(), read


def decode_data(text: str) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.json.decode(text)
    return value


def _not_json(what: str) -> Misused:
    return Misused(
        f"the {what} cannot be written as JSON and read back the same",
        hint="use a dict with text keys; values: None, bool, int, finite float, str, list, dict",
    )
