"""A line to a broker that can be cut, so that whoever holds a connection loses it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class Line:
    """url: what is to be connected to in place of the broker's own."""

    def __init__(self, url: str) -> None:
        there = urlsplit(url)
        assert there.port is not None
        self._there = (str(there.hostname), there.port)
        self._door = socket.create_server(("127.0.0.1", 0))
        port = self._door.getsockname()[1]
        self.url = url.replace(f":{there.port}", f":{port}")
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._carrying: list[threading.Thread] = []
        self._last_words: bytes | None = None
        self._whole = threading.Event()
        self._whole.set()
        self._letting = threading.Thread(target=self._let_in, name="line")
        self._letting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._letting.join()
        self._door.close()
        self.cut()

    def cut(self) -> None:
        """Nobody gets through before it is mended."""
        self._whole.clear()
        for ends in self._open:
            for end in ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._carrying:
            thread.join()
        for ends in self._open:
            for end in ends:
                end.close()
        self._open, self._carrying = [], []

    def cut_at(self, words: bytes) -> None:
        """Cut it, once, when somebody is about to say these to the broker, who does not hear them any more."""
        self._last_words = words

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    def mend(self) -> None:
        self._whole.set()

    def _let_in(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            if not self._whole.is_set():
                near.close()
                continue
            far = socket.create_connection(self._there)
            self._open.append((near, far))
            for ends in ((near, far), (far, near)):
                carrying = threading.Thread(target=self._carry, args=(*ends, ends[0] is near))
                self._carrying.append(carrying)
                carrying.start()

    def _carry(self, here: socket.socket, there: socket.socket, to_the_broker: bool) -> None:
        with suppress(OSError):
            while said := here.recv(65536):
                if to_the_broker and self._last_words is not None and self._last_words in said:
                    self._last_words = None
                    threading.Thread(target=self.cut, name="cutting").start()
                    break
                there.sendall(said)
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
