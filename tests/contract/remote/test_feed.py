"""The feed: pages, cursors, rounds, and the digest over it all."""

from __future__ import annotations

import pytest

from backhaul.clock import stamp_from_text
from backhaul.errors import Refused
from tests.contract.remote.conftest import Join


def test_fields_changed_before_the_page_are_not_lost_between_pages(join: Join) -> None:
    a, b = join("a"), join("b")
    for number in (1, 2, 3):
        a.do("insert", "customer", [number], name="n", phone="p")
    b.pull()
    a.do("update", "customer", [1], name="changed first")
    a.do("update", "customer", [2], name="between")
    a.do("update", "customer", [3], name="between")
    a.do("update", "customer", [1], phone="changed last")
    found = {record.key[0]: record.fields for record in b.pull(limit=1)}
    assert found[1] == {"name": "changed first", "phone": "changed last"}


def test_a_group_has_one_version_and_is_never_cut_by_a_page(join: Join) -> None:
    a, b = join("a"), join("b")
    ops = [
        a.op("insert", "customer", [1], group="g", name="x", phone=""),
        a.op("insert", "invoice", [1], group="g", customer_id=1, total=9),
        a.op("insert", "customer", [2], name="y", phone=""),
    ]
    versions = [result.version for result in a.push(*ops)]
    assert versions[0] == versions[1] < versions[2]
    page = b.remote.pull("", 1)
    assert {record.table for record in page.records} == {"customer", "invoice"}
    assert page.more


def test_pages_end_and_cover_everything_in_order(join: Join) -> None:
    a, b = join("a"), join("b")
    a.push(*(a.op("insert", "playlist", [1, number], note=number) for number in range(25)))
    keys = [record.key[1] for record in b.pull(limit=4)]
    assert keys == list(range(25))
    assert b.pull() == []


def test_the_highest_stamp_of_a_page_is_told(join: Join) -> None:
    a, b = join("a"), join("b")
    op = a.op("insert", "customer", [1], name="x", phone="", ahead_ms=7_000)
    a.push(op)
    assert stamp_from_text(b.remote.pull("", 10).hlc) == stamp_from_text(op.hlc)


def test_a_cursor_that_is_not_of_this_feed_is_refused(join: Join) -> None:
    a, stranger = join("a"), join("b", scope="elsewhere")
    for replica in (a, stranger):
        replica.do("insert", "playlist", [1, 1], note="x")
        replica.pull()
    for cursor in (stranger.cursor, "not-a-cursor", "AAAA", "\u00e9", a.cursor + "A", a.cursor[:-1]):
        with pytest.raises(Refused) as caught:
            a.remote.pull(cursor, 10)
        assert (caught.value.problem, caught.value.status) == ("cursor-expired", 410), cursor
    assert a.pull() == []


def test_a_record_that_is_nothing_but_its_key_is_told(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, 1])
    (record,) = b.pull()
    assert (record.key, record.whole, record.fields) == ([1, 1], True, {})


def test_both_sides_reckon_the_same_digest(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, 1], note=None)
    b.do("insert", "playlist", [1, 2], note={"hex": "00"})
    one, two = a.remote.digest(), b.remote.digest()
    assert one.tables == two.tables
    assert {table.table: table.count for table in one.tables} == {"customer": 0, "invoice": 0, "line": 0, "playlist": 2}
    assert next(table.fingerprint for table in one.tables if table.table == "customer") == "0" * 16
