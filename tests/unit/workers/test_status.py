"""What `backhaul status` says of pace and budget, in words."""

from __future__ import annotations

from dataclasses import replace

from backhaul.remotes.pace import Pace
from workers.cli.status import _budget, _paced

PACE = Pace(direction="push", dial="ops", value=500, before=1_000, usual=1_000, reason="it took 12.0 s", decided_at=1)
NOTHING = {"day": None, "month": None, "spent_day": 0, "spent_month": 0, "network": None, "again_at": None}
SPENT = NOTHING | {
    "day": 200_000_000,
    "spent_day": 180_000_000,
    "spent_month": 1_100_000_000,
    "networks": {"metered": NOTHING, "roaming": NOTHING},
}


def test_a_dial_is_told_with_its_unit_what_it_was_and_what_is_usual() -> None:
    assert _paced(PACE) == "push 500 ops at once (was 1,000, usual 1,000)"
    assert _paced(replace(PACE, dial="lanes", value=1, before=2, usual=4)) == "push 1 lanes in use (was 2, usual 4)"
    every = replace(PACE, direction="pull", dial="interval", value=52_500, before=45_000, usual=30_000)
    assert _paced(every) == "pull every 52 s (was 45 s, usual 30 s)"


def test_a_budget_is_told_as_far_as_one_is_set_and_when_there_is_more() -> None:
    left = _budget(SPENT | {"network": None, "again_at": None})
    assert left == ["180 MB of 200 MB today over all metered links (the link costs nothing now)"]
    over = _budget(SPENT | {"spent_day": 201_000_000, "network": "roaming", "again_at": 1_796_079_600_000})
    again = "(the link is roaming); more from 2026-11-30T23:00:00Z on"
    assert over == [f"201 MB of 200 MB today over all metered links {again}"]
    roaming = {"day": None, "month": 20_000_000, "spent_day": 0, "spent_month": 5_000_000}
    each = _budget(SPENT | {"network": None, "again_at": None, "networks": {"metered": NOTHING, "roaming": roaming}})
    assert each == [
        "180 MB of 200 MB today over all metered links",
        "5 MB of 20 MB this month over roaming links (the link costs nothing now)",
    ]
    assert _budget(NOTHING | {"networks": {"metered": NOTHING, "roaming": NOTHING}}) == []
