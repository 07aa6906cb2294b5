"""Many small files that the run of one sends: what is taken along, what is given back, and what a death leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import event

from backhaul.errors import Busy, Refused, Unreachable
from backhaul.remotes.base import Whole
from backhaul.work import ledger
from backhaul.work.beside import LEASE_MS
from backhaul.work.request import WorkRequest
from tests.contract.media.conftest import CHUNK, KIB, Camera, Counting

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

DONE, WAITS = ("done", "SUCCEEDED"), ("pending", "ENQUEUED")


def test_what_waits_beside_a_small_file_goes_with_it(camera: Camera) -> None:
    files = camera.put_many(700)
    assert camera.run(files[0]).kind == "done"
    assert camera.states(files) == {DONE}
    assert camera.remote.whole.keys() == {one.sha256 for one in files}
    assert camera.remote.messages[0][0].sha256 == files[0].sha256
    assert len(camera.remote.messages) == 2
    assert [len(asked) for asked in camera.remote.asked] == [700]
    one = camera.desk.row(files[9].id)
    assert (one.output, one.attempt) == ({"sha256": files[9].sha256, "size": files[9].size, "sent": files[9].size}, 1)
    assert (camera.row(files[9]).queue, camera.row(files[9]).worker) == ("media", "w1")
    assert camera.media.kept().evictable == sum(one.size for one in files)


def test_a_message_that_comes_for_what_was_taken_along_runs_nothing(camera: Camera) -> None:
    files = camera.put_many(3)
    camera.run(files[0])
    settled = camera.run(files[1])
    assert settled.kind == "not-claimed"
    assert settled.work is not None
    assert settled.work.state == "SUCCEEDED"
    assert len(camera.remote.messages) == 1


def test_one_alone_goes_in_one_message_and_nothing_is_asked(camera: Camera) -> None:
    this = camera.put(b"a photo")
    camera.run(this)
    assert camera.states([this]) == {DONE}
    assert (len(camera.remote.messages), camera.remote.asked, camera.remote.uploads) == (1, [], {})


def test_what_the_server_has_is_completed_by_one_question(camera: Camera) -> None:
    large, small, new = camera.put(b"x" * 500 * KIB), camera.put(b"known"), camera.put(b"new")
    camera.remote.whole = {large.sha256: b"x" * 500 * KIB, small.sha256: b"known"}
    camera.run(new)
    assert camera.states([large, small, new]) == {DONE}
    assert [len(asked) for asked in camera.remote.asked] == [3]
    assert camera.remote.appended == len(b"new")
    assert camera.desk.row(large.id).output == {"sha256": large.sha256, "size": large.size, "sent": 0}


def test_of_each_it_is_asked_once(camera: Camera) -> None:
    first, second = camera.put(b"x" * 500 * KIB), camera.put(b"y" * 500 * KIB)
    camera.run(first)
    camera.run(second)
    assert [len(asked) for asked in camera.remote.asked] == [2]
    assert camera.states([first, second]) == {DONE}


def test_large_files_are_not_taken_along(camera: Camera) -> None:
    large, small = camera.put(b"x" * 500 * KIB), camera.put(b"small")
    camera.run(small)
    assert camera.states([large]) == {WAITS}


def test_a_message_is_no_larger_than_a_chunk(camera: Camera) -> None:
    files = camera.put_many(100, 4 * KIB)
    camera.run(files[0])
    assert camera.states(files) == {DONE}
    assert max(sum(len(one.content) for one in message) for message in camera.remote.messages) <= CHUNK


def test_a_file_that_is_gone_is_left_to_its_own_run(camera: Camera) -> None:
    files = camera.put_many(3)
    (camera.folder / "media" / files[1].sha256[:2] / files[1].sha256).unlink()
    camera.run(files[0])
    assert camera.states([files[0], files[2]]) == {DONE}
    assert camera.states([files[1]]) == {WAITS}
    assert (camera.desk.row(files[1].id).attempt, camera.desk.row(files[1].id).rung_at) == (0, 0)
    assert camera.run(files[1]).kind == "failed"
    assert camera.states([files[1]]) == {("parked", "FAILED")}


def test_what_the_server_does_not_take_is_judged_by_its_own_run(camera: Camera) -> None:
    class Choosy(Counting):
        def send_whole(self, contents: Sequence[Whole]) -> set[str]:
            return super().send_whole([one for one in contents if one.sha256 != refused.sha256])

        def create(self, **told: Any) -> str:
            raise Refused("it takes no such files", problem="media-type-forbidden", status=415)

    camera.remote = Choosy()
    refused, good = camera.put(b"a program"), camera.put(b"a photo")
    camera.run(good)
    assert (camera.states([good]), camera.states([refused])) == ({DONE}, {WAITS})
    assert camera.run(refused).kind == "failed"
    assert str(camera.row(refused).reason).startswith("media-type-forbidden")


@pytest.mark.parametrize("error", [Unreachable("no answer"), Busy("busy", retry_after_ms=60_000)])
def test_a_message_that_is_lost_costs_the_others_nothing(camera: Camera, error: Exception) -> None:
    class Dead(Counting):
        def send_whole(self, contents: Sequence[Whole]) -> set[str]:
            super().send_whole(contents)
            raise error

    files, camera.remote = camera.put_many(3), Dead()
    assert camera.run(files[0]).kind == "retry"
    assert camera.states(files) == {WAITS}
    others = [camera.desk.row(one.id) for one in files[1:]]
    assert {(one.attempt, one.retries, one.last_error, one.started_at) for one in others} == {(0, 0, None, None)}
    assert {one.id for one in camera.desk.due()} == {one.id for one in files[1:]}
    arrived, camera.remote = camera.remote.whole, Counting()
    camera.remote.whole = arrived
    camera.run(files[1])
    assert camera.states(files[1:]) == {DONE}
    assert camera.remote.messages == []  # it was asked again, and the server had them


def test_a_server_that_knows_no_such_messages_gets_each_file_by_itself(camera: Camera) -> None:
    class Old(Counting):
        def send_whole(self, contents: Sequence[Whole]) -> set[str]:
            raise Refused("there is nothing here", problem="not-found", status=404)

    files, camera.remote = camera.put_many(3), Old()
    assert [camera.run(one).kind for one in files] == ["done"] * 3
    assert camera.states(files) == {DONE}
    assert len(camera.remote.uploads) == 3


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


@pytest.mark.parametrize("arrived", [False, True])
def test_what_a_death_leaves_is_taken_up_again(camera: Camera, arrived: bool) -> None:
    class Mortal(Counting):
        def send_whole(self, contents: Sequence[Whole]) -> set[str]:
            if arrived:
                super().send_whole(contents)
            raise Killed

    files, camera.remote = camera.put_many(3), Mortal()
    with pytest.raises(Killed):
        camera.run(files[0])
    assert camera.states(files[1:]) == {("pending", "RUNNING")}
    there, camera.remote = camera.remote.whole, Counting()
    camera.remote.whole = there
    camera.desk.clock.advance(LEASE_MS)
    with camera.desk.database.writing() as connection:
        assert len(ledger.recover(connection, camera.desk.now)) == 2
    camera.run(files[1])
    assert camera.states(files) == {DONE}
    assert camera.remote.whole.keys() == {one.sha256 for one in files}


def test_what_is_cancelled_on_the_way_stays_cancelled(camera: Camera) -> None:
    class Slow(Counting):
        def send_whole(self, contents: Sequence[Whole]) -> set[str]:
            with camera.desk.database.writing() as connection:
                ledger.cancel_by_id(connection, files[1].id, now=camera.desk.now, by="the app")
            return super().send_whole(contents)

    files, camera.remote = camera.put_many(3), Slow()
    camera.run(files[0])
    assert camera.desk.state(files[1].id) == "CANCELLED"
    assert camera.states([files[0], files[2]]) == {DONE}


def test_what_has_begun_to_wait_for_one_on_the_way_is_let_go(camera: Camera) -> None:
    class Slow(Counting):
        def send_whole(self, contents: Sequence[Whole]) -> set[str]:
            with camera.desk.database.writing() as connection:
                ledger.enqueue_all(connection, [child], now=camera.desk.now)
            return super().send_whole(contents)

    files, camera.remote = camera.put_many(3), Slow()
    child = ledger.Entry(WorkRequest(task="shop.sent", id="child"), "other", parents=[files[1].id])
    camera.run(files[0])
    assert camera.states(files) == {DONE}
    assert camera.desk.state("child") == "ENQUEUED"


def test_only_what_could_run_here_and_now_is_taken_along(camera: Camera) -> None:
    own = camera.put(b"own")
    backs_off, demanding, elsewhere = camera.put(b"backs off"), camera.put(b"demanding"), camera.put(b"elsewhere")
    camera.desk.run(backs_off.id, lambda _: (_ for _ in ()).throw(Unreachable("no answer")))
    with camera.desk.database.writing() as connection:
        for column, value, this in (("requires", '["charging"]', demanding), ("queue", "other", elsewhere)):
            connection.exec_driver_sql(f"UPDATE backhaul_work SET {column} = '{value}' WHERE id = '{this.id}'")
    camera.run(own)
    assert camera.states([own]) == {DONE}
    assert camera.states([backs_off, demanding, elsewhere]) == {WAITS}


def test_a_file_that_the_link_may_not_carry_waits_for_another_one(camera: Camera) -> None:
    own, small, larger = camera.put(b"x" * 300), camera.put(b"x" * 250), camera.put(b"x" * 301)
    camera.limit = 300
    camera.run(own)
    assert (camera.states([own, small]), camera.states([larger])) == ({DONE}, {WAITS})
    settled = camera.run(larger)
    assert settled.kind == "retry"
    assert "301 bytes, and the link as it is may carry files of 300" in settled.reason
    camera.limit = 0
    other = camera.put(b"x")
    assert camera.run(other).kind == "retry"
    camera.limit = None
    camera.desk.clock.advance(60_000)
    camera.run(other)
    assert camera.states([other, larger]) == {DONE}


def test_a_link_that_gets_dear_half_way_ends_the_transfer_between_two_chunks(camera: Camera) -> None:
    class Roaming(Counting):
        def append(self, address: str, at: int, chunk: bytes | memoryview) -> int:
            camera.limit = 300 * KIB
            return super().append(address, at, chunk)

    this, camera.remote = camera.put(b"x" * 301 * KIB), Roaming()
    assert camera.run(this).kind == "retry"
    assert (camera.row(this).state, camera.row(this).sent) == ("sending", CHUNK)


def test_the_statements_of_a_message_do_not_grow_with_it(camera: Camera) -> None:
    def statements(number: int) -> int:
        files = [camera.put(f"{number} {one}".encode()) for one in range(number)]
        said: list[str] = []
        listening = (camera.desk.database.engine, "before_cursor_execute", lambda *args: said.append(args[2]))
        event.listen(*listening)
        camera.run(files[0])
        event.remove(*listening)
        assert camera.states(files) == {DONE}
        return len(said)

    assert statements(3) == statements(400)
