"""What the server forgets, for whom it waits, and how it knows that it was put back to a backup."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from backhaul.errors import Refused
from backhaul.server import auth
from backhaul.server.store import Store
from tests.contract.store.devices import NOW, Device, customer, shown, statuses

DAY = 86_400_000


def tombstones(store: Store) -> int:
    with store.database.reading() as connection:
        return int(connection.execute(text("SELECT count(*) FROM server_record WHERE deleted = 1")).scalar_one())


def pull(device: Device, now: int) -> list[Any]:
    page = device.store.pull(device.replica, device.cursor, 100, now)
    device.cursor = page.cursor
    return page.records


def heard(*devices: Device, now: int) -> None:
    """Two pulls each: the first fetches, the second names what was fetched."""
    for device in devices:
        pull(device, now)
        pull(device, now)


def delete_one(ann: Device, *others: Device) -> None:
    ann.push(customer(ann, 1), customer(ann, 2))
    heard(ann, *others, now=NOW)
    ann.push(ann.op("delete", "customer", [1], 1, base=2), now=NOW + 1)


def test_a_tombstone_is_forgotten_when_everyone_has_heard_of_it_and_a_day_has_passed(store, ann, bob):
    delete_one(ann, bob)
    heard(ann, now=NOW + DAY)
    store.purge(NOW + 2 * DAY)
    assert tombstones(store) == 1
    heard(bob, now=NOW + DAY)
    store.purge(NOW + DAY)
    assert tombstones(store) == 1
    store.purge(NOW + DAY + 2)
    assert tombstones(store) == 0
    ann.push(customer(ann, 3), now=NOW + 3 * DAY)
    assert [len(pull(device, NOW + 3 * DAY)) for device in (ann, bob)] == [0, 1]


def test_a_revoked_replica_holds_nothing_back(store, ann, bob):
    delete_one(ann, bob)
    heard(ann, now=NOW + DAY)
    with store.database.writing() as connection:
        auth.revoke(connection, bob.replica.id, NOW)
    store.purge(NOW + 2 * DAY)
    assert tombstones(store) == 0


def test_who_comes_after_the_horizon_is_told_so_by_pull_and_by_push(store, ann, bob):
    delete_one(ann, bob)
    ann.push(customer(ann, 3), now=NOW + DAY)
    heard(ann, now=NOW + 100 * DAY)
    store.purge(NOW + 100 * DAY)
    assert tombstones(store) == 0
    with pytest.raises(Refused) as refused:
        pull(bob, NOW + 100 * DAY)
    assert (refused.value.problem, refused.value.status) == ("cursor-expired", 410)
    with pytest.raises(Refused) as refused:
        bob.push(customer(bob, 9), now=NOW + 100 * DAY)
    assert (refused.value.problem, refused.value.status) == ("cursor-expired", 410)
    bob.cursor, bob.seq = "", 0
    heard(bob, now=NOW + 100 * DAY)
    assert statuses(bob.push(customer(bob, 9), now=NOW + 100 * DAY)) == ["applied"]


def test_who_was_idle_as_long_as_nothing_happened_is_not_late(store, ann, bob):
    delete_one(ann, bob)
    heard(ann, bob, now=NOW + DAY)
    store.purge(NOW + 100 * DAY)
    assert tombstones(store) == 0
    ann.push(customer(ann, 3), now=NOW + 100 * DAY)
    assert len(pull(bob, NOW + 100 * DAY)) == 1


def test_an_update_of_a_record_whose_tombstone_is_forgotten_makes_nothing_anew(store, ann, bob):
    delete_one(ann, bob)
    heard(ann, bob, now=NOW + DAY)
    store.purge(NOW + 2 * DAY)
    late = [
        bob.op("update", "customer", [1], 9, base=2, fields={"name": "late"}),
        bob.op("update", "customer", [2], 9, base=2, fields={"name": "fine"}),
        bob.op("update", "customer", [7], 9, base=2, fields={"name": "to come"}, early=True),
        bob.op("insert", "customer", [8], 9, base=2, fields={"name": "new"}),
        bob.op("update", "customer", [8], 10, base=2, fields={"name": "newer"}),
    ]
    assert statuses(bob.push(*late)) == ["record-gone", "applied", "applied", "applied", "applied"]
    ann.cursor = ""
    assert shown(ann.pull()) == [
        ("customer", [2], {"name": "fine", "phone": None}),
        ("customer", [8], {"name": "newer"}),
    ]


def test_a_purge_never_forgets_where_the_feed_stands(store, ann):
    ann.push(customer(ann, 1))
    pull(ann, NOW)
    for days in (100, 200, 300):
        store.purge(NOW + days * DAY)
    assert pull(ann, NOW + 300 * DAY) == []


# ------------------------------------------------------------------------------------------------ put back


def put_back(store: Store, position: int) -> None:
    """The server as it was at that position, records apart."""
    with store.database.writing() as connection:
        for statement in (
            "UPDATE server_scope SET position = :position",
            "DELETE FROM server_commit WHERE position > :position",
            "DELETE FROM server_applied WHERE version > :position",
            "DELETE FROM server_record WHERE version > :position",
            "UPDATE server_lane SET high_water = coalesce((SELECT max(send_seq) FROM server_applied"
            " WHERE server_applied.replica = server_lane.replica), 0)",
        ):
            connection.execute(text(statement), {"position": position})


@pytest.mark.parametrize("since", [0, 1, 2, 3], ids="{} pushes since".format)
def test_a_server_that_was_put_back_is_noticed_however_far_it_has_come_since(store, ann, bob, since):
    for number in (1, 2, 3, 4):
        ann.push(customer(ann, number), now=NOW + number)
    bob.cursor = store.pull(bob.replica, "", 100, NOW + 5).cursor
    put_back(store, 2)
    ann.seq = 2
    for number in range(since):
        ann.push(customer(ann, 10 + number, op=f"{number:032x}"), now=NOW + 10 + number)
    with pytest.raises(Refused) as refused:
        pull(bob, NOW + 20)
    assert (refused.value.problem, refused.value.status) == ("server-restored", 410)
    assert refused.value.position == 2
    bob.cursor = refused.value.cursor
    assert [record.version for record in pull(bob, NOW + 20)] == [3, 4, 5][:since]
    (result,) = ann.push(customer(ann, 20), now=NOW + 21)
    assert result.version > 2**31
    assert len(pull(bob, NOW + 22)) == 1


def test_who_had_not_seen_what_was_lost_goes_on(store, ann, bob):
    ann.push(customer(ann, 1), now=NOW + 1)
    bob.cursor = store.pull(bob.replica, "", 100, NOW + 2).cursor
    ann.push(customer(ann, 2), now=NOW + 3)
    put_back(store, 1)
    ann.seq = 1
    ann.push(customer(ann, 3, op="f" * 32), now=NOW + 4)
    assert [record.version for record in pull(bob, NOW + 5)] == [2]


def test_a_message_of_the_lost_past_that_comes_after_the_same_was_sent_anew_is_not_taken_once_more(store, ann):
    """It was lost with the answer to it, and its numbers are the ones that are due when it comes."""
    ann.push(customer(ann, 1), customer(ann, 2), now=NOW + 1)
    hung = [customer(ann, 3, op="a" * 32), customer(ann, 4, op="b" * 32)]
    put_back(store, 1)
    ann.seq = 1
    anew = [customer(ann, 3, op="a" * 32, former=True)]
    assert statuses(ann.push(*anew, now=NOW + 2)) == ["applied"]
    assert statuses(ann.push(*hung, now=NOW + 3)) == ["duplicate", "applied"]
    ann.seq = 4
    anew = [customer(ann, 4, op="b" * 32, former=True)]
    assert statuses(ann.push(*anew, now=NOW + 4)) == ["duplicate"]


def test_what_an_app_saw_in_a_lost_past_counts_as_not_seen(store, ann, bob):
    ann.push(customer(ann, 1))
    (result,) = bob.push(customer(bob, 1, base=500))
    assert statuses([result]) == ["key-taken"]


def test_who_knows_an_outcome_that_was_never_given_hears_that_the_server_was_put_back(store, ann, bob):
    ann.push(customer(ann, 1), now=NOW + 1)
    ann.cursor = store.pull(ann.replica, "", 100, NOW + 2).cursor
    ann.push(customer(ann, 2), now=NOW + 3)
    put_back(store, 1)
    for number in (11, 12):
        bob.push(customer(bob, number), now=NOW + 4)
    with pytest.raises(Refused) as refused:
        store.pull(ann.replica, ann.cursor, 100, NOW + 5, settled=2)
    assert (refused.value.problem, refused.value.due, refused.value.position) == ("server-restored", 2, 1)
    page = store.pull(ann.replica, refused.value.cursor, 100, NOW + 6, settled=1)
    assert [record.version for record in page.records] == [2, 3]


@pytest.mark.parametrize("settled", [0, 1, 2], ids="knows {} of 2".format)
def test_who_knows_no_more_than_was_given_is_told_what_is_new(store, ann, settled):
    ann.push(customer(ann, 1), now=NOW + 1)
    ann.push(customer(ann, 2), now=NOW + 3)
    assert store.pull(ann.replica, "", 100, NOW + 5, settled=settled).position == 2


def test_who_knows_an_outcome_and_has_pulled_nothing_yet_has_nothing_in_common_with_the_server(store, ann):
    with pytest.raises(Refused) as refused:
        store.pull(ann.replica, "", 100, NOW, settled=1)
    assert (refused.value.problem, refused.value.due, refused.value.cursor) == ("server-restored", 1, "")


def noticed(store: Store, ann: Device, bob: Device) -> str:
    """Both have come to 4; the server is put back to 2, comes to 4 once more, and hears of it from ann: it leaps. bob's
    cursor is of the past that is lost; returns one of his from the past that is not."""
    for number in (1, 2, 3, 4):
        ann.push(customer(ann, number), now=NOW + number)
    for device in (ann, bob):
        device.cursor = store.pull(device.replica, "", 100, NOW + 5).cursor
    put_back(store, 2)
    ann.seq = 2
    for number in (10, 11):
        ann.push(customer(ann, number, op=f"{number:032x}"), now=NOW + 10)
    with pytest.raises(Refused) as refused:
        pull(ann, NOW + 20)
    ann.cursor = refused.value.cursor
    return store.pull(bob.replica, "", 100, NOW + 15).cursor


@pytest.mark.parametrize("past", ["lost", "kept"])
def test_a_cursor_of_a_lost_past_is_known_as_one_when_all_of_that_time_is_forgotten(store, ann, bob, past):
    kept = noticed(store, ann, bob)
    bob.cursor = kept if past == "kept" else bob.cursor
    ann.push(customer(ann, 20), now=NOW + DAY)
    heard(ann, now=NOW + 100 * DAY)
    store.purge(NOW + 100 * DAY)
    with pytest.raises(Refused) as refused:
        store.pull(bob.replica, bob.cursor, 100, NOW + 100 * DAY, settled=0)
    told = refused.value.problem, refused.value.cursor, refused.value.position
    assert told == (("server-restored", "", 2) if past == "lost" else ("cursor-expired", "", 0))


def test_who_is_in_its_first_round_when_the_server_is_put_back_has_no_place_to_go_on_from(store, ann, bob):
    for number in (1, 2, 3):
        ann.push(customer(ann, number), now=NOW + number)
    bob.cursor = store.pull(bob.replica, "", 1, NOW + 5).cursor
    put_back(store, 2)
    with pytest.raises(Refused) as refused:
        pull(bob, NOW + 20)
    assert (refused.value.problem, refused.value.cursor) == ("server-restored", "")


def test_what_an_app_may_have_seen_in_a_lost_past_is_taken_from_who_has_pulled_since(store, ann, bob):
    bob_since = noticed(store, ann, bob)
    late = customer(bob, 30, base=4)
    with pytest.raises(Refused) as refused:
        bob.push(late, now=NOW + 30)
    assert (refused.value.problem, refused.value.status) == ("server-restored", 410)
    bob.cursor = bob_since
    pull(bob, NOW + 31)
    assert statuses(bob.push(late, now=NOW + 32)) == ["applied"]


def test_what_was_leapt_over_was_seen_by_nobody(store, ann, bob):
    noticed(store, ann, bob)
    bob.cursor = ""
    heard(bob, now=NOW + 30)
    assert statuses(bob.push(customer(bob, 10, base=1_000), now=NOW + 31)) == ["key-taken"]
