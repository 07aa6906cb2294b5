"""What was learned of a link: kept for each server and direction, with what it was before and why, on both."""

from __future__ import annotations

import pytest
from sqlalchemy import event, text

from backhaul.aimd import Bounds
from backhaul.database import Database
from backhaul.remotes import pace
from backhaul.remotes.pace import Dial, Exchange, Pace

BOUNDS: dict[Dial, Bounds] = {"ops": Bounds(most=1_000), "bytes": Bounds(most=4_000_000), "lanes": Bounds(most=4)}
USED: dict[Dial, int] = {"ops": 1_000, "bytes": 300_000, "lanes": 4}


def of_a_push(used: dict[Dial, int]) -> Exchange:
    return Exchange(direction="push", used=used, bounds=BOUNDS)


def told(database: Database) -> dict[tuple[str, str], Pace]:
    with database.reading() as connection:
        return {(one.direction, one.dial): one for one in pace.decisions(connection)}


def fail(database: Database, used: dict[Dial, int] = USED, now: int = 5) -> None:
    with database.writing() as connection:
        pace.trouble(connection, of_a_push(used), reason="it did not answer", now=now)


def go(database: Database, used: dict[Dial, int], *, took_ms: int = 10, now: int = 9) -> None:
    with database.writing() as connection:
        pace.went_through(connection, of_a_push(used), took_ms=took_ms, now=now)


def test_trouble_halves_what_was_sent_in_one_statement_and_what_goes_well_grows_up_to_the_usual(
    database: Database,
) -> None:
    go(database, USED)
    assert told(database) == {}  # nothing was learned, and nothing is
    written: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: written.append(said[2]))
    fail(database)
    assert sum("INSERT" in one for one in written) == 1
    found = told(database)
    assert found["push", "ops"] == Pace(
        direction="push", dial="ops", value=500, before=1_000, usual=1_000, reason="it did not answer", decided_at=5
    )
    assert (found["push", "bytes"].value, found["push", "lanes"].value) == (150_000, 2)
    fail(database)  # another lane's, which was on its way when the first one failed
    assert told(database) == found
    go(database, {"ops": 500, "bytes": 150_000, "lanes": 2})
    grown = told(database)
    assert [grown["push", dial].value for dial in ("ops", "bytes", "lanes")] == [505, 168_750, 3]
    assert grown["push", "ops"].before == 500
    assert grown["push", "ops"].reason == pace.WENT_WELL
    for _ in range(300):
        go(database, {"ops": told(database)["push", "ops"].value})
    assert told(database)["push", "ops"].value == 1_000
    at = told(database)["push", "ops"].decided_at
    go(database, {"ops": 1_000}, now=99)
    assert told(database)["push", "ops"].decided_at == at  # nothing was decided


def test_a_slow_exchange_halves_even_where_nothing_was_learned(database: Database) -> None:
    go(database, {"ops": 800}, took_ms=12_300)
    found = told(database)["push", "ops"]
    assert (found.value, found.before, found.reason) == (400, 1_000, "an exchange took 12.3 s")


def test_what_was_learned_of_one_server_says_nothing_of_another(database: Database) -> None:
    with database.writing() as connection:
        known = "id, replica, scope, remote, home, created_at"
        values = "1, 'r', 's', 'https://a.example', '/', 0"
        connection.execute(text(f"INSERT INTO backhaul_replica ({known}) VALUES ({values})"))
    fail(database)
    assert told(database)
    with database.writing() as connection:
        connection.execute(text("UPDATE backhaul_replica SET remote = 'https://b.example'"))
    assert told(database) == {}
    with database.writing() as connection:
        connection.execute(text("UPDATE backhaul_replica SET remote = 'https://a.example'"))
    assert told(database)["push", "ops"].value == 500


@pytest.mark.parametrize(("changed", "interval"), [(0, 37_500), (500, 15_000), (3, None)])
def test_an_interval_is_decided_with_its_reason_or_left(database: Database, changed: int, interval: int | None) -> None:
    def look(usual: int, now: int) -> int | None:
        bounds = Bounds(least=7_500, most=120_000)
        with database.writing() as connection:
            return pace.looked(connection, "pull", changed=changed, usual=usual, bounds=bounds, now=now)

    assert look(30_000, 7) is None  # no interval has passed before the first look
    found = told(database)["pull", "interval"]
    assert (found.value, found.before, found.decided_at, found.reason) == (30_000, 30_000, 7, pace.FIRST_LOOK)
    if not changed:
        assert look(30_000, 30_006) is None
    assert look(30_000, 30_007) == interval
    found = told(database)["pull", "interval"]
    if interval is None:
        assert found.decided_at == 7
    else:
        assert (found.value, found.before, found.usual, found.decided_at) == (interval, 30_000, 30_000, 30_007)
        assert found.reason == (f"a look found {changed} changes" if changed else "an interval passed without a change")
    assert look(50_000, 900_000) is None  # another usual one begins anew
    assert told(database)["pull", "interval"].value == 50_000
