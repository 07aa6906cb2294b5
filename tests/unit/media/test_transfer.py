"""One upload, against a server's media in memory: what is sent, what is taken up, what is parked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Busy, MediaMissing, Refused, Stopped, Unreachable
from backhaul.media import uploads
from backhaul.media.transfer import upload
from backhaul.media.uploads import Upload
from backhaul.remotes.memory_media import MemoryMediaRemote
from tests.unit.media.conftest import Run

CHUNK = 10
CONTENT = bytes(range(35))

Register = Callable[..., Upload]
Send = Callable[..., dict[str, Any]]


@pytest.fixture
def send(database: Database, remote: MemoryMediaRemote, clock: Clock) -> Send:
    def send(this: Upload, run: Run | None = None, through: MemoryMediaRemote | None = None) -> dict[str, Any]:
        return upload(
            database,
            through or remote,
            this.id,
            clock=clock,
            context=run or Run(),
            chunk_bytes=CHUNK,
            queue="media",
            worker="w1",
        )

    return send


@pytest.fixture
def row(database: Database) -> Callable[[Upload], Upload]:
    def row(this: Upload) -> Upload:
        with database.reading() as connection:
            return uploads.get(connection, this.id)

    return row


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_file_of_any_size_arrives_whole(
    send: Send, row: Any, registered: Register, remote: MemoryMediaRemote, size: int
) -> None:
    this = registered(CONTENT[:size])
    assert send(this) == {"sha256": this.sha256, "size": size, "sent": size}
    assert remote.whole == {this.sha256: CONTENT[:size]}
    assert (row(this).state, row(this).sent) == ("done", size)


def test_progress_is_told_and_kept_after_every_chunk(send: Send, row: Any, registered: Register) -> None:
    this, run = registered(CONTENT), Run()
    send(this, run)
    assert [told["sent"] for told in run.told] == [10, 20, 30, 35]
    assert {told["total"] for told in run.told} == {35}
    assert (row(this).queue, row(this).worker) == ("media", "w1")


def test_what_the_server_has_is_not_sent(send: Send, row: Any, registered: Register, remote: MemoryMediaRemote) -> None:
    first, second = registered(CONTENT, "a.jpg"), registered(CONTENT, "b.jpg")
    send(first)
    run = Run()
    assert send(second, run)["sent"] == 0
    assert (row(second).state, remote.appended, run.told) == ("done", len(CONTENT), [])


def test_what_is_done_is_done(send: Send, registered: Register, remote: MemoryMediaRemote) -> None:
    this = registered(CONTENT)
    send(this)
    this.file.unlink()
    assert send(this)["sent"] == 0
    assert remote.appended == len(CONTENT)


def test_a_run_that_is_stopped_is_taken_up_at_the_byte(
    send: Send, row: Any, registered: Register, remote: MemoryMediaRemote
) -> None:
    this = registered(CONTENT)
    with pytest.raises(Stopped):
        send(this, Run(stops_at=2))
    assert (row(this).state, row(this).sent) == ("sending", 20)
    assert send(this)["sent"] == 15
    assert remote.appended == len(CONTENT)


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


class MortalRemote(MemoryMediaRemote):
    """Kills its user at a given call, before or after the call has taken effect."""

    def __init__(self) -> None:
        super().__init__()
        self.dies_at: tuple[int, bool] | None = None
        self.calls = 0

    def _call(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.dies_at == (self.calls, False):
            raise Killed
        answer = call()
        if self.dies_at == (self.calls, True):
            raise Killed
        return answer

    def has(self, sha256: str) -> bool:
        return bool(self._call(lambda: super(MortalRemote, self).has(sha256)))

    def create(self, **values: Any) -> str:
        return str(self._call(lambda: super(MortalRemote, self).create(**values)))

    def append(self, address: str, at: int, chunk: bytes | memoryview) -> int:
        return int(self._call(lambda: super(MortalRemote, self).append(address, at, chunk)))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 8))
def test_a_process_killed_at_any_call_loses_nothing(
    send: Send, row: Any, registered: Register, call: int, after: bool
) -> None:
    this, remote = registered(CONTENT), MortalRemote()
    remote.dies_at = (call, after)
    with pytest.raises(Killed):
        send(this, through=remote)
    remote.dies_at = None
    send(this, through=remote)
    assert remote.whole == {this.sha256: CONTENT}
    assert remote.appended == len(CONTENT)
    assert row(this).state == "done"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(stops=st.lists(st.integers(0, 4), max_size=4), forgets=st.sets(st.integers(0, 3), max_size=1))
def test_however_often_it_is_stopped_and_forgotten_it_arrives(
    send: Send, registered: Register, stops: list[int], forgets: set[int]
) -> None:
    this, remote = registered(CONTENT), MemoryMediaRemote()
    for number, stop in enumerate(stops):
        if number in forgets:
            remote.forget()
        try:
            send(this, Run(stops_at=stop), through=remote)
        except Stopped:
            continue
    send(this, through=remote)
    assert remote.whole == {this.sha256: CONTENT}


def test_an_upload_that_the_server_forgot_begins_anew(
    send: Send, row: Any, registered: Register, remote: MemoryMediaRemote
) -> None:
    this = registered(CONTENT)
    with pytest.raises(Stopped):
        send(this, Run(stops_at=2))
    remote.forget()
    assert send(this)["sent"] == len(CONTENT)
    assert row(this).state == "done"


def test_an_upload_that_is_forgotten_between_two_chunks_begins_anew_later(
    send: Send, row: Any, registered: Register, remote: MemoryMediaRemote
) -> None:
    class Forgetting(Run):
        def progress(self, progress: dict[str, Any], /) -> None:
            remote.forget()

    this = registered(CONTENT)
    with pytest.raises(Unreachable):
        send(this, Forgetting())
    assert (row(this).state, row(this).sent, row(this).url) == ("pending", 0, None)
    send(this)
    assert row(this).state == "done"


def test_a_wrong_offset_is_set_right_by_the_server(send: Send, registered: Register, remote: MemoryMediaRemote) -> None:
    class Twice(Run):
        """Another worker sends the next chunk before we do."""

        def progress(self, progress: dict[str, Any], /) -> None:
            if progress["sent"] == 10:
                (address,) = remote.uploads
                remote.append(address, 10, CONTENT[10:20])

    this = registered(CONTENT)
    send(this, Twice())
    assert remote.whole == {this.sha256: CONTENT}
    assert remote.appended == len(CONTENT)


def test_a_run_that_was_taken_over_sends_nothing_more(
    send: Send, row: Any, registered: Register, remote: MemoryMediaRemote
) -> None:
    class Sleeping(Run):
        """Asleep after the first chunk, until another run has sent the second."""

        def progress(self, progress: dict[str, Any], /) -> None:
            with pytest.raises(Stopped):
                send(this, Run(stops_at=1))

    this = registered(CONTENT)
    with pytest.raises(Busy, match="taken over"):
        send(this, Sleeping())
    assert (remote.appended, row(this).sent, row(this).state) == (20, 20, "sending")
    send(this)
    assert remote.whole == {this.sha256: CONTENT}
    assert remote.appended == len(CONTENT)


def test_a_run_that_was_taken_over_parks_nothing(send: Send, row: Any, registered: Register) -> None:
    class Sleeping(Run):
        def progress(self, progress: dict[str, Any], /) -> None:
            with pytest.raises(Stopped):
                send(this, Run(stops_at=0))
            os.truncate(this.path, 5)

    this = registered(CONTENT)
    with pytest.raises(Busy):
        send(this, Sleeping())
    assert row(this).state == "sending"


def test_a_missing_file_is_parked_with_the_reason(send: Send, row: Any, registered: Register) -> None:
    this = registered(CONTENT)
    this.file.unlink()
    with pytest.raises(MediaMissing) as caught:
        send(this)
    assert "No such file" in str(caught.value)
    parked = row(this)
    assert parked.state == "parked"
    assert "media-missing" in parked.reason
    assert "No such file" in parked.reason
    with pytest.raises(Refused, match="parked"):
        send(this)


def test_a_file_that_was_only_touched_is_sent(send: Send, row: Any, registered: Register) -> None:
    this = registered(CONTENT)
    os.utime(this.path, ns=(1, 1))
    send(this)
    assert (row(this).state, row(this).modified_ns) == ("done", 1)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"!", CONTENT[:-1] + b"!"])
def test_a_file_that_was_changed_is_parked(send: Send, row: Any, registered: Register, content: bytes) -> None:
    this = registered(CONTENT)
    this.file.write_bytes(content)
    os.utime(this.path, ns=(1, 1))
    with pytest.raises(MediaMissing, match="no longer the file"):
        send(this)
    assert (row(this).state, row(this).reason.split(":")[0]) == ("parked", "media-changed")


@pytest.mark.parametrize("content", [CONTENT[:12], CONTENT[:-1] + b"!"])
def test_a_file_that_changes_on_the_way_is_parked(send: Send, row: Any, registered: Register, content: bytes) -> None:
    this = registered(CONTENT)

    class Meddling(Run):
        def progress(self, progress: dict[str, Any], /) -> None:
            Path(this.path).write_bytes(content)

    with pytest.raises(MediaMissing):
        send(this, Meddling())
    assert row(this).state == "parked"


class SpoilingRemote(MemoryMediaRemote):
    """Loses bits on its disk."""

    spoils = 1

    def append(self, address: str, at: int, chunk: bytes | memoryview) -> int:
        if at == 0 and self.spoils:
            self.spoils -= 1
            chunk = bytes(len(chunk))
        return super().append(address, at, chunk)


def test_bytes_that_the_server_spoilt_are_sent_once_more(send: Send, row: Any, registered: Register) -> None:
    this, remote = registered(CONTENT), SpoilingRemote()
    with pytest.raises(Unreachable):
        send(this, through=remote)
    assert (row(this).state, row(this).reason) == ("pending", "content-mismatch")
    send(this, through=remote)
    assert remote.whole == {this.sha256: CONTENT}


def test_bytes_that_the_server_spoils_again_are_parked(send: Send, row: Any, registered: Register) -> None:
    this, remote = registered(CONTENT), SpoilingRemote()
    remote.spoils = 2
    with pytest.raises(Unreachable):
        send(this, through=remote)
    with pytest.raises(Refused):
        send(this, through=remote)
    assert (row(this).state, row(this).reason.split(":")[0]) == ("parked", "content-mismatch")


def test_a_server_that_has_all_bytes_but_not_the_content_is_not_believed(
    send: Send, row: Any, registered: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    this, remote = registered(CONTENT), MemoryMediaRemote()
    monkeypatch.setattr(remote, "has", lambda _sha256: False)
    with pytest.raises(Unreachable):
        send(this, through=remote)
    assert row(this).state == "pending"


def test_what_the_server_refuses_is_parked_with_its_name(
    send: Send, row: Any, registered: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    this, remote = registered(CONTENT), MemoryMediaRemote()

    def create(**_values: object) -> str:
        raise Refused("16 GiB at the most", problem="upload-too-large", status=413)

    monkeypatch.setattr(remote, "create", create)
    with pytest.raises(Refused):
        send(this, through=remote)
    assert (row(this).state, row(this).reason) == ("parked", "upload-too-large: 16 GiB at the most")


def test_an_unreachable_server_changes_nothing(
    send: Send, row: Any, registered: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    this, remote = registered(CONTENT), MemoryMediaRemote()

    def has(_sha256: str) -> bool:
        raise Unreachable

    monkeypatch.setattr(remote, "has", has)
    with pytest.raises(Unreachable):
        send(this, through=remote)
    assert row(this) == replace(this, fence=1)


class MovedClock(Clock):
    moment = 0

    def now(self) -> int:
        return self.moment


class SlowRemote(MemoryMediaRemote):
    """takes_ms: of each append; the last one is of all that follow."""

    def __init__(self, clock: MovedClock, *takes_ms: int) -> None:
        super().__init__()
        self.clock = clock
        self.takes_ms = list(takes_ms)
        self.sizes: list[int] = []

    def append(self, address: str, at: int, chunk: bytes | memoryview) -> int:
        self.clock.moment += self.takes_ms.pop(0) if len(self.takes_ms) > 1 else self.takes_ms[0]
        self.sizes.append(len(chunk) // 1024)
        return super().append(address, at, chunk)


def test_chunks_grow_on_a_quick_link_and_shrink_on_a_slow_one(database: Database, registered: Register) -> None:
    clock = MovedClock()
    this, remote = registered(bytes(1_328 * 1024)), SlowRemote(clock, 100, 100, 100, 5_000, 11_000, 11_000, 11_000, 20)
    upload(database, remote, this.id, clock=clock, context=Run(), chunk_bytes=256 * 1024)
    assert remote.sizes == [64, 256, 256, 256, 256, 128, 64, 48]
    assert set(remote.whole) == {this.sha256}
