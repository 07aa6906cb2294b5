"""Doubles: objects of a message that name a member twice. Readers differ in which of the two they take (RFC 8259, 4),
so such a message says two things, and is refused.

The decoder takes the last one without a word. But what it has made has fewer members then than there are in the text.
To count those of the text, its strings are taken out; a push in the usual spelling is counted faster than that.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from backhaul.wire import Push

STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
SPACED = (b" :", b"\t:", b"\n:", b"\r:")
SCALARS = frozenset({str, int, float, bool, type(None)})
ALWAYS = 6  # members that every op has: op, seq, table, key, kind, hlc


def has_double(plain: bytes, read: Any) -> bool:
    """plain: JSON that can be read. read: what was made of it."""
    if type(read) is Push and plain.count(b'":') == _members_of_push(read) and not _is_spaced(plain):
        return False  # no text has fewer of them than it has members
    return STRING.sub(b"", plain).count(b":") != _members(msgspec.json.decode(plain))


def _is_spaced(plain: bytes) -> bool:
    """Whether there may be space between a name and its colon. (One byte is found much faster than two.)"""
    return any(spaced[:1] in plain and spaced in plain for spaced in SPACED)


def _members_of_push(push: Push) -> int:
    """As many as there are when nothing is said that could be left out; 0 when it is not known."""
    count = 1 + ALWAYS * len(push.ops)
    for op in push.ops:
        fields = op.fields
        if not SCALARS.issuperset(map(type, fields.values())) or not SCALARS.issuperset(map(type, op.key)):
            return 0
        if fields:
            count += len(fields) + 1
        count += (op.base != 0) + (op.group is not None)
    return count


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
