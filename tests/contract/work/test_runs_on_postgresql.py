"""What holds of runs on SQLite (tests/unit/work) holds on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.unit.work.test_changes import *  # noqa: F403
from tests.unit.work.test_results import *  # noqa: F403
from tests.unit.work.test_run import *  # noqa: F403
from tests.unit.work.test_scenarios_runs import *  # noqa: F403


@pytest.fixture
def kind() -> str:
    return "postgresql"
