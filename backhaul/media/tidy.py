"""What deaths and deletions have left between the store and its ledger: looked at, and taken away.

    leftover   a file on its way in, whose writer is gone, and no part of a download that is wanted
    orphan     a content without a row: its writer died, or its row went first. One that an upload still needs is no
               rubbish, whatever became of its row: it has one again.
    dangling   a row whose file is not there, or has another size: somebody was in the folder. An upload that needs it
               is parked by its next run.

One folder of the store at a time, under its lock: what arrives meanwhile waits for milliseconds. Where there is no
folder nothing is judged: it may be on another machine, or on a disk that is not mounted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from backhaul.database import Database
from backhaul.media import contents, downloads, uploads
from backhaul.media.store import INCOMING, PART, PREFIXES, Store

PARTS = (INCOMING, *PREFIXES)


@dataclass(kw_only=True)
class Untidy:
    """leftovers: how many. orphans, dangling: SHA-256s. whole: whether everything was looked at; what somebody was
    writing at the time was not."""

    leftovers: int = 0
    orphans: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    whole: bool = True

    @property
    def number(self) -> int:
        return self.leftovers + len(self.orphans) + len(self.dangling)


def look(database: Database, store: Store) -> Untidy:
    """What there is, left as it is."""
    return _go_through(database, store, mend=False)


def tidy(database: Database, store: Store) -> Untidy:
    """Take it away; returns what it was. Raises DatabaseBusy, StorageFull."""
    return _go_through(database, store, mend=True)


def tidy_part(database: Database, store: Store, part: str) -> Untidy:
    """The same for one of PARTS."""
    found = Untidy()
    if store.exists:
        _go_into(database, store, part, found, mend=True)
    return found


def _go_through(database: Database, store: Store, *, mend: bool) -> Untidy:
    found = Untidy()
    for part in PARTS if store.exists else ():
        _go_into(database, store, part, found, mend=mend)
    return found


def _go_into(database: Database, store: Store, part: str, found: Untidy, *, mend: bool) -> None:
    with store.alone() as alone:
        found.whole = found.whole and alone
        if alone and part == INCOMING:
            _look_at_incoming(database, store, found, mend=mend)
        elif alone:
            _compare(database, store, part, found, mend=mend)


def _look_at_incoming(database: Database, store: Store, found: Untidy, *, mend: bool) -> None:
    with database.reading() as connection:
        wanted = downloads.wanted(connection)
    for path in store.leftovers():
        if path.name.removesuffix(PART) in wanted:
            continue
        found.leftovers += 1
        if mend:
            path.unlink(missing_ok=True)


def _compare(database: Database, store: Store, prefix: str, found: Untidy, *, mend: bool) -> None:
    there = store.contents(prefix)
    with database.reading() as connection:
        known, needed = contents.beginning(connection, prefix), uploads.needed(connection, prefix)
    orphans = [name for name in there if name not in known]
    dangling = [name for name, size in known.items() if there.get(name) != size]
    found.orphans += orphans
    found.dangling += dangling
    if not mend:
        return
    if dangling or needed.intersection(orphans):
        with database.writing() as connection:
            contents.forget(connection, dangling)
            contents.keep_again(connection, {name: there[name] for name in orphans if name in needed})
    for name in (*orphans, *dangling):
        if name in dangling or name not in needed:
            store.remove(name)
