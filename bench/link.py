"""A line with a round trip of its own, between a replica and its server: every byte arrives a little later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

PIECE = 64 * 2**10


@contextmanager
def link(url: str, round_trip_ms: float) -> Iterator[str]:
    """The address of the server behind the line. It carries as much as this machine does; nothing is lost."""
    server = urlsplit(url)
    assert server.hostname is not None
    assert server.port is not None
    started = threading.Event()
    line = _Line(server.hostname, server.port, round_trip_ms / 2_000, started)
    thread = threading.Thread(target=line.run, daemon=True)
    thread.start()
    started.wait()
    yield f"http://127.0.0.1:{line.port}"
    line.stop()
    thread.join()


class _Line:
    def __init__(self, host: str, port: int, late: float, started: threading.Event) -> None:
        self.port = 0
        self._to = (host, port)
        self._late = late
        self._started = started
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._serving.cancel)

    async def _serve(self) -> None:
        self._serving = asyncio.current_task() or asyncio.ensure_future(asyncio.sleep(0))
        listening = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        self._started.set()
        async with listening:
            await listening.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._to)
        await asyncio.gather(self._one_way(reader, there_writer), self._one_way(there_reader, writer))

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_the_line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.ensure_future(self._arrive(on_the_line, writer))
        while piece := await reader.read(PIECE):
            on_the_line.put_nowait((self._loop.time() + self._late, piece))
        on_the_line.put_nowait((self._loop.time() + self._late, b""))
        await arriving

    async def _arrive(self, on_the_line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            at, piece = await on_the_line.get()
            await asyncio.sleep(max(0.0, at - self._loop.time()))
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.close()
