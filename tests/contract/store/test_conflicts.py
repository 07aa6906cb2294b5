"""What the server leaves to a person, what is held with it, and aggregates, which stand or are held whole."""

from __future__ import annotations

import pytest
from msgspec import structs
from sqlalchemy import event

from backhaul.errors import Refused
from backhaul.merge import Functions
from backhaul.wire import Column, Op, Reference, Result, Table
from tests.contract.store.devices import NOW, Device, statuses


def reference(column: str, table: str, target: str) -> Reference:
    return Reference(columns=[column], table=table, target=[target])


NOTE = Table(
    name="note",
    columns=[Column(name=name) for name in ("id", "text", "colour", "parent")],
    key=["id"],
    references=[reference("parent", "note", "id")],
    merge={"text": "manual"},
)
INVOICE = Table(
    name="invoice",
    columns=[Column(name=name) for name in ("id", "total", "seen")],
    key=["id"],
    merge={"total": "manual"},
)
LINE = Table(
    name="line",
    columns=[Column(name=name) for name in ("id", "invoice_id", "amount")],
    key=["id"],
    references=[reference("invoice_id", "invoice", "id")],
    aggregate="invoice",
)
TABLES = [NOTE, INVOICE, LINE]


@pytest.fixture
def ann(join) -> Device:
    return join(tables=TABLES)


@pytest.fixture
def bob(join) -> Device:
    return join(tables=TABLES)


def note(device: Device, key: int, **fields: object) -> Op:
    return device.op("insert", "note", [key], fields={"text": "t", "colour": "red", "parent": None} | fields)


def edit(device: Device, table: str, key: int, base: int, at: int = 5, **fields: object) -> Op:
    return device.op("update", table, [key], at, base=base, fields=fields)


def outcome(result: Result) -> tuple[str, str]:
    return result.status, statuses([result])[0]


# ------------------------------------------------------------------------------------------------ manual


def test_two_values_for_one_manual_field_are_a_conflict_that_says_what_stands(ann, bob):
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="ann"))
    (result,) = bob.push(edit(bob, "note", 1, 1, 9, text={"was": "t", "now": "bob"}, colour="blue"))
    assert outcome(result) == ("conflict", "conflict")
    assert result.version == 0
    assert result.problem is not None
    assert (result.problem.theirs, result.problem.version) == ({"text": "ann", "colour": "red"}, 2)
    assert bob.pull().records[0].fields == {"text": "ann", "colour": "red", "parent": None}


def test_the_same_value_and_other_fields_are_none(ann, bob):
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="same", colour="green"))
    ops = [edit(bob, "note", 1, 1, 9, text="same"), edit(bob, "note", 1, 1, 9, colour="blue")]
    assert statuses(bob.push(*ops)) == ["applied", "applied"]


def test_an_edit_of_what_stands_is_not_lost_to_who_wrote_that_same_value_later(ann, bob):
    ann.push(note(ann, 1))
    bob.push(bob.op("insert", "note", [1], 9, fields={"text": "t", "colour": "red", "parent": None}))
    assert statuses(ann.push(edit(ann, "note", 1, 1, 5, text={"was": "t", "now": "ann"}))) == ["applied"]
    assert bob.pull().records[0].fields["text"] == "ann"
    assert statuses(bob.push(edit(bob, "note", 1, 3, 10, text={"was": "ann", "now": "bob"}))) == ["applied"]
    assert ann.pull().records[0].fields["text"] == "bob"


def test_what_was_seen_and_what_is_ones_own_may_be_overwritten(ann, bob):
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="ann"))
    assert statuses(ann.push(edit(ann, "note", 1, 1, 6, text="ann again"))) == ["applied"]
    assert statuses(bob.push(edit(bob, "note", 1, 3, 7, text="bob"))) == ["applied"]


def test_a_delete_that_had_not_seen_a_manual_edit_is_a_conflict_that_says_everything(ann, bob):
    ann.push(note(ann, 1), note(ann, 2))
    ann.push(edit(ann, "note", 1, 2, text="ann"), edit(ann, "note", 2, 2, colour="of no concern"))
    results = bob.push(*(bob.op("delete", "note", [key], 9, base=2) for key in (1, 2)))
    assert statuses(results) == ["conflict", "applied"]
    assert results[0].problem is not None
    assert results[0].problem.theirs == {"text": "ann", "colour": "red", "parent": None}


def test_a_manual_edit_that_had_not_seen_the_delete_is_a_conflict(ann, bob):
    ann.push(note(ann, 1), note(ann, 2))
    ann.push(*(ann.op("delete", "note", [key], 3, base=2) for key in (1, 2)))
    results = bob.push(edit(bob, "note", 1, 2, 9, text="bob"), edit(bob, "note", 2, 2, 9, colour="of no concern"))
    assert statuses(results) == ["conflict", "applied"]
    assert results[0].problem is not None
    assert (results[0].problem.deleted, results[0].problem.theirs) == (True, None)


def test_two_inserts_of_one_natural_key_are_a_conflict_and_a_backfill_never_is(ann, bob, join):
    ann.push(note(ann, 1, text="ann"))
    assert statuses(bob.push(note(bob, 1, text="bob"))) == ["conflict"]
    carl = join(tables=TABLES)
    backfill = carl.op("backfill", "note", [1], fields={"text": "carl", "colour": "red", "parent": None})
    assert statuses(carl.push(backfill)) == ["applied"]


def test_held_with_a_conflict_are_its_group_later_ops_of_the_record_and_what_refers_to_it(ann, bob):
    ann.push(note(ann, 1), note(ann, 2))
    ann.push(edit(ann, "note", 1, 2, text="ann"))
    ops = [
        edit(bob, "note", 1, 0, 9, colour="before it"),
        bob.op("update", "note", [1], 10, group="g", base=2, fields={"text": "bob"}),
        bob.op("insert", "note", [7], 10, group="g", base=2, fields={"text": "of the group"}),
        bob.op("insert", "note", [8], 11, base=2, fields={"text": "its child", "parent": 7}),
        edit(bob, "note", 1, 2, 12, colour="after it"),
        edit(bob, "note", 2, 2, 12, text="free"),
    ]
    results = bob.push(*ops)
    held = ["depends-on-conflict"] * 3
    assert statuses(results) == ["applied", "conflict", *held, "applied"]
    assert {result.status for result in results[1:5]} == {"conflict"}
    assert results[2].problem is not None
    assert (results[2].problem.cause, results[2].problem.version) == (ops[1].op, 0)
    assert {tuple(record.key) for record in ann.pull().records} == {(1,), (2,)}


def test_a_conflict_is_answered_alike_for_ever_and_what_comes_after_it_is_held(ann, bob):
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="ann"))
    op = edit(bob, "note", 1, 1, 9, text="bob")
    first = bob.push(op)
    ann.push(edit(ann, "note", 1, 2, text="ann, later"))
    again = bob.push(op, edit(bob, "note", 1, 3, 12, colour="blue"))
    assert again[0] == first[0]
    assert outcome(again[1]) == ("conflict", "depends-on-conflict")


@pytest.mark.parametrize(("known", "days", "told"), [(True, 31, None), (True, 29, "ann"), (False, 31, "ann")])
def test_what_stood_there_is_forgotten_once_it_is_known_and_old(ann, bob, store, known, days, told):
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="ann"))
    op = edit(bob, "note", 1, 1, 9, text="bob")
    bob.push(op)
    if known:
        bob.push(note(bob, 2))
    store.purge(NOW + days * 86_400_000)
    (again,) = bob.push(op)
    assert outcome(again) == ("conflict", "conflict")
    assert (again.problem.theirs or {}).get("text") == told


def test_a_refused_op_of_the_group_goes_before_the_conflict(ann, bob):
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="ann"))
    ops = [
        bob.op("update", "note", [1], 9, group="g", base=1, fields={"text": "bob"}),
        bob.op("update", "note", [2], 9, group="g", base=1, fields={"nothing": 1}),
    ]
    assert statuses(bob.push(*ops)) == ["depends-on-refused", "column-unknown"]


# ------------------------------------------------------------------------------------------------ custom


def longer(_base, mine, theirs):
    return max(mine, theirs, key=len)


def fails(_base, _mine, _theirs):
    raise ZeroDivisionError


def no_value(_base, mine, _theirs):
    return [mine]


@pytest.mark.parametrize(
    ("name", "status"), [("longer", "applied"), ("fails", "merge-failed"), ("no_value", "merge-failed")]
)
def test_a_custom_function_that_fails_leaves_it_to_a_person(join, store, name, status):
    store.functions = Functions([__name__])
    tables = [structs.replace(NOTE, merge={"text": f"custom:{__name__}:{name}"})]
    ann, bob = join(tables=[]), join(tables=[])
    store.declare("shop", tables)
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="longest"))
    ops = [edit(bob, "note", 1, 1, 9, text={"was": "t", "now": "long"}), edit(bob, "note", 1, 1, 10, colour="blue")]
    results = bob.push(*ops)
    assert statuses(results) == ([status] * 2 if status == "applied" else [status, "depends-on-conflict"])


# ------------------------------------------------------------------------------------------------ aggregates


def an_invoice(device: Device, *amounts: int) -> None:
    ops = [device.op("insert", "invoice", [9], fields={"total": sum(amounts), "seen": 0}, group="g")]
    ops += [
        device.op("insert", "line", [number], fields={"invoice_id": 9, "amount": amount}, group="g")
        for number, amount in enumerate(amounts, start=1)
    ]
    device.push(*ops)


def test_whatever_two_replicas_change_of_an_aggregate_is_a_conflict(ann, bob):
    an_invoice(ann, 3, 4)
    ann.push(edit(ann, "line", 1, 1, amount=5))
    results = bob.push(
        edit(bob, "line", 2, 1, 9, amount=6),
        bob.op("insert", "line", [3], 9, base=1, fields={"invoice_id": 9, "amount": 1}),
        bob.op("delete", "line", [2], 9, base=1),
        edit(bob, "invoice", 9, 1, 9, seen=1),
        bob.op("insert", "line", [4], 9, base=1, fields={"invoice_id": None, "amount": 1}),
        bob.op("insert", "line", [5], 9, base=1, fields={"invoice_id": 10, "amount": 1}),
    )
    assert statuses(results) == ["conflict", "conflict", "conflict", "conflict", "applied", "applied"]


def test_who_has_seen_the_other_edit_may_go_on_and_ones_own_never_conflicts(ann, bob):
    an_invoice(ann, 3, 4)
    ann.push(edit(ann, "line", 1, 1, amount=5))
    assert statuses(bob.push(edit(bob, "line", 2, 2, amount=6))) == ["applied"]
    assert statuses(bob.push(edit(bob, "line", 2, 2, 6, amount=7))) == ["applied"]
    assert statuses(ann.push(edit(ann, "line", 1, 2, 7, amount=8))) == ["conflict"]
    assert statuses(ann.push(edit(ann, "line", 1, 4, 8, amount=8))) == ["applied"]
    assert statuses(ann.push(edit(ann, "line", 1, 4, 9, amount=9))) == ["applied"]


def test_who_has_seen_more_of_an_aggregate_than_there_is_is_told_so_before_anything_of_it_is_taken(ann, bob):
    an_invoice(ann, 3)
    with pytest.raises(Refused) as refused:
        ann.push(note(ann, 8), edit(ann, "invoice", 9, base=2, total=4))
    assert (refused.value.problem, refused.value.status) == ("server-restored", 410)
    assert [(record.table, record.key) for record in bob.pull().records] == [("invoice", [9]), ("line", [1])]
    assert statuses(bob.push(edit(bob, "note", 8, base=9, text="of one that is no part"))) == ["applied"]


def test_a_part_that_was_deleted_still_knows_its_aggregate(ann, bob):
    an_invoice(ann, 3, 4)
    ann.push(ann.op("delete", "line", [1], 3, base=1))
    ops = [edit(bob, "line", 1, 1, 9, amount=6), edit(bob, "invoice", 9, 2, 9, total=9)]
    results = bob.push(*ops)
    assert statuses(results) == ["conflict", "depends-on-conflict"]
    assert results[0].problem is not None
    assert results[0].problem.deleted


def test_a_part_that_moves_changes_both_aggregates(ann, bob):
    an_invoice(ann, 3, 4)
    ann.push(ann.op("insert", "invoice", [10], fields={"total": 0}))
    ann.push(edit(ann, "line", 1, 2, invoice_id=10))
    ops = [edit(bob, "invoice", key, 2, 9, total=1) for key in (9, 10)]
    assert statuses(bob.push(*ops)) == ["conflict", "conflict"]


def test_who_writes_what_is_there_already_changes_no_aggregate(ann, bob):
    an_invoice(ann, 3)
    backfill = [
        bob.op("backfill", "invoice", [9], fields={"total": 3, "seen": 0}),
        bob.op("backfill", "line", [1], fields={"invoice_id": 9, "amount": 3}),
    ]
    assert statuses(bob.push(*backfill)) == ["applied", "applied"]
    assert statuses(ann.push(edit(ann, "invoice", 9, 1, 9, total=4))) == ["applied"]


def test_who_says_again_what_stands_there_has_changed_the_aggregate(ann, bob):
    an_invoice(ann, 3)
    again = bob.op("insert", "line", [1], 20, base=1, fields={"invoice_id": 9, "amount": 3})
    assert statuses(bob.push(again)) == ["applied"]
    edits = [edit(ann, "line", 1, 1, 9, amount=4), edit(ann, "invoice", 9, 1, 9, total=4)]
    assert statuses(ann.push(*edits)) == ["conflict", "conflict"]  # the total would stand beside bob's later 3
    assert ann.pull().position == 2
    assert statuses(ann.push(edit(ann, "line", 1, 2, 21, amount=4))) == ["applied"]


def test_who_says_again_what_stands_there_hides_no_edit_before_that(ann, bob, join):
    an_invoice(ann, 3)
    ann.push(edit(ann, "line", 1, 1, amount=5))
    again = bob.op("insert", "invoice", [9], 9, base=2, fields={"total": 3, "seen": 0})
    assert statuses(bob.push(again)) == ["applied"]
    carl = join(tables=TABLES)
    assert statuses(carl.push(edit(carl, "line", 1, 1, 9, amount=6))) == ["conflict"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {
                "invoice": {
                    "aggregate": "note",
                    "references": [Reference(columns=["seen"], table="note", target=["id"])],
                }
            },
            "itself",
        ),
        ({"line": {"references": [Reference(columns=["invoice_id"], table="invoice", target=["seen"])]}}, "whole key"),
    ],
)
def test_an_aggregate_that_cannot_be_is_refused(join, changes, said):
    tables = [structs.replace(table, **changes.get(table.name, {})) for table in TABLES]
    with pytest.raises(Refused, match=said):
        join(tables=tables)


def test_conflicts_cost_no_statement_for_each_op(ann, bob, store):
    an_invoice(ann, *range(50))
    ann.push(edit(ann, "line", 1, 1, amount=5))
    counts = []
    for first, last in ((2, 3), (3, 50)):
        statements: list[str] = []

        def count(_connection, _cursor, statement, *_rest, seen=statements):
            seen.append(statement)

        event.listen(store.database.engine, "before_cursor_execute", count)
        assert set(statuses(bob.push(*(edit(bob, "line", number, 1, amount=6) for number in range(first, last))))) == {
            "conflict"
        }
        event.remove(store.database.engine, "before_cursor_execute", count)
        counts.append(len(statements))
    assert counts[0] == counts[1]
