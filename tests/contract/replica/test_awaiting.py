"""Records that others see only with their files: held until those are there, with what depends on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from backhaul.database import Database
from backhaul.media import uploads
from backhaul.media.put import put
from backhaul.replica import attachments, enrol, following, tables
from backhaul.replica.media_columns import MediaColumn
from backhaul.replica.strategies import Rules
from backhaul.replica.why import why_record
from backhaul.work import ledger
from config.loading import load
from config.schedule import ensure_standing
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica
from workers.waking import see_to_files

SCHEMA = """
    CREATE TABLE photo ({serial}, path TEXT, caption TEXT);
    CREATE TABLE remark ({serial}, photo_id INTEGER NOT NULL REFERENCES photo (id), said TEXT);
"""
RULES = {"photo": Rules(media=MediaColumn(column="path", visible="with-media"))}


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    """The second one has no rule: to it a record is a record."""
    return make(schema=SCHEMA, rules=RULES), make(schema=SCHEMA)


def seen_by(other: Replica, table: str = "photo") -> list[Any]:
    other.pull()
    return [row[-1] for row in other.rows(table)]


def the_server_gets(replica: Replica, tmp_path: Path, number: int) -> None:
    """As the worker attaches and uploads: the file of the record with this key."""
    file = tmp_path / f"{number}.jpg"
    file.write_bytes(b"%d" % number)
    with replica.database.reading() as connection:
        named = attachments.of_record(connection, "photo", f"[{number}]")
    assert named is not None
    upload = put(replica.database, file, enqueue=lambda *_: None, now=0)
    with replica.database.writing() as connection:
        assert attachments.put(connection, named.id, upload_id=upload.id, sha256=upload.sha256)
        uploads.finish(connection, upload.id, now=1)
        assert attachments.arrived(connection) == 1


def why(replica: Replica, table: str, number: int) -> str:
    with replica.database.reading() as connection:
        return why_record(connection, table, [number], now=replica.clock.now())


def test_a_record_its_later_changes_its_group_and_what_refers_to_it_wait_and_all_else_flows(
    pair: tuple[Replica, Replica], tmp_path: Path
) -> None:
    ours, other = pair
    ours.write("INSERT INTO photo VALUES (1, '1.jpg', 'waits')")
    ours.write("INSERT INTO photo VALUES (2, NULL, 'has none')")
    ours.push()
    ours.write("UPDATE photo SET caption = 'waits on' WHERE id = 1")
    ours.write("INSERT INTO remark VALUES (1, 1, 'of one that waits')")
    ours.write_together(
        "INSERT INTO photo VALUES (3, '3.jpg', 'in a group')", "INSERT INTO photo VALUES (4, NULL, 'too')"
    )
    ours.write("INSERT INTO remark VALUES (2, 2, 'of one that is there')")
    ours.push()
    assert ours.states() == {"acked": 2, "held": 5}
    assert seen_by(other) == ["has none"]
    assert seen_by(other, "remark") == ["of one that is there"]
    assert why(ours, "photo", 1).startswith("held: awaits-media: it becomes visible")
    assert "its file 1.jpg waits to be read" in why(ours, "photo", 1)
    assert "depends on the held change" in why(ours, "remark", 1)
    the_server_gets(ours, tmp_path, 1)
    ours.push()
    assert seen_by(other) == ["waits on", "has none"]
    assert seen_by(other, "remark") == ["of one that waits", "of one that is there"]
    assert ours.states()["held"] == 2
    the_server_gets(ours, tmp_path, 3)
    ours.push()
    assert seen_by(other) == ["waits on", "has none", "in a group", "too"]
    assert "held" not in ours.states()


def test_a_group_goes_with_the_last_of_its_files_and_is_not_touched_before(
    pair: tuple[Replica, Replica], tmp_path: Path
) -> None:
    ours, other = pair
    ours.write_together(*(f"INSERT INTO photo VALUES ({one}, '{one}.jpg', 'p{one}')" for one in (1, 2, 3)))
    ours.push()
    held = [row["id"] for row in ours.outbox()]
    for one in (2, 1):
        the_server_gets(ours, tmp_path, one)
        ours.push()
        assert [row["id"] for row in ours.outbox()] == held
    assert seen_by(other) == []
    the_server_gets(ours, tmp_path, 3)
    ours.push()
    assert seen_by(other) == ["p1", "p2", "p3"]


def test_what_came_first_of_a_record_stands_before_what_came_later_whichever_is_freed_first(
    pair: tuple[Replica, Replica], tmp_path: Path
) -> None:
    """The first edit waits in another's group, the later one for its own file, which comes later still."""
    ours, other = pair
    ours.write("INSERT INTO photo VALUES (1, NULL, 'nothing')")
    ours.push()
    ours.write_together("UPDATE photo SET caption = 'first' WHERE id = 1", "INSERT INTO photo VALUES (2, '2.jpg', 'b')")
    ours.push()
    ours.write("UPDATE photo SET caption = 'last', path = '1.jpg' WHERE id = 1")
    ours.push()
    assert ours.states()["held"] == 3
    the_server_gets(ours, tmp_path, 2)
    ours.push()
    the_server_gets(ours, tmp_path, 1)
    ours.push()
    assert seen_by(other) == ["last", "b"]
    assert ours.rows("photo") == other.rows("photo")


def test_a_record_that_is_deleted_or_names_no_file_any_more_waits_for_nothing(pair: tuple[Replica, Replica]) -> None:
    ours, other = pair
    ours.write("INSERT INTO photo VALUES (1, '1.jpg', 'goes')")
    ours.write("INSERT INTO photo VALUES (2, '2.jpg', 'stays')")
    ours.push()
    assert ours.states() == {"held": 2}
    ours.write("DELETE FROM photo WHERE id = 1")
    ours.write("UPDATE photo SET path = NULL WHERE id = 2")
    ours.push()
    assert seen_by(other) == ["stays"]
    assert "held" not in ours.states()


def test_what_others_write_to_a_held_record_stands_under_it(pair: tuple[Replica, Replica], tmp_path: Path) -> None:
    ours, other = pair
    other.write("INSERT INTO photo VALUES (1, NULL, 'theirs')")
    other.push()
    ours.pull()
    ours.write("UPDATE photo SET path = '1.jpg' WHERE id = 1")
    ours.push()
    assert ours.states() == {"held": 1}
    other.write("UPDATE photo SET caption = 'theirs, later' WHERE id = 1")
    other.push()
    ours.pull()
    assert ours.rows("photo") == [(1, "1.jpg", "theirs, later")]
    the_server_gets(ours, tmp_path, 1)
    ours.push()
    other.pull()
    assert other.rows("photo") == [(1, "1.jpg", "theirs, later")]


def test_rows_from_before_init_wait_for_their_files_too(make: MakeReplica, tmp_path: Path) -> None:
    before = "INSERT INTO photo VALUES (1, '1.jpg', 'old'); INSERT INTO remark VALUES (1, 1, 'old too');"
    ours, other = make(schema=SCHEMA, rules=RULES, before=before), make(schema=SCHEMA)
    ours.push()
    assert seen_by(other) == seen_by(other, "remark") == []
    the_server_gets(ours, tmp_path, 1)
    ours.push()
    assert (seen_by(other), seen_by(other, "remark")) == (["old"], ["old too"])


def named(database: Database) -> list[tuple[str, str]]:
    with database.reading() as connection:
        return [(one.key, one.path) for one in reversed(attachments.listed(connection))]


def test_only_what_this_replica_has_named_is_written_down(pair: tuple[Replica, Replica]) -> None:
    """A row of another replica names a file of that machine."""
    ours, other = pair
    other.write("INSERT INTO photo VALUES (1, '/etc/passwd', 'theirs')")
    other.push()
    ours.pull()
    assert ours.rows("photo") == [(1, "/etc/passwd", "theirs")]
    ours.write("UPDATE photo SET caption = 'ours' WHERE id = 1")
    assert named(ours.database) == []
    ours.write("INSERT INTO photo VALUES (2, '', 'names none')")
    ours.write("INSERT INTO photo VALUES (3, 'a.jpg', '')")
    ours.write("UPDATE photo SET path = 'b.jpg' WHERE id IN (1, 3)")
    ours.write("UPDATE photo SET path = path, caption = 'same' WHERE id = 3")
    assert named(ours.database) == [("[1]", "b.jpg"), ("[3]", "b.jpg")]
    ours.write("UPDATE photo SET id = 7 WHERE id = 3")
    assert named(ours.database) == [("[1]", "b.jpg"), ("[7]", "b.jpg")]
    other.write("DELETE FROM photo WHERE id = 1")
    ours.write("DELETE FROM photo WHERE id = 7")
    assert named(ours.database) == [("[1]", "b.jpg")]


def test_what_is_said_of_files_anew_holds_from_the_next_init_on(make: MakeReplica) -> None:
    before = "INSERT INTO photo VALUES (1, '1.jpg', 'told of already'), (2, '2.jpg', NULL);"
    ours = make(schema=SCHEMA, before=before)
    ours.push()

    def renew(media: MediaColumn | None) -> bool:
        rules = {"photo": Rules(media=media)}
        return bool(enrol.renew(ours.database, ours.remote, rules=rules).tables)

    assert renew(MediaColumn(column="path", sha256="caption"))
    assert named(ours.database) == [("[2]", "2.jpg")]
    assert not renew(MediaColumn(column="path", sha256="caption"))
    ours.write("INSERT INTO photo VALUES (3, '3.jpg', 'at once')")
    assert ours.push().acked == 1
    assert renew(MediaColumn(column="path", sha256="caption", visible="with-media"))
    ours.write("UPDATE photo SET caption = 'waits' WHERE id = 3")
    ours.write("INSERT INTO photo VALUES (4, '4.jpg', 'waits')")
    ours.push()
    assert ours.states()["held"] == 2
    assert renew(None)
    assert named(ours.database) == []
    ours.push()
    assert "held" not in ours.states()
    ours.write("INSERT INTO photo VALUES (5, '5.jpg', 'no file to us')")
    assert named(ours.database) == []


def test_the_ordinary_way_of_a_table_that_is_followed_keeps_its_files(make: MakeReplica) -> None:
    ours = make(schema=SCHEMA, rules=RULES)
    with ours.database.reading() as connection:
        before = tables.all_tracked(connection)
    make(schema=SCHEMA, rules={"photo": Rules(merge={"caption": "text"})})
    following.follow(ours.database, ours.remote)
    with ours.database.reading() as connection:
        after = tables.checked(connection)
    assert [one.media for one in after] == [one.media for one in before]
    ours.write("INSERT INTO photo VALUES (5, '5.jpg', 'a file')")
    assert named(ours.database) == [("[5]", "5.jpg")]


def test_beat_lets_go_what_waited_and_wakes_for_what_is_named(make_on: MakeReplica, tmp_path: Path) -> None:
    ours = make_on("sqlite", schema=SCHEMA, rules=RULES)
    now = ours.clock.now()
    (tmp_path / "backhaul.toml").write_text(
        "[replica]\ndatabase = 'sqlite:///x'\nremote = 'https://a.example'\n[tables.photo.media]\ncolumn = 'path'\n"
    )
    with ours.database.writing() as connection:
        ensure_standing(connection, load(tmp_path), now)
        connection.execute(text("UPDATE backhaul_work SET due_at = :then"), {"then": now + 900_000})
    see_to_files(ours.database, now)
    assert due_at(ours) > now
    ours.write("INSERT INTO photo VALUES (1, '1.jpg', 'waits')")
    see_to_files(ours.database, now + 60_000)
    assert due_at(ours) <= now + 60_000
    ours.push()
    upload = put(ours.database, __file__, enqueue=lambda *_: None, now=0)
    with ours.database.writing() as connection:
        (one,) = attachments.listed(connection)
        attachments.put(connection, one.id, upload_id=upload.id, sha256=upload.sha256)
    see_to_files(ours.database, now)
    assert ours.states() == {"held": 1}
    with ours.database.writing() as connection:
        uploads.finish(connection, upload.id, now=1)
    see_to_files(ours.database, now)
    assert ours.states() == {"pending": 1}


def due_at(replica: Replica) -> int:
    with replica.database.reading() as connection:
        work = ledger.get(connection, "attach")
    assert work is not None
    return work.due_at
