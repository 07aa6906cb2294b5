"""Lanes: a replica numbers each by itself, and the server has a mark for each."""

from __future__ import annotations

import pytest

from backhaul.errors import Refused
from backhaul.lanes import before_first
from backhaul.wire import Op
from tests.contract.store.devices import NOW, Device, customer, statuses


def in_lane(device: Device, lane: int, count: int, key: int) -> Op:
    device.seq = before_first(lane) + count - 1
    return customer(device, key)


def test_each_lane_is_numbered_by_itself(ann):
    assert statuses(ann.push(in_lane(ann, 0, 1, 1))) == ["applied"]
    assert statuses(ann.push(in_lane(ann, 3, 1, 2), in_lane(ann, 3, 2, 3))) == ["applied", "applied"]
    assert statuses(ann.push(in_lane(ann, 0, 2, 4))) == ["applied"]
    assert statuses(ann.push(in_lane(ann, 3, 2, 3))) == ["duplicate"]
    assert len(ann.pull().records) == 4


@pytest.mark.parametrize("lane", [0, 1, 15])
def test_a_gap_is_one_of_a_lane(ann, lane):
    ann.push(in_lane(ann, 7, 1, 1))
    ann.push(in_lane(ann, lane, 1, 2))
    with pytest.raises(Refused) as refused:
        ann.push(in_lane(ann, lane, 3, 3))
    assert (refused.value.problem, refused.value.due) == ("sequence-gap", before_first(lane) + 2)


@pytest.mark.parametrize("lanes", [(0, 1), (1, 0)])
def test_a_push_is_of_one_lane(ann, lanes):
    first, second = lanes
    with pytest.raises(Refused) as refused:
        ann.push(in_lane(ann, first, 1, 1), in_lane(ann, second, 1, 2))
    assert (refused.value.problem, refused.value.due) == ("sequence-gap", before_first(first) + 2)
    assert ann.pull().records == []


def test_a_fork_is_seen_in_each_lane(ann):
    ann.push(in_lane(ann, 2, 1, 1))
    ann.seq = before_first(2)
    with pytest.raises(Refused) as refused:
        ann.push(customer(ann, 2, op="f" * 32))
    assert refused.value.problem == "replica-forked"


def test_a_pull_tells_a_fork_by_how_many_numbers_were_given_out_in_all(ann):
    ann.push(in_lane(ann, 0, 1, 1))
    ann.push(in_lane(ann, 5, 1, 2), in_lane(ann, 5, 2, 3))
    assert ann.store.pull(ann.replica, "", 100, NOW, sent=3).position == 3
    with pytest.raises(Refused) as refused:
        ann.store.pull(ann.replica, "", 100, NOW, sent=2)
    assert refused.value.problem == "replica-forked"


def test_outcomes_are_forgotten_lane_by_lane(ann):
    ann.push(in_lane(ann, 0, 1, 1))
    ann.push(in_lane(ann, 1, 1, 2))
    ann.push(in_lane(ann, 1, 2, 3))  # the replica knows of the one before
    assert ann.store.purge(NOW + 31 * 86_400_000) == 1
    assert statuses(ann.push(in_lane(ann, 0, 1, 1))) == ["duplicate"]
