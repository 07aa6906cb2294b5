"""The feed: pages, groups, cursors, scopes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backhaul.digest import fingerprint, row_hash
from backhaul.errors import Refused
from backhaul.server import feed
from backhaul.wire import Record, encode
from tests.contract.store.devices import NOW, customer, shown, statuses


def test_a_page_ends_with_a_group(ann, bob):
    ann.push(*[customer(ann, n, group="one") for n in range(1, 6)], *[customer(ann, n) for n in range(6, 9)])
    first, second = bob.pull(limit=2), bob.pull(limit=2)
    assert [len(first.records), first.position, first.more] == [5, 1, True]
    assert [len(second.records), second.position, second.more] == [2, 3, True]
    assert [len(bob.pull(limit=2).records), bob.pull().more] == [1, False]


def test_a_record_that_changes_while_pages_are_fetched_is_whole_for_who_has_not_seen_it(ann, bob):
    ann.push(*[customer(ann, n) for n in range(1, 5)])
    ann.push(ann.op("update", "customer", [1], 1, fields={"phone": "1"}))
    assert [r.key for r in bob.pull(limit=2).records] == [[2], [3]]
    last = bob.pull(limit=9).records
    assert [(r.key, r.whole) for r in last] == [([4], True), ([1], True)]


def test_a_field_that_changed_before_the_page_but_after_the_floor_is_not_left_out(ann, bob):
    ann.push(*[customer(ann, n) for n in range(1, 5)])
    bob.pull()
    ann.push(ann.op("update", "customer", [1], 1, fields={"phone": "1"}))
    ann.push(*[ann.op("update", "customer", [n], 1, fields={"phone": "1"}) for n in (2, 3)])
    ann.push(ann.op("update", "customer", [1], 2, fields={"name": "new"}))
    assert [r.key for r in bob.pull(limit=2).records] == [[2], [3]]
    assert shown(bob.pull()) == [("customer", [1], {"phone": "1", "name": "new"})]


def test_a_group_too_large_for_any_page_is_cut_and_nothing_of_it_is_lost(ann, bob, monkeypatch):
    monkeypatch.setattr(feed, "MOST_PAGE_BYTES", 100)
    ann.push(*[customer(ann, n, group="one") for n in range(1, 10)])
    seen, pages = [], 0
    more = True
    while more:
        page = bob.pull()
        pages, more = pages + 1, page.more
        seen += [r.key[0] for r in page.records]
        assert page.position == 1
    assert (sorted(seen), pages > 2) == (list(range(1, 10)), True)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whoever_follows_the_feed_in_pages_of_any_size_ends_where_the_store_is(store, join, data):
    scope = f"scope {id(data)}"
    writer, other, reader = (join(scope) for _ in range(3))
    held: dict[str, dict[str, Any]] = {}

    def follow(limit: int) -> bool:
        page = reader.pull(limit)
        for record in page.records:
            key = str(record.key)
            if record.deleted:
                held.pop(key, None)
            elif record.whole:
                held[key] = dict(record.fields)
            else:
                held[key] |= record.fields  # a record that is not whole must be held already
        return page.more

    for at in range(data.draw(st.integers(1, 12))):
        device = data.draw(st.sampled_from([writer, other]))
        ops = []
        for _ in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["insert", "update", "update", "delete", "backfill"]))
            key = [1, data.draw(st.integers(1, 4))]
            fields = {"what": data.draw(st.integers(0, 2))} if kind != "delete" else {}
            ops.append(device.op(kind, "line", key, at + data.draw(st.integers(-3, 3)), fields=fields))
        device.push(*ops)
        if data.draw(st.booleans()):
            follow(data.draw(st.integers(1, 3)))
    while follow(data.draw(st.integers(1, 3))):
        pass
    mine = fingerprint(row_hash("line", msgspec.json.decode(key), fields) for key, fields in held.items())
    theirs = store.digest(scope, NOW).tables[2]
    assert (len(held), mine) == (theirs.count, theirs.fingerprint)


def test_a_cursor_of_another_feed_is_expired(ann, join):
    stranger = join("elsewhere")
    stranger.pull()
    for cursor in (stranger.cursor, "AAAA", "not base64!", ann.pull().cursor[:-2] + "AA"):
        with pytest.raises(Refused) as refused:
            ann.store.pull(ann.replica, cursor, 10, NOW)
        assert (refused.value.problem, refused.value.status) == ("cursor-expired", 410)


def test_records_are_given_as_they_are_now(ann):
    ann.push(customer(ann, 1), customer(ann, 2), ann.op("delete", "customer", [2], 1))
    found = msgspec.json.decode(
        encode(ann.store.records("shop", [("customer", [1]), ("customer", [2]), ("customer", [3])])), type=list[Record]
    )
    assert sorted((r.key[0], r.whole, r.deleted) for r in found) == [(1, True, False), (2, False, True)]


def test_scopes_do_not_see_each_other(ann, join):
    eve = join("elsewhere")
    ann.push(customer(ann, 1))
    assert eve.pull().records == []
    assert eve.store.records("elsewhere", [("customer", [1])]) == []
    assert eve.store.digest("elsewhere", NOW).tables[0].count == 0
    assert statuses(eve.push(customer(eve, 1))) == ["applied"]
