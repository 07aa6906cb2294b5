"""What every strategy is made of: a change, and the register of one field, which holds what the writes have made of it.

A strategy is a class with `write`, which gives the register after a write, and `unusable`, which says what is wrong
with a value that was sent. Writes may come in any order, and a write that is seen again changes nothing.

Versions say who must hear of it. A write that wins gives its field the new version; a write that loses does so too,
with the winner's value, so that the loser hears the winner through the feed. A write of the value that is there
already needs no telling and leaves the version alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from backhaul.merge.lineage import ALONE, Lineage
from backhaul.wire import Kind

Stamp = tuple[int, str, int]  # hybrid logical clock, writer (a replica id), version
ECHO = True  # kept by a strategy that keeps nothing else: even the last writer has not seen this value

canonical = msgspec.json.Encoder(order="sorted").encode


class Change(Struct, frozen=True, kw_only=True, gc=False):
    """One op. hlc: its stamp as an integer, 0 for a backfill. writer: the replica that made it; lineage: those that it
    was before. base: the feed position that the app had seen."""

    kind: Kind
    hlc: int
    writer: str
    fields: dict[str, Any]
    base: int = 0
    lineage: Lineage = ALONE

    def is_by(self, writer: str, version: int) -> bool:
        """Whether a write is of the change's own writer, now or then."""
        return writer == self.writer or self.lineage.wrote(writer, version)


class Register(NamedTuple):
    """One field. kept: what its strategy needs beside the value, as JSON has it; None: nothing, and whoever wrote the
    value has it."""

    stamp: Stamp
    value: Any
    kept: Any = None


class Strategy(Protocol):
    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        """The register after a write of what was said. held: None for a field that the record does not have yet."""

    def unusable(self, kind: Kind, said: Any) -> str | None:
        """What is wrong with it, whatever the record holds; None when nothing is."""


def written(change: Change, value: Any, version: int, kept: Any = None) -> Register:
    """The change's value stands, and is told to all but its writer."""
    return Register((change.hlc, change.writer, version), value, kept)


def lost(held: Register, change: Change, version: int) -> Register:
    """What was held stands, and is told to all: to its own writer only if that one has just written something else."""
    kept = held.kept
    if kept is None and held.stamp[1] == change.writer:
        kept = ECHO
    return Register((held.stamp[0], held.stamp[1], version), held.value, kept)


def same(mine: Any, theirs: Any) -> bool:
    """1, 1.0 and true are three values here, and so are 0.0 and -0.0."""
    if type(mine) is not type(theirs):
        return False
    return repr(mine) == repr(theirs) if type(mine) is float else bool(mine == theirs)


def plain_unusable(said: Any) -> str | None:
    """Whether it is a value that a column without a delta strategy can have."""
    if type(said) is dict and not (len(said) == 1 and ("hex" in said or "real" in said)):
        return "an object as a value holds either hex or real"
    return None
