"""Uploads that are cut at random places, by the death of the worker or the server, or a line that breaks: the very
bytes arrive, and for each cut no more than a chunk is sent twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Connection

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.media import uploads
from backhaul.media.put import put
from backhaul.media.uploads import Upload
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.tus import TusRemote
from backhaul.schema import replica_metadata
from backhaul.server import auth
from backhaul.server.settings import Settings
from tests.checker import processes
from tests.journey.cutting import cutting, send_on
from tests.services import free_port
from tests.waiting import eventually

CHUNK = 64 * 2**10
HEADS = 600  # bytes of what is said around a body, at least: two requests
KINDS = ("worker", "server", "connection", "answer")
LONG = 2**30
MIB = 2**20


class Place:
    """A server that can be killed and is back at once, and a replica that uploads to it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.port = free_port()
        self._server: BaseProcess | None = None
        stack.callback(self.kill_server)
        self.serve()
        self.database: Database = open_database(f"sqlite:///{folder / 'replica.sqlite'}")
        stack.callback(self.database.close)
        replica_metadata.create_all(self.database.engine)

    def token_of(self, scope: str) -> str:
        """What another scope has is not there for this one."""
        data = self.folder / "server"
        with closing(open_database(Settings(data=data).url)) as database, database.writing() as connection:
            code = auth.enrol(connection, scope, SystemClock().now())
        with closing(HttpRemote(self.url)) as remote:
            return remote.register(code, [], "camera").token

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        self._server = processes.start(processes.serve_on, self.port, self.folder / "server", None)
        eventually(self._listens, what="the server listens")

    def kill_server(self) -> None:
        if self._server is not None:
            processes.kill(self._server)
            self._server = None

    def take(self, size: int, seed: int) -> Upload:
        """A file whose bytes do not repeat themselves from chunk to chunk."""
        path, block = self.folder / "film", Random(seed).randbytes(MIB - 1)
        with path.open("wb") as file:
            for at in range(0, size, MIB - 1):
                file.write((block[:100] + at.to_bytes(8, "big") + block[108:])[: size - at])
        return put(self.database, path, enqueue=_no_work, now=0)

    def row(self, this: Upload) -> Upload:
        with self.database.reading() as connection:
            return uploads.get(connection, this.id)

    def stored(self, this: Upload) -> list[str]:
        """The hashes of all that lies among the server's contents under this one's name."""
        found = (self.folder / "server" / "media" / "content").rglob(this.sha256)
        return [_hash(path) for path in found]

    def _listens(self) -> bool:
        with closing(TusRemote(self.url)) as remote:
            try:
                remote.has("0" * 64)
            except Exception as error:  # whatever it is while nobody listens
                return "token" in str(error)
        return True


def _hash(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def _no_work(_connection: Connection, _upload: Upload) -> None:
    """The test runs the transfer itself."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path_factory.mktemp("cuts"), stack)


def cut_and_send(place: Place, size: int, kinds: list[str], seed: int, chunk: int) -> None:
    """As many cuts as kinds, each at a random place; workers come and go until the upload is done."""
    random = Random(seed)
    this, token = place.take(size, seed), place.token_of(f"of {size} and {seed}")
    marks = sorted(random.randrange(1, HEADS + size) for _ in kinds)
    run: list[BaseProcess] = []
    up = threading.Event()
    up.set()

    def strike(number: int) -> None:
        if kinds[number] == "worker":
            os.kill(int(run[-1].pid or 0), 9)
        elif kinds[number] == "server":
            up.clear()
            place.kill_server()
            place.serve()
            up.set()

    lost = {number for number, kind in enumerate(kinds) if kind == "answer"}
    with cutting(place.port, marks, strike, lost) as line:
        while place.row(this).state != "done":
            assert place.row(this).state in ("pending", "sending"), place.row(this).reason
            assert len(run) <= len(kinds), f"{line.struck} cuts at {marks} made more runs than they may"
            url = place.database.engine.url.render_as_string(hide_password=False)
            run.append(processes.start(send_on, url, line.url, token, this.id, chunk))
            run[-1].join(120)
            assert up.wait(60)
        assert line.struck > 0
        assert size <= line.body <= size + line.struck * chunk, f"cut at {marks}"
    assert set(place.stored(this)) == {this.sha256}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, CHUNK, 6 * CHUNK + 1])
def test_a_file_of_any_size_arrives_however_it_is_cut(place: Place, size: int, kind: str) -> None:
    cut_and_send(place, size, [kind] * (2 if size > CHUNK else 1), seed=size + KINDS.index(kind), chunk=CHUNK)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(40))
def test_small_files_arrive_however_they_are_cut(place: Place, seed: int) -> None:
    random = Random(1_000 + seed)
    size = random.choice([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * CHUNK, random.randrange(20 * CHUNK)])
    cut_and_send(place, size, random.choices(KINDS, k=random.randrange(1, 6)), seed=1_000 + seed, chunk=CHUNK)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2])
def test_a_film_of_a_gibibyte_arrives_however_it_is_cut(place: Place, seed: int) -> None:
    kinds = Random(seed).choices(KINDS, k=20)
    cut_and_send(place, LONG, kinds, seed=seed, chunk=4 * MIB)
