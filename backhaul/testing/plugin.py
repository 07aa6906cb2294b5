"""For pytest: `pytest_plugins = ["backhaul.testing.plugin"]` in conftest.py gives the fixture `backhaul_harness`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backhaul.testing.harness import Harness


@pytest.fixture
def backhaul_harness() -> Iterator[Harness]:
    """A fresh ledger for each test."""
    with Harness() as harness:
        yield harness
