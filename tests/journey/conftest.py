"""What all journeys share: at their end, every process of theirs has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crew import check_endings


@pytest.fixture(scope="package", autouse=True)
def all_ends() -> Iterator[None]:
    yield
    check_endings()
