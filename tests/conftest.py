"""What all tests share: an environment that says nothing of Backhaul, and where the outside test data lies."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import settings

from tests import migrating
from tests.services import MEMORY, PostgreSQL, missing, object_store, postgresql

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("BACKHAUL_TEST_DATA") or ROOT.parent / "shared" / "data")

# The caller's own replica, if the shell is set up for one, must not be what the tests write to.
for variable in [name for name in os.environ if name.startswith("BACKHAUL_")]:
    del os.environ[variable]


# A shell that wants no bytecode would have every process of the tests compile all of us anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests' folders lie in memory where there is room: thousands of small databases, each of them synced to the disk with
# every commit, cost more time than everything else. No test cuts the power.
if MEMORY is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

migrating.say_again()

# Speed is measured in bench/, and never asserted by a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`alternating("sqlite", "postgresql")`: of cases that differ in these words alone `make test` takes one, as the
    rest of the name has it, and `make chaos` the others; who names the file runs them all."""
    twins: dict[str, list[pytest.Item]] = {}
    for item in items:
        marker = item.get_closest_marker("alternating")
        if marker is not None and item.get_closest_marker("chaos") is None:
            rest = re.sub("|".join(marker.args), "*", item.nodeid, flags=re.IGNORECASE)
            twins.setdefault(rest, []).append(item)
    for rest, alike in twins.items():
        taken = crc32(rest.encode()) % len(alike)
        for item in alike[:taken] + alike[taken + 1 :]:
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgreSQL]:
    """One PostgreSQL for the whole run; `cluster.database()` is a fresh database in it."""
    with postgresql() as running:
        yield running


@pytest.fixture(scope="session")
def buckets() -> Iterator[str]:
    """One object store for the whole run, with the bucket `photos`."""
    with object_store() as running:
        yield running


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto3 looks for, and nothing of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    told = {"ACCESS_KEY_ID": "tests", "SECRET_ACCESS_KEY": "tests", "EC2_METADATA_DISABLED": "true"}
    for name, value in (told | dict.fromkeys(("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"), os.devnull)).items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture
def chinook(tmp_path: Path) -> Path:
    """A copy of the Chinook sample database (15,000 rows, 11 tables, a composite key), to do anything with."""
    original = DATA / "chinook.sqlite"
    if not original.exists():
        missing("chinook.sqlite", "name the folder that holds it in BACKHAUL_TEST_DATA")
    return Path(shutil.copyfile(original, tmp_path / "chinook.db"))
