"""docs/work.md, typed as it stands there: its module in a replica's folder, and its program beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from backhaul.clock import SystemClock
from backhaul.testing import Harness
from backhaul.work import functions
from tests.acceptance.conftest import rows
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "work.md").read_text("utf-8")
MODULE = re.search(r"^```python file=reports.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROGRAM = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
SETTINGS = re.search(r"^```toml\n\[work\]\n(modules = .*)\n```", PAGE, re.MULTILINE)


@pytest.fixture
def shop(replica: Path) -> Path:
    assert MODULE is not None
    assert SETTINGS is not None
    (replica / "reports.py").write_text(MODULE[1])
    (replica / "tour.py").write_text(PROGRAM)
    settings = replica / "backhaul.toml"
    settings.write_text(settings.read_text().replace('# modules = ["shop.background"]', SETTINGS[1]))
    return replica


def test_the_tour_runs_and_does_what_it_says(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "tour.py"], cwd=shop, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *listed = done.stdout.splitlines()
    assert first.startswith("ENQUEUED: ")
    assert any(line.split()[1:2] == ["ENQUEUED"] for line in listed)
    assert rows(shop, "SELECT name FROM customer WHERE id = 1") == [("Ada",)]
    assert rows(shop, "SELECT DISTINCT state FROM backhaul_work WHERE name = 'nightly'") == [("ENQUEUED",)]

    monkeypatch.syspath_prepend(str(shop))
    monkeypatch.chdir(shop)
    monkeypatch.delitem(sys.modules, "reports", raising=False)
    __import__("reports")
    engine = create_engine(f"sqlite:///{shop}/shop.db")
    with Harness(engine, clock=SystemClock(), tasks={"shop.send_mail": lambda *args, **kwargs: None}) as harness:
        harness.set(connected=True, unmetered=True, charging=True, battery_not_low=True)
        harness.run_due()
        harness.assert_ran("reports.collect", times=2)  # those of the chain
        harness.assert_ran("shop.send_mail", times=1)
        failed = [one for one in harness.ran if one.label == "reports.send"]
        assert [one.kind for one in failed] == ["failed"]  # for there is no printer
        with engine.connect() as connection:
            states = connection.execute(text("SELECT state FROM backhaul_work WHERE task = 'reports.tidy'")).scalars()
            assert "FAILED" in set(states)  # it waited for that
    engine.dispose()
    assert functions.registered("reports.tidy")


def test_every_block_of_the_page_is_one_that_runs() -> None:
    assert PAGE.count("```python") == 1 + len(re.findall(r"^```python\n", PAGE, re.MULTILINE))
    assert PAGE.count("```toml") == 1
