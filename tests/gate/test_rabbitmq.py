"""The gate with RabbitMQ, on every pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gate.conftest import POOLS
from tests.gate.line import Line
from tests.gate.matrix import Matrix, staged_open
from tests.gate.stage import Stage

pytestmark = pytest.mark.alternating("redis", "rabbitmq")


@pytest.fixture(scope="module", params=POOLS)
def stage(request: pytest.FixtureRequest, rabbit: Line) -> Iterator[Stage]:
    with staged_open(request.param, "rabbitmq", rabbit) as made:
        yield made


class TestRabbitMQ(Matrix):
    pass
