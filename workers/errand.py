"""Errands: what may take its time (a broker, a network, a server) is done beside the one who asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from backhaul.telemetry import emit


def told(error: Exception) -> str:
    """The first line: what follows it, of a database's error for one, can be a row's data."""
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]


class Errand:
    """One thing to do, by a thread of its own, which begins with the first time that it is asked for, and sleeps until
    the next. Asked for while it is being done, it is done once more after that."""

    def __init__(self, name: str, do: Callable[[], None]) -> None:
        self._name = name
        self._do = do
        self._asked = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """From one thread at a time."""
        self._asked.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._go_for_ever, name=f"backhaul-{self._name}", daemon=True)
            self._thread.start()

    def end(self, seconds: float) -> None:
        """Not again; and wait so long at the most for what is being done."""
        self._ended = True
        self._asked.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _go_for_ever(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._ended:
                return
            try:
                self._do()
            except Exception as error:  # the thread must go on; it will be asked for again
                emit("errand.failed", errand=self._name, error=told(error))
