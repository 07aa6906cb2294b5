"""Fingerprints that do not depend on the order of the rows.

A row's hash is BLAKE2b-64 (RFC 7693) of its canonical text: table, key, and the fields that are not NULL, sorted by
name, each in the form of its column's kind (kinds.py), numbers in their shortest form. A table's fingerprint is the
sum of its rows' hashes modulo 2^64, in sixteen hexadecimal digits, so that it can be kept up to date by adding and
subtracting. It finds accidents and bugs; it is no defence against someone who chooses the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec

from backhaul.kinds import canonical

MODULUS = 2**64
_canonical = msgspec.json.Encoder(order="sorted").encode


def row_hash(
    table: str, key: list[Any], fields: Mapping[str, Any], kinds: Mapping[str, str] = MappingProxyType({})
) -> int:
    """The hash of one row. key and fields: wire values; absent and NULL are the same. kinds: of the fields that are not
    compared as they are (see kinds.py)."""
    told = {
        name: canonical(value, kinds[name]) if name in kinds else value
        for name, value in fields.items()
        if value is not None
    }
    text = _canonical([table, key, told])
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def fingerprint(hashes: Iterable[int]) -> str:
    return f"{sum(hashes) % MODULUS:016x}"
