"""Ops that may have been sent before, under another number or identity: known by their ids."""

from __future__ import annotations

import pytest

from backhaul.server import auth, former
from backhaul.server.admission import Item
from backhaul.wire import Tagged, problem_name
from tests.contract.store.devices import NOW, Device, customer, statuses

DAY = 86_400_000


def successor(device: Device) -> Device:
    with device.store.database.writing() as connection:
        made = auth.succeed(connection, device.replica, device.replica.id, NOW)
    return Device(device.store, auth.Replica(id=made.replica, scope=made.scope))


def test_what_the_predecessor_had_taken_is_a_duplicate_and_the_rest_is_new(ann):
    ann.push(customer(ann, 1), customer(ann, 2), ann.op("update", "nothing", [1]))
    heir = successor(successor(ann))
    ops = [
        customer(heir, 2, op=f"{2:032x}", former=True),
        heir.op("update", "nothing", [1], op=f"{3:032x}", former=True),
        customer(heir, 3, op="a" * 32, former=True),
    ]
    results = heir.push(*ops)
    assert [result.status for result in results] == ["duplicate", "rejected", "applied"]
    assert [result.version for result in results] == [2, 0, 3]
    assert statuses(heir.push(*ops)) == ["duplicate", "table-unknown", "duplicate"]


def test_an_op_is_known_by_another_replica_of_the_lineage_alone(ann, bob):
    ann.push(customer(ann, 1, op="a" * 32))
    assert statuses(bob.push(customer(bob, 5, op="a" * 32, former=True))) == ["applied"]


def test_what_a_successor_has_taken_of_a_backup_is_known_to_the_next_one_of_the_same_backup(ann):
    """It holds the change as pending, and is put back twice."""
    first, second = successor(ann), successor(ann)
    assert statuses(first.push(customer(first, 1, op="a" * 32, former=True))) == ["applied"]
    assert statuses(second.push(customer(second, 1, op="a" * 32, former=True))) == ["duplicate"]


def test_a_message_that_comes_later_than_what_the_successor_has_sent_is_not_taken_once_more(ann):
    """It hung in the network while the database was put back, and sent the same again as a successor of itself."""
    heir, hung = successor(successor(ann)), customer(ann, 1, op="a" * 32)
    assert statuses(heir.push(customer(heir, 1, op="a" * 32, former=True))) == ["applied"]
    assert statuses(ann.push(hung)) == ["duplicate"]
    assert statuses(ann.push(customer(ann, 2))) == ["applied"]


@pytest.mark.parametrize(("base", "status", "name"), [(1, "duplicate", "of bob"), (3, "applied", "of ann")])
def test_what_is_said_once_more_in_sight_of_what_became_of_it_is_said_anew(ann, bob, base, status, name):
    """A database from before asks a person again, who answers the same, and has seen what another wrote since."""
    ann.push(customer(ann, 1))
    ann.push(ann.op("update", "customer", [1], 1, fields={"name": "of ann"}, base=1, op="a" * 32))
    bob.push(bob.op("update", "customer", [1], 2, fields={"name": "of bob"}, base=2))
    heir = successor(ann)
    same = heir.op("update", "customer", [1], 3, fields={"name": "of ann"}, base=base, op="a" * 32, former=True)
    assert [heir.push(same)[0].status for _ in range(2)] == [status, "duplicate"]
    (told,) = Device(ann.store, bob.replica).pull().records
    assert told.fields["name"] == name


def test_what_filled_the_number_of_a_change_is_not_that_change(ann):
    """Its op was given up, and is held as pending by a backup."""
    ann.push(ann.op("void", "customer", [1], op="a" * 32))
    heir = successor(ann)
    ops = [customer(heir, 1, op="a" * 32, former=True)]
    assert statuses(heir.push(*ops)) == ["applied"]
    assert statuses(heir.push(*ops)) == ["duplicate"]
    ann.seq = 0
    assert statuses(ann.push(ann.op("void", "customer", [1], op="a" * 32))) == ["duplicate"]
    ann.push(customer(ann, 2, op="b" * 32))
    assert ann.store.purge(NOW + 31 * DAY) == 1


def test_what_depends_on_an_op_that_was_refused_then_is_refused_now(ann):
    ann.push(customer(ann, 1, fields={"colour": "red"}))
    heir = successor(ann)
    ops = [
        customer(heir, 1, op=f"{1:032x}", former=True, fields={"colour": "red"}),
        heir.op("insert", "invoice", [1], fields={"customer_id": 1, "total": 1}),
    ]
    assert statuses(heir.push(*ops)) == ["column-unknown", "depends-on-refused"]


@pytest.mark.parametrize(("age", "refused"), [(29, False), (31, True)])
def test_what_adds_and_may_have_been_counted_is_left_to_a_person(ann, age, refused):
    add = ann.op("update", "stock", [1], 1, fields={"left": Tagged(add=2)}, former=True)
    items = [Item(op=add), Item(op=ann.op("update", "stock", [1], 1, fields={"left": Tagged(add=2)}))]
    former.refuse_forgotten(items, {}, 0, NOW + age * DAY)
    assert [item.problem and problem_name(item.problem) for item in items] == [
        "outcome-forgotten" if refused else None,
        None,
    ]


@pytest.mark.parametrize(
    ("age", "succeeded", "refused"),
    [
        (31, None, False),  # it has no successor
        (29, 1, False),  # what became of it would be known
        (31, 1, True),  # the successor may have held it, and sent it
        (100, -29, True),  # so, if the clock was four weeks ahead
        (100, -31, False),  # it was made after that
    ],
)
def test_what_a_successor_may_have_sent_so_long_ago_that_it_is_forgotten_is_left_to_a_person(
    ann, age, succeeded, refused
):
    add = Item(op=ann.op("update", "stock", [1], fields={"left": Tagged(add=2)}))
    succeeded_at = 0 if succeeded is None else NOW + succeeded * DAY
    former.refuse_forgotten([add], {}, 0, NOW + age * DAY, succeeded_at=succeeded_at)
    assert (add.problem is not None and problem_name(add.problem)) == ("outcome-forgotten" if refused else False)


@pytest.mark.parametrize("copied", [False, True])
def test_what_waited_for_a_month_in_two_copies_is_not_made_twice(ann, copied):
    for what in (customer(ann, 1), ann.op("delete", "customer", [1], 1)):
        ann.push(what)
    ann.pull()
    waits = customer(ann, 7, op="a" * 32)
    if copied:
        heir = successor(ann)
        assert statuses(heir.push(customer(heir, 7, op="a" * 32, former=True), customer(heir, 8))) == ["applied"] * 2
        assert statuses(heir.push(heir.op("delete", "customer", [7], 2))) == ["applied"]
    ann.store.purge(NOW + 31 * DAY)
    ann.store.purge(NOW + 100 * DAY)
    assert statuses(ann.push(waits, now=NOW + 31 * DAY)) == ["outcome-forgotten" if copied else "applied"]


@pytest.mark.parametrize(("age", "refused"), [(29, False), (31, True)])
def test_a_record_that_may_have_been_made_and_deleted_is_left_to_a_person(ann, age, refused):
    for what in (customer(ann, 1), ann.op("delete", "customer", [1], 1)):
        ann.push(what)
    ann.pull()
    ann.store.purge(NOW + 100 * DAY)
    heir = successor(ann)
    made = [customer(heir, key, op=f"{key:032x}", former=True) for key in (7, 8)]
    results = heir.push(*made, now=NOW + age * DAY)
    assert [result.problem and problem_name(result.problem) for result in results] == (
        ["outcome-forgotten", "outcome-forgotten"] if refused else [None, None]
    )


def test_what_only_sets_is_taken_again_however_old_it_is(ann):
    ann.push(customer(ann, 1))
    heir = successor(ann)
    edit = heir.op("update", "customer", [1], 1, op="b" * 32, fields={"phone": "1"}, former=True)
    assert statuses(heir.push(edit, now=NOW + 31 * DAY)) == ["applied"]
