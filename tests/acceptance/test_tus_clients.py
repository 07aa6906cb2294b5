"""Uploads to our server by tus clients that others wrote, over a line that breaks in the middle of bodies."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tusclient.client import TusClient

from backhaul.remotes.http import HttpRemote
from backhaul.remotes.tus import TusRemote
from tests.services import SyncServer, missing, sync_server

FILE = os.urandom(1_000_000)
CHUNK = 250_000
CUT_AFTER = 180_000  # bytes of a connection, for as many connections as there are cuts
CUTS = 5
SCRIPT = """
const tus = require("tus-js-client"), fs = require("fs")
const [, url, token, path, hash, beside] = process.argv
const upload = new tus.Upload(fs.createReadStream(path), {
  endpoint: url, chunkSize: %d, parallelUploads: Number(beside),
  retryDelays: Array(20).fill(0),
  headers: {Authorization: "Bearer " + token}, metadata: {sha256: hash, filename: "file.bin"},
  onError: (error) => { console.error(String(error)); process.exit(1) },
  onSuccess: () => console.log(JSON.stringify({url: upload.url})),
})
upload.start()
"""


class Line:
    """A way to the server whose first connections are cut after some bytes. cut: how many of them were."""

    def __init__(self, target: str) -> None:
        place = urlsplit(target)
        self._target = (str(place.hostname), int(place.port or 0))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.cut = 0
        self._open: list[socket.socket] = [self._listening]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._target, timeout=20)
                self._open += [client, server]
                for pipe in (self._there, self._back):
                    self._threads.append(threading.Thread(target=pipe, args=(client, server)))
                    self._threads[-1].start()

    def _there(self, client: socket.socket, server: socket.socket) -> None:
        left = CUT_AFTER
        with suppress(OSError):
            while data := client.recv(16_384):
                left -= len(data)
                if left < 0 and self.cut < CUTS:
                    self.cut += 1
                    break
                server.sendall(data)
            for one in (server, client):
                one.shutdown(socket.SHUT_RDWR)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(16_384):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def line(target: str) -> Iterator[Line]:
    made = Line(target)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyncServer]:
    with sync_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def token(server: SyncServer) -> str:
    remote = HttpRemote(server.url)
    try:
        return remote.register(server.enrol("shop"), [], "camera").token
    finally:
        remote.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file.bin"
    made.write_bytes(FILE)
    return made


def arrived(server: SyncServer, token: str) -> bool:
    remote = TusRemote(server.url, token)
    try:
        return remote.known([sha256(FILE).hexdigest()]) != set()
    finally:
        remote.close()


@pytest.mark.parametrize("checksums", [False, True], ids=["plain", "with checksums"])
def test_tuspy_uploads_over_a_line_that_breaks(server: SyncServer, token: str, checksums: bool) -> None:
    with line(server.url) as between:
        client = TusClient(between.url + "/v1/media", headers={"Authorization": f"Bearer {token}"})
        client.uploader(
            file_stream=BytesIO(FILE),  # of a path it leaves files open
            chunk_size=CHUNK,
            metadata={"sha256": sha256(FILE).hexdigest(), "filename": "file.bin"},
            retries=20,
            retry_delay=0,
            upload_checksum=checksums,
        ).upload()
        assert between.cut == CUTS
    assert arrived(server, token)


@pytest.fixture(scope="module")
def node() -> str:
    node = shutil.which("node")
    asked = [node or "node", "-e", "require('tus-js-client')"]
    if node is None or subprocess.run(asked, capture_output=True, check=False).returncode != 0:
        missing("tus-js-client", "npm install tus-js-client, and name its node_modules in NODE_PATH")
    return node


@pytest.mark.parametrize("beside", [1, 3], ids=["one after the other", "three beside each other"])
def test_tus_js_client_uploads_over_a_line_that_breaks(
    node: str, server: SyncServer, token: str, file: Path, beside: int
) -> None:
    with line(server.url) as between:
        done = subprocess.run(
            [
                node,
                "-e",
                SCRIPT % CHUNK,
                between.url + "/v1/media",
                token,
                str(file),
                sha256(FILE).hexdigest(),
                str(beside),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "/v1/media/" in json.loads(done.stdout)["url"]
        assert between.cut >= min(CUTS, 3)  # three parts are sent in fewer connections
    assert arrived(server, token)
