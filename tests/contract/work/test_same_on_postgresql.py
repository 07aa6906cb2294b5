"""What holds of the ledger on SQLite (tests/unit/work) holds on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.unit.work.test_ledger import *  # noqa: F403
from tests.unit.work.test_limits import *  # noqa: F403
from tests.unit.work.test_losing import *  # noqa: F403
from tests.unit.work.test_scenarios_chains import *  # noqa: F403
from tests.unit.work.test_scenarios_constraints import *  # noqa: F403
from tests.unit.work.test_scenarios_names import *  # noqa: F403
from tests.unit.work.test_scenarios_time import *  # noqa: F403
from tests.unit.work.test_triggers import *  # noqa: F403
from tests.unit.work.test_uniqueness import *  # noqa: F403
from tests.unit.work.test_updating import *  # noqa: F403

# These look at how SQLite goes about it, or build a trigger in its words.
del test_a_page_of_the_list_walks_an_index_in_its_order  # noqa: F821
del test_a_look_at_what_is_due_walks_the_index_of_what_waits  # noqa: F821
del test_what_has_a_tag_is_looked_up_by_it_and_by_the_name_of_its_function  # noqa: F821
del test_scenario_63_a_chain_that_cannot_be_stored_whole_leaves_no_row  # noqa: F821


@pytest.fixture
def kind() -> str:
    return "postgresql"
