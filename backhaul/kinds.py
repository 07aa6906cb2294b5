"""What a column's values are, by its declared type; and one form for values that are the same to that kind.

Two databases (and two programs on one) write the same value differently: 12.50 and 12.5, true and 1, a moment with a
`T` and with a space, JSON with and without spaces. Comparing replicas must not take that for a difference. So the
digest is reckoned over canonical forms; what travels, and what is stored, stays as it was written.

A column may have been declared differently by the replicas of a scope: its types are then told as `TEXT | jsonb`, and
the kind is the one among theirs that sees the fewest differences.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

import msgspec

from backhaul.wire import Table, Tagged

Kind = Literal["json", "timestamp", "time", "uuid", "boolean", "decimal", "real", "integer", "bytes", "text", "any"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # the earlier ones see fewer differences
SEPARATOR = " | "

MODIFIER = re.compile(r"\([^()]*\)")
NAMED: Mapping[str, Kind] = {
    "json": "json",
    "jsonb": "json",
    "datetime": "timestamp",
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "timestamp with time zone": "timestamp",
    "timestamp without time zone": "timestamp",
    "time": "time",
    "time without time zone": "time",
    "uuid": "uuid",
    "guid": "uuid",
    "uniqueidentifier": "uuid",
    "boolean": "boolean",
    "bool": "boolean",
    "numeric": "decimal",
    "decimal": "decimal",
    "dec": "decimal",
    "money": "decimal",
    "interval": "text",
    "point": "text",
    "bytea": "bytes",
    "": "any",
}
# SQLite's own rules for a type's name (datatype3.html, 3.1), in their order.
PARTS: tuple[tuple[str, Kind], ...] = (
    ("int", "integer"),
    ("serial", "integer"),
    ("char", "text"),
    ("clob", "text"),
    ("text", "text"),
    ("blob", "bytes"),
    ("binary", "bytes"),
    ("real", "real"),
    ("floa", "real"),
    ("doub", "real"),
)

MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)? ?(Z|[+-]\d\d(?::?\d\d)?(?::?\d\d)?)?", re.I
)
TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?")
UUID = re.compile(r"\{?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\}?", re.I)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
SPOKEN = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}

_sorted = msgspec.json.Encoder(order="sorted").encode


def kind_of(declared: str) -> Kind:
    """declared: a column's type, as a database says it, or several."""
    return min((_kind(one) for one in declared.split(SEPARATOR)), key=KINDS.index)


def joined(one: str, other: str) -> str:
    """The type of a column that two replicas declare: both, when their kinds are not the same."""
    if kind_of(one) == kind_of(f"{one}{SEPARATOR}{other}"):
        return one
    return f"{one}{SEPARATOR}{other}"


def kinds_of(table: Table) -> dict[str, Kind]:
    """The kinds of the columns beside the key that are not compared as they are."""
    kinds = {column.name: kind_of(column.type) for column in table.columns if column.name not in table.key}
    return {name: kind for name, kind in kinds.items() if kind in CANONICAL}


def canonical(value: Any, kind: str) -> Any:
    """The form that all wire values which are the same to this kind share. What is none of its kind stays as it is."""
    form = CANONICAL.get(kind)
    return value if form is None or value is None else form(value)


def _kind(declared: str) -> Kind:
    name = " ".join(MODIFIER.sub(" ", declared).lower().split())
    if name.endswith("]"):
        return "text"
    if name in NAMED:
        return NAMED[name]
    return next((kind for part, kind in PARTS if part in name), "any")


def _decimal(value: Any) -> Any:
    number = _number(value)
    return value if number is None else _digits(number)


def _number(value: Any) -> Decimal | None:
    """A float by its shortest digits: 0.1 is a tenth."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    said = repr(value) if isinstance(value, float) else str(value).strip()
    if not NUMBER.fullmatch(said):
        return None
    try:
        return Decimal(said)
    except InvalidOperation:
        return None


def _digits(number: Decimal) -> str:
    """The digits without noughts at either end, `e`, and the power of ten: 12.50 is 125e-1, nought is 0e0."""
    sign, digits, exponent = number.as_tuple()
    said = "".join(map(str, digits)).lstrip("0")
    kept = said.rstrip("0")
    if not kept:
        return "0e0"
    return f"{'-' if sign else ''}{kept}e{int(exponent) + len(said) - len(kept)}"


def _real(value: Any) -> Any:
    number = _number(value)
    if number is not None:
        real = float(number) + 0.0  # no sign of nought
        return real if math.isfinite(real) else value
    return value


def _integer(value: Any) -> Any:
    number = _number(value)
    if number is not None and number == number.to_integral_value() and abs(number) < 2**63:
        return int(number)
    return value


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else value
    return SPOKEN.get(value.strip().lower(), value) if isinstance(value, str) else value


def _timestamp(value: Any) -> Any:
    """Without an offset, a moment counts as UTC: a database that keeps no offsets holds it so."""
    found = MOMENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    day, hour, minute, second, fraction, offset = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{hour}:{minute}:{second or '00'}")
        moment -= _offset(offset)
    except (ValueError, OverflowError):
        return value
    return moment.isoformat(" ") + _fraction(fraction)


def _offset(said: str | None) -> timedelta:
    if said is None or said in "Zz":
        return timedelta()
    hours, minutes, seconds = (f"{said[1:].replace(':', '')}0000"[at : at + 2] for at in (0, 2, 4))
    ahead = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return -ahead if said[0] == "-" else ahead


def _time(value: Any) -> Any:
    found = TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    hour, minute, second, fraction = found.groups()
    return f"{hour}:{minute}:{second or '00'}{_fraction(fraction)}"


def _fraction(digits: str | None) -> str:
    kept = (digits or "").rstrip("0")
    return f".{kept}" if kept else ""


def _uuid(value: Any) -> Any:
    said = value.hex if isinstance(value, Tagged) else value.get("hex") if isinstance(value, dict) else None
    if isinstance(said, str) and len(said) == 32:
        return said
    if isinstance(value, str) and UUID.fullmatch(value):
        return value.lower().translate({ord(sign): None for sign in "{}-"})
    return value


def _json(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value)  # SQLite makes a number of a text that is one, in a column of the type JSON
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value, parse_int=Decimal, parse_float=Decimal, parse_constant=_no_constant)
        return _sorted(_numbers_as_text(read)).decode()
    except (ValueError, RecursionError):
        return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _numbers_as_text(read: Any) -> Any:
    """A number as {"n": its canonical decimal}: the text "1e0" is another value."""
    if isinstance(read, Decimal):
        return {"n": _digits(read)}
    if isinstance(read, dict):
        return {"o": {name: _numbers_as_text(value) for name, value in read.items()}}
    if isinstance(read, list):
        return [_numbers_as_text(value) for value in read]
    return read


CANONICAL: Mapping[str, Callable[[Any], Any]] = {
    "json": _json,
    "timestamp": _timestamp,
    "time": _time,
    "uuid": _uuid,
    "boolean": _boolean,
    "decimal": _decimal,
    "real": _real,
    "integer": _integer,
}
