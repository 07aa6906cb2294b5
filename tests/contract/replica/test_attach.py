"""Files that rows name: read in the background, kept, on their way, and told of to the others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from backhaul.attach import Attached, attach
from backhaul.bell import Queue
from backhaul.errors import StorageFull
from backhaul.files import enqueue_upload
from backhaul.media import contents, uploads
from backhaul.media.store import Store
from backhaul.media.uploads import Upload
from backhaul.replica import attachments
from backhaul.replica.media_columns import MediaColumn
from backhaul.replica.strategies import Rules
from backhaul.replica.why import why_record
from backhaul.work import ledger
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import MovedClock, Replica

SCHEMA = """
    CREATE TABLE photo (
        {serial}, path TEXT, caption TEXT, sha256 VARCHAR(64), size INTEGER, type TEXT, name TEXT, turned SMALLINT);
"""
MEDIA = MediaColumn(
    column="path", folder="photos", sha256="sha256", size="size", type="type", name="name", orientation="turned"
)
CONTENT = b"a picture, as far as anybody knows"


class Van:
    """A replica whose photos lie in a folder, and what its worker does about them."""

    def __init__(self, replica: Replica, home: Path) -> None:
        self.replica = replica
        self.home = home
        self.photos = home / "photos"
        self.photos.mkdir(exist_ok=True)
        self.store = Store(home / ".backhaul" / "media")
        self.keep = True
        self.later: list[str] = []
        self.clock = MovedClock()

    def attach(self, enqueue: Callable[..., None] | None = None, *, transforming: bool = False) -> Attached:
        replica = self.replica
        return attach(
            replica.database,
            home=self.home,
            store=self.store,
            enqueue=enqueue or self.enqueue,
            clock=self.clock,
            context=replica.context,
            keep=self.keep,
            transforming=transforming,
        )

    def enqueue(self, connection: Connection, upload: Upload, /, *, later: bool = False) -> None:
        self.later += [upload.name] if later else []
        enqueue_upload(connection, upload, [Queue(name="media")], requires=frozenset(), now=self.clock.now())

    def why(self, number: int) -> str:
        with self.replica.database.reading() as connection:
            return why_record(connection, "photo", [number], now=self.clock.now())

    def uploads(self) -> list[Upload]:
        with self.replica.database.reading() as connection:
            return uploads.listed(connection)

    def unread(self) -> list[str | None]:
        with self.replica.database.reading() as connection:
            return [one.reason for one in attachments.listed(connection)]

    def take(self, number: int, path: str) -> None:
        self.replica.write("INSERT INTO photo (id, path, caption) VALUES (?, ?, 'new')", number, path)


@pytest.fixture
def van(make_on: MakeReplica, tmp_path: Path) -> Van:
    """What is said of files is the same on both databases."""
    return Van(make_on("sqlite", schema=SCHEMA, rules={"photo": Rules(media=MEDIA)}), tmp_path)


@pytest.fixture
def each(make: MakeReplica, tmp_path: Path) -> Van:
    return Van(make(schema=SCHEMA, rules={"photo": Rules(media=MEDIA)}), tmp_path)


def picture(path: Path, *, turned: int) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = turned
    Image.new("RGB", (8, 6), "red").save(path, exif=exif)


def test_a_row_that_names_a_file_tells_the_others_what_it_holds(each: Van, make: MakeReplica) -> None:
    """With no line of the app's, and once."""
    picture(each.photos / "a.jpg", turned=6)
    each.take(1, "a.jpg")
    assert each.attach() == Attached(put=1)
    (upload,) = each.uploads()
    told = (upload.sha256, (each.photos / "a.jpg").stat().st_size, "image/jpeg", "a.jpg", 6)
    assert each.replica.rows("photo") == [(1, "a.jpg", "new", *told)]
    with each.replica.database.reading() as connection:
        assert contents.get(connection, upload.sha256) is not None
        work = ledger.get(connection, upload.id)
    assert work is not None
    assert (work.state, work.task, work.queue) == ("ENQUEUED", "backhaul.upload", "media")
    assert each.attach() == Attached()
    each.replica.push()
    other = make(schema=SCHEMA)
    other.pull()
    assert other.rows("photo") == [(1, "a.jpg", "new", *told)]
    assert f"its file a.jpg is on its way: backhaul why {upload.id}" in each.why(1)
    with each.replica.database.writing() as connection:
        uploads.finish(connection, upload.id, now=1)
        assert attachments.arrived(connection) == 1
    assert "file" not in each.why(1)


def test_another_file_in_the_same_row_is_read_and_told_too(each: Van) -> None:
    for name in ("a.txt", "b.txt"):
        (each.photos / name).write_text(name)
    each.take(1, "a.txt")
    each.attach()
    each.replica.write("UPDATE photo SET path = 'b.txt' WHERE id = 1")
    assert each.attach() == Attached(put=1)
    ((*_, sha256, _size, _type, name, _turned),) = each.replica.rows("photo")
    assert (sha256, name) == ({one.name: one.sha256 for one in each.uploads()}["b.txt"], "b.txt")


def test_a_row_that_the_app_is_writing_holds_up_no_other(make_on: MakeReplica, tmp_path: Path) -> None:
    van = Van(make_on("postgresql", schema=SCHEMA, rules={"photo": Rules(media=MEDIA)}), tmp_path)
    for number in (1, 2):
        (van.photos / f"{number}.txt").write_text("a picture")
        van.take(number, f"{number}.txt")
    app = van.replica.app
    with app.transaction():
        app.execute("UPDATE photo SET path = 'other.txt' WHERE id = 1")
        assert van.attach() == Attached(put=1, postponed=1)
    van.clock.moment += 3_600_000
    (van.photos / "other.txt").write_text("another")
    assert van.attach() == Attached(put=1)
    assert {one.name for one in van.uploads()} == {"2.txt", "other.txt"}


BAD = {
    "missing": ("gone.jpg", "No such file"),
    "folder": (".", "is a folder"),
    "outside": ("../secret", "is not in the folder"),
    "elsewhere": ("/etc/passwd", "is not in the folder"),
    "link": ("link.jpg", "is not in the folder"),
    "long": ("x" * 4096, "File name too long"),
    "pipe": ("pipe", "no regular file"),
    "nul": ("a\0b.jpg", "is no path"),
    "right to left": ("\u202egpj.exe", "No such file"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_read_says_so_and_holds_up_nothing(van: Van, what: str) -> None:
    path, said = BAD[what]
    (van.home / "secret").write_text("not to be sent")
    (van.photos / "link.jpg").symlink_to(van.home / "secret")
    os.mkfifo(van.photos / "pipe")
    (van.photos / "good.jpg").write_bytes(CONTENT)
    van.take(1, path)
    van.take(2, "good.jpg")
    assert van.attach() == Attached(put=1, postponed=1)
    (reason,) = van.unread()
    assert reason is not None
    assert said in reason
    assert van.attach() == Attached()
    sent = van.replica.push()
    assert sent.parked == 0
    assert "is not read" in van.why(1)
    assert len(van.uploads()) == 1


def test_what_is_ours_is_never_sent(make_on: MakeReplica, tmp_path: Path) -> None:
    media = MediaColumn(column="path")
    van = Van(make_on("sqlite", schema=SCHEMA, rules={"photo": Rules(media=media)}), tmp_path)
    (tmp_path / ".backhaul").mkdir(exist_ok=True)
    (tmp_path / ".backhaul" / "token").write_text("a token")
    van.take(1, ".backhaul/token")
    assert van.attach() == Attached(postponed=1)
    assert van.uploads() == []


def test_a_file_that_comes_later_is_found_at_a_later_look(van: Van) -> None:
    van.take(1, "late.jpg")
    van.attach()
    (van.photos / "late.jpg").write_bytes(CONTENT)
    assert van.attach() == Attached()
    van.clock.moment += 3_600_000
    assert van.attach() == Attached(put=1)


def test_a_look_that_is_cut_leaves_nothing_and_the_next_one_does_it_all(van: Van) -> None:
    (van.photos / "a.jpg").write_bytes(CONTENT)
    van.take(1, "a.jpg")

    def full(_connection: Connection, _upload: Upload) -> None:
        raise StorageFull("no room for another work")

    with pytest.raises(StorageFull):
        van.attach(full)
    assert van.uploads() == []
    assert [row[3] for row in van.replica.rows("photo")] == [None]
    assert van.attach() == Attached(put=1)
    assert len(van.uploads()) == 1


def test_a_row_that_names_another_file_while_the_first_is_read_gets_that_one(van: Van) -> None:
    (van.photos / "a.txt").write_text("a")
    (van.photos / "b.txt").write_text("b")
    van.take(1, "a.txt")

    class Slow(Store):
        def fill(self, incoming: Any, source: Any) -> str:
            if van.replica.rows("photo")[0][1] == "a.txt":
                van.replica.write("UPDATE photo SET path = 'b.txt' WHERE id = 1")
            return super().fill(incoming, source)

    van.store = Slow(van.home / ".backhaul" / "media")
    assert van.attach() == Attached(put=1, forgotten=1)
    assert [upload.name for upload in van.uploads()] == ["b.txt"]
    assert van.replica.rows("photo")[0][6] == "b.txt"


def test_a_file_that_was_another_one_when_it_was_sent_is_read_and_told_anew(van: Van) -> None:
    """As the transfer of a file that is not kept finds it."""
    van.keep = False
    (van.photos / "a.txt").write_text("before")
    van.take(1, "a.txt")
    van.attach()
    (before,) = van.uploads()
    (van.photos / "a.txt").write_text("after all")
    with van.replica.database.writing() as connection:
        uploads.park(connection, before.id, reason="media-changed: a.txt is no longer the file that was put", now=1)
    assert van.attach() == Attached(put=1)
    (after,) = van.uploads()
    assert (after.size, after.id == before.id) == (9, False)
    assert van.replica.rows("photo")[0][3] == after.sha256 != before.sha256


def test_what_the_server_refuses_of_a_file_is_a_persons_and_is_not_put_again(van: Van) -> None:
    (van.photos / "a.jpg").write_bytes(CONTENT)
    van.take(1, "a.jpg")
    van.attach()
    (upload,) = van.uploads()
    with van.replica.database.writing() as connection:
        uploads.park(connection, upload.id, reason="media-type-forbidden: the server takes image/png", now=1)
    assert van.attach() == Attached()
    assert [one.state for one in van.uploads()] == ["parked"]


def test_a_schema_that_refuses_what_is_told_has_the_reason_told(make: MakeReplica, tmp_path: Path) -> None:
    strict = SCHEMA.replace("size INTEGER", "size INTEGER CHECK (size < 10)")
    van = Van(make(schema=strict, rules={"photo": Rules(media=MEDIA)}), tmp_path)
    (van.photos / "a.jpg").write_bytes(CONTENT)
    van.take(1, "a.jpg")
    assert van.attach() == Attached(postponed=1)
    (reason,) = van.unread()
    assert "check constraint" in str(reason).lower()
    assert van.uploads() == []


# ------------------------------------------------------------------------------------------------ transforms

SMALLER = {"transform": "image", "largest": 100, "original_sha256": "type"}


def upper(source: Path, target: Path) -> str:
    """A host's function."""
    target.write_bytes(source.read_bytes().upper())
    return f"../{source.stem}.shouted"


def broken(source: Path, target: Path) -> None:
    raise RuntimeError("out of ink")


def silent(source: Path, target: Path) -> None:
    """Writes nothing."""


@pytest.fixture
def made(make_on: MakeReplica, tmp_path: Path) -> Callable[..., Van]:
    def make_one(**said: Any) -> Van:
        media = MediaColumn(column="path", folder="photos", sha256="sha256", size="size", name="name", **said)
        return Van(make_on("sqlite", schema=SCHEMA, rules={"photo": Rules(media=media)}), tmp_path)

    return make_one


def test_a_smaller_upright_picture_is_sent_that_tells_nothing_of_where_it_was_taken(made: Callable[..., Van]) -> None:
    from PIL import Image

    van = made(**SMALLER)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    Image.effect_noise((800, 400), 50).convert("RGB").save(van.photos / "a.png", exif=exif)
    van.take(1, "a.png")
    assert van.attach() == Attached()
    assert "waits to be read: backhaul why transform" in van.why(1)
    assert van.attach(transforming=True) == Attached(put=1)
    (upload,) = van.uploads()
    with Image.open(van.store.path(upload.sha256)) as sent:
        assert (sent.format, sent.size, dict(sent.getexif())) == ("JPEG", (50, 100), {})
    assert (upload.name, upload.media_type, upload.path) == ("a.jpg", "image/jpeg", "")
    assert van.replica.rows("photo") == [(1, "a.png", "new", upload.sha256, upload.size, None, "a.jpg", None)]
    assert van.later == []


def test_the_original_may_follow_later_and_its_hash_is_told(made: Callable[..., Van]) -> None:
    van = made(**SMALLER, original="later")
    picture(van.photos / "a.jpg", turned=1)
    original = (van.photos / "a.jpg").read_bytes()
    van.take(1, "a.jpg")
    assert van.attach(transforming=True) == Attached(put=1)
    first, second = sorted(van.uploads(), key=lambda one: one.path)
    assert (first.path, second.path, van.later) == ("", str(van.photos / "a.jpg"), ["a.jpg"])
    assert second.sha256 == hashlib.sha256(original).hexdigest() != first.sha256
    ((_, _, _, sha256, _, original_sha256, _, _),) = van.replica.rows("photo")
    assert (sha256, original_sha256) == (first.sha256, second.sha256)


def test_a_function_of_the_hosts_makes_what_it_likes_and_no_path_of_its_name(made: Callable[..., Van]) -> None:
    van = made(transform=f"{__name__}:upper")
    (van.photos / "a.txt").write_text("quiet")
    van.take(1, "a.txt")
    assert van.attach(transforming=True) == Attached(put=1)
    (upload,) = van.uploads()
    assert van.store.path(upload.sha256).read_text() == "QUIET"
    assert upload.name == "a.shouted"


def test_a_file_that_was_long_not_there_is_made_smaller_all_the_same(made: Callable[..., Van]) -> None:
    van = made(transform=f"{__name__}:upper")
    van.take(1, "a.txt")
    for _ in range(4):
        assert van.attach(transforming=True) == Attached(postponed=1)
        van.clock.moment += 3_600_000
    (van.photos / "a.txt").write_text("quiet")
    assert van.attach(transforming=True) == Attached(put=1)
    assert [one.name for one in van.uploads()] == ["a.shouted"]


FAILING = {
    f"{__name__}:broken": "RuntimeError: out of ink",
    f"{__name__}:silent": "has written nothing",
    f"{__name__}:nowhere": "there is no function",
    "no_such.module:f": "No module named",
    "image": "cannot identify image file",
}


@pytest.mark.parametrize("transform", FAILING)
def test_where_nothing_can_be_made_the_file_goes_as_it_is_and_why_says_so(
    made: Callable[..., Van], transform: str
) -> None:
    van = made(transform=transform)
    (van.photos / "a.txt").write_text("as it is")
    van.take(1, "a.txt")
    assert van.attach(transforming=True) == Attached(put=1)
    (upload,) = van.uploads()
    assert van.store.path(upload.sha256).read_text() == "as it is"
    assert FAILING[transform] in van.why(1)


def test_or_it_waits_and_is_tried_again(made: Callable[..., Van]) -> None:
    van = made(transform=f"{__name__}:broken", on_failure="wait")
    (van.photos / "a.txt").write_text("not as it is")
    van.take(1, "a.txt")
    assert van.attach(transforming=True) == Attached(postponed=1)
    assert van.attach(transforming=True) == Attached()
    assert van.uploads() == []
    assert "out of ink" in van.why(1)


class Killed(BaseException):
    """As if the process had died."""


def dying(source: Path, target: Path) -> None:
    if source.name == "bomb.txt":
        raise Killed
    target.write_text("made")


def test_a_file_that_kills_its_process_holds_up_no_other_and_goes_as_it_is_in_the_end(made: Callable[..., Van]) -> None:
    van = made(transform=f"{__name__}:dying")
    (van.photos / "bomb.txt").write_text("bomb")
    (van.photos / "good.txt").write_text("good")
    van.take(1, "bomb.txt")
    van.take(2, "good.txt")
    with pytest.raises(Killed):
        van.attach(transforming=True)
    assert van.attach(transforming=True) == Attached(put=1)
    for _ in range(2):
        van.clock.moment += 3_600_000
        with pytest.raises(Killed):
            van.attach(transforming=True)
    van.clock.moment += 3_600_000
    assert van.attach(transforming=True) == Attached(put=1)
    assert {one.name for one in van.uploads()} == {"bomb.txt", "good.txt"}
