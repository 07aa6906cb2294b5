"""Each fault of the catalogue, with real processes: what waited drains without a new write, and all end equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.catalogue import FAULTS, Fault
from tests.faults.stage import Stage

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

DATABASES = ["sqlite", "postgresql"]
Stages = Callable[[str], Stage]


@pytest.fixture(scope="module")
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """The stage with server and replica `b` on such a database, as the last scene left it; a new one if that failed."""
    with ExitStack() as stack:
        made: dict[str, Stage] = {}

        def stage_on(database: str) -> Stage:
            if database not in made or not made[database].drained:
                urls = [None, None]
                if database == "postgresql":
                    urls = [request.getfixturevalue("cluster").database() for _ in urls]
                made[database] = Stage(tmp_path_factory.mktemp("stage"), *urls, stack)
            return made[database]

        yield stage_on


@pytest.mark.parametrize(
    ("database", "fault"),
    [
        pytest.param(database, fault, id=f"{database}-{fault}")
        for database in DATABASES
        for fault in FAULTS
        if fault.only in ("", database)
    ],
)
def test_what_waited_drains_and_all_end_equal(stages: Stages, database: str, fault: Fault) -> None:
    stage = stages(database)
    stage.begin()
    stage.write()
    fault.strikes(stage)
    stage.heal()
    stage.drain()
    stage.check_that_nothing_is_lost()
