"""The system's D-Bus, heard in a thread of its own that sleeps on the bus's socket.

Nobody waits for the bus. When it is gone or says nothing, the thread connects anew, after 1 s, then twice as long, up
to 30 s; what is said over a connection, and when it is given up, is in talk.py.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from backhaul.clock import Clock
from workers.probes.talk import CALL_SECONDS, Answered, Talk, Watched, drain

FIRST_PAUSE_SECONDS = 1.0
MOST_PAUSE_SECONDS = 30.0
ANSWERS = "D-Bus answers"


class Bus:
    """heard: called in the bus's thread when an answer came, or is known no more."""

    def __init__(self, watched: Sequence[Watched], *, clock: Clock, heard: Callable[[], None]) -> None:
        self.settled = threading.Event()  # everything was asked once, and answered or given up
        self.state = "not asked yet"
        self._watched = tuple(watched)
        self._clock = clock
        self._heard = heard
        self._answers: dict[Watched, Answered] = {}
        self._ended = False
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._thread = threading.Thread(target=self._run, name="backhaul-bus", daemon=True)

    def start(self) -> None:
        if self._watched:
            self._thread.start()
        else:
            self.settled.set()

    def answer(self, watched: Watched) -> Answered | None:
        """What is known; None: nothing is."""
        return self._answers.get(watched)

    def without(self, service: str) -> str:
        """Why nothing is known of it, for people."""
        return f"{service} is not on D-Bus, or does not answer" if self.state == ANSWERS else self.state

    def ask(self) -> None:
        """Have all of it asked anew."""
        with suppress(BlockingIOError):
            os.write(self._wake_out, b".")

    def end(self) -> None:
        self._ended = True
        self.ask()
        if self._thread.ident is not None:
            self._thread.join(2 * CALL_SECONDS)
        if not self._thread.is_alive():
            os.close(self._wake_in)
            os.close(self._wake_out)

    # the thread's own

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._ended:
            try:
                with Talk(self._watched, self._wake_in, self._clock) as talk:
                    while not self._ended:
                        if talk.go_on():
                            self._take(talk)
                            pause = FIRST_PAUSE_SECONDS
            except Exception as error:  # the system's, the library's; whatever it is, there is no bus to talk to
                self._answers, self.state = {}, _reason(error)
                self.settled.set()
                self._heard()
                self._rest(pause)
                pause = min(MOST_PAUSE_SECONDS, 2 * pause)

    def _take(self, talk: Talk) -> None:
        self._answers, self.state = dict(talk.answers), ANSWERS
        if talk.all_asked:
            self.settled.set()
        self._heard()

    def _rest(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_in, selectors.EVENT_READ)
            selector.select(seconds)
        drain(self._wake_in)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "there is no D-Bus"
    if isinstance(error, TimeoutError):
        return "D-Bus does not answer"
    if isinstance(error, ConnectionError):
        return "D-Bus has gone"
    return f"D-Bus cannot be talked to ({type(error).__name__})"
