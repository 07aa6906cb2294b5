"""Ops that come again together with new ones."""

from __future__ import annotations

from backhaul.wire import problem_name
from tests.contract.remote.conftest import Join


def test_what_depends_on_an_op_is_refused_though_that_one_was_refused_in_an_earlier_push(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [1], name="of a", phone=None)
    taken = b.op("insert", "customer", [1], name="of b", phone=None)
    assert [result.status for result in b.push(taken)] == ["rejected"]
    update, invoice = b.op("update", "customer", [1], phone="1"), b.op("insert", "invoice", [9], customer_id=1, total=5)
    line, free = b.op("insert", "line", [9, 1], what="tea"), b.op("insert", "customer", [2], name="free", phone=None)
    results = b.push(taken, update, invoice, line, free)
    assert [result.status for result in results] == ["rejected"] * 4 + ["applied"]
    assert [(record.table, record.key, record.fields["name"]) for record in a.pull()] == [
        ("customer", [1], "of a"),
        ("customer", [2], "free"),
    ]


def test_a_generated_key_that_another_replica_has_used_and_deleted_unseen_is_taken(join: Join) -> None:
    a, b = join("a"), join("b")
    mine = b.op("insert", "customer", [5], name="of b", phone=None)
    a.do("insert", "customer", [5], name="of a", phone=None)
    a.do("delete", "customer", [5], ahead_ms=5_000)
    (result,) = b.push(mine)
    assert (result.status, problem_name(result.problem)) == ("rejected", "key-taken")
