"""What counts as a writer's own, of what it wrote under other names."""

from __future__ import annotations

from backhaul.merge import Change, Lineage, Register
from backhaul.merge.contest import is_concurrent

LINE = Lineage({"first": [(0, 4)], "second": [(0, 6), (9, 9)]})


def test_each_former_self_wrote_what_is_known_of_it():
    wrote = {writer: [one for one in range(12) if LINE.wrote(writer, one)] for writer in ("first", "second", "third")}
    assert wrote == {"first": [0, 1, 2, 3, 4], "second": [0, 1, 2, 3, 4, 5, 6, 9], "third": []}


def test_what_turns_out_to_be_known_is_added_once():
    more = LINE.knowing([11, 3, 11])
    assert more.wrote("second", 11)
    assert not more.wrote("second", 10)
    assert more.knowing([11]) is more
    assert Lineage().knowing([5]) == Lineage()


def test_a_custom_function_is_asked_only_about_what_the_former_self_wrote_unseen():
    for version, concurrent in ((6, False), (7, True)):
        change = Change(kind="update", hlc=9, writer="third", fields={}, base=2, lineage=LINE)
        assert is_concurrent(Register((5, "second", version), "stands"), change, "else") is concurrent
