"""Which ops are refused, what falls with them, and which are to come again."""

from __future__ import annotations

import msgspec
import pytest

from backhaul.wire import Op, encode
from tests.contract.store.devices import NOW, customer, shown, statuses


@pytest.mark.parametrize(
    ("kind", "table", "key", "fields", "problem"),
    [
        ("insert", "nothing", [1], {}, "table-unknown"),
        ("insert", 'customer"; DROP TABLE server_record; --', [1], {}, "table-unknown"),
        ("insert", "customer\0", [1], {}, "table-unknown"),
        ("update", "customer", [1], {"secret": 1}, "column-unknown"),
        ("update", "customer", [1, 2], {"name": "x"}, "key-invalid"),
        ("update", "customer", [], {"name": "x"}, "key-invalid"),
        ("update", "customer", [None], {"name": "x"}, "key-invalid"),
        ("update", "customer", [1.0], {"name": "x"}, "key-invalid"),
        ("update", "customer", [{"real": "Infinity"}], {"name": "x"}, "key-invalid"),
        ("update", "customer", [1], {"id": 2}, "key-invalid"),
        ("update", "customer", [1], {"id": True}, "key-invalid"),
        ("delete", "customer", [1], {"name": "x"}, "fields-invalid"),
        ("update", "customer", [1], {"name": {}}, "value-invalid"),
        ("update", "customer", [1], {"name": {"hex": "00", "real": "Infinity"}}, "value-invalid"),
    ],
)
def test_a_bad_op_is_rejected_alone(ann, kind, table, key, fields, problem):
    bad = msgspec.json.decode(encode(ann.op(kind, table, key, fields=fields)), type=Op)
    assert statuses(ann.push(bad, customer(ann, 7))) == [problem, "applied"]


def test_a_group_is_applied_whole_or_not_at_all(ann):
    ops = [
        customer(ann, 1, group="g"),
        ann.op("update", "nothing", [1], group="g"),
        customer(ann, 2, group="g"),
        customer(ann, 3),
    ]
    assert statuses(ann.push(*ops)) == ["depends-on-refused", "table-unknown", "depends-on-refused", "applied"]
    assert [r.key for r in ann.pull().records] == [[3]]


def test_a_group_has_one_version_even_when_others_stand_between(ann):
    ops = [customer(ann, 1, group="a"), customer(ann, 2, group="b"), customer(ann, 3, group="a"), customer(ann, 4)]
    assert [r.version for r in ann.push(*ops)] == [1, 2, 1, 3]


def test_later_ops_on_a_refused_record_are_refused_and_earlier_ones_stand(ann):
    ops = [
        customer(ann, 1),
        ann.op("update", "customer", [1], fields={"secret": 1}),
        ann.op("update", "customer", [1], fields={"name": "x"}),
        customer(ann, 2),
    ]
    results = ann.push(*ops)
    assert statuses(results) == ["applied", "column-unknown", "depends-on-refused", "applied"]
    assert ops[1].op in str(results[2].problem)


def test_a_key_that_another_replica_gave_out_is_taken_with_all_that_points_at_it(ann, bob):
    ann.push(customer(ann, 1))
    ops = [
        customer(bob, 1),
        bob.op("insert", "invoice", [5], fields={"customer_id": 1, "total": 3}),
        bob.op("insert", "line", [5, 1], fields={"what": "nail"}),
        customer(bob, 2),
    ]
    assert statuses(bob.push(*ops)) == ["key-taken", "depends-on-refused", "depends-on-refused", "applied"]


def test_a_child_that_comes_before_its_refused_parent_is_refused_too(ann, bob):
    ann.push(customer(ann, 1))
    ops = [bob.op("insert", "invoice", [5], fields={"customer_id": 1, "total": 3}), customer(bob, 1)]
    assert statuses(bob.push(*ops)) == ["depends-on-refused", "key-taken"]


def test_a_generated_key_that_was_seen_may_be_written_again(ann, bob):
    ann.push(customer(ann, 1))
    assert statuses(bob.push(customer(bob, 1, 5, base=1))) == ["applied"]
    ann.push(customer(ann, 2))
    again = [bob.op("delete", "customer", [2], 6, base=1), customer(bob, 2, 7, base=1)]
    assert statuses(bob.push(*again)) == ["applied", "applied"]


def test_the_writer_of_a_generated_key_may_insert_it_again(ann):
    ann.push(customer(ann, 1))
    assert statuses(ann.push(customer(ann, 1, 5))) == ["applied"]


def test_natural_keys_are_one_record_on_both_replicas(ann, bob):
    for device, what in ((ann, "nail"), (bob, "screw")):
        op = device.op("insert", "line", [1, 1], device is bob, fields={"what": what})
        assert statuses(device.push(op)) == ["applied"]
    assert shown(ann.pull()) == [("line", [1, 1], {"what": "screw"})]


def test_a_refusal_spreads_along_a_chain_through_the_whole_push(ann):
    ops = [ann.op("update", "line", [1, (n + 1) // 2], fields={"what": n}, group=f"g{n // 2}") for n in range(1998)]
    ops[0].fields = {"secret": 1}
    ops += [ann.op("update", "line", [2, n], fields={"what": n}) for n in range(2)]
    results = statuses(ann.push(*ops))
    assert results == ["column-unknown"] + ["depends-on-refused"] * 1997 + ["applied"] * 2


def test_from_a_stamp_that_is_too_far_ahead_on_everything_is_to_be_retried(ann):
    ops = [customer(ann, 1), customer(ann, 2, at=60_001), customer(ann, 3)]
    results = ann.push(*ops)
    assert statuses(results) == ["applied", "clock-drift", "clock-drift"]
    assert [r.status for r in results] == ["applied", "retry", "retry"]
    assert statuses(ann.push(*ops, now=NOW + 1)) == ["duplicate", "applied", "applied"]


def test_a_stamp_that_does_not_count_may_be_anything(ann):
    ops = [ann.op("void", "customer", [], 99_999), ann.op("backfill", "customer", [1], 99_999, fields={"name": "x"})]
    assert statuses(ann.push(*ops)) == ["applied", "applied"]
    assert ann.pull().hlc == "000000000000-0000"


def test_a_group_with_a_stamp_too_far_ahead_is_kept_back_whole(ann):
    ops = [customer(ann, 1, group="a"), customer(ann, 2, group="b"), customer(ann, 3, group="a", at=90_000)]
    assert {r.status for r in ann.push(*ops)} == {"retry"}
    assert ann.pull().records == []


def test_a_backfill_is_never_merged_into_a_record_that_was_inserted_apart(ann, bob):
    ann.push(customer(ann, 1), ann.op("backfill", "customer", [2], fields={"name": "before", "phone": None}))
    known = ann.pull().position
    theirs = [bob.op("backfill", "customer", [key], fields={"name": "bob's", "phone": None}) for key in (1, 2)]
    assert statuses(bob.push(*theirs)) == ["key-taken", "applied"]
    same = [bob.op("backfill", "customer", [1], fields={"name": "customer 1", "phone": None})]
    assert statuses(bob.push(*same)) == ["applied"]
    seen = bob.op("backfill", "customer", [1], base=known, fields={"name": "sent again", "phone": None})
    assert statuses(bob.push(seen)) == ["applied"]
