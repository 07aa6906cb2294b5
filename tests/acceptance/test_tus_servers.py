"""Our client uploads to a tus server that others wrote, over a line that breaks in the middle of bodies."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Connection

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.errors import Refused, SignInRequired, Stopped, Unreachable
from backhaul.media import uploads
from backhaul.media.put import put
from backhaul.media.transfer import upload
from backhaul.media.uploads import Upload
from backhaul.remotes.plain_tus import PlainTusRemote
from backhaul.schema import replica_metadata
from tests.acceptance.test_tus_clients import CHUNK, CUTS, FILE, line
from tests.services import missing
from tests.unit.media.conftest import Run

SCRIPT = """
const {Server} = require("@tus/server"), {FileStore} = require("@tus/file-store")
const server = new Server({
  path: "/files", datastore: new FileStore({directory: process.argv[1]}), respectForwardedHeaders: true, maxSize: 2e6,
  onIncomingRequest: async (request) => {
    if (request.headers.authorization !== "Bearer theirs") throw {status_code: 401, body: "who are you?"}
  },
})
const listening = server.listen({host: "127.0.0.1", port: 0}, () => console.log(listening.address().port))
process.stdin.resume().on("end", () => process.exit(0))
"""


@pytest.fixture(scope="module")
def node() -> str:
    node = shutil.which("node")
    asked = [node or "node", "-e", "require('@tus/server'); require('@tus/file-store')"]
    if node is None or subprocess.run(asked, capture_output=True, check=False).returncode != 0:
        missing("@tus/server", "npm install @tus/server @tus/file-store, and name their node_modules in NODE_PATH")
    return node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "theirs"
    made.mkdir()
    return made


@pytest.fixture
def server(node: str, folder: Path) -> Iterator[str]:
    command = [node, "-e", SCRIPT, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(60)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(f"sqlite:///{tmp_path / 'replica.sqlite'}")) as database:
        replica_metadata.create_all(database.engine)
        yield database


@pytest.fixture
def take(database: Database, tmp_path: Path) -> Callable[[bytes], Upload]:
    def take(content: bytes) -> Upload:
        path = tmp_path / f"{len(content)}.jpg"
        path.write_bytes(content)
        return put(database, path, enqueue=_no_work, now=0)

    return take


def _no_work(_connection: Connection, _upload: Upload) -> None:
    """The test runs the transfer itself."""


def send(database: Database, this: Upload, url: str, *, stops_at: int | None = None, token: str = "theirs") -> int:
    """One run of a worker that remembers nothing; how many bytes it sent."""
    with closing(PlainTusRemote(url + "/files", token)) as remote:
        run = Run(stops_at)
        done = upload(database, remote, this.id, clock=SystemClock(), context=run, chunk_bytes=CHUNK)
    return int(done["sent"])


def state(database: Database, this: Upload) -> str:
    with database.reading() as connection:
        return uploads.get(connection, this.id).state


def arrived(folder: Path) -> list[str]:
    """The hashes of what the server has."""
    files = [path for path in folder.iterdir() if path.suffix != ".json"]
    return [sha256(path.read_bytes()).hexdigest() for path in files]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
def test_a_file_of_any_size_arrives(
    database: Database, take: Callable[[bytes], Upload], server: str, folder: Path, size: int
) -> None:
    this = take(FILE[:size])
    assert send(database, this, server) == size
    assert state(database, this) == "done"
    assert arrived(folder) == [this.sha256]


def test_over_a_line_that_breaks_the_server_says_where_to_go_on(
    database: Database, take: Callable[[bytes], Upload], server: str, folder: Path
) -> None:
    """Of a chunk that was cut it keeps what came."""
    this, cuts = take(FILE), 0
    with line(server) as between:
        while state(database, this) != "done":
            try:
                send(database, this, between.url)
            except Unreachable:
                cuts += 1
                assert cuts <= CUTS
        assert between.cut == CUTS
    assert arrived(folder) == [this.sha256]


def test_a_run_that_finds_every_byte_there_needs_no_other_word(
    database: Database, take: Callable[[bytes], Upload], server: str, folder: Path
) -> None:
    this = take(FILE)
    with pytest.raises(Stopped):
        send(database, this, server, stops_at=2)
    with database.reading() as connection:
        half_way = uploads.get(connection, this.id)
    with closing(PlainTusRemote(server + "/files", "theirs")) as other:
        assert half_way.url is not None
        at = other.sent(half_way.url)
        assert at == half_way.sent
        assert other.append(half_way.url, at, FILE[at:]) == len(FILE)
        assert other.known([this.sha256, "0" * 64]) == {this.sha256}
    assert send(database, this, server) == 0
    assert state(database, this) == "done"
    assert arrived(folder) == [this.sha256]


def test_what_it_has_forgotten_begins_anew(
    database: Database, take: Callable[[bytes], Upload], server: str, folder: Path
) -> None:
    this = take(FILE)
    with pytest.raises(Stopped):
        send(database, this, server, stops_at=2)
    for path in folder.iterdir():
        path.unlink()
    assert send(database, this, server) == len(FILE)
    assert arrived(folder) == [this.sha256]


def test_what_it_refuses_is_told_by_its_status(
    database: Database, take: Callable[[bytes], Upload], server: str, folder: Path
) -> None:
    large = take(FILE * 3)
    with pytest.raises(Refused) as caught:
        send(database, large, server)
    assert (caught.value.status, caught.value.problem, state(database, large)) == (413, "too-large", "parked")
    this = take(FILE)
    with pytest.raises(SignInRequired):
        send(database, this, server, token="ours")
    assert state(database, this) == "pending"
    with closing(PlainTusRemote(server + "/files", "theirs")) as remote:
        address = remote.create(size=5, sha256=this.sha256, name="a", media_type="image/jpeg")
        with pytest.raises(Refused) as caught:
            remote.append(address, 3, b"x")
        assert (caught.value.status, caught.value.problem) == (409, "offset-mismatch")
        with pytest.raises(Refused):
            remote.fetch(this.sha256, 0, 10)
