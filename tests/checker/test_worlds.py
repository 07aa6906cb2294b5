"""Replicas, each with apps at work, keep to causality and to transactions, and drain and end equal, whatever fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checker.judging import summary
from tests.checker.plan import Plan, PutBack
from tests.checker.world import LEAST_TRANSACTIONS, QUIET_SECONDS, world
from tests.services import PostgreSQL

pytestmark = pytest.mark.timeout(3 * QUIET_SECONDS)  # a busy machine takes its time: it is the world that gives up

# What a server has lost that was put back comes to it again row by row, and so to those who had not seen it yet.
LOST_BY_ROWS = ("atomic visibility", "monotonic writes", "writes follow reads")


def keeps_its_promises(folder: Path, plan: Plan) -> None:
    with world(folder, plan) as running:
        running.work()
        running.heal()
        broken = LOST_BY_ROWS if plan.put_back == "server" else ()
        found = [one for one in running.judge() if one.rule not in broken]
        history = running.history()
        print(f"{len(history)} transactions, {sum(map(bool, (one.writes for one in history)))} wrote")
        print("\n".join(running.faults))
        assert found == [], summary(found)
        assert len(history) >= LEAST_TRANSACTIONS
        put_back = sum(fault.endswith("put back") for fault in running.faults)
        assert (put_back > 0) == (plan.put_back != "nobody")


def sqlite_replicas(folder: Path, number: int) -> list[str]:
    return [f"sqlite:///{folder / f'replica {one}.sqlite'}" for one in range(number)]


@pytest.mark.parametrize("seed", [1])
def test_replicas_are_causal_and_atomic_and_end_equal_whatever_fails(tmp_path: Path, seed: int) -> None:
    keeps_its_promises(tmp_path, Plan(seed=seed, urls=sqlite_replicas(tmp_path, 3), seconds=3))


def test_the_greatest_value_stands_whoever_wrote_it(tmp_path: Path) -> None:
    plan = Plan(seed=2, urls=sqlite_replicas(tmp_path, 3), shared=True, clock_jumps=True, seconds=3)
    keeps_its_promises(tmp_path, plan)


def test_a_replica_on_postgresql_does_so_too(tmp_path: Path, cluster: PostgreSQL) -> None:
    urls = [*sqlite_replicas(tmp_path, 2), cluster.database()]
    keeps_its_promises(tmp_path, Plan(seed=3, urls=urls, server_url=cluster.database(), seconds=3))


@pytest.mark.parametrize("put_back", ["replica", "server"])
def test_what_a_backup_takes_back_is_not_missed_by_the_others(tmp_path: Path, put_back: PutBack) -> None:
    urls = sqlite_replicas(tmp_path, 3)
    keeps_its_promises(tmp_path, Plan(seed=4, urls=urls, shared=True, put_back=put_back, seconds=3))


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(100, 112))
def test_many_replicas_with_many_apps_do_so_for_long(tmp_path: Path, seed: int) -> None:
    urls = sqlite_replicas(tmp_path, 4)
    keeps_its_promises(tmp_path, Plan(seed=seed, urls=urls, apps=2, seconds=20, clock_jumps=True, shared=seed % 2 == 1))


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(140, 146))
def test_many_apps_on_postgresql_do_so_for_long(tmp_path: Path, cluster: PostgreSQL, seed: int) -> None:
    """On PostgreSQL are the server and, of three replicas, one, two or all."""
    number = 1 + seed % 3
    urls = [*sqlite_replicas(tmp_path, 3 - number), *(cluster.database() for _ in range(number))]
    plan = Plan(
        seed=seed,
        urls=urls,
        server_url=cluster.database(),
        apps=2,
        seconds=20,
        clock_jumps=True,
        shared=seed % 2 == 1,
    )
    keeps_its_promises(tmp_path, plan)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(120, 126))
def test_many_replicas_do_so_though_backups_are_put_back(tmp_path: Path, seed: int) -> None:
    put_back: PutBack = "replica" if seed % 2 == 0 else "server"
    plan = Plan(
        seed=seed, urls=sqlite_replicas(tmp_path, 4), seconds=20, clock_jumps=True, shared=True, put_back=put_back
    )
    keeps_its_promises(tmp_path, plan)
