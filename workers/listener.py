"""Hearing PostgreSQL's bell: what the triggers ring (NOTIFY) when something was written, by whatever means.

The connection must not be open in a process that forks: the child would share the socket, and end the parent's session
with its own. So a fork wakes whoever listens, waits for the connection to be closed, and lets it be opened again.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import Any

from sqlalchemy import make_url

from backhaul.replica.capture_postgresql import CHANNEL


class Listener:
    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: Any = None
        self._in_use = threading.Lock()
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.register_at_fork(before=self._let_go, after_in_parent=self._go_on, after_in_child=self._forget)

    def wait(self, seconds: float) -> bool:
        """Until the bell rings, or so long; shorter when this process forks. False: the database cannot be reached."""
        import psycopg

        with self._in_use:
            try:
                self._listen(seconds)
            except (psycopg.Error, OSError, ValueError):
                self._close()
                return False
            return True

    def close(self) -> None:
        self.wake()
        with self._in_use:
            self._close()

    def wake(self) -> None:
        with suppress(OSError):
            os.write(self._wake_out, b".")

    def _listen(self, seconds: float) -> None:
        import psycopg

        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True)
            self._connection.execute(f"LISTEN {CHANNEL}")
        for _ in self._connection.notifies(timeout=0):
            return
        select.select([self._connection.fileno(), self._wake_in], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._wake_in, 4096)
        for _ in self._connection.notifies(timeout=0):
            pass

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _let_go(self) -> None:
        self.wake()
        self._in_use.acquire()
        self._close()

    def _go_on(self) -> None:
        self._in_use.release()

    def _forget(self) -> None:
        self._in_use = threading.Lock()
