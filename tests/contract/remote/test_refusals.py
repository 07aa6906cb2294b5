"""Which ops are refused, and what falls with them."""

from __future__ import annotations

from tests.contract.remote.conftest import Join
from tests.contract.remote.replicas import outcome


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
