"""The outcomes of ops: once each, and the same again for who asks again."""

from __future__ import annotations

import pytest

from backhaul.errors import Refused
from backhaul.server import auth
from tests.contract.store.devices import NOW, customer, statuses


def test_the_same_push_again_is_a_duplicate_with_the_stored_outcomes(ann):
    ops = [
        customer(ann, 1),
        ann.op("update", "nothing", [1]),
        ann.op("update", "customer", [1], 1, fields={"name": "x"}),
    ]
    first = ann.push(*ops)
    again = ann.push(*ops)
    assert statuses(first) == ["applied", "table-unknown", "applied"]
    assert statuses(again) == ["duplicate", "table-unknown", "duplicate"]
    assert [r.version for r in again] == [r.version for r in first] == [1, 0, 2]
    assert [r.status for r in again] == ["duplicate", "rejected", "duplicate"]


def test_a_resend_with_new_ops_at_its_end_applies_those_alone(ann):
    first = customer(ann, 1)
    ann.push(first)
    assert statuses(ann.push(first, customer(ann, 2))) == ["duplicate", "applied"]


def test_an_outcome_is_kept_until_its_replica_knows_it(ann):
    op = customer(ann, 1)
    ann.push(op)
    assert ann.store.purge(NOW + 31 * 86_400_000) == 0
    assert statuses(ann.push(op)) == ["duplicate"]
    ann.push(customer(ann, 2))
    assert ann.store.purge(NOW + 31 * 86_400_000) == 1


def test_a_number_whose_outcome_is_forgotten_is_sent_again_by_a_fork_alone(ann):
    op = customer(ann, 1)
    ann.push(op)
    ann.push(customer(ann, 2))
    ann.store.purge(NOW + 31 * 86_400_000)
    with pytest.raises(Refused) as refused:
        ann.push(op)
    assert refused.value.problem == "replica-forked"


def test_a_refusal_is_never_forgotten(ann):
    op = ann.op("insert", "nothing", [1], 0, fields={"name": "x"})
    ann.push(op)
    assert ann.store.purge(NOW + 31 * 86_400_000) == 0
    assert statuses(ann.push(op)) == ["table-unknown"]


def test_another_op_under_a_known_number_is_a_fork(ann):
    ann.push(customer(ann, 1))
    ann.seq = 0
    with pytest.raises(Refused) as refused:
        ann.push(customer(ann, 2, op="f" * 32))
    assert (refused.value.problem, refused.value.status) == ("replica-forked", 409)


def test_a_gap_in_the_numbers_is_refused_whole(ann):
    first, _, third = customer(ann, 1), customer(ann, 2), customer(ann, 3)
    with pytest.raises(Refused) as refused:
        ann.push(first, third)
    assert (refused.value.problem, refused.value.status, refused.value.due) == ("sequence-gap", 409, 2)
    assert ann.pull().records == []


def test_a_revoked_replica_is_refused(ann):
    with ann.store.database.writing() as connection:
        assert auth.revoke(connection, ann.replica.id, NOW)
    with pytest.raises(Refused) as refused:
        ann.push(customer(ann, 1))
    assert (refused.value.problem, refused.value.status) == ("replica-revoked", 403)


def test_a_void_op_fills_its_number_and_says_nothing(ann):
    assert statuses(ann.push(ann.op("void", "whatever", []), customer(ann, 1))) == ["applied", "applied"]
    assert len(ann.pull().records) == 1
