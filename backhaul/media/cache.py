"""The kept contents as a cache: a budget of bytes, and a floor of free disk, for which the least recently used go.

Rows first, then their files, both while nobody arrives: a death in between leaves files without a row, which `tidy`
takes away, and a content that is put or fetched meanwhile is not taken for the one that goes.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from backhaul.database import Database
from backhaul.media import contents
from backhaul.media.store import Store

AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class Limits:
    """most: bytes of all kept contents together. floor: bytes of the disk that shall stay free."""

    most: int
    floor: int


@dataclass(frozen=True, kw_only=True)
class Evicted:
    """contents: how many went. excess: bytes that should go, too, and cannot: the server does not have them, they are
    pinned, or (whole=False) somebody was writing."""

    contents: int = 0
    excess: int = 0
    whole: bool = True


def excess(database: Database, store: Store, limits: Limits) -> int:
    """How many bytes should go."""
    with database.reading() as connection:
        known = contents.kept(connection)
    over = known.bytes - limits.most
    return max(over, _lacking(store, limits), 0) if known.contents else 0


def evict(database: Database, store: Store, limits: Limits) -> Evicted:
    """Let go what is over the limits. Raises DatabaseBusy, StorageFull."""
    gone = 0
    while store.exists and (size := excess(database, store, limits)):
        with store.alone() as alone:
            if not alone:
                return Evicted(contents=gone, excess=size, whole=False)
            with database.writing() as connection:
                chosen = contents.evict(connection, size, most=AT_ONCE)
            for content in chosen:
                store.remove(content)
        gone += len(chosen)
        if not chosen:
            return Evicted(contents=gone, excess=size)
    return Evicted(contents=gone)


def _lacking(store: Store, limits: Limits) -> int:
    if not store.exists:
        return 0
    return limits.floor - shutil.disk_usage(store.folder).free
