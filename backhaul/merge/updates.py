"""Reading Yjs updates (version 1 of their coding), as far as a document of one text goes, and nothing else.

The coding: https://github.com/yjs/yjs/blob/main/src/utils/UpdateEncoder.js and `encoding.js`; numbers are LEB128.
An update is the structs of each writer, from a clock on, and then what is deleted: ranges of clocks by writer. A clock
counts UTF-16 units.
"""

from __future__ import annotations

LARGEST_WRITER = 2**53
LARGEST_CLOCK = 2**31
GC, DELETED, STRING, SKIP = 0, 1, 4, 10


def ends(update: bytes, root: str, *, skips: bool = False) -> dict[int, int]:
    """The clock of each writer after the update's last struct. skips: whether there may be gaps, as there are in
    updates that were merged. Raises ValueError for what is not an update of the text `root`."""
    reading = _Reading(update)
    found: dict[int, int] = {}
    for _ in range(reading.number()):
        structs, writer, clock = reading.number(), reading.number(LARGEST_WRITER), reading.number()
        for _ in range(structs):
            clock += reading.struct(root, skips=skips)
            if clock > LARGEST_CLOCK:
                raise ValueError("a clock is too large")
        found[writer] = max(clock, found.get(writer, 0))
    for _ in range(reading.number()):
        reading.number(LARGEST_WRITER)
        for _ in range(reading.number()):
            if reading.number() + reading.number() > LARGEST_CLOCK:
                raise ValueError("a range is too large")
    if not reading.done:
        raise ValueError("it has a tail")
    return found


def end_of_state(state: bytes) -> dict[int, int]:
    """A state vector: writer -> clock."""
    reading = _Reading(state)
    return {reading.number(LARGEST_WRITER): reading.number() for _ in range(reading.number())}


class _Reading:
    def __init__(self, update: bytes) -> None:
        self._bytes = update
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._bytes)

    def number(self, most: int = LARGEST_CLOCK) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if value > most:
                raise ValueError("a number is too large")
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number has no end")

    def struct(self, root: str, *, skips: bool) -> int:
        """One struct; returns how many clocks it takes."""
        said = self._byte()
        content = said & 0x1F
        if content == GC and said == GC:
            return self._length()
        if content == SKIP and said == SKIP and skips:
            return self._length()
        if content not in (DELETED, STRING) or said & 0x20:
            raise ValueError(f"a struct of the kind {said} is not of a text")
        for side in (0x80, 0x40):
            if said & side:
                self.number(LARGEST_WRITER)
                self.number()
        if not said & 0xC0 and (self.number() != 1 or self._text() != root):
            raise ValueError("it is of another text")
        return self._length() if content == DELETED else len(self._text().encode("utf-16-le")) // 2

    def _length(self) -> int:
        length = self.number()
        if not length:
            raise ValueError("a struct is empty")
        return length

    def _text(self) -> str:
        length = self.number()
        end = self._at + length
        if end > len(self._bytes):
            raise ValueError("it is cut short")
        text = self._bytes[self._at : end].decode()  # UnicodeDecodeError is a ValueError
        self._at = end
        return text

    def _byte(self) -> int:
        if self._at >= len(self._bytes):
            raise ValueError("it is cut short")
        self._at += 1
        return self._bytes[self._at - 1]
