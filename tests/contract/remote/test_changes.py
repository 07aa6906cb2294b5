"""What becomes of a change: what travels, what wins, what a delete leaves."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from backhaul.digest import fingerprint, row_hash
from backhaul.wire import Tagged
from tests.contract.remote.conftest import Join
from tests.contract.remote.replicas import digest_there, outcome


def test_a_change_reaches_the_other_replica_and_does_not_come_back(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [0, "first"], note=None)
    a.pull()
    b.pull()
    a.do("insert", "playlist", [1, "x"], note="hello")
    (record,) = b.pull()
    assert (record.table, record.key, record.whole, record.deleted) == ("playlist", [1, "x"], True, False)
    assert record.fields == {"note": "hello"}
    assert a.pull() == []


def test_the_columns_of_the_key_may_be_repeated_as_fields_and_are_not_kept(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, "x"], a=1, b="x", note="hello")
    (record,) = b.pull()
    assert record.fields == {"note": "hello"}
    assert a.remote.records([("playlist", [1, "x"])])[0].fields == {"note": "hello"}
    assert digest_there(a.remote, "playlist") == (1, fingerprint([row_hash("playlist", [1, "x"], {"note": "hello"})]))


@pytest.mark.parametrize("said", [2, True, 1.0, "1", None])
def test_a_field_that_contradicts_the_key_is_refused(join: Join, said: Any) -> None:
    a = join("a")
    assert outcome(a.do("insert", "playlist", [1, "x"], a=said, note="hello")) == "key-invalid"


def test_only_changed_fields_travel(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [1], name="Ada", phone="1")
    b.pull()
    a.do("update", "customer", [1], phone="2")
    (record,) = b.pull()
    assert (record.whole, record.fields) == (False, {"phone": "2"})


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "",
        'quotes " and \u2028 and \U0001f600 and \x00',
        2**63 - 1,
        -(2**63),
        9007199254740993,
        0.1,
        -0.0,
        1e300,
        1.0,
        Tagged(hex="00ff"),
        Tagged(hex=""),
        Tagged(real="-Infinity"),
    ],
)
def test_a_value_comes_back_as_it_went(join: Join, value: Any) -> None:
    a, b = join("a"), join("b")
    plain = value if not isinstance(value, Tagged) else _untagged(value)
    a.do("insert", "playlist", [1, 2], note=plain)
    got = b.pull()[0].fields["note"]
    assert (type(got), repr(got)) == (type(value), repr(value))


def _untagged(value: Tagged) -> dict[str, str]:
    return {"hex": str(value.hex)} if value.hex is not UNSET else {"real": str(value.real)}


def test_a_key_is_the_same_however_it_is_written(join: Join) -> None:
    a = join("a")
    a.do("insert", "playlist", [1, "\u00e9/\n"], note="x")
    (record,) = a.remote.records([("playlist", [1, "\u00e9/\n"]), ("playlist", [2, "\u00e9"]), ("customer", [9])])
    assert (record.key, record.whole, record.fields["note"]) == ([1, "\u00e9/\n"], True, "x")


def test_equal_natural_keys_are_one_record(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, 1], note="A's")
    assert b.do("insert", "playlist", [1, 1], note="B's", ahead_ms=1_000).status == "applied"
    assert a.pull()[0].fields["note"] == "B's"


def test_the_later_stamp_wins_and_the_loser_hears_of_it(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [1], name="x", phone="")
    a.pull()
    b.pull()
    a.do("update", "customer", [1], name="later", ahead_ms=5_000)
    b.pull()
    b.do("update", "customer", [1], name="earlier", ahead_ms=1_000)
    (record,) = b.pull()
    assert record.fields == {"name": "later"}
    assert a.pull() == []
    (whole,) = a.remote.records([("customer", [1])])
    assert whole.fields["name"] == "later"


def test_a_backfill_loses_against_every_edit(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("backfill", "customer", [1], name="old", phone="1", hlc=0)
    b.do("update", "customer", [1], name="new")
    a.do("backfill", "customer", [1], name="old", phone="1", hlc=0)
    (whole,) = a.remote.records([("customer", [1])])
    assert whole.fields == {"name": "new", "phone": "1"}


def test_an_update_of_an_unknown_record_waits_for_the_rest(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("update", "customer", [1], name="early")
    assert b.pull() == []
    a.do("backfill", "customer", [1], name="old", phone="1", hlc=0)
    (record,) = b.pull()
    assert (record.whole, record.fields["name"], record.fields["phone"]) == (True, "early", "1")


def test_a_delete_leaves_a_tombstone_that_updates_do_not_revive(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [1], name="x", phone="")
    b.pull()
    a.do("delete", "customer", [1])
    assert b.do("update", "customer", [1], name="y", ahead_ms=9_000).status == "applied"
    (record,) = b.pull()
    assert (record.deleted, record.fields) == (True, {})
    assert a.remote.digest().tables[0].count == 0


def test_a_later_insert_revives(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, 1], note="one")
    a.do("delete", "playlist", [1, 1])
    a.do("insert", "playlist", [1, 1], note="two")
    (record,) = b.pull()
    assert (record.deleted, record.fields["note"]) == (False, "two")
