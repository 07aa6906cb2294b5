"""Which ops are refused, and what falls with them."""

from __future__ import annotations

from tests.contract.remote.conftest import Join
from tests.contract.remote.replicas import INVOICE, outcome


def test_a_group_is_all_or_none(join: Join) -> None:
    a, b = join("a"), join("b")
    ops = [
        a.op("insert", "customer", [1], group="g", name="x", phone=""),
        a.op("insert", "nowhere", [1], group="g", note=1),
        a.op("insert", "customer", [2], name="y", phone=""),
    ]
    results = a.push(*ops)
    assert [outcome(result) for result in results] == ["depends-on-refused", "table-unknown", ""]
    assert [record.key for record in b.pull()] == [[2]]


def test_what_depends_on_a_refused_insert_is_refused_and_nothing_else(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [7], name="A's", phone="")
    results = b.push(
        b.op("insert", "customer", [7], name="B's", phone=""),
        b.op("update", "customer", [7], name="B's again"),
        b.op("insert", "invoice", [1], customer_id=7, total=1),
        b.op("insert", "invoice", [2], customer_id=8, total=1),
        b.op("update", "invoice", [1], total=2),
    )
    refused = "depends-on-refused"
    assert [outcome(result) for result in results] == ["key-taken", refused, refused, "", refused]
    assert results[1].problem is not None
    assert results[0].op in results[1].problem.detail


def test_a_generated_key_that_was_seen_may_be_written_again(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [7], name="A's", phone="")
    b.pull()
    assert b.do("insert", "customer", [7], name="B's", phone="").status == "applied"


def test_who_deletes_a_record_may_use_its_generated_key_again(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [7], name="A's", phone="")
    again = [b.op("delete", "customer", [7]), b.op("insert", "customer", [7], name="B's", phone="")]
    assert [result.status for result in b.push(*again)] == ["applied", "applied"]
    assert a.remote.records([("customer", [7])])[0].fields["name"] == "B's"


def test_a_delete_after_it_or_of_another_record_does_not_free_a_key(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [7], name="A's", phone="")
    a.do("insert", "customer", [8], name="A's", phone="")
    results = b.push(
        b.op("delete", "customer", [8]),
        b.op("insert", "customer", [7], name="B's", phone=""),
        b.op("delete", "customer", [7]),
    )
    assert [outcome(result) for result in results] == ["", "key-taken", "depends-on-refused"]
    assert a.remote.records([("customer", [7])])[0].fields["name"] == "A's"


def test_the_maker_of_a_generated_key_may_insert_it_again(join: Join) -> None:
    a = join("a")
    a.do("insert", "customer", [7], name="A's", phone="")
    assert a.do("insert", "customer", [7], name="A's again", phone="").status == "applied"


def test_a_child_falls_with_its_parent_whichever_comes_first_and_by_its_key_as_well(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [7], name="A's", phone="")
    results = b.push(
        b.op("insert", "line", [1, 1], what="of the invoice below"),
        b.op("insert", "invoice", [1], customer_id=7, total=1),
        b.op("insert", "customer", [7], name="B's", phone=""),
        b.op("insert", "line", [1, 2], what="of the invoice above"),
        b.op("insert", "line", [2, 1], what="of another"),
    )
    refused = "depends-on-refused"
    assert [outcome(result) for result in results] == [refused, refused, "key-taken", refused, ""]


def test_earlier_ops_on_a_refused_record_stand(join: Join) -> None:
    a = join("a")
    results = a.push(
        a.op("insert", "customer", [1], name="x", phone=""),
        a.op("update", "customer", [1], colour="red"),
        a.op("update", "customer", [1], name="y"),
        a.op("insert", "invoice", [1], customer_id=1, total=1),
    )
    assert [outcome(result) for result in results] == ["", "column-unknown", "depends-on-refused", ""]


def test_a_child_of_a_record_of_an_unknown_table_falls_with_it(join: Join) -> None:
    a = join("a", [INVOICE])
    results = a.push(
        a.op("insert", "invoice", [1], customer_id=7, total=1),
        a.op("insert", "customer", [7], name="x", phone=""),
        a.op("insert", "invoice", [2], customer_id=8, total=1),
    )
    assert [outcome(result) for result in results] == ["depends-on-refused", "table-unknown", ""]


def test_a_refusal_spreads_over_groups(join: Join) -> None:
    a = join("a")
    results = a.push(
        a.op("insert", "playlist", [1, 1], note="x", group="g"),
        a.op("update", "playlist", [1, 2], colour="red", group="g"),
        a.op("update", "playlist", [1, 1], note="y", group="h"),
        a.op("insert", "playlist", [1, 3], note="x", group="h"),
        a.op("insert", "playlist", [1, 4], note="x"),
    )
    refused = "depends-on-refused"
    assert [outcome(result) for result in results] == [refused, "column-unknown", refused, refused, ""]


def test_a_void_op_depends_on_nothing(join: Join) -> None:
    a = join("a")
    results = a.push(a.op("update", "customer", [1], colour="red"), a.op("void", "customer", [1]))
    assert [outcome(result) for result in results] == ["column-unknown", ""]
