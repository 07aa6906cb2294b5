"""A file on its way from a replica to a real server, whatever happens in between."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.errors import Busy, MediaMissing, Stopped, Unreachable
from backhaul.media import uploads
from backhaul.media.put import put
from backhaul.media.transfer import CHUNK_BYTES, upload
from backhaul.media.uploads import Upload
from backhaul.remotes.connection import Body
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.tus import TusRemote
from backhaul.schema import replica_metadata
from tests.journey.server_process import ServerProcess, serving
from tests.unit.remotes.stub import DATE, reply, stub

MIB = 2**20


class CountingRemote(TusRemote):
    """Remembers the appends that the server confirmed."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self.kept: list[tuple[int, int]] = []

    def append(self, address: str, at: int, chunk: Body) -> int:
        reached = super().append(address, at, chunk)
        self.kept.append((at, len(chunk)))
        return reached


@dataclass
class Run:
    """The context of a run. at_check: what happens before the chunk with this number (from 1)."""

    at_check: dict[int, Callable[[], None]] = field(default_factory=dict)
    checks: int = 0
    told: list[int] = field(default_factory=list)

    def check(self) -> None:
        self.checks += 1
        self.at_check.get(self.checks, lambda: None)()

    def progress(self, progress: dict[str, Any], /) -> None:
        self.told.append(progress["sent"])


@dataclass
class Camera:
    """A replica with files to upload."""

    database: Database
    folder: Path
    server: ServerProcess
    token: str

    def take(self, size: int) -> Upload:
        """Put a file of this size, whose bytes do not repeat themselves from chunk to chunk."""
        path = self.folder / f"{size}.jpg"
        block = bytes(range(251)) * 4_177
        with path.open("wb") as file:
            for number in range(0, size, len(block)):
                file.write((number.to_bytes(8, "big") + block[8:])[: size - number])
        return put(self.database, path, enqueue=_no_work, now=SystemClock().now())

    def send(self, this: Upload, run: Run | None = None, **options: Any) -> tuple[dict[str, Any], CountingRemote]:
        with closing(CountingRemote(self.server.url, self.token)) as remote:
            return self.send_through(remote, this, run, **options), remote

    def send_through(self, remote: TusRemote, this: Upload, run: Run | None = None, **options: Any) -> dict[str, Any]:
        return upload(
            self.database,
            remote,
            this.id,
            clock=SystemClock(),
            context=run or Run(),
            queue="media",
            worker="w",
            **options,
        )

    def row(self, this: Upload) -> Upload:
        with self.database.reading() as connection:
            return uploads.get(connection, this.id)

    def arrived(self, this: Upload) -> bool:
        """Whether the server gives back the very bytes."""
        return sha256(self.server.content(this.sha256, self.token)).hexdigest() == this.sha256


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Camera]:
    with serving(tmp_path / "server") as server:
        database = open_database(f"sqlite:///{tmp_path / 'replica.sqlite'}")
        replica_metadata.create_all(database.engine)
        with closing(HttpRemote(server.url)) as remote:
            token = remote.register(server.enrol(), [], "camera").token
        yield Camera(database, tmp_path, server, token)
        database.close()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 64 * MIB])
def test_a_file_of_any_size_arrives_with_its_very_bytes(camera: Camera, size: int) -> None:
    this = camera.take(size)
    outcome, remote = camera.send(this)
    assert outcome == {"sha256": this.sha256, "size": size, "sent": size}
    assert sum(length for _, length in remote.kept) == size
    assert (camera.row(this).state, camera.row(this).sent, camera.row(this).queue) == ("done", size, _queue(size))
    assert camera.arrived(this)


def test_a_run_that_is_stopped_half_way_is_taken_up_at_the_byte(camera: Camera) -> None:
    this, remote = camera.take(8 * MIB), CountingRemote(camera.server.url, camera.token)

    def stop() -> None:
        raise Stopped("constraint_unmetered")

    with closing(remote):
        with pytest.raises(Stopped):
            camera.send_through(remote, this, Run({5: stop}), chunk_bytes=MIB)
        half_way = camera.row(this)
        assert 0 < half_way.sent < this.size
        outcome = camera.send_through(remote, this, chunk_bytes=MIB)
    assert outcome["sent"] == this.size - half_way.sent
    assert _covered_once(remote.kept, this.size)
    assert camera.arrived(this)


def test_a_server_killed_half_way_is_sent_the_rest_when_it_is_back(camera: Camera) -> None:
    this = camera.take(8 * MIB)
    with closing(CountingRemote(camera.server.url, camera.token)) as remote:
        with pytest.raises(Unreachable):
            camera.send_through(remote, this, Run({6: camera.server.kill}), chunk_bytes=MIB)
        half_way = camera.row(this)
        assert half_way.state == "sending"
        assert 0 < half_way.sent < this.size
        camera.server.start()
        outcome = camera.send_through(remote, this, chunk_bytes=MIB)
    assert outcome["sent"] == this.size - half_way.sent
    assert _covered_once(remote.kept, this.size)
    assert camera.arrived(this)


def test_a_process_killed_half_way_is_taken_up_at_the_byte_by_the_next(camera: Camera) -> None:
    this = camera.take(8 * MIB)
    script = _script(
        camera,
        f"""
        class Mortal(Run):
            def progress(self, progress):
                if progress["sent"] >= {3 * MIB}:
                    os.kill(os.getpid(), signal.SIGKILL)
        send({this.id!r}, Mortal())
        """,
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=60)
    assert killed.returncode == -9, killed.stderr.decode()
    half_way = camera.row(this)
    assert 3 * MIB <= half_way.sent < this.size
    _, rest = camera.send(this, chunk_bytes=MIB)
    assert rest.kept[0][0] == half_way.sent
    assert camera.arrived(this)


def test_the_same_content_is_sent_once(camera: Camera) -> None:
    first, second = camera.take(MIB), camera.take(MIB)
    camera.send(first)
    outcome, remote = camera.send(second)
    assert (outcome["sent"], remote.kept) == (0, [])
    assert camera.row(second).state == "done"


def test_a_file_that_is_gone_is_parked_with_the_reason(camera: Camera) -> None:
    this = camera.take(MIB)
    this.file.unlink()
    with pytest.raises(MediaMissing):
        camera.send(this)
    assert camera.row(this).state == "parked"
    assert "No such file" in str(camera.row(this).reason)


def test_a_file_overwritten_on_the_way_is_parked_and_not_kept(camera: Camera) -> None:
    this = camera.take(3 * MIB)

    def overwrite() -> None:
        with this.file.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")

    with pytest.raises(MediaMissing):
        camera.send(this, Run({3: overwrite}), chunk_bytes=MIB)
    assert str(camera.row(this).reason).startswith("media-changed")


@pytest.mark.parametrize(
    ("answer", "error", "wait"),
    [
        (reply(200, b"<html>Sign in</html>", content_type="text/html", protocol=None), Unreachable, None),
        (reply(302, Location="https://portal.example"), Unreachable, None),
        (reply(429, Retry_After="20"), Busy, 20_000),
        (reply(503, Retry_After="Sun, 06 Nov 1994 08:50:37 GMT", Date=DATE), Busy, 60_000),
        (reply(200)[:40], Unreachable, None),
        (b"", Unreachable, None),
    ],
    ids=["html", "redirect", "429", "503", "cut", "nothing"],
)
def test_what_stands_in_for_the_server_changes_nothing(
    camera: Camera, answer: bytes, error: type[Unreachable | Busy], wait: int | None
) -> None:
    this = camera.take(1_000)
    with stub(answer) as server, closing(TusRemote(server.url, camera.token)) as remote:
        with pytest.raises(error) as caught:
            camera.send_through(remote, this)
        assert caught.value.retry_after_ms == wait
    assert camera.row(this) == replace(this, fence=1)


@pytest.mark.slow
def test_memory_stays_at_a_chunk_however_large_the_file(camera: Camera) -> None:
    small, large = camera.folder / "small", camera.folder / "large"
    small.write_bytes(b"x" * (9 * MIB))
    with large.open("wb") as file:
        file.truncate(256 * MIB)
    ids = [put(camera.database, path, enqueue=_no_work, now=0).id for path in (small, large)]
    script = _script(
        camera,
        f"""
        peaks = []
        for upload_id in {ids!r}:
            send(upload_id, Run())
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(json.dumps(peaks))
        """,
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=170)
    before, after = json.loads(done.stdout)
    assert after - before < 8 * 1024, f"{before} KiB, then {after} KiB"


def _queue(size: int) -> str | None:
    return "media" if size else None


def _covered_once(kept: list[tuple[int, int]], size: int) -> bool:
    """Whether the appends follow each other without a gap and without a byte sent twice."""
    reached = 0
    for at, length in kept:
        if at != reached:
            return False
        reached += length
    return reached == size


def _script(camera: Camera, body: str) -> str:
    """A program that sends uploads in a process of its own."""
    return f"""
import json, os, resource, signal
from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.media.transfer import upload
from backhaul.remotes.tus import TusRemote

class Run:
    def check(self): pass
    def progress(self, progress): pass

database = open_database({str(camera.database.engine.url)!r})
remote = TusRemote({camera.server.url!r}, {camera.token!r})

def send(upload_id, run):
    upload(database, remote, upload_id, clock=SystemClock(), context=run, chunk_bytes={MIB})
""" + "\n".join(line[8:] for line in body.splitlines())


def _no_work(_connection: Connection, _upload: Upload) -> None:
    """The test runs the transfer itself."""
