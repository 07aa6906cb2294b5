"""What becomes of files between `put` and their upload, and of a disk that is full: a typed outcome each, nothing
partial on the server, nothing lost. The server's end: unit/server/test_bad_media.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backhaul.bell import MediaRules, Queue, SilentBell
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import BackhaulError, MediaMissing, Misused, Refused, StorageFull, Unreachable
from backhaul.files import DOWNLOAD, UPLOAD, Media
from backhaul.media import downloads, uploads
from backhaul.media.fetch import download
from backhaul.media.store import Store
from backhaul.media.tidy import look
from backhaul.media.transfer import upload
from backhaul.media.uploads import Upload
from backhaul.remotes.memory_media import MemoryMediaRemote
from tests.faults.small_disk import fill, small_disk
from tests.unit.media.conftest import NOW, Run

CHUNK = 1_000
CONTENT = os.urandom(3_500)
HASH = sha256(CONTENT).hexdigest()


@dataclass
class Scene:
    """An app that puts a photo, the server's media, and the folder in which all of it lies."""

    database: Database
    folder: Path
    media: Media
    remote: MemoryMediaRemote
    clock: Clock

    @property
    def photo(self) -> Path:
        return self.folder / "photo.jpg"

    def send(self, this: Upload, run: Run | None = None) -> None:
        upload(
            self.database,
            self.remote,
            this.id,
            clock=self.clock,
            context=run or Run(),
            chunk_bytes=CHUNK,
            store=Store(self.folder / "media"),
        )

    def row(self, this: Upload) -> Upload:
        with self.database.reading() as connection:
            return uploads.get(connection, this.id)


@pytest.fixture
def scene(database: Database, tmp_path: Path, remote: MemoryMediaRemote, clock: Clock) -> Scene:
    bell = SilentBell([Queue(name="media", kinds=frozenset({UPLOAD, DOWNLOAD}))])
    bell.media = MediaRules(folder=tmp_path / "media", keep=True)
    made = Scene(database, tmp_path, Media(database, bell, clock), remote, clock)
    made.photo.write_bytes(CONTENT)
    return made


class At(Run):
    """Something happens after the first chunk."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens = happens

    def progress(self, progress: dict[str, Any], /) -> None:
        if not self.told:
            self._happens()
        super().progress(progress)


def edit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([CONTENT[-1] ^ 1]))


FATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (Path.unlink, "media-missing"),
    "a folder in its place": (lambda path: (path.unlink(), path.mkdir()), "media-missing"),
    "a pipe in its place": (lambda path: (path.unlink(), os.mkfifo(path)), "media-missing"),
    "truncated": (lambda path: os.truncate(path, 10), "media-changed"),
    "grown": (lambda path: os.truncate(path, 10_000), "media-changed"),
    "replaced": (lambda path: path.write_bytes(bytes(len(CONTENT))), "media-changed"),
    "edited": (edit, "media-changed"),
}


@pytest.mark.parametrize("when", ["while it waits", "on the way"])
@pytest.mark.parametrize("fate", FATES)
def test_a_file_that_is_not_the_one_any_more_is_parked_and_nothing_of_it_is_seen(
    scene: Scene, fate: str, when: str
) -> None:
    strike, problem = FATES[fate]
    this = scene.media.put(scene.photo, keep=False)
    run = Run()
    if when == "on the way":
        run = At(lambda: strike(scene.photo))
        if fate in ("deleted", "a folder in its place", "a pipe in its place", "grown"):
            scene.send(this, run)  # the open file is the one that was put; what is beyond it is not asked for
            assert scene.remote.whole == {HASH: CONTENT}
            return
    else:
        strike(scene.photo)
    with pytest.raises(MediaMissing) as caught:
        scene.send(this, run)
    assert (caught.value.problem, scene.row(this).state, scene.remote.whole) == (problem, "parked", {})
    assert caught.value.hint
    assert str(scene.row(this).reason).startswith(problem)


@pytest.mark.parametrize("fate", FATES)
def test_what_was_kept_arrives_whatever_becomes_of_the_file(scene: Scene, fate: str) -> None:
    this = scene.media.put(scene.photo)
    FATES[fate][0](scene.photo)
    scene.send(this)
    assert scene.remote.whole == {HASH: CONTENT}


NAMES = {
    "../../etc/passwd": "passwd",
    "..": "content",
    "\u202egpj.exe": "\u202egpj.exe",
    "x" * 255: "x" * 255,
    "a\0b": None,
    "x" * 4096: None,
    "\u4f60" * 4096: None,
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_is_the_files_own_or_refused_at_once(scene: Scene, name: str) -> None:
    kept = NAMES[name]
    if kept is None:
        with pytest.raises(Misused):
            scene.media.put(CONTENT, name=name)
        with pytest.raises(Misused):
            scene.media.put(scene.folder / name)
        assert scene.media.list() == []
        return
    this = scene.media.put(CONTENT, name=name)
    scene.send(this)
    (sent,) = scene.remote.uploads.values()
    assert (this.name, sent.name, scene.remote.whole) == (kept, kept, {HASH: CONTENT})
    inside = [path for path in scene.folder.rglob("*") if path.is_file() and path.read_bytes() == CONTENT]
    assert sorted(inside) == [Store(scene.folder / "media").path(HASH), scene.photo]


class Answering(MemoryMediaRemote):
    """Says something else to the second append, so often."""

    def __init__(self, said: BackhaulError, times: int) -> None:
        super().__init__()
        self._said, self._times, self._appends = said, times, 0

    def append(self, address: str, at: int, chunk: bytes | memoryview) -> int:
        self._appends += 1
        if self._appends > 1 and self._times:
            self._times -= 1
            raise self._said
        return super().append(address, at, chunk)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (Unreachable("the server received damaged bytes and threw them away"), "sending"),
        (Unreachable("the server could not answer (HTTP 507)"), "sending"),
        (Unreachable("the server could not answer (HTTP 500)"), "sending"),
        (Refused("not of this type", problem="media-type-forbidden", status=415), "parked"),
        (Refused("too large", problem="upload-too-large", status=413), "parked"),
    ],
    ids=lambda one: one if isinstance(one, str) else str(one)[:30],
)
def test_what_the_server_says_is_waited_for_or_parked_and_then_it_arrives(
    scene: Scene, said: BackhaulError, state: str
) -> None:
    scene.remote = Answering(said, 1)
    this = scene.media.put(scene.photo)
    with pytest.raises(type(said)):
        scene.send(this)
    assert (scene.row(this).state, scene.remote.whole) == (state, {})
    if state == "parked":
        scene.photo.unlink()
        this = scene.media.retry(this.id)
    scene.send(this)
    assert scene.remote.whole == {HASH: CONTENT}
    assert scene.remote.appended == len(CONTENT) + (1_000 if state == "parked" else 0)


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk() as folder:
        yield folder


def test_a_full_disk_takes_no_file_and_loses_none(scene: Scene, disk: Path) -> None:
    scene.media._bell.media = MediaRules(folder=disk / "media", keep=True)
    before = scene.media.put(b"from before", name="before.txt")
    fill(disk / "filler")
    for put in (lambda: scene.media.put(scene.photo), lambda: scene.media.put(CONTENT)):
        with pytest.raises(StorageFull) as caught:
            put()
        assert caught.value.hint
    assert [one.id for one in scene.media.list()] == [before.id]
    assert look(scene.database, Store(disk / "media")).number == 0
    with scene.media.open(before.sha256) as file:
        assert file.read() == b"from before"
    (disk / "filler").unlink()
    assert scene.media.put(scene.photo).sha256 == HASH


def test_a_download_onto_a_full_disk_waits_and_goes_on(scene: Scene, disk: Path, clock: Clock) -> None:
    scene.remote.whole[HASH] = CONTENT
    with scene.database.writing() as connection:
        downloads.ask(connection, HASH, now=NOW)
    store = Store(disk / "media")

    def bring() -> dict[str, Any]:
        return download(scene.database, scene.remote, HASH, clock=clock, context=Run(), store=store, chunk_bytes=CHUNK)

    fill(disk / "filler")
    with pytest.raises(StorageFull):
        bring()
    with scene.database.reading() as connection:
        known = downloads.get(connection, HASH)
    assert known is not None
    assert known.state == "wanted"
    assert not store.path(HASH).exists()
    (disk / "filler").unlink()
    assert bring()["size"] == len(CONTENT)
    assert store.path(HASH).read_bytes() == CONTENT
