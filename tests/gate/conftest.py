"""The gate on every pool and broker: one worker for each pair, which all tests of the pair share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crew import check_endings
from tests.gate.line import Line
from tests.services import rabbitmq

POOLS = ("prefork", "threads", "gevent", "solo")
BROKERS = ("redis", "rabbitmq")
PAIRS = [(pool, broker) for broker in BROKERS for pool in POOLS]


@pytest.fixture(scope="package", autouse=True)
def all_ends() -> Iterator[None]:
    yield
    check_endings()


@pytest.fixture(scope="package")
def rabbit() -> Iterator[Line]:
    """A RabbitMQ behind a line that can be cut."""
    with rabbitmq() as url, Line(url) as line:
        yield line
