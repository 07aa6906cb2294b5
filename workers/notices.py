"""Notices: Linux says when SQLite's files are written (inotify), so that nobody need ask the database each second.

Every commit writes to the log beside the database. The word comes with the write, which is a little before the commit
can be seen; whoever hears it and finds nothing new looks once more a second later. It is a hint like any other: where
it does not come (another system, no more watches to be had, a database without a log), the database is asked.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

MODIFY, ATTRIBUTES, DELETED, MOVED = 0x2, 0x4, 0x400, 0x800
WATCHED = MODIFY | ATTRIBUTES | DELETED | MOVED


class Notices:
    """Of one database's file."""

    def __init__(self, file: Path) -> None:
        self._files = [os.fsencode(file), os.fsencode(f"{file}-wal")]
        self._library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self.descriptor = -1  # to sleep on
        if self._library is not None:
            self.descriptor = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self) -> bool:
        """Whether what is written from now on will be said. To be called after each look: the log is another file when
        everybody had closed the database."""
        if self._library is None or self.descriptor < 0:
            return False
        library, descriptor = self._library, self.descriptor
        return all(library.inotify_add_watch(descriptor, file, WATCHED) >= 0 for file in self._files)

    def take(self) -> bool:
        """Whether anything was said since the last time."""
        with suppress(OSError):
            return self.descriptor >= 0 and bool(os.read(self.descriptor, 65_536))
        return False

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
