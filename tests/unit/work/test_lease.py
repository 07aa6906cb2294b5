from __future__ import annotations

from sqlalchemy import select

from backhaul.database import Database
from backhaul.schema import lease as table
from backhaul.work import lease


def test_one_leads_and_another_waits_until_the_lease_has_passed(database: Database) -> None:
    with database.writing() as connection:
        assert lease.take(connection, "beat", "one", now=1_000, ms=500)
        assert not lease.take(connection, "beat", "two", now=1_499, ms=500)
        assert lease.take(connection, "beat", "one", now=1_499, ms=500)
        assert not lease.take(connection, "beat", "two", now=1_998, ms=500)
        assert lease.take(connection, "beat", "two", now=1_999, ms=500)
        assert not lease.take(connection, "beat", "one", now=2_000, ms=500)


def test_a_released_lease_is_free_at_once_and_only_its_holder_releases_it(database: Database) -> None:
    with database.writing() as connection:
        lease.take(connection, "beat", "one", now=1_000, ms=500)
        assert not lease.release(connection, "beat", "two")
        assert lease.release(connection, "beat", "one")
        assert lease.take(connection, "beat", "two", now=1_001, ms=500)


def test_the_fence_moves_with_the_holder_and_stays_with_a_renewal(database: Database) -> None:
    with database.writing() as connection:
        fences = []
        for owner, now in (("one", 0), ("one", 10), ("two", 700), ("two", 5_000)):
            lease.take(connection, "beat", owner, now=now, ms=500)
            fences.append(connection.execute(select(table.c.fence)).scalar())
    assert fences == [1, 1, 2, 3]
