"""Who a writer was before: a replica that signed in again, or was forked, goes on from what its former selves wrote.

Former selves may have written more than the successor knows of: after the backup was made that its database was put
back to, or as the other one of two copies. So what counts as its own is told by versions. Pure; no SQL.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from backhaul.wire import Versions


class Lineage(Struct, frozen=True):
    """known: what the writer's own database knows of what each former self wrote."""

    known: dict[str, Versions] = {}

    def wrote(self, writer: str, version: int) -> bool:
        """Whether this version is a write of a former self that is known."""
        return bool(self.known) and any(first <= version <= last for first, last in self.known.get(writer, ()))

    def knowing(self, versions: Iterable[int]) -> Lineage:
        """The same, with versions that turned out to be known."""
        more = sorted({one for one in versions if not all(self.wrote(writer, one) for writer in self.known)})
        added = [(one, one) for one in more]
        return Lineage({writer: [*known, *added] for writer, known in self.known.items()}) if added else self


ALONE = Lineage()
