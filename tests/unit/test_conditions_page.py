"""The page of conditions names each of them, as it is, and each source, in order; its Python runs."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import get_args

from backhaul.bell import SilentBell
from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.migrations import upgrade_replica
from backhaul.work.conditions import KNOWN, Source
from backhaul.work.node_conditions import NodeConditions
from tests.conftest import ROOT
from tests.pages import rows_of

PAGE = (ROOT / "docs" / "conditions.md").read_text("utf-8")


def test_every_condition_stands_there_with_what_is_taken_for_unknown() -> None:
    rows = rows_of(PAGE, ["condition", "where nothing is known", "it holds while", "who can tell"])
    assert {row[0].strip("`"): row[1] for row in rows} == {name: "on" if on else "off" for name, on in KNOWN.items()}


def test_the_sources_stand_in_their_order() -> None:
    rows = rows_of(PAGE, ["source", "who says it", "where"])
    assert [row[0].strip("`") for row in rows] == list(get_args(Source))


def test_its_python_does_what_it_says(tmp_path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/app.db")
    upgrade_replica(database)
    conditions = NodeConditions(database, SilentBell(), SystemClock())
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    first, second, third = block.splitlines()
    names = {"backhaul": SimpleNamespace(conditions=conditions), "timedelta": timedelta}
    exec(first, names)
    assert eval(second, names) is False
    assert eval(third, names) is True
    database.close()
