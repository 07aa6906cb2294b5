"""One download, against a server's media in memory: what is fetched, what is taken up, what is believed."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import MediaNotHere, Refused, Stopped, Unreachable
from backhaul.media import contents, downloads
from backhaul.media.fetch import download
from backhaul.media.reading import USED_MS, opened_here
from backhaul.media.store import Store
from backhaul.media.tidy import look, tidy
from backhaul.remotes.base import Fetched
from backhaul.remotes.memory_media import MemoryMediaRemote
from tests.unit.media.conftest import NOW, Run

CHUNK = 10
CONTENT = bytes(range(35))
HASH = sha256(CONTENT).hexdigest()

Bring = Callable[..., dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "media")


@pytest.fixture
def bring(database: Database, remote: MemoryMediaRemote, clock: Clock, store: Store) -> Bring:
    remote.whole[HASH] = CONTENT

    def bring(run: Run | None = None, through: MemoryMediaRemote | None = None, content: str = HASH) -> dict[str, Any]:
        with database.writing() as connection:
            downloads.ask(connection, content, now=NOW)
        return download(
            database,
            through or remote,
            content,
            clock=clock,
            context=run or Run(),
            store=store,
            chunk_bytes=CHUNK,
        )

    return bring


def row(database: Database) -> downloads.Download | None:
    with database.reading() as connection:
        return downloads.get(connection, HASH)


def read(database: Database, store: Store, content: str = HASH, now: int = NOW) -> bytes | None:
    file = opened_here(database, store, content, now=now)
    if file is None:
        return None
    with file:
        return file.read()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_content_of_any_size_comes_whole(
    database: Database, bring: Bring, store: Store, remote: MemoryMediaRemote, size: int
) -> None:
    name = sha256(CONTENT[:size]).hexdigest()
    remote.whole[name] = CONTENT[:size]
    assert bring(content=name) == {"sha256": name, "size": size, "received": size}
    assert read(database, store, name) == CONTENT[:size]
    with database.reading() as connection:
        known = contents.get(connection, name)
        assert downloads.get(connection, name) is None
    assert known is not None
    assert (known.size, known.on_server) == (size, True)
    assert look(database, store).number == 0


def test_a_run_that_is_stopped_is_taken_up_at_the_byte(
    database: Database, bring: Bring, store: Store, remote: MemoryMediaRemote
) -> None:
    with pytest.raises(Stopped):
        bring(Run(stops_at=2))
    known = row(database)
    assert known is not None
    assert (known.state, known.size, known.received) == ("wanted", 35, 20)
    assert read(database, store) is None
    assert tidy(database, store).number == 0  # what has come is kept while it is wanted
    assert bring()["received"] == 15
    assert remote.fetched == len(CONTENT)
    assert read(database, store) == CONTENT


def test_what_is_here_is_not_fetched(bring: Bring, remote: MemoryMediaRemote) -> None:
    bring()
    assert bring()["received"] == 0
    assert remote.fetched == len(CONTENT)


def test_what_the_server_does_not_have_yet_is_said_and_comes_later(
    database: Database, bring: Bring, remote: MemoryMediaRemote
) -> None:
    del remote.whole[HASH]
    with pytest.raises(MediaNotHere) as caught:
        bring()
    known = row(database)
    assert known is not None
    assert (caught.value.why, known.state, known.reason) == (
        "not-on-server",
        "wanted",
        "the server does not have it",
    )
    remote.whole[HASH] = CONTENT
    assert bring()["received"] == len(CONTENT)


class SpoilingRemote(MemoryMediaRemote):
    """Sends other bytes, so often."""

    spoils = 1

    def fetch(self, sha256: str, at: int, most: int) -> Fetched:
        got = super().fetch(sha256, at, most)
        if at == 0 and self.spoils:
            self.spoils -= 1
            return Fetched(bytes(len(got.content))[:-1] + b"!", got.size)
        return got


def test_spoilt_bytes_are_never_seen_and_fetched_once_more(database: Database, bring: Bring, store: Store) -> None:
    remote = SpoilingRemote()
    remote.whole[HASH] = CONTENT
    with pytest.raises(Unreachable):
        bring(through=remote)
    assert read(database, store) is None
    bring(through=remote)
    assert read(database, store) == CONTENT


def test_bytes_that_are_spoilt_again_are_parked_until_they_are_asked_for(
    database: Database, bring: Bring, store: Store
) -> None:
    remote = SpoilingRemote()
    remote.whole[HASH], remote.spoils = CONTENT, 2
    with pytest.raises(Unreachable):
        bring(through=remote)
    with pytest.raises(Refused):
        bring(through=remote)
    known = row(database)
    assert known is not None
    assert (known.state, str(known.reason).split(":")[0]) == ("parked", "content-mismatch")
    assert tidy(database, store).leftovers == 1
    bring(through=remote)
    assert read(database, store) == CONTENT


def test_a_download_that_was_given_up_leaves_nothing(database: Database, bring: Bring, store: Store) -> None:
    with pytest.raises(Stopped):
        bring(Run(stops_at=2))
    with database.writing() as connection:
        downloads.finish(connection, HASH)
    assert tidy(database, store).leftovers == 1
    assert look(database, store).number == 0


@pytest.mark.parametrize("fate", ["edited", "truncated", "deleted"])
def test_what_was_spoilt_here_is_not_read_and_comes_again(
    database: Database, bring: Bring, store: Store, fate: str
) -> None:
    bring()
    path = store.path(HASH)
    path.chmod(0o600)
    if fate == "edited":
        path.write_bytes(CONTENT[:-1] + b"!")
    elif fate == "truncated":
        path.write_bytes(CONTENT[:-1])
    else:
        path.unlink()
    assert read(database, store) is None
    bring()
    assert read(database, store) == CONTENT


def test_a_file_that_was_only_touched_is_read_and_its_use_is_noted_seldom(
    database: Database, bring: Bring, store: Store
) -> None:
    bring()
    store.path(HASH).touch()

    def used_at() -> int:
        with database.reading() as connection:
            known = contents.get(connection, HASH)
        assert known is not None
        return known.used_at

    assert read(database, store, now=NOW + USED_MS - 1) == CONTENT
    assert used_at() == NOW
    assert read(database, store, now=NOW + USED_MS) == CONTENT
    assert used_at() == NOW + USED_MS


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 5))
def test_a_process_killed_at_any_call_loses_nothing(
    database: Database, bring: Bring, store: Store, call: int, after: bool
) -> None:
    class Mortal(MemoryMediaRemote):
        calls = 0

        def fetch(self, sha256: str, at: int, most: int) -> Fetched:
            self.calls += 1
            if self.calls == call and not after:
                raise Killed
            got = super().fetch(sha256, at, most)
            if self.calls == call:
                raise Killed
            return got

    remote = Mortal()
    remote.whole[HASH] = CONTENT
    with pytest.raises(Killed):
        bring(through=remote)
    bring(through=remote)
    assert read(database, store) == CONTENT
    assert remote.fetched <= len(CONTENT) + CHUNK
