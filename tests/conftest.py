"""What all tests share: an environment that says nothing of Backhaul, and where the outside test data lies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import PostgreSQL, missing, postgresql

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("BACKHAUL_TEST_DATA") or ROOT.parent / "shared" / "data")

# The caller's own replica, if the shell is set up for one, must not be what the tests write to.
for variable in [name for name in os.environ if name.startswith("BACKHAUL_")]:
    del os.environ[variable]


# Tests' folders lie in memory where there is room: thousands of small databases, each of them synced to the disk with
# every commit, cost more time than everything else. No test cuts the power.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgreSQL]:
    """One PostgreSQL for the whole run; `cluster.database()` is a fresh database in it."""
    with postgresql() as running:
        yield running


@pytest.fixture
def chinook(tmp_path: Path) -> Path:
    """A copy of the Chinook sample database (15,000 rows, 11 tables, a composite key), to do anything with."""
    original = DATA / "chinook.sqlite"
    if not original.exists():
        missing("chinook.sqlite", "name the folder that holds it in BACKHAUL_TEST_DATA")
    return Path(shutil.copyfile(original, tmp_path / "chinook.db"))
