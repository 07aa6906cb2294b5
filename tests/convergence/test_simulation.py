"""Replicas that do whatever a seed says, over a network that does its worst, end up equal: nothing lost, or doubled.

pytest tests/convergence -k "17"      runs the world of one seed again
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.convergence.servers import store_server
from tests.convergence.world import BEGINNING, World
from tests.replicas import MovedClock

STEPS = 60


def simulate(folder: Path, seed: int, steps: int = STEPS) -> None:
    clock, random = MovedClock(BEGINNING), Random(seed)
    with pytest.MonkeyPatch.context() as patch, store_server(f"sqlite:///{folder / 'server.sqlite'}", clock) as running:
        patch.setattr("secrets.token_hex", lambda size: random.randbytes(size).hex())  # replicas' ids break ties
        world = World(running, clock, folder, random)
        try:
            world.live(steps)
            world.heal()
            world.check_what_is_parked()
            world.check_nothing_is_lost_or_doubled()
            world.check_all_are_equal_but_for_what_is_parked()
            world.give_up_parked()
            world.check_nothing_is_lost_or_doubled()
            world.check_all_are_equal_to_the_server()
            world.check_every_value_was_written()
            world.check_what_is_merged()
        finally:
            world.close()


@pytest.mark.parametrize("seed", range(25))
def test_replicas_end_up_equal_whatever_happens(tmp_path: Path, seed: int) -> None:
    simulate(tmp_path, seed)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(100, 700))
def test_replicas_end_up_equal_in_many_worlds(tmp_path: Path, seed: int) -> None:
    simulate(tmp_path, seed, steps=150)
