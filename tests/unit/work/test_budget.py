"""Bytes over metered links: counted by node, network and local day, in few transactions, and compared with a budget."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, text

from backhaul.bell import Node
from backhaul.database import Database
from backhaul.errors import DatabaseBusy, Unreachable
from backhaul.remotes import traffic
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.traffic import Budget, Limits, Meter, Spent, Used
from backhaul.work import conditions
from backhaul.work.budget import budgeted, bytes_said
from backhaul.work.in_force import in_force
from tests.replicas import MovedClock
from tests.unit.remotes.stub import reply, stub

DAY = 86_400_000
NODE = Node(name="kiosk", budget=Budget(day=1_000, month=2_500))
LATE = datetime(2026, 11, 29, 23, 0, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock(int(LATE.timestamp() * 1000))


def spend(database: Database, number: int, clock: MovedClock, node: str = "kiosk", network: str = "metered") -> None:
    with database.writing() as connection:
        day = traffic.local_day(clock.now())
        traffic.add(connection, node=node, network=network, day=day, sent=number - 1, received=1)


def say(database: Database, clock: MovedClock, **said: bool) -> None:
    with database.writing() as connection:
        for name, value in said.items():
            conditions.set_condition(connection, name, value, now=clock.now())


def budget(database: Database, clock: MovedClock, node: Node = NODE) -> conditions.Condition:
    with database.reading() as connection:
        return in_force(connection, clock.now(), node, {})[0]["budget"]


@pytest.mark.usefixtures("zone")
def test_a_budget_is_used_up_on_metered_links_alone_until_midnight_and_the_first_of_the_month(
    database: Database, clock: MovedClock
) -> None:
    spend(database, 1_000, clock)
    spend(database, 5_000, clock, node="another")
    assert budget(database, clock).value  # the link costs nothing
    say(database, clock, unmetered=False)
    found = budget(database, clock)
    said = "the ledger of traffic: 1 kB of 1 kB today is used up, 1 kB of 2.5 kB this month"
    assert (found.value, found.who) == (False, said)
    with database.reading() as connection:
        told = budgeted(connection, clock.now(), NODE, in_force(connection, clock.now(), NODE, {})[0])
    assert (told.network, told.spent_day) == ("metered", 1_000)
    assert told.again_at == clock.now() + 3_600_000  # in an hour, by the node's own clock
    clock.moment += 3_599_999
    assert not budget(database, clock).value
    clock.moment += 1
    assert budget(database, clock).value
    spend(database, 999, clock)
    assert budget(database, clock).value
    spend(database, 501, clock)
    assert not budget(database, clock).value
    clock.moment += DAY - 1
    assert not budget(database, clock).value
    clock.moment += 1  # the first of December
    assert budget(database, clock).value


@pytest.mark.usefixtures("zone")
def test_a_month_that_is_used_up_is_over_on_the_first(database: Database, clock: MovedClock) -> None:
    say(database, clock, metered=True, not_roaming=False)
    spend(database, 2_500, clock)
    with database.reading() as connection:
        told = budgeted(connection, clock.now(), NODE, in_force(connection, clock.now(), NODE, {})[0])
    assert told.network == "roaming"
    assert told.again_at == int(datetime(2026, 12, 1, tzinfo=ZoneInfo("Europe/Berlin")).timestamp() * 1000)


@pytest.mark.usefixtures("zone")
def test_links_of_one_kind_have_a_budget_of_their_own_beside_the_common_one(
    database: Database, clock: MovedClock
) -> None:
    node = replace(NODE, budget=Budget(month=2_500, networks={"roaming": Limits(day=100), "metered": Limits()}))
    say(database, clock, unmetered=False, not_roaming=False)
    spend(database, 99, clock, network="roaming")
    spend(database, 500, clock)
    assert budget(database, clock, node).value
    spend(database, 1, clock, network="roaming")
    found = budget(database, clock, node)
    assert (found.value, found.detail) == (
        False,
        "600 B of 2.5 kB this month, 100 B of 100 B today on roaming links is used up",
    )
    say(database, clock, not_roaming=True)
    assert budget(database, clock, node).value  # at home there is some left
    spend(database, 1_900, clock)
    found = budget(database, clock, node)
    assert (found.value, found.detail) == (False, "2.5 kB of 2.5 kB this month is used up")
    with database.reading() as connection:
        told = budgeted(connection, clock.now(), node, in_force(connection, clock.now(), node, {})[0])
    assert (told.networks["roaming"].day, told.networks["roaming"].spent_day) == (100, 100)
    assert (told.networks["metered"].month, told.networks["metered"].spent_month) == (None, 2_400)
    assert told.spent_month == 2_500
    assert told.again_at == int(datetime(2026, 12, 1, tzinfo=ZoneInfo("Europe/Berlin")).timestamp() * 1000)


def test_a_budget_of_another_kind_of_link_has_no_say(database: Database, clock: MovedClock) -> None:
    node = replace(NODE, budget=Budget(networks={"roaming": Limits(day=100)}))
    say(database, clock, unmetered=False)
    spend(database, 900, clock, network="roaming")
    assert budget(database, clock, node).source == "default"


def test_who_says_so_in_words_goes_before_the_ledger(database: Database, clock: MovedClock) -> None:
    spend(database, 9_000, clock)
    say(database, clock, unmetered=False, budget=True)
    assert budget(database, clock).value
    assert budget(database, clock).source == "override"


def test_without_a_budget_or_on_a_free_link_nothing_more_is_asked(database: Database, clock: MovedClock) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    budget(database, clock, replace(NODE, budget=Budget()))
    without = len(statements)
    statements.clear()
    budget(database, clock)
    assert len(statements) == without
    assert not any("backhaul_traffic" in one for one in statements)


class Network:
    """What the link is said to be."""

    def __init__(self) -> None:
        self.kind: str | None = "metered"

    def __call__(self, *_: Any) -> str | None:
        return self.kind


def rows(database: Database) -> list[tuple[Any, ...]]:
    with database.reading() as connection:
        found = connection.execute(text("SELECT node, network, sent, received FROM backhaul_traffic ORDER BY network"))
        return [tuple(row) for row in found]


def test_a_thousand_exchanges_within_a_second_are_one_transaction(database: Database, clock: MovedClock) -> None:
    network = Network()
    meter = Meter(database, clock, node="kiosk", network=network)
    meter.count(1, 2)
    begun: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: begun.append(said[2]))
    for _ in range(999):
        meter.count(10, 20)
    assert begun == []
    clock.moment += 1_000
    meter.count(10, 20)
    assert sum("INSERT" in one for one in begun) == 1
    assert rows(database) == [("kiosk", "metered", 10_001, 20_002)]
    meter.count(5, 5)
    meter.write()
    assert rows(database) == [("kiosk", "metered", 10_006, 20_007)]


def test_what_was_counted_is_put_down_to_the_link_of_its_time_and_written_when_that_changes(
    database: Database, clock: MovedClock
) -> None:
    network = Network()
    meter = Meter(database, clock, node="kiosk", network=network)
    meter.count(100, 0)
    clock.moment += 999
    meter.count(5_000, 0)
    network.kind = None
    clock.moment += 1
    meter.count(70_000, 0)  # over a free link
    assert rows(database) == [("kiosk", "metered", 5_100, 0)]
    clock.moment += 999
    meter.count(70_000, 0)
    network.kind = "metered"
    clock.moment += 1
    meter.count(1, 0)
    assert rows(database) == [("kiosk", "metered", 5_101, 0)]


def test_what_a_busy_database_does_not_take_is_written_later(
    database: Database, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(database, clock, node="kiosk", network=Network())

    def busy(**_: Any) -> NoReturn:
        raise DatabaseBusy("locked")

    with monkeypatch.context() as patched:
        patched.setattr(database, "writing", busy)
        meter.count(100, 1)
        meter.count(100, 1)
    meter.write()
    assert rows(database) == [("kiosk", "metered", 200, 2)]


def test_what_a_free_link_carries_is_not_counted_and_roaming_is_told_apart(
    database: Database, clock: MovedClock
) -> None:
    network = Network()
    meter = Meter(database, clock, node="kiosk", network=network)
    for kind in (None, "metered", "roaming", None, "metered"):
        network.kind = kind
        meter.count(100, 0)
        clock.moment += 1_000
    assert rows(database) == [("kiosk", "metered", 200, 0), ("kiosk", "roaming", 100, 0)]


def test_a_remote_counts_what_it_sends_and_receives_also_when_the_answer_breaks_off(
    database: Database, clock: MovedClock
) -> None:
    meter = Meter(database, clock, node="kiosk", network=Network())
    body = b"x" * 50_000
    with stub(reply(body=body), reply(body=body, length=60_000)) as server:
        remote = HttpRemote(server.url, "t", endpoint=Endpoint(database, clock, meter))
        with pytest.raises(Unreachable):
            remote.digest()  # no JSON
        ((_, _, sent, received),) = rows(database)
        assert 300 < sent < 1_500
        assert 50_000 < received < 51_000
        with pytest.raises(Unreachable):
            remote.digest()
        remote.close()  # which writes down what it has counted
    ((_, _, _, both),) = rows(database)
    assert 100_000 < both < 102_000


def test_what_is_older_than_a_year_and_a_month_is_forgotten(database: Database) -> None:
    with database.writing() as connection:
        for day in (date(2025, 1, 1), date(2026, 11, 1)):
            traffic.add(connection, node="kiosk", network="metered", day=day, sent=1, received=0)
        traffic.forget_old(connection, date(2026, 11, 29))
        assert traffic.spent(connection, "kiosk", date(2025, 1, 1)) == Spent()
        left = Spent(month=1, networks={"metered": Used(month=1)})
        assert traffic.spent(connection, "kiosk", date(2026, 11, 29)) == left


def test_bytes_are_said_as_a_budget_is_written() -> None:
    said = [bytes_said(number) for number in (0, 999, 1_500, 200_000_000, 2_100_000_000)]
    assert said == ["0 B", "999 B", "1.5 kB", "200 MB", "2.1 GB"]
