"""Many small contents in one body: four bytes that say how long the head is (big-endian), the head as JSON, and then
the contents, one after the other, in the head's order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backhaul.wire.messages import NewContent, NewContents
from backhaul.wire.values import encode

CONTENTS_TYPE = "application/vnd.backhaul.contents"
LENGTH = 4


def packed(contents: Sequence[tuple[NewContent, bytes | memoryview]]) -> bytes:
    head = encode(NewContents(contents=[told for told, _ in contents]))
    return b"".join((len(head).to_bytes(LENGTH, "big"), head, *(content for _, content in contents)))


def unpacked(body: bytes) -> list[tuple[NewContent, memoryview]]:
    """Raises ValueError (msgspec's are) when it is not whole."""
    at = LENGTH + int.from_bytes(body[:LENGTH], "big")
    told = msgspec.json.decode(memoryview(body)[LENGTH:at], type=NewContents).contents
    contents = []
    for one in told:
        contents.append((one, memoryview(body)[at : at + one.size]))
        at += one.size
    if at != len(body):
        raise ValueError(f"the contents end at {at}, the body at {len(body)}")
    return contents
