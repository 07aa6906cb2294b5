"""What one replica pushes, the others pull: which fields, which winner, which values."""

from __future__ import annotations

import msgspec
import pytest

from backhaul.clock import stamp, stamp_to_text
from backhaul.digest import fingerprint, row_hash
from backhaul.wire import Op, Record, encode
from tests.contract.store.devices import NOW, customer, shown, statuses


def test_a_pushed_record_reaches_the_other_replica_whole_and_not_its_writer(ann, bob):
    ann.pull(), bob.pull()
    assert statuses(ann.push(customer(ann, 1))) == ["applied"]
    page = bob.pull()
    assert [(r.whole, r.version, r.fields["name"]) for r in page.records] == [(True, 1, "customer 1")]
    assert (page.position, page.head, page.more, page.hlc) == (1, 1, False, stamp_to_text(stamp(NOW)))
    assert ann.pull().records == []


def test_from_the_beginning_a_replica_gets_its_own_records_too(ann):
    ann.push(customer(ann, 1))
    assert len(ann.pull().records) == 1


def test_only_the_fields_that_changed_travel(ann, bob):
    ann.push(customer(ann, 1))
    ann.pull(), bob.pull()
    ann.push(ann.op("update", "customer", [1], 1, fields={"phone": "0043"}))
    page = bob.pull()
    assert [(r.whole, r.fields) for r in page.records] == [(False, {"phone": "0043"})]


def test_the_later_write_of_a_field_wins_and_the_loser_hears_the_winner(ann, bob):
    ann.push(customer(ann, 1))
    ann.pull(), bob.pull()
    ann.push(ann.op("update", "customer", [1], 9, fields={"phone": "late", "name": "Ann's"}))
    bob.push(bob.op("update", "customer", [1], 5, fields={"phone": "early"}))
    assert shown(bob.pull()) == [("customer", [1], {"phone": "late", "name": "Ann's"})]
    assert ann.pull().records == []


def test_a_loser_that_has_pulled_past_the_winner_hears_it_again(ann, bob):
    ann.push(customer(ann, 1))
    ann.push(ann.op("update", "customer", [1], 9, fields={"phone": "late"}))
    bob.pull()
    bob.push(bob.op("update", "customer", [1], 5, fields={"phone": "early"}))
    assert shown(bob.pull()) == [("customer", [1], {"phone": "late"})]


def test_a_delete_leaves_a_tombstone_that_updates_do_not_move(ann, bob):
    ann.push(customer(ann, 1))
    bob.pull(), ann.pull()
    ann.push(ann.op("delete", "customer", [1], 3))
    assert statuses(bob.push(bob.op("update", "customer", [1], 5, fields={"phone": "1"}))) == ["applied"]
    assert shown(bob.pull()) == [("customer", [1], "deleted")]


def test_an_update_of_an_unknown_record_is_kept_back_until_the_rest_is_there(ann, bob):
    bob.push(bob.op("update", "line", [1, 1], 5, fields={"what": "nail"}))
    assert ann.pull().records == []
    bob.push(bob.op("insert", "line", [1, 1], 1, fields={"what": "screw"}))
    assert shown(ann.pull()) == [("line", [1, 1], {"what": "nail"})]


@pytest.mark.parametrize("kind", ["insert", "backfill"])
def test_the_columns_of_the_key_are_not_kept_as_fields_whether_the_op_repeats_them_or_not(ann, store, kind):
    ann.push(
        ann.op(kind, "line", [1, 1], fields={"what": "nail"}),
        ann.op(kind, "line", [1, 2], fields={"position": 2, "what": "nail", "invoice_id": 1}),
        ann.op("update", "line", [1, 2], 9, fields={"invoice_id": 1, "what": "screw"}),
    )
    held = [("line", [1, 1], {"what": "nail"}), ("line", [1, 2], {"what": "screw"})]
    assert shown(ann.pull()) == held
    assert store.digest("shop", NOW).tables[2].fingerprint == fingerprint(row_hash(*record) for record in held)
    found = msgspec.json.decode(encode(store.records("shop", [("line", [1, 1])])), type=list[Record])
    assert found[0].fields == {"what": "nail"}


def test_an_update_that_repeats_the_key_alone_changes_nothing(ann, bob):
    ann.push(customer(ann, 1))
    bob.pull()
    assert statuses(ann.push(ann.op("update", "customer", [1], 1, fields={"id": 1}))) == ["applied"]
    assert bob.pull().records == []


def test_rows_that_both_replicas_had_before_are_one_record(ann, bob):
    ann.push(ann.op("backfill", "customer", [1], fields={"name": "a", "phone": "1"}))
    assert statuses(bob.push(bob.op("backfill", "customer", [1], fields={"name": "a", "phone": "1"}))) == ["applied"]
    assert [t.count for t in ann.store.digest("shop", NOW).tables] == [1, 0, 0]


def test_a_backfill_that_says_nothing_new_makes_no_feed(ann, bob):
    row = {"name": "a", "phone": "1"}
    ann.push(ann.op("backfill", "customer", [1], fields=row))
    ann.pull()
    bob.push(bob.op("backfill", "customer", [1], fields=row))
    assert ann.pull().records == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**63 - 1,
        -(2**63),
        0.1,
        1e300,
        -0.0,
        "",
        "a\u0000b \U0001f600",
        {"hex": "00ff"},
        {"real": "-Infinity"},
    ],
)
def test_every_value_comes_back_as_it_went(ann, bob, value):
    op = ann.op("insert", "line", [1, 1], fields={"what": value})
    sent = msgspec.json.decode(encode(op), type=Op)
    ann.push(sent)
    raw = encode(bob.store.pull(bob.replica, "", 10, NOW))
    (record,) = msgspec.json.decode(raw)["records"]
    assert repr(record["fields"]["what"]) == repr(value)


@pytest.mark.parametrize("key", ["a'b\"c", "", "\u0000", "ä\U0001f600", 2**63 - 1, -1, {"hex": "ff"}, True])
def test_every_key_finds_its_record_again(ann, key):
    for kind in ("insert", "update", "update"):
        op = msgspec.json.decode(encode(ann.op(kind, "line", [key, 1], ann.seq, fields={"what": kind})), type=Op)
        assert statuses(ann.push(op)) == ["applied"]
    assert len(ann.pull().records) == 1
    (found,) = ann.store.records("shop", [("line", [key, 1])])
    assert msgspec.json.decode(found.key) == [key, 1]
