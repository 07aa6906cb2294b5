"""Doubles: objects of a message that name a member twice. Readers differ in which of the two they take (RFC 8259, 4),
so such a message says two things, and is refused.

The decoder takes the last one without a word. But what it has made has fewer members then than there are in the text.
To count those of the text, its strings are taken out; a push in the usual spelling is counted faster than that.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from backhaul.wire import Op, Push

STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
SPACED = (b" :", b"\t:", b"\n:", b"\r:")
SCALARS = frozenset({str, int, float, bool, type(None)})
ALWAYS = 6  # members that every op has: op, seq, table, key, kind, hlc


def has_double(plain: bytes, read: Any) -> bool:
    """plain: JSON that can be read. read: what was made of it."""
    if type(read) is Push and plain.count(b'":') == _members_of_push(read) and not any(map(plain.count, SPACED)):
        return False  # no text has fewer of them than it has members
    return STRING.sub(b"", plain).count(b":") != _members(msgspec.json.decode(plain))


def _members_of_push(push: Push) -> int:
    """As many as there are when nothing is said that could be left out; 0 when it is not known."""
    count = 1
    for op in push.ops:
        if not SCALARS.issuperset(map(type, op.fields.values())) or not SCALARS.issuperset(map(type, op.key)):
            return 0
        count += ALWAYS + len(op.fields) + _optional(op)
    return count


def _optional(op: Op) -> int:
    return bool(op.base) + (op.group is not None) + bool(op.fields)


def _members(value: Any) -> int:
    count, left = 0, [value]
    while left:
        one = left.pop()
        if type(one) is dict:
            count += len(one)
            left.extend(inner for inner in one.values() if type(inner) in (dict, list))
        elif type(one) is list:
            left.extend(inner for inner in one if type(inner) in (dict, list))
    return count
