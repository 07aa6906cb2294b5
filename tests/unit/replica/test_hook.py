"""The hook on the app's own engine: groups, the bell, and doing no harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from backhaul import Backhaul
from backhaul.bell import Queue, SilentBell
from backhaul.errors import Misused, NotInitialised, WorkUnplaceable
from backhaul.replica.hook import Hook
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture
def replica(make: MakeReplica) -> Replica:
    return make()


@pytest.fixture
def engine(replica: Replica) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{replica.path}")
    yield engine
    engine.dispose()


@pytest.fixture
def rung(engine: Engine) -> Iterator[list[None]]:
    rung: list[None] = []
    hook = Hook(engine, lambda: rung.append(None))
    yield rung
    hook.remove()


def groups(replica: Replica) -> list[str | None]:
    return [row["group_id"] for row in replica.outbox()]


def test_a_transaction_is_one_group_and_rings_once(engine: Engine, rung: list[None], replica: Replica) -> None:
    with Session(engine) as session:
        session.add_all([Customer(id=1, name="a"), Customer(id=2, name="b")])
        session.flush()
        session.execute(text("UPDATE customer SET phone = '1'"))
        session.commit()
    assert len(set(groups(replica))) == 1
    assert len(groups(replica)) == 4
    assert groups(replica)[0] is not None
    assert len(rung) == 1


def test_two_transactions_are_two_groups_and_others_writers_have_none(
    engine: Engine, rung: list[None], replica: Replica
) -> None:
    for number in (1, 2):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO customer (id, name) VALUES (:id, 'x')"), {"id": number})
    replica.write("INSERT INTO customer (id, name) VALUES (3, 'without the hook')")
    first, second, third = groups(replica)
    assert first != second
    assert third is None
    assert len(rung) == 2


def test_a_rollback_and_a_transaction_that_only_reads_ring_for_nothing(
    engine: Engine, rung: list[None], replica: Replica
) -> None:
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'x')"))
        connection.rollback()
        connection.execute(text("WITH x AS (SELECT 1) SELECT * FROM x, customer")).all()
        connection.commit()
    assert rung == []
    assert replica.outbox() == []
    replica.write("INSERT INTO customer (id, name) VALUES (2, 'after')")
    assert groups(replica) == [None]


def test_what_follows_a_rollback_to_a_savepoint_is_of_the_same_group(
    engine: Engine, rung: list[None], replica: Replica
) -> None:
    with engine.begin() as connection:
        savepoint = connection.begin_nested()
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'given up')"))
        savepoint.rollback()
        connection.execute(text("INSERT INTO customer (id, name) VALUES (2, 'x')"))
        connection.execute(text("INSERT INTO customer (id, name) VALUES (3, 'y')"))
    assert len(set(groups(replica))) == 1
    assert groups(replica)[0] is not None


def test_in_autocommit_each_change_is_a_group_of_its_own(engine: Engine, rung: list[None], replica: Replica) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'x')"))
        connection.execute(text("INSERT INTO customer (id, name) VALUES (2, 'y')"))
    assert groups(replica) == [None, None]
    assert len(rung) == 2
    replica.write("INSERT INTO customer (id, name) VALUES (3, 'z')")
    assert groups(replica)[2] is None


def test_an_engine_that_says_begin_itself_is_grouped_too(replica: Replica) -> None:
    engine = create_engine(f"sqlite:///{replica.path}")

    @event.listens_for(engine, "connect")
    def _opened(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(engine, "begin")
    def _begun(connection: object) -> None:
        connection.exec_driver_sql("BEGIN")  # type: ignore[attr-defined]

    Hook(engine, lambda: None)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'x'), (2, 'y')"))
    assert len(set(groups(replica))) == 1
    assert groups(replica)[0] is not None
    engine.dispose()


def test_a_statement_behind_a_comment_is_a_write_too(engine: Engine, rung: list[None], replica: Replica) -> None:
    with engine.begin() as connection:
        connection.execute(text("/* the app */ -- says\n INSERT INTO customer (id, name) VALUES (1, 'x')"))
    assert len(rung) == 1
    assert groups(replica)[0] is not None


def test_a_mark_that_a_raw_commit_left_behind_is_taken_away_by_the_next_push(
    engine: Engine, rung: list[None], replica: Replica
) -> None:
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'x')"))
        connection.exec_driver_sql("COMMIT")
    replica.push()
    replica.write("INSERT INTO customer (id, name) VALUES (2, 'later, and somebody else')")
    assert groups(replica)[-1] is None


def test_a_locked_database_is_waited_for_once(replica: Replica) -> None:
    engine = create_engine(f"sqlite:///{replica.path}", connect_args={"timeout": 0})
    said: list[str] = []
    hook = Hook(engine, lambda: None)
    event.listen(engine, "handle_error", lambda context: said.append(str(context.original_exception)))
    replica.app.execute("BEGIN IMMEDIATE")
    with engine.connect() as connection, pytest.raises(OperationalError, match="locked"):
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'x')"))
    assert said == ["database is locked"]
    replica.app.rollback()
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'x'), (2, 'y')"))
    assert len(set(groups(replica))) == 1
    hook.remove()
    engine.dispose()


def test_a_database_that_is_no_replica_works_as_if_there_were_no_hook(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.sqlite'}")
    Hook(engine, lambda: None)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    with engine.connect() as connection, pytest.raises(OperationalError, match="no such table: u"):
        connection.execute(text("INSERT INTO u VALUES (1)"))
    engine.dispose()


def test_a_host_enqueues_media_and_asks_why(replica: Replica, engine: Engine, tmp_path: Path) -> None:
    media = Queue(name="media", tags=frozenset({"unmetered"}))
    backhaul = Backhaul(engine, bell=SilentBell([media], frozenset({"unmetered"})))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"light")
    upload = backhaul.media.put(photo)
    assert backhaul.media.list() == [upload]
    with pytest.raises(Misused):
        backhaul.media.put(tmp_path / "missing.jpg")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'x')"))
    assert backhaul.why("customer", [1]).startswith("pending: insert captured ")
    status = backhaul.status()
    assert (status.pending, status.media["pending"], status.work["ENQUEUED"]) == (1, 1, 1)
    backhaul.close()


def test_a_file_that_no_queue_can_carry_is_refused_and_nothing_is_kept(
    replica: Replica, engine: Engine, tmp_path: Path
) -> None:
    backhaul = Backhaul(engine, bell=SilentBell([Queue(name="sync")], frozenset({"unmetered"})))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"light")
    with pytest.raises(WorkUnplaceable):
        backhaul.media.put(photo)
    assert backhaul.media.list() == []
    backhaul.close()


def test_a_replica_whose_folder_was_moved_is_found_beside_its_database(make: MakeReplica, tmp_path: Path) -> None:
    from backhaul.client import _home

    engine = create_engine(f"sqlite:///{tmp_path / 'moved' / 'app.sqlite'}")
    assert _home(engine, tmp_path / "before") == tmp_path / "before"
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "backhaul.toml").touch()
    assert _home(engine, tmp_path / "before") == tmp_path / "moved"


def test_an_engine_without_a_replica_is_refused(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.sqlite'}")
    with pytest.raises(NotInitialised):
        Backhaul(engine)
    engine.dispose()
