"""The outcomes of ops, first and repeated."""

from __future__ import annotations

import pytest

from backhaul.clock import stamp, stamp_from_text, stamp_to_text
from backhaul.errors import Refused
from tests.contract.remote.conftest import Join
from tests.contract.remote.replicas import outcome


def test_a_resend_has_the_same_outcome_and_no_effect(join: Join) -> None:
    a, b = join("a"), join("b")
    good, bad = a.op("insert", "customer", [1], name="Ada", phone=""), a.op("insert", "nowhere", [1], note=1)
    first = a.push(good, bad)
    assert [result.status for result in first] == ["applied", "rejected"]
    again = a.push(good, bad)
    assert [result.status for result in again] == ["duplicate", "rejected"]
    assert again[0].version == first[0].version > 0
    assert outcome(again[1]) == outcome(first[1]) == "table-unknown"
    assert len(b.pull()) == 1


def test_a_resend_together_with_new_ops_is_told_apart(join: Join) -> None:
    a = join("a")
    old, new = a.op("insert", "customer", [1], name="x", phone=""), a.op("update", "customer", [1], name="y")
    a.push(old)
    assert [result.status for result in a.push(old, new)] == ["duplicate", "applied"]


def test_another_op_under_a_known_number_is_a_fork(join: Join) -> None:
    a = join("a")
    op = a.op("insert", "customer", [1], name="x", phone="")
    a.push(op)
    op.op = "f" * 32
    with pytest.raises(Refused) as caught:
        a.push(op)
    assert (caught.value.problem, caught.value.status) == ("replica-forked", 409)


def test_a_gap_in_the_numbers_is_refused_and_changes_nothing(join: Join) -> None:
    a = join("a")
    first, second = a.op("insert", "playlist", [1, 1], note=1), a.op("insert", "playlist", [1, 2], note=2)
    with pytest.raises(Refused) as caught:
        a.push(second)
    assert (caught.value.problem, caught.value.status) == ("sequence-gap", 409)
    assert a.remote.digest().position == 0
    assert [result.status for result in a.push(first, second)] == ["applied", "applied"]


def test_a_void_op_fills_its_number(join: Join) -> None:
    a = join("a")
    assert a.do("void", "customer", [1]).status == "applied"
    assert a.do("insert", "customer", [1], name="x", phone="").status == "applied"
    assert len(a.remote.records([("customer", [1])])) == 1


def test_a_stamp_too_far_ahead_is_to_be_sent_again(join: Join) -> None:
    a = join("a")
    fine, ahead = (
        a.op("insert", "customer", [1], name="x", phone=""),
        a.op("update", "customer", [1], name="from the future", ahead_ms=3_600_000),
    )
    results = a.push(fine, ahead)
    assert [result.status for result in results] == ["applied", "retry"]
    ahead.hlc = stamp_to_text(stamp(a.registered.now + 100))
    assert a.push(ahead)[0].status == "applied"


def test_a_stamp_that_does_not_count_may_be_anything(join: Join) -> None:
    a = join("a")
    far = stamp(a.registered.now + 3_600_000)
    ops = [a.op("void", "customer", [], hlc=far), a.op("backfill", "customer", [1], hlc=far, name="old", phone="1")]
    assert [result.status for result in a.push(*ops)] == ["applied", "applied"]
    assert stamp_from_text(a.remote.pull("", 10).hlc) == 0


def test_an_empty_push_is_answered(join: Join) -> None:
    assert join("a").push() == []
