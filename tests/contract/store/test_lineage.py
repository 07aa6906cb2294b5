"""A replica that succeeds itself, after a sign-in or a fork, is one writer with what it wrote before: with what its
database knows of that. What the former self wrote after the backup was made is another's to it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from backhaul.errors import Refused
from backhaul.server import auth
from backhaul.wire import Column, Op, Reference, Registration, Table, Tagged
from tests.contract.store.devices import NOW, Device, statuses

Knows = Sequence[tuple[int, int]]


def columns(*names: str) -> list[Column]:
    return [Column(name=name) for name in names]


NOTE = Table(
    name="note",
    columns=columns("id", "text", "colour", "serial", "stock"),
    key=["id"],
    merge={"text": "manual", "serial": "immutable", "stock": "counter"},
)
INVOICE = Table(name="invoice", columns=columns("id", "total"), key=["id"])
LINE = Table(
    name="line",
    columns=columns("id", "invoice_id", "amount"),
    key=["id"],
    references=[Reference(columns=["invoice_id"], table="invoice", target=["id"])],
    aggregate="invoice",
)
KEPT = Table(name="kept", columns=columns("id", "text"), key=["id"], deletes="edit_wins")
NUMBERED = Table(name="numbered", columns=columns("id", "text"), key=["id"], keys="generated")
TABLES = [NOTE, INVOICE, LINE, KEPT, NUMBERED]


@pytest.fixture
def ann(join) -> Device:
    return join(tables=TABLES)


@pytest.fixture
def bob(join) -> Device:
    return join(tables=TABLES)


def successor(device: Device, knows: Knows) -> Device:
    """knows: what was written by the database that the successor has, as ranges of versions."""
    with device.store.database.writing() as connection:
        made = auth.succeed(connection, device.replica, device.replica.id, NOW, knows)
    return Device(device.store, auth.Replica(id=made.replica, scope=made.scope))


def speaks_for(device: Device, other: Device) -> str:
    """The problem, or nothing: the replica of the one's token asks as the other."""
    with device.store.database.reading() as connection:
        try:
            assert auth.speaking_for(connection, device.replica, other.replica.id) == other.replica
        except Refused as refusal:
            return refusal.problem
    return ""


def note(device: Device, key: int, at: int = 0, **said: object) -> Op:
    fields = {"text": "t", "colour": "red", "serial": None, "stock": 10}
    return device.op("insert", "note", [key], at, fields=fields | said)


def edit(device: Device, table: str, key: int, at: int, base: int = 0, **fields: object) -> Op:
    return device.op("update", table, [key], at, base=base, fields=fields, op=f"{device.replica.id}{device.seq:016x}")


def delete(device: Device, table: str, key: int, at: int, base: int = 0) -> Op:
    return device.op("delete", table, [key], at, base=base, op=f"{device.replica.id}{device.seq:016x}")


def insert(device: Device, table: str, key: int, at: int = 0, base: int = 0, **fields: object) -> Op:
    return device.op("insert", table, [key], at, base=base, fields=fields, op=f"{device.replica.id}{device.seq:016x}")


# what the heir's database knows of the two versions that its former self wrote, and what comes of it
BOTH, FIRST_ONLY = [(0, 2)], [(0, 1)]


@pytest.mark.parametrize(
    ("knows", "outcome"), [(BOTH, "applied"), ([(1, 1), (2, 2)], "applied"), (FIRST_ONLY, "conflict")]
)
def test_a_manual_field(ann, knows, outcome):
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, text="before, or unseen"))
    heir = successor(ann, knows)
    assert statuses(heir.push(edit(heir, "note", 1, 5, text="the heir's"))) == [outcome]


@pytest.mark.parametrize(("knows", "outcome"), [(BOTH, "applied"), (FIRST_ONLY, "conflict")])
def test_an_aggregate(ann, knows, outcome):
    ann.push(insert(ann, "invoice", 1, total=0))
    ann.push(insert(ann, "line", 1, 1, invoice_id=1, amount=5))
    heir = successor(ann, knows)
    assert statuses(heir.push(edit(heir, "invoice", 1, 5, total=5))) == [outcome]


@pytest.mark.parametrize("theirs", [False, True])
def test_an_aggregate_remembers_who_else_changed_it_across_a_succession(ann, bob, theirs):
    ann.push(insert(ann, "invoice", 1, total=0))
    if theirs:
        bob.push(edit(bob, "invoice", 1, 1, base=1, total=3))  # ann has not seen it
    else:
        ann.push(edit(ann, "invoice", 1, 1, total=3))
    first = ann.push(insert(ann, "line", 9, 2, base=2, invoice_id=None, amount=1))
    assert statuses(first) == ["applied"]
    heir = successor(ann, [(0, 1), (2, 3)] if not theirs else [(0, 1), (3, 3)])
    results = heir.push(edit(heir, "invoice", 1, 5, base=1, total=4))
    assert statuses(results) == ["conflict" if theirs else "applied"]


@pytest.mark.parametrize(("knows", "gone"), [(BOTH, True), (FIRST_ONLY, False)])
def test_a_delete_where_edits_win(ann, knows, gone):
    ann.push(insert(ann, "kept", 1, text="t"))
    ann.push(edit(ann, "kept", 1, 1, text="before, or unseen"))
    heir = successor(ann, knows)
    heir.push(delete(heir, "kept", 1, 5))
    assert heir.pull().records[0].deleted is gone


def test_an_edit_of_another_is_not_forgotten_for_two_of_one_lineage(ann, bob):
    ann.push(insert(ann, "kept", 1, text="t"))
    bob.push(edit(bob, "kept", 1, 1, base=1, text="bob's"))  # nobody else has seen it
    ann.push(edit(ann, "kept", 1, 2, base=1, text="ann's"))
    heir = successor(ann, [(0, 1), (3, 3)])
    heir.push(edit(heir, "kept", 1, 3, base=1, text="the heir's"))
    heir.push(delete(heir, "kept", 1, 5, base=1))
    assert not bob.pull().records[0].deleted


@pytest.mark.parametrize(("knows", "text"), [(BOTH, "anew"), (FIRST_ONLY, "anew")])
def test_an_insert_after_a_delete_where_edits_win(ann, knows, text):
    ann.push(insert(ann, "kept", 1, text="t"))
    ann.push(delete(ann, "kept", 1, 1))
    heir = successor(ann, knows)
    heir.push(insert(heir, "kept", 1, 5, text=text))
    assert heir.pull().records[0].fields == {"text": "anew"}


@pytest.mark.parametrize(("knows", "gone"), [(BOTH, True), (FIRST_ONLY, False)])
def test_an_edit_after_a_delete_where_edits_win(ann, knows, gone):
    """Its own delete was meant; one that the former self made after the backup takes no edit away."""
    ann.push(insert(ann, "kept", 1, text="t"))
    ann.push(delete(ann, "kept", 1, 1))
    heir = successor(ann, knows)
    heir.push(edit(heir, "kept", 1, 5, text="late"))
    assert heir.pull().records[0].deleted is gone


@pytest.mark.parametrize(("knows", "outcome"), [([(0, 1)], "applied"), ([(0, 0)], "key-taken")])
def test_a_generated_key(ann, knows, outcome):
    """INSERT OR REPLACE of its own row; and a row that the former self gave the same number later."""
    ann.push(insert(ann, "numbered", 1, text="before, or unseen"))
    heir = successor(ann, knows)
    assert statuses(heir.push(insert(heir, "numbered", 1, 5, text="the heir's"))) == [outcome]


def test_a_generated_key_whose_outcome_is_forgotten_is_no_others_where_it_says_the_same(ann):
    ann.push(insert(ann, "numbered", 1, text="t"), insert(ann, "numbered", 2, text="t"))
    heir = successor(ann, [(0, 0)])
    ops = [
        heir.op("insert", "numbered", [1], 5, fields={"text": "t"}, op="a" * 32, former=True),
        heir.op("insert", "numbered", [2], 5, fields={"text": "another row"}, op="b" * 32, former=True),
    ]
    assert statuses(heir.push(*ops)) == ["applied", "key-taken"]


@pytest.mark.parametrize(("knows", "outcome"), [(BOTH, "immutable"), (FIRST_ONLY, "applied")])
def test_an_immutable_value(ann, knows, outcome):
    """Whoever knows the value and changes it is told; whoever does not, gives way."""
    ann.push(note(ann, 1))
    ann.push(edit(ann, "note", 1, 1, serial="A"))
    heir = successor(ann, knows)
    assert statuses(heir.push(edit(heir, "note", 1, 5, serial="B"))) == [outcome]
    assert heir.pull().records[0].fields["serial"] == "A"


@pytest.mark.parametrize(("knows", "stock"), [([(0, 0), (1, 1)], 12), ([(0, 0)], 13)])
def test_a_counter_that_is_backfilled_by_the_successor(ann, bob, knows, stock):
    """The row that is backfilled holds what its own database had added (1), and not what the former self added after
    the backup; what others had added (2) comes to it."""
    ann.push(edit(ann, "note", 1, 1, stock=Tagged(add=1)))
    bob.push(edit(bob, "note", 1, 2, stock=Tagged(add=2)))
    heir = successor(ann, knows)
    row = {"text": "t", "colour": "red", "serial": None, "stock": 10}
    heir.push(heir.op("backfill", "note", [1], fields=row, op="b" * 32))
    assert heir.pull().records[0].fields["stock"] == stock


def test_what_is_sent_once_more_is_known_from_then_on(ann):
    """It waited in the backup, and the former self sent it after the backup was made."""
    ann.push(insert(ann, "invoice", 1, total=0))
    sent = edit(ann, "invoice", 1, 1, total=1)
    ann.push(sent)
    heir = successor(ann, [(0, 1)])
    again = edit(heir, "invoice", 1, 1, total=1)
    again.op, again.former = sent.op, True
    assert [result.status for result in heir.push(again)] == ["duplicate"]
    assert statuses(heir.push(edit(heir, "invoice", 1, 5, total=2))) == ["applied"]


def test_a_successor_of_a_successor_knows_what_that_one_knew_and_no_more(ann):
    ann.push(insert(ann, "invoice", 1, total=0), insert(ann, "invoice", 2, total=0))
    heir = successor(ann, [(0, 2)])
    ann.push(edit(ann, "invoice", 2, 3, base=2, total=3))  # the other copy goes on
    heir.push(edit(heir, "invoice", 1, 4, base=2, total=4))
    last = successor(heir, [(0, 4)])  # whose database has pulled what the other copy wrote, but its app had not seen it
    results = last.push(edit(last, "invoice", 1, 5, base=2, total=5), edit(last, "invoice", 2, 6, base=2, total=6))
    assert statuses(results) == ["applied", "conflict"]


def test_a_token_speaks_for_those_that_came_of_its_replica_until_they_are_revoked(ann, bob, join) -> None:
    heir = successor(ann, BOTH)
    last = successor(heir, BOTH)
    assert [speaks_for(one, last) for one in (ann, heir, last)] == ["", "", ""]
    assert [speaks_for(last, one) for one in (ann, heir)] == ["replica-unrelated"] * 2
    assert speaks_for(bob, last) == speaks_for(join("other"), last) == "replica-unrelated"
    with ann.store.database.writing() as connection:
        auth.revoke(connection, last.replica.id, NOW)
    assert [speaks_for(one, last) for one in (ann, heir)] == ["replica-revoked"] * 2
    assert speaks_for(bob, last) == "replica-unrelated", "who may not ask is not told"
    assert speaks_for(ann, heir) == ""


def test_a_token_of_a_revoked_replica_speaks_for_nobody(store) -> None:
    with store.database.writing() as connection:
        code = auth.enrol(connection, "shop", NOW)
        made = auth.register(connection, Registration(code=code, tables=TABLES), NOW)
        asker = auth.authenticate(connection, made.token)
        heir = auth.succeed(connection, asker, asker.id, NOW)
        assert auth.authenticate(connection, made.token, heir.replica).id == heir.replica
        auth.revoke(connection, asker.id, NOW)
        with pytest.raises(Refused) as caught:
            auth.authenticate(connection, made.token, heir.replica)
        assert caught.value.problem == "replica-revoked"
        assert auth.authenticate(connection, heir.token).id == heir.replica
