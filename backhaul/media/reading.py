"""Opening a content that is kept here: checked by its hash again where something says that it was touched."""

from __future__ import annotations

from io import BufferedReader, FileIO

from backhaul.database import Database
from backhaul.media import contents
from backhaul.media.content import Unreadable, outside, sha256
from backhaul.media.store import KEPT_NS, Store

USED_MS = 60_000  # apart, at least: to read is not to write each time


def opened_here(database: Database, store: Store, content: str, *, now: int) -> BufferedReader | None:
    """None when it is not here; what is spoilt is forgotten. The open file stays whole, whatever goes meanwhile."""
    with database.reading() as connection:
        known = contents.get(connection, content)
    if known is None:
        return None
    try:
        file = FileIO(store.path(content))
    except OSError:
        return None
    if not _is_whole(file, content, known.size):
        with file:
            _forget(database, store, content, file)
        return None
    if now - known.used_at >= USED_MS:
        with database.writing(lasting=False) as connection:
            contents.use(connection, content, now=now)
    file.seek(0)
    return BufferedReader(file)


def _forget(database: Database, store: Store, content: str, spoilt: FileIO) -> None:
    """While nobody arrives, and unless somebody has put it again meanwhile: that one is another file."""
    with store.alone() as alone:
        if not alone or not store.is_now(content, spoilt):
            return
        with database.writing() as connection:
            contents.forget(connection, [content])
        store.remove(content)


def _is_whole(file: FileIO, content: str, size: int) -> bool:
    looked = outside(file)
    if looked.size != size:
        return False
    try:
        return looked.modified_ns == KEPT_NS or sha256(file) == content
    except Unreadable:
        return False
