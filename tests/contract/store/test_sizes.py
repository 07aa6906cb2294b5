"""What a record and a value may hold, so that every client can pull what another has pushed."""

from __future__ import annotations

import msgspec
import pytest

from backhaul import wire
from backhaul.server import admission, trial
from backhaul.wire import Op, encode
from tests.contract.store.devices import customer, shown, statuses


@pytest.fixture
def limits(monkeypatch):
    monkeypatch.setattr(trial, "MOST_RECORD", 1_000)
    monkeypatch.setattr(admission, "MOST_VALUE", 600)


def test_a_record_cannot_grow_beyond_what_a_client_can_hold(ann, bob, limits):
    assert statuses(ann.push(customer(ann, 1, fields={"name": "a" * 500}))) == ["applied"]
    grown = ann.op("update", "customer", [1], 1, fields={"phone": "b" * 500})
    later = ann.op("update", "customer", [1], 2, fields={"name": "c" * 490})
    assert statuses(ann.push(grown, later, customer(ann, 2))) == ["record-too-large", "depends-on-refused", "applied"]
    assert [said for _, key, said in shown(bob.pull()) if key == [1]] == [{"name": "a" * 500}]
    smaller = ann.op("update", "customer", [1], 3, fields={"name": "d", "phone": "b" * 500})
    assert statuses(ann.push(smaller)) == ["applied"]


def test_a_record_that_is_larger_already_may_become_smaller(ann, monkeypatch):
    ann.push(customer(ann, 1, fields={"name": "a" * 500, "phone": "b" * 900}))
    monkeypatch.setattr(trial, "MOST_RECORD", 1_000)
    assert statuses(ann.push(ann.op("update", "customer", [1], 1, fields={"name": "a" * 200}))) == ["applied"]
    assert statuses(ann.push(ann.op("update", "customer", [1], 2, fields={"name": "a" * 300}))) == ["record-too-large"]


@pytest.mark.parametrize("value", ["x" * 601, {"hex": "00" * 601}])
def test_a_value_that_is_too_large_is_refused_alone(ann, limits, value):
    large = msgspec.json.decode(encode(ann.op("update", "customer", [1], fields={"name": value})), type=Op)
    assert statuses(ann.push(large, customer(ann, 2))) == ["value-too-large", "applied"]


def test_the_limits_fit_into_each_other():
    assert wire.MOST_VALUE < wire.MOST_RECORD <= wire.MOST_WIRE <= wire.MOST_BODY
