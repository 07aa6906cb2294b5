"""What a host does with its work, and what it is told when that makes no sense."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from backhaul.errors import DatabaseBusy, Misused, Unknown, WorkerUnknown, WorkUnplaceable
from backhaul.work import Constraints, OneTimeWork, PeriodicWork, WorkRequest, chain, ledger
from backhaul.work.ledger import enqueueing
from tests.unit.work.desk import HOUR, QUEUES, Desk, RecordingBell
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def data(desk: Desk) -> None:
    with desk.engine.begin() as connection:
        connection.execute(text("CREATE TABLE mail (id INTEGER PRIMARY KEY)"))


def mails(desk: Desk) -> int:
    with desk.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM mail")).scalar_one())


WRITE = text("INSERT INTO mail DEFAULT VALUES")


def test_work_is_committed_with_the_data_and_rung_for_after_that(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    with desk.engine.begin() as connection:
        connection.execute(WRITE)
        desk.works.enqueue(work, connection=connection)
        assert desk.works.get(work.id) is None
        assert desk.bell.rung == []
    assert (mails(desk), desk.state(work)) == (1, "ENQUEUED")
    assert [ring.work_id for ring in desk.bell.rung] == [work.id]


def test_work_goes_with_a_rollback_and_nothing_is_rung(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    with desk.engine.connect() as connection:
        connection.execute(WRITE)
        desk.works.enqueue(work, connection=connection)
        connection.rollback()
        connection.execute(WRITE)
        connection.commit()
    assert (mails(desk), desk.works.get(work.id), desk.bell.rung) == (1, None, [])


def test_a_savepoint_that_is_rolled_back_takes_its_work_and_its_ring_along(desk: Desk) -> None:
    kept, gone, later = (OneTimeWork("shop.mail") for _ in range(3))
    with desk.engine.begin() as connection:
        desk.works.enqueue(kept, connection=connection)
        inner = connection.begin_nested()
        desk.works.enqueue(gone, connection=connection)
        inner.rollback()
        desk.works.enqueue(later, connection=connection)
    assert desk.works.get(gone.id) is None
    assert [ring.work_id for ring in desk.bell.rung] == [kept.id, later.id]


def test_a_session_takes_work_along(desk: Desk) -> None:
    first, second = OneTimeWork("shop.mail"), OneTimeWork("shop.mail")
    with Session(desk.engine) as session:
        session.execute(WRITE)
        desk.works.enqueue_unique("mail", "keep", first, connection=session)
        session.commit()
        desk.works.enqueue(second, connection=session)
        session.rollback()
    assert (desk.state(first), desk.works.get(second.id)) == ("ENQUEUED", None)
    assert [ring.work_id for ring in desk.bell.rung] == [first.id]


def test_a_connection_in_autocommit_rings_at_once(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    with desk.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        desk.works.enqueue(work, connection=connection)
        assert desk.state(work) == "ENQUEUED"
        assert [ring.work_id for ring in desk.bell.rung] == [work.id]


def test_a_chain_over_a_connection_in_autocommit_is_stored_whole_or_not_at_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(enqueueing, "insert_tags", fails)
    whole = chain(OneTimeWork("shop.a")).then(OneTimeWork("shop.b"))
    opened = desk.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with opened as connection, pytest.raises(RuntimeError):
        desk.works.enqueue(whole, connection=connection)
    assert desk.works.query() == []


def test_in_the_apps_transaction_nothing_is_imported_to_know_a_name(desk: Desk) -> None:
    desk.bell.known = frozenset({"shop.mail"})
    with desk.engine.begin() as connection:
        connection.execute(WRITE)
        desk.works.enqueue(OneTimeWork("shop.later"), connection=connection)
    with Session(desk.engine) as session:
        session.execute(WRITE)
        desk.works.enqueue_unique("it", "keep", OneTimeWork("shop.later"), connection=session)
        session.commit()
    assert desk.bell.imported == 0
    with desk.engine.connect() as connection, pytest.raises(WorkerUnknown):
        desk.works.enqueue(OneTimeWork("shop.later"), connection=connection)  # none has begun
    assert desk.bell.imported == 1


def test_in_a_transaction_that_has_not_begun_to_read_another_writer_is_kept_out_at_once(desk: Desk) -> None:
    path = desk.engine.url.database

    @event.listens_for(desk.engine, "after_cursor_execute")
    def write(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(str(path), timeout=0)) as other, other:
                other.execute("INSERT INTO mail DEFAULT VALUES")

    work = OneTimeWork("shop.mail")
    with desk.engine.begin() as connection:
        connection.exec_driver_sql("BEGIN")
        desk.works.enqueue(work, connection=connection)
    assert (desk.state(work), mails(desk)) == ("ENQUEUED", 0)


def test_a_transaction_that_has_read_before_another_wrote_is_told_to_begin_anew(desk: Desk) -> None:
    with desk.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(text("SELECT count(*) FROM mail"))
        with desk.database.writing() as other:
            other.execute(WRITE)
        with pytest.raises(DatabaseBusy, match="since this transaction first read") as caught:
            desk.works.enqueue(OneTimeWork("shop.mail"), connection=connection)
    assert "BEGIN IMMEDIATE" in str(caught.value.hint)


def test_an_engine_without_the_hook_stores_work_that_beat_will_find(desk: Desk) -> None:
    work, other = OneTimeWork("shop.mail"), create_engine(desk.engine.url)
    with other.begin() as connection:
        desk.works.enqueue(work, connection=connection)
    other.dispose()
    assert desk.bell.rung == []
    assert [row.id for row in desk.due()] == [work.id]


def test_work_that_is_not_due_is_not_rung_for(desk: Desk) -> None:
    first, second = OneTimeWork("shop.a"), OneTimeWork("shop.b")
    desk.works.enqueue([chain(first).then(second), OneTimeWork("shop.c", initial_delay=timedelta(minutes=1))])
    assert [ring.work_id for ring in desk.bell.rung] == [first.id]


def test_a_worker_that_is_nowhere_is_refused_with_the_nearest_name(desk: Desk) -> None:
    desk.bell.known = frozenset({"shop.mail"})
    desk.works.enqueue(OneTimeWork("shop.mail"))
    desk.works.enqueue(OneTimeWork.of_task("whatever.the.host.has"))
    for asked in (OneTimeWork("shop.mial"), chain(OneTimeWork("shop.mail")).then(OneTimeWork("shop.mial"))):
        with pytest.raises(WorkerUnknown, match=r"shop\.mial") as caught:
            desk.works.enqueue(asked)
        assert "shop.mail" in str(caught.value.hint)
    assert len(desk.works.query()) == 2


def test_constraints_that_no_queue_can_serve_are_refused(desk: Desk) -> None:
    asked = OneTimeWork("shop.mail", constraints=Constraints(labels=frozenset({"region:us"})))
    with pytest.raises(WorkUnplaceable, match="region:us"):
        desk.works.enqueue([OneTimeWork("shop.mail"), asked])
    assert desk.works.query() == []


def test_a_queue_for_expedited_work_takes_no_other(desk: Desk) -> None:
    bell = RecordingBell([queue for queue in QUEUES if queue.expedited])
    desk.works._bell = bell
    with pytest.raises(WorkUnplaceable):
        desk.works.enqueue(OneTimeWork("shop.mail"))


@pytest.mark.parametrize("name", ["push", "push-1", "pull", "reconcile"])
def test_the_names_of_syncs_own_work_are_not_the_hosts(desk: Desk, name: str) -> None:
    with pytest.raises(Misused, match="own"):
        desk.works.enqueue_unique(name, "replace", OneTimeWork("shop.mail"))
    with pytest.raises(Misused, match="own"):
        desk.works.cancel_name(name)


def test_a_name_that_only_begins_like_syncs_own_is_the_hosts(desk: Desk) -> None:
    desk.works.enqueue_unique("push-notifications", "keep", OneTimeWork("shop.mail"))
    assert desk.works.cancel_name("push-notifications") == 1


def test_syncs_own_work_is_neither_ended_nor_changed_by_its_id(desk: Desk) -> None:
    with desk.database.writing() as connection:
        asked = WorkRequest(task="backhaul.push", id="push", interval_ms=HOUR)
        ledger.enqueue(connection, asked, queue="sync", now=desk.now)
    before = desk.row("push")
    with pytest.raises(Misused, match="own"):
        desk.works.cancel("push")
    with pytest.raises(Misused, match="own"):
        desk.works.update(PeriodicWork("shop.tidy", every=timedelta(hours=1), id="push"))
    with pytest.raises(Misused, match="own"):
        desk.works.override_next_run("push", datetime.fromtimestamp(desk.now / 1000, UTC))
    assert desk.row("push") == before
    plain = OneTimeWork.of_task("shop.send")
    desk.works.enqueue(plain)
    assert desk.works.cancel(plain.id) == 1


@pytest.mark.parametrize("taken", ["push", "push-1", "pull", "reconcile"])
def test_the_ids_of_syncs_own_work_are_not_the_hosts(desk: Desk, taken: str) -> None:
    with pytest.raises(Misused, match="own"):
        desk.works.enqueue(OneTimeWork("shop.mail", id=taken))
    assert desk.works.get(taken) is None


def test_all_the_ids_that_are_asked_for_are_found_whatever_the_limit(desk: Desk) -> None:
    ids = desk.works.enqueue([OneTimeWork("shop.mail") for _ in range(7)]).ids
    assert {work.id for work in desk.works.query(ids=ids, limit=3)} == set(ids)


def test_what_is_no_work_is_refused(desk: Desk) -> None:
    with pytest.raises(Misused):
        desk.works.enqueue([])
    with pytest.raises(Misused):
        desk.works.enqueue({"task": "x"})  # type: ignore[arg-type]
    with pytest.raises(Misused):
        desk.works.enqueue_unique("it", "update", OneTimeWork("shop.mail"))  # type: ignore[arg-type]
    with pytest.raises(Misused):
        desk.works.enqueue_unique("a name", "keep", OneTimeWork("shop.mail"))
    with pytest.raises(Misused):
        desk.works.enqueue_unique_periodic("it", "keep", OneTimeWork("shop.mail"))  # type: ignore[arg-type]
    assert desk.works.query() == []


def test_syncs_own_work_is_shown_when_it_is_asked_for(desk: Desk) -> None:
    with desk.database.writing() as connection:
        ledger.enqueue(connection, WorkRequest(task="backhaul.push", id="push"), queue="sync", now=desk.now)
    plain = OneTimeWork.of_task("shop.send", ["it"])
    desk.works.enqueue(plain)
    assert [work.id for work in desk.works.query()] == [plain.id]
    assert {work.id for work in desk.works.query(ours=True)} == {plain.id, "push"}
    assert [work.id for work in desk.works.query(tags=["shop.send"])] == [plain.id]


def test_an_id_that_is_there_is_left_as_it_is(desk: Desk) -> None:
    first = OneTimeWork("shop.mail", id="one", input={"n": 1}, tags={"a"})
    desk.works.enqueue(first)
    desk.works.enqueue(OneTimeWork("shop.mail", id="one", input={"n": 2}, tags={"b"}))
    assert (desk.row("one").input, desk.row("one").tags) == ({"n": 1}, ("a",))
    assert desk.works.query(tags=["b"]) == []


def test_a_next_run_is_overridden_and_put_back(desk: Desk) -> None:
    work = PeriodicWork("shop.tidy", every=timedelta(hours=1), flex=timedelta(minutes=15))
    desk.works.enqueue(work)
    before = desk.row(work).due_at
    desk.works.override_next_run(work.id, datetime.fromtimestamp(desk.now / 1000, UTC))
    assert desk.row(work).due_at == desk.now
    assert [ring.work_id for ring in desk.bell.rung] == [work.id]
    desk.works.override_next_run(work.id, None)
    assert desk.row(work).due_at == before
    with pytest.raises(Unknown):
        desk.works.override_next_run("nobody", None)


def test_prune_forgets_what_is_finished_unless_something_waits_for_it(desk: Desk) -> None:
    over, parent, other, child = (OneTimeWork(f"shop.{name}", tags={"x"}) for name in "abcd")
    desk.works.enqueue([over, chain(parent, other).then(child)])
    desk.run(over)
    desk.run(parent)
    assert desk.works.prune() == 1
    assert {work.id for work in desk.works.query(tags=["x"])} == {parent.id, other.id, child.id}
    desk.works.cancel(other.id)
    assert desk.works.prune() == 3
    with desk.database.reading() as connection:
        for table in ("backhaul_work", "backhaul_work_parent", "backhaul_work_tag"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0


def test_why_says_what_it_waits_for(desk: Desk) -> None:
    work = OneTimeWork("shop.mail", constraints=Constraints(charging=True))
    desk.works.enqueue(work)
    desk.switch("charging", False)
    assert "charging" in desk.works.why(work.id)
    with pytest.raises(Unknown):
        desk.works.why("nobody")


def test_observing_yields_each_change_and_ends_with_the_work(desk: Desk) -> None:
    work, seen = OneTimeWork("shop.mail"), []
    desk.works.enqueue(work)

    def watch() -> None:
        seen.extend(row.state for row in desk.works.observe(ids=[work.id]))

    thread = threading.Thread(target=watch)
    thread.start()
    eventually(lambda: seen == ["ENQUEUED"])
    run = desk.claim(work)
    eventually(lambda: seen == ["ENQUEUED", "RUNNING"])
    desk.settle(ledger.succeed, run)
    thread.join(60)
    assert seen == ["ENQUEUED", "RUNNING", "SUCCEEDED"]


def test_observing_sees_the_last_of_several_changes_and_no_renewed_lease(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    desk.works.enqueue(work)
    changes = desk.works.observe(ids=[work.id], timeout=10)
    assert next(changes).state == "ENQUEUED"
    run = desk.claim(work)
    assert next(changes).state == "RUNNING"
    with desk.database.writing() as connection:
        ledger.renew(connection, run, now=desk.now + 1, lease_ms=1)
    desk.settle(ledger.retry, run, error="not yet")
    desk.works.cancel(work.id)
    assert [row.state for row in changes] == ["CANCELLED"]


def test_observing_ends_when_its_time_is_over(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    desk.works.enqueue(work)
    assert [row.id for row in desk.works.observe(tags=["shop.mail"], timeout=0.2)] == [work.id]


def test_observing_more_works_than_a_query_answers_with_ends_with_the_last_of_them(desk: Desk) -> None:
    works = [OneTimeWork("shop.mail") for _ in range(1_001)]
    desk.works.enqueue(works)
    desk.works.cancel_all()
    ids = [work.id for work in works]
    assert {row.id for row in desk.works.observe(ids=ids, timeout=60)} == set(ids)
