"""Work that waits for a change of a table or of a file."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from backhaul.errors import Misused
from backhaul.work import Constraints, FileTrigger, OneTimeWork, PeriodicWork, TableTrigger, chain, ledger, signatures
from backhaul.work.context import Context
from tests.unit.work.desk import HOUR, Desk, again

QUIET, MOST = 10_000, 120_000


def watching(*triggers: TableTrigger | FileTrigger, **asked: Any) -> OneTimeWork:
    return OneTimeWork("shop.mail", constraints=Constraints(triggers=triggers), **asked)


def touch(desk: Desk, **tables: int | None) -> int:
    with desk.database.writing() as connection:
        watched = ledger.watched(connection).tables
        moves = [
            ledger.Move(name, since, ledger.Position(last))
            for name, last in tables.items()
            for since in watched.get(name, ())
            if last is not None and since.last < last
        ]
        by_sync = [name for name, last in tables.items() if last is None]
        return ledger.touch_tables(connection, moves, desk.now, by_sync=by_sync)


def capture(desk: Desk, table: str) -> None:
    with desk.database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO backhaul_outbox (table_name, key, kind, captured_at, seen_hlc, base)"
                " VALUES (:t, '[1]', 'delete', 0, 0, 0)"
            ),
            {"t": table},
        )


def look(desk: Desk) -> int:
    """What the watcher does, each second."""
    with desk.database.reading() as connection:
        watched = ledger.watched(connection)
        moves = ledger.moves(connection, watched.tables)
    looks = {one: signatures.look(one) for one in watched.files}
    with desk.database.writing() as connection:
        return ledger.touch_tables(connection, moves, desk.now) + ledger.touch_files(connection, looks, desk.now)


def test_it_is_never_due_before_its_table_changes_and_then_when_it_is_quiet(desk: Desk) -> None:
    work = watching(TableTrigger("photo"))
    desk.works.enqueue(work)
    assert (desk.row(work).next_run_at, desk.bell.rung) == (None, [])
    assert touch(desk, invoice=1) == 0
    touch(desk, photo=1)
    assert desk.row(work).due_at == desk.now + QUIET
    desk.clock.advance(4_000)
    touch(desk, photo=2)
    assert desk.row(work).due_at == desk.now + QUIET
    touch(desk, photo=2)
    desk.clock.advance(QUIET)
    touch(desk, photo=2)
    assert desk.run_due() == [work.id]


def test_what_changed_before_it_was_enqueued_does_not_count(desk: Desk) -> None:
    capture(desk, "photo")
    work = watching(TableTrigger("photo"))
    desk.works.enqueue(work)
    assert look(desk) == 0
    capture(desk, "photo")
    assert look(desk) == 1
    assert desk.row(work).due_at == desk.now + QUIET


def test_ids_are_compared_as_numbers(desk: Desk) -> None:
    work = watching(TableTrigger("photo"))
    desk.works.enqueue(work)
    touch(desk, photo=9)
    first = desk.now
    desk.clock.advance(1_000)
    touch(desk, photo=10)
    desk.clock.advance(1_000)
    touch(desk, photo=9)
    assert desk.row(work).due_at == first + 1_000 + QUIET


def test_a_pull_counts_as_a_change(desk: Desk) -> None:
    work = watching(TableTrigger("photo"))
    desk.works.enqueue(work)
    assert touch(desk, photo=None) == 1
    assert desk.row(work).due_at == desk.now + QUIET


def test_the_run_is_told_what_has_changed_and_keeps_it_for_another_try(desk: Desk) -> None:
    work = watching(TableTrigger("photo"), TableTrigger("invoice"), TableTrigger("line"))
    desk.works.enqueue(work)
    touch(desk, photo=1, line=2)
    desk.clock.advance(QUIET)
    told: list[tuple[str, ...]] = []

    def tell(context: Context) -> Any:
        told.append(context.triggered)
        return again(context)

    desk.run_due(tell)
    touch(desk, invoice=3)
    assert desk.row(work).due_at == desk.now + 30_000
    desk.clock.advance(30_000)
    desk.run_due(tell)
    assert told == [("line", "photo"), ("line", "photo")]


def test_an_initial_delay_is_waited_for_all_the_same(desk: Desk) -> None:
    work, began = watching(TableTrigger("photo"), initial_delay=timedelta(hours=1)), desk.now
    desk.works.enqueue(work)
    touch(desk, photo=1)
    assert desk.row(work).due_at == began + HOUR


def test_blocked_work_begins_to_watch_when_it_is_unblocked(desk: Desk) -> None:
    first, work = OneTimeWork("shop.a"), watching(TableTrigger("photo"))
    desk.works.enqueue(chain(first).then(work))
    touch(desk, photo=1)
    assert desk.state(work) == "BLOCKED"
    desk.run(first)
    assert desk.row(work).next_run_at is None
    touch(desk, photo=2)
    assert desk.row(work).due_at == desk.now + QUIET


def test_periodic_work_waits_for_a_change_and_its_interval(desk: Desk) -> None:
    constraints = Constraints(triggers=(TableTrigger("photo"),))
    work = PeriodicWork("shop.tidy", every=timedelta(hours=1), constraints=constraints)
    desk.works.enqueue(work)
    touch(desk, photo=1)
    desk.clock.advance(QUIET)
    ended = desk.now
    assert desk.run_due() == [work.id]
    assert (desk.row(work).next_run_at, desk.row(work).triggered) == (None, ())
    desk.clock.advance(1_000)
    touch(desk, photo=2)
    assert desk.row(work).due_at == ended + HOUR


def test_a_change_while_periodic_work_runs_is_for_the_next_run(desk: Desk) -> None:
    constraints = Constraints(triggers=(TableTrigger("photo"),))
    work = PeriodicWork("shop.tidy", every=timedelta(hours=1), constraints=constraints)
    desk.works.enqueue(work)
    touch(desk, photo=1)
    desk.clock.advance(QUIET)

    def changed_meanwhile(context: Context) -> None:
        desk.clock.advance(1_000)
        touch(desk, photo=2)

    desk.run_due(changed_meanwhile)
    assert (desk.row(work).due_at, desk.row(work).triggered) == (desk.now + HOUR, ("photo",))


def test_eight_works_with_triggers_may_wait(desk: Desk) -> None:
    works = [watching(TableTrigger("photo")) for _ in range(9)]
    desk.works.enqueue(works[:8])
    with pytest.raises(Misused, match="8"):
        desk.works.enqueue(works[8])
    assert desk.works.get(works[8].id) is None
    desk.works.cancel(works[0].id)
    desk.works.enqueue(works[8])
    entry = ledger.Entry(watching(TableTrigger("line")).request, "sync")
    limits = ledger.Circumstances(limits=ledger.Limits(triggers=0))
    with desk.database.writing() as connection, pytest.raises(Misused, match="may"):
        ledger.enqueue_all(connection, [entry], now=desk.now, circumstances=limits)


def test_an_update_makes_no_ninth_work_with_triggers(desk: Desk) -> None:
    works = [watching(TableTrigger("photo")) for _ in range(8)]
    plain = OneTimeWork("shop.mail")
    desk.works.enqueue([*works, plain])
    with pytest.raises(Misused, match="8"):
        desk.works.update(replace(plain, constraints=Constraints(triggers=(TableTrigger("photo"),))))
    assert desk.row(plain).trigger_update_ms is None
    desk.works.update(replace(works[0], constraints=Constraints(triggers=(TableTrigger("line"),))))


def test_an_update_watches_other_things(desk: Desk) -> None:
    work = watching(TableTrigger("photo"), TableTrigger("line"))
    desk.works.enqueue(work)
    touch(desk, photo=1)
    triggers = Constraints(triggers=(TableTrigger("line"), TableTrigger("invoice")))
    desk.works.update(replace(work, constraints=triggers))
    assert desk.row(work).next_run_at is None
    with desk.database.reading() as connection:
        assert set(ledger.watched(connection).tables) == {"line", "invoice"}
    desk.works.update(replace(work, constraints=Constraints()))
    assert desk.row(work).due_at <= desk.now
    with desk.database.reading() as connection:
        assert ledger.watched(connection) == ledger.Watched(tables={}, files={})


def test_a_file_that_changes_comes_or_goes_fires(desk: Desk, tmp_path: Path) -> None:
    file, coming = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("one")
    first, second = watching(FileTrigger(file)), watching(FileTrigger(coming))
    desk.works.enqueue([first, second])
    assert look(desk) == 0
    file.write_text("another")
    assert look(desk) == 1
    assert (desk.row(first).due_at, desk.row(second).next_run_at) == (desk.now + QUIET, None)
    coming.touch()
    look(desk)
    assert (desk.row(second).due_at, desk.row(second).triggered) == (desk.now + QUIET, (str(coming),))


def test_a_folder_is_its_names_and_with_descendants_all_that_is_under_it(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    file = inner / "a.txt"
    file.write_text("one")
    names, everything = FileTrigger(tmp_path), FileTrigger(tmp_path, descendants=True)
    before = signatures.look(names), signatures.look(everything)
    file.write_text("another")
    assert signatures.look(names) == before[0]
    assert signatures.look(everything) != before[1]
    (tmp_path / "b.txt").touch()
    assert signatures.look(names) != before[0]
    assert signatures.look(FileTrigger(tmp_path / "nothing")) == signatures.ABSENT


def test_an_update_watches_what_is_under_a_folder_whose_names_were_watched(desk: Desk, tmp_path: Path) -> None:
    work = watching(FileTrigger(tmp_path))
    desk.works.enqueue(work)
    deep = FileTrigger(tmp_path, descendants=True)
    desk.works.update(replace(work, constraints=Constraints(triggers=(deep,))))
    with desk.database.reading() as connection:
        assert [str(one.path) for one in ledger.watched(connection).files if one.descendants] == [str(tmp_path)]
