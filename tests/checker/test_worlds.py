"""Replicas, each with apps at work, keep to causality and to transactions, and drain and end equal, whatever fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checker.judging import summary
from tests.checker.world import Plan, world
from tests.services import PostgreSQL

# Where everyone writes every key: a value of one's own that is on its way stands over a greater one that was pulled.
HIDDEN = ("atomic visibility", "monotonic writes", "writes follow reads")


def keeps_its_promises(folder: Path, plan: Plan) -> None:
    with world(folder, plan) as running:
        running.work()
        running.heal()
        found = [one for one in running.judge() if one.rule not in (HIDDEN if plan.shared else ())]
        history = running.history()
        print(f"{len(history)} transactions, {sum(map(bool, (one.writes for one in history)))} wrote")
        print("\n".join(running.faults))
        assert found == [], summary(found)
        assert len(history) > 100


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


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(100, 112))
def test_many_replicas_with_many_apps_do_so_for_long(tmp_path: Path, seed: int) -> None:
    urls = sqlite_replicas(tmp_path, 4)
    keeps_its_promises(tmp_path, Plan(seed=seed, urls=urls, apps=2, seconds=20, clock_jumps=True, shared=seed % 2 == 1))
