"""What the apps of a world of replicas have read and written, transaction by transaction.

Every key is a register that only grows: a transaction reads some keys in one snapshot and writes greater values, each
of them unlike every other, into some of them. So a value that is read names the transaction that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

NOTHING = 0  # what a register holds before its first write


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A committed transaction. session: the program that did it, one after the other.

    began, ended: nanoseconds of one clock for all sessions. reads: as it found them. writes: as it left them.
    """

    session: str
    began: int
    ended: int
    reads: dict[str, int] = {}
    writes: dict[str, int] = {}


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """The database of these sessions was put back to a backup: what they did after it is lost, unless it was sent.

    since, until: nanoseconds of the same clock.
    """

    sessions: list[str]
    since: int
    until: int

    def touches(self, one: Transaction) -> bool:
        return one.session in self.sessions and one.ended > self.since and one.began < self.until


class Notebook:
    """A session's own file, one line for each transaction that was committed."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)

    def note(self, transaction: Transaction) -> None:
        self._file.write(msgspec.json.encode(transaction) + b"\n")

    def close(self) -> None:
        self._file.close()


def read_notes(files: Iterable[Path]) -> list[Transaction]:
    """Everything that was noted; a last line that was cut off is of a session that was killed while it wrote it."""
    found: list[Transaction] = []
    for file in files:
        whole, _, _ = file.read_bytes().rpartition(b"\n")
        found += [msgspec.json.decode(line, type=Transaction) for line in whole.splitlines()]
    return found
