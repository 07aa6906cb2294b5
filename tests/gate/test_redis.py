"""The gate with Redis, on every pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gate.conftest import POOLS
from tests.gate.matrix import Matrix, staged_open
from tests.gate.stage import Stage

pytestmark = pytest.mark.alternating("redis", "rabbitmq")


@pytest.fixture(scope="module", params=POOLS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged_open(request.param, "redis", None) as made:
        yield made


class TestRedis(Matrix):
    pass
