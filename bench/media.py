"""Uploads beside a reference pair, in turns, on the same disk: tus-js-client, and `@tus/server` with its file store.

    small   1,000 files of 4 KiB: theirs one tus upload each, one after the other on a kept connection; ours through a
            real worker, from the first claim to the last settle
    large   one file, in chunks of 4 MiB: theirs from start to success; ours from claim to settle

Both send chunks of 4 MiB, each answered before the next, and begin with a disk that has nothing left to write: what one
has left behind would be written in the other's time. The pair neither hashes nor waits for the disk. Ours does
both: a file's SHA-256 is checked, and it is through fsync, before it is said to be there; until then a chunk that is
answered outlives the server's process, and reaches the disk behind that. Needs node, and a node_modules with
tus-js-client, @tus/server and @tus/file-store in NODE_PATH: npm install tus-js-client @tus/server @tus/file-store
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from dataclasses import field as listed
from pathlib import Path

from sqlalchemy import create_engine

from backhaul import Backhaul
from bench.field import Field, field, until

ROUNDS = 5
SMALL, SMALL_BYTES = 1_000, 4_096
LARGE_BYTES = 256 * 2**20
CHUNK = 4 * 2**20
SERVER = """
const {Server} = require("@tus/server"), {FileStore} = require("@tus/file-store")
const server = new Server({path: "/files", datastore: new FileStore({directory: process.argv[1]})})
const listening = server.listen({host: "127.0.0.1", port: 0}, () => console.log(listening.address().port))
"""
CLIENT = """
const tus = require("tus-js-client"), fs = require("fs"), http = require("http"), path = require("path")
const [, endpoint, folder, chunkSize] = process.argv
const httpStack = new tus.DefaultHttpStack({agent: new http.Agent({keepAlive: true})})
const send = (file) => new Promise((onSuccess, onError) => new tus.Upload(fs.createReadStream(file), {
  endpoint, httpStack, onSuccess, onError, chunkSize: Number(chunkSize), retryDelays: null,
  uploadSize: fs.statSync(file).size, metadata: {filename: path.basename(file)},
}).start())
const all = async () => {
  const began = process.hrtime.bigint()
  for (const name of fs.readdirSync(folder)) await send(path.join(folder, name))
  console.log(Number(process.hrtime.bigint() - began) / 1e9)
}
all().catch((error) => { console.error(error); process.exit(1) })
"""


@dataclass(frozen=True)
class Pair:
    """Seconds, round by round."""

    theirs: list[float] = listed(default_factory=list)
    ours: list[float] = listed(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times as fast we are."""
        return [theirs / ours for theirs, ours in zip(self.theirs, self.ours, strict=True)]


def measure() -> dict[str, Pair] | None:
    """By what is sent; None where the reference pair is not installed."""
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", f"{SERVER}; process.exit(0)", "/"], check=False).returncode:
        return None
    found = {"small": Pair(), "large": Pair()}
    with field() as made, _reference(node, made.home.parent) as url, made.up():
        for turn in range(ROUNDS):
            for what, sizes in {"small": [SMALL_BYTES] * SMALL, "large": [LARGE_BYTES]}.items():
                folder = _files(made.home.parent / f"{what}-{turn}", sizes)
                found[what].theirs.append(_theirs(node, url, folder))
                found[what].ours.append(_ours(made, folder))
                shutil.rmtree(folder)
    return found


def _files(folder: Path, sizes: list[int]) -> Path:
    folder.mkdir()
    for number, size in enumerate(sizes):
        (folder / f"{number}.jpg").write_bytes(os.urandom(size))
    return folder


def _theirs(node: str, url: str, folder: Path) -> float:
    os.sync()
    done = subprocess.run([node, "-e", CLIENT, url, folder, str(CHUNK)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def _ours(made: Field, folder: Path) -> float:
    """The queue is closed until all files are put: what is measured is the upload."""
    made.backhaul("condition", "set", "unmetered", "off")
    before = made.one("SELECT count(*) FROM backhaul_upload")
    engine = create_engine(f"sqlite:///{made.home / 'app.sqlite'}")
    with closing(Backhaul(engine)) as backhaul:
        for path in folder.iterdir():
            backhaul.media.put(path, keep=False)
    engine.dispose()
    since = made.one("SELECT max(created_at) FROM backhaul_upload")
    number = made.one("SELECT count(*) FROM backhaul_upload") - before
    os.sync()
    made.backhaul("condition", "set", "unmetered", "on")
    ours = f"FROM backhaul_work WHERE task = 'backhaul.upload' AND started_at > {since}"
    done = f"SELECT count(*) {ours} AND state = 'SUCCEEDED'"
    until(lambda: made.one(done) == number, 120, "all files are on the server", pause=0.1)
    return made.one(f"SELECT max(finished_at) - min(started_at) {ours}") / 1000


@contextmanager
def _reference(node: str, folder: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=folder) as files:
        server = subprocess.Popen([node, "-e", SERVER, files], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/files"
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    for what, pair in (measure() or {}).items():
        ratios = ", ".join(f"{ratio:.2f}" for ratio in pair.ratios)
        print(f"{what}: theirs {pair.theirs} s, ours {pair.ours} s; {statistics.median(pair.ratios):.2f} ({ratios})")
