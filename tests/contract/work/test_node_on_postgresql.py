"""What holds of conditions, budgets and the roster of workers on SQLite (tests/unit/work) holds on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.unit.work.test_budget import *  # noqa: F403
from tests.unit.work.test_conditions import *  # noqa: F403
from tests.unit.work.test_in_force import *  # noqa: F403
from tests.unit.work.test_roster import *  # noqa: F403


@pytest.fixture
def kind() -> str:
    return "postgresql"
