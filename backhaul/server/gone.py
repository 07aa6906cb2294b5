"""Updates, and rows sent once more, of records that were deleted so long ago that nothing is left of them: they never
make one anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backhaul.server.admission import Item
from backhaul.server.problems import problem
from backhaul.server.records import Place


def refuse_gone(items: Sequence[Item], states: Mapping[Place, Any], collected: int) -> None:
    """Give a problem to each update of a record that is unknown here, and that its app had seen before the last
    tombstone was collected. collected: that tombstone's version.

    An update that is `early` may well be of an unknown record: its own replica has yet to send it. A backfill whose
    app had seen something may be of rows that were sent before: it counts as an update.
    """
    if not collected:
        return
    made = set()
    for item in items:
        if item.change is None or item.place is None:
            continue
        unknown = item.place not in states and item.place not in made
        late = item.op.base < collected and (not item.op.early if item.op.kind == "update" else item.op.base > 0)
        if item.op.kind not in ("update", "backfill") or not (unknown and late):
            made.add(item.place)
        else:
            item.problem = problem("record-gone", f"{item.op.table} {item.place[1]:.80} was deleted", op=item.op.op)
