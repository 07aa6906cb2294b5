"""What the lookout sleeps by: it is woken by other threads, and when something was written, by whatever means: on
PostgreSQL by the bell that the triggers ring (NOTIFY), on SQLite by the file (notices.py).

The connection must not be open in a process that forks: the child would share the socket, and end the parent's session
with its own. So a fork wakes whoever listens, waits for the connection to be closed, and lets it be opened again. It
does not wait for a server that says nothing: a connection that is being made is cut, or left to the thread that makes
it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import make_url

from backhaul.database import SIGNS_OF_LIFE, cut
from backhaul.replica.capture_postgresql import CHANNEL
from workers.notices import Notices

LEAST_SECONDS = 0.05  # between two times that the bell is heard, however often it rings
FORK_SECONDS = 1.0  # that a fork waits for a connection that is being made, and once more after that was cut


class Listener:
    def __init__(self, url: str | None, notices: Notices | None = None) -> None:
        """url: of a database on PostgreSQL; None: there is no bell to be heard. notices: of one on SQLite."""
        self._notices = notices
        self._url = url and _with_signs_of_life(url)
        self._connection: Any = None
        self._being_made: Any = None
        self._inherited: list[Any] = []  # kept from being closed by the child that has inherited it
        self._deaf_until = 0.0
        self._in_use = threading.Lock()
        self._making = threading.Lock()  # a fork waits for this, too; who waits for the bell does not
        self._forking = self._held = False
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        if url is not None:
            os.register_at_fork(before=self._let_go, after_in_parent=self._go_on, after_in_child=self._forget)

    def wait(self, seconds: float, *, to_files: bool = False) -> bool:
        """Until the bell rings, somebody wakes it, or so long; whether it was the bell. It opens no connection.

        to_files: or until the files are written, which is told as the bell is. Then the notices are the caller's to
        take, or the next waiting ends at once.
        """
        deadline = time.monotonic() + seconds
        while True:
            while self._forking:
                time.sleep(0.001)
            with self._in_use:
                now = time.monotonic()
                left, deaf = max(0.0, deadline - now), self._deaf_until - now
                hears = self._connection is not None and deaf <= 0
                ready = self._ready(left if hears or self._connection is None else min(left, deaf), hears, to_files)
                if self._wake_in in ready:
                    with suppress(BlockingIOError):
                        os.read(self._wake_in, 4096)
                    return False
                if ready:
                    return to_files or self._heard()
            if time.monotonic() >= deadline:
                return False

    def listen(self) -> bool:
        """Open the connection unless it is open, which may take its time. Whether the database can be reached."""
        if self._connection is None and self._url is not None:
            import psycopg

            with suppress(psycopg.Error, OSError), self._making:
                connection = self._being_made = psycopg.connect(self._url, autocommit=True)
                try:
                    connection.execute(f"LISTEN {CHANNEL}")
                except BaseException:
                    connection.close()
                    raise
                finally:
                    self._being_made = None
                self._connection = connection
                self.wake()  # whoever waits must wait for this, too
        return self._connection is not None

    def close(self) -> None:
        self.wake()
        with self._in_use:
            self._close()
            if self._notices is not None:
                self._notices.close()

    def wake(self) -> None:
        with suppress(OSError):  # a full pipe wakes as well
            os.write(self._wake_out, b".")

    def _ready(self, seconds: float, hears: bool, to_files: bool) -> list[Any]:
        watched = [self._wake_in, *([self._connection.fileno()] if hears else [])]
        if to_files and self._notices is not None and self._notices.descriptor >= 0:
            watched.append(self._notices.descriptor)
        return select.select(watched, [], [], seconds)[0]

    def _heard(self) -> bool:
        import psycopg

        self._deaf_until = time.monotonic() + LEAST_SECONDS
        try:
            for _ in self._connection.notifies(timeout=0):
                pass
        except (psycopg.Error, OSError):
            self._close()
            return False
        return True

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _let_go(self) -> None:
        self._forking = True
        self.wake()
        self._held = self._making.acquire(timeout=FORK_SECONDS)
        if not self._held:
            cut(self._being_made)
            self._held = self._making.acquire(timeout=FORK_SECONDS)
        self._in_use.acquire()
        self._close()

    def _go_on(self) -> None:
        self._in_use.release()
        if self._held:
            self._making.release()
        self._forking = self._held = False

    def _forget(self) -> None:
        self._inherited += [self._connection, self._being_made]
        self._connection = self._being_made = None
        self._in_use, self._making = threading.Lock(), threading.Lock()
        self._forking = self._held = False


def _with_signs_of_life(url: str) -> str:
    parsed = make_url(url).set(drivername="postgresql")
    unsaid = {name: str(value) for name, value in SIGNS_OF_LIFE.items() if name not in parsed.query}
    return parsed.update_query_dict(unsaid).render_as_string(hide_password=False)
