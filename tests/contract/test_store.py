"""What a store promises, over SQLite and over PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from backhaul.clock import stamp, stamp_to_text
from backhaul.database import open_database
from backhaul.digest import fingerprint, row_hash
from backhaul.errors import Refused
from backhaul.server import auth, feed
from backhaul.server.store import ServerDatabase, Store, prepare
from backhaul.wire import Column, Op, Page, Record, Reference, Registration, Result, Table, encode, problem_name
from tests import services

NOW = 1_800_000_000_000
TABLES = [
    Table(
        name="customer",
        columns=[Column(name="id"), Column(name="name"), Column(name="phone")],
        key=["id"],
        keys="generated",
    ),
    Table(
        name="invoice",
        columns=[Column(name="id"), Column(name="customer_id"), Column(name="total")],
        key=["id"],
        keys="generated",
        references=[Reference(columns=["customer_id"], table="customer", target=["id"])],
    ),
    Table(
        name="line",
        columns=[Column(name="invoice_id"), Column(name="position"), Column(name="what")],
        key=["invoice_id", "position"],
        references=[Reference(columns=["invoice_id"], table="invoice", target=["id"])],
    ),
]


class Device:
    """A replica as the store sees it: numbers its ops, stamps them, keeps its cursor."""

    def __init__(self, store: Store, replica: auth.Replica) -> None:
        self.store = store
        self.replica = replica
        self.seq = 0
        self.cursor = ""

    def op(self, kind: str, table: str, key: list[Any], at: int = 0, **said: Any) -> Op:
        self.seq += 1
        fields = said.pop("fields", {})
        return Op(
            op=said.pop("op", f"{self.seq:032x}"),
            seq=self.seq,
            table=table,
            key=key,
            kind=kind,  # type: ignore[arg-type]
            hlc=stamp_to_text(stamp(NOW + at)),
            fields=fields,
            **said,
        )

    def push(self, *ops: Op, now: int = NOW) -> list[Result]:
        return self.store.push(self.replica, ops, now).results

    def pull(self, limit: int = 100) -> Page:
        """One page; the cursor moves."""
        raw = encode(self.store.pull(self.replica, self.cursor, limit, NOW))
        page = msgspec.json.decode(raw, type=Page)
        self.cursor = page.cursor
        return page


@pytest.fixture(scope="module")
def cluster() -> Iterator[services.PostgreSQL]:
    with services.postgresql() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> Iterator[ServerDatabase]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'server.sqlite'}"
    else:
        url = request.getfixturevalue("cluster").database()
    database = ServerDatabase(open_database(url))
    prepare(database, NOW)
    yield database
    database.close()


@pytest.fixture
def store(database) -> Store:
    return Store(database)


@pytest.fixture
def join(store):
    """Another replica of a scope."""

    def join(scope: str = "shop", tables: list[Table] = TABLES) -> Device:
        with store.database.writing() as connection:
            code = auth.enrol(connection, scope, NOW)
            made = auth.register(connection, Registration(code=code, tables=tables), NOW)
        return Device(store, auth.Replica(id=made.replica, scope=scope))

    return join


@pytest.fixture
def ann(join) -> Device:
    return join()


@pytest.fixture
def bob(join) -> Device:
    return join()


def statuses(results: list[Result]) -> list[str]:
    return [result.status if result.problem is None else problem_name(result.problem) for result in results]


def shown(page: Page) -> list[tuple[str, list[Any], Any]]:
    return [(r.table, r.key, "deleted" if r.deleted else r.fields) for r in page.records]


def customer(device: Device, key: int, at: int = 0, **said: Any) -> Op:
    said.setdefault("fields", {"id": key, "name": f"customer {key}", "phone": None})
    return device.op("insert", "customer", [key], at, **said)


# ---------------------------------------------------------------------------------------------------- push and pull


def test_a_pushed_record_reaches_the_other_replica_whole_and_not_its_writer(ann, bob):
    ann.pull(), bob.pull()
    assert statuses(ann.push(customer(ann, 1))) == ["applied"]
    page = bob.pull()
    assert [(r.whole, r.version, r.fields["name"]) for r in page.records] == [(True, 1, "customer 1")]
    assert (page.position, page.head, page.more, page.hlc) == (1, 1, False, stamp_to_text(stamp(NOW)))
    assert ann.pull().records == []


def test_from_the_beginning_a_replica_gets_its_own_records_too(ann):
    ann.push(customer(ann, 1))
    assert len(ann.pull().records) == 1


def test_only_the_fields_that_changed_travel(ann, bob):
    ann.push(customer(ann, 1))
    ann.pull(), bob.pull()
    ann.push(ann.op("update", "customer", [1], 1, fields={"phone": "0043"}))
    page = bob.pull()
    assert [(r.whole, r.fields) for r in page.records] == [(False, {"phone": "0043"})]


def test_the_later_write_of_a_field_wins_and_the_loser_hears_the_winner(ann, bob):
    ann.push(customer(ann, 1))
    ann.pull(), bob.pull()
    ann.push(ann.op("update", "customer", [1], 9, fields={"phone": "late", "name": "Ann's"}))
    bob.push(bob.op("update", "customer", [1], 5, fields={"phone": "early"}))
    assert shown(bob.pull()) == [("customer", [1], {"phone": "late", "name": "Ann's"})]
    assert ann.pull().records == []


def test_a_loser_that_has_pulled_past_the_winner_hears_it_again(ann, bob):
    ann.push(customer(ann, 1))
    ann.push(ann.op("update", "customer", [1], 9, fields={"phone": "late"}))
    bob.pull()
    bob.push(bob.op("update", "customer", [1], 5, fields={"phone": "early"}))
    assert shown(bob.pull()) == [("customer", [1], {"phone": "late"})]


def test_a_delete_leaves_a_tombstone_that_updates_do_not_move(ann, bob):
    ann.push(customer(ann, 1))
    bob.pull(), ann.pull()
    ann.push(ann.op("delete", "customer", [1], 3))
    assert statuses(bob.push(bob.op("update", "customer", [1], 5, fields={"phone": "1"}))) == ["applied"]
    assert shown(bob.pull()) == [("customer", [1], "deleted")]


def test_an_update_of_an_unknown_record_is_kept_back_until_the_rest_is_there(ann, bob):
    bob.push(bob.op("update", "line", [1, 1], 5, fields={"what": "nail"}))
    assert ann.pull().records == []
    bob.push(bob.op("insert", "line", [1, 1], 1, fields={"invoice_id": 1, "position": 1, "what": "screw"}))
    assert shown(ann.pull()) == [("line", [1, 1], {"invoice_id": 1, "position": 1, "what": "nail"})]


def test_rows_that_both_replicas_had_before_are_one_record(ann, bob):
    ann.push(ann.op("backfill", "customer", [1], fields={"id": 1, "name": "a", "phone": "1"}))
    assert statuses(bob.push(bob.op("backfill", "customer", [1], fields={"id": 1, "name": "a", "phone": "1"}))) == [
        "applied"
    ]
    assert [t.count for t in ann.store.digest("shop", NOW).tables] == [1, 0, 0]


def test_a_backfill_that_says_nothing_new_makes_no_feed(ann, bob):
    row = {"id": 1, "name": "a", "phone": "1"}
    ann.push(ann.op("backfill", "customer", [1], fields=row))
    ann.pull()
    bob.push(bob.op("backfill", "customer", [1], fields=row))
    assert ann.pull().records == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**63 - 1,
        -(2**63),
        0.1,
        1e300,
        -0.0,
        "",
        "a\u0000b \U0001f600",
        {"hex": "00ff"},
        {"real": "-Infinity"},
    ],
)
def test_every_value_comes_back_as_it_went(ann, bob, value):
    op = ann.op("insert", "line", [1, 1], fields={"what": value})
    sent = msgspec.json.decode(encode(op), type=Op)
    ann.push(sent)
    raw = encode(bob.store.pull(bob.replica, "", 10, NOW))
    (record,) = msgspec.json.decode(raw)["records"]
    assert repr(record["fields"]["what"]) == repr(value)


@pytest.mark.parametrize("key", ["a'b\"c", "", "\u0000", "ä\U0001f600", 2**63 - 1, -1, {"hex": "ff"}, True])
def test_every_key_finds_its_record_again(ann, key):
    for kind in ("insert", "update", "update"):
        op = msgspec.json.decode(encode(ann.op(kind, "line", [key, 1], ann.seq, fields={"what": kind})), type=Op)
        assert statuses(ann.push(op)) == ["applied"]
    assert len(ann.pull().records) == 1
    (found,) = ann.store.records("shop", [("line", [key, 1])])
    assert msgspec.json.decode(found.key) == [key, 1]


# -------------------------------------------------------------------------------------------------- pages and cursors


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
            if kind in ("insert", "backfill"):
                fields |= {"invoice_id": key[0], "position": key[1]}
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


def test_a_cursor_ahead_of_a_server_put_back_is_expired(ann):
    ann.push(customer(ann, 1))
    ann.pull()
    with ann.store.database.writing() as connection:
        connection.execute(text("UPDATE server_scope SET position = 0"))
    with pytest.raises(Refused, match="older state"):
        ann.pull()


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


# ------------------------------------------------------------------------------------------------------- idempotence


def test_the_same_push_again_is_a_duplicate_with_the_stored_outcomes(ann):
    ops = [
        customer(ann, 1),
        ann.op("update", "nothing", [1]),
        ann.op("update", "customer", [1], 1, fields={"name": "x"}),
    ]
    first = ann.push(*ops)
    again = ann.push(*ops)
    assert statuses(first) == ["applied", "table-unknown", "applied"]
    assert statuses(again) == ["duplicate", "table-unknown", "duplicate"]
    assert [r.version for r in again] == [r.version for r in first] == [1, 0, 2]
    assert [r.status for r in again] == ["duplicate", "rejected", "duplicate"]


def test_a_resend_with_new_ops_at_its_end_applies_those_alone(ann):
    first = customer(ann, 1)
    ann.push(first)
    assert statuses(ann.push(first, customer(ann, 2))) == ["duplicate", "applied"]


def test_an_outcome_that_was_purged_is_a_duplicate_without_a_version(ann):
    op = customer(ann, 1)
    ann.push(op)
    assert ann.store.purge(NOW + 31 * 86_400_000) == 1
    (result,) = ann.push(op)
    assert (result.status, result.version) == ("duplicate", 0)


def test_another_op_under_a_known_number_is_a_fork(ann):
    ann.push(customer(ann, 1))
    ann.seq = 0
    with pytest.raises(Refused) as refused:
        ann.push(customer(ann, 2, op="f" * 32))
    assert (refused.value.problem, refused.value.status) == ("replica-forked", 409)


def test_a_gap_in_the_numbers_is_refused_whole(ann):
    first, _, third = customer(ann, 1), customer(ann, 2), customer(ann, 3)
    with pytest.raises(Refused) as refused:
        ann.push(first, third)
    assert (refused.value.problem, refused.value.status) == ("sequence-gap", 409)
    assert ann.pull().records == []


def test_a_revoked_replica_is_refused(ann):
    with ann.store.database.writing() as connection:
        assert auth.revoke(connection, ann.replica.id, NOW)
    with pytest.raises(Refused) as refused:
        ann.push(customer(ann, 1))
    assert (refused.value.problem, refused.value.status) == ("replica-revoked", 403)


def test_a_void_op_fills_its_number_and_says_nothing(ann):
    assert statuses(ann.push(ann.op("void", "whatever", []), customer(ann, 1))) == ["applied", "applied"]
    assert len(ann.pull().records) == 1


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("kind", "table", "key", "fields", "problem"),
    [
        ("insert", "nothing", [1], {}, "table-unknown"),
        ("insert", 'customer"; DROP TABLE server_record; --', [1], {}, "table-unknown"),
        ("insert", "customer\0", [1], {}, "table-unknown"),
        ("update", "customer", [1], {"secret": 1}, "column-unknown"),
        ("update", "customer", [1, 2], {"name": "x"}, "key-invalid"),
        ("update", "customer", [], {"name": "x"}, "key-invalid"),
        ("update", "customer", [None], {"name": "x"}, "key-invalid"),
        ("update", "customer", [1.0], {"name": "x"}, "key-invalid"),
        ("update", "customer", [{"real": "Infinity"}], {"name": "x"}, "key-invalid"),
        ("update", "customer", [1], {"id": 2}, "key-invalid"),
        ("update", "customer", [1], {"id": True}, "key-invalid"),
        ("delete", "customer", [1], {"name": "x"}, "fields-invalid"),
        ("update", "customer", [1], {"name": {}}, "value-invalid"),
        ("update", "customer", [1], {"name": {"hex": "00", "real": "Infinity"}}, "value-invalid"),
    ],
)
def test_a_bad_op_is_rejected_alone(ann, kind, table, key, fields, problem):
    bad = msgspec.json.decode(encode(ann.op(kind, table, key, fields=fields)), type=Op)
    assert statuses(ann.push(bad, customer(ann, 7))) == [problem, "applied"]


def test_a_group_is_applied_whole_or_not_at_all(ann):
    ops = [
        customer(ann, 1, group="g"),
        ann.op("update", "nothing", [1], group="g"),
        customer(ann, 2, group="g"),
        customer(ann, 3),
    ]
    assert statuses(ann.push(*ops)) == ["depends-on-refused", "table-unknown", "depends-on-refused", "applied"]
    assert [r.key for r in ann.pull().records] == [[3]]


def test_a_group_has_one_version_even_when_others_stand_between(ann):
    ops = [customer(ann, 1, group="a"), customer(ann, 2, group="b"), customer(ann, 3, group="a"), customer(ann, 4)]
    assert [r.version for r in ann.push(*ops)] == [1, 2, 1, 3]


def test_later_ops_on_a_refused_record_are_refused_and_earlier_ones_stand(ann):
    ops = [
        customer(ann, 1),
        ann.op("update", "customer", [1], fields={"secret": 1}),
        ann.op("update", "customer", [1], fields={"name": "x"}),
        customer(ann, 2),
    ]
    results = ann.push(*ops)
    assert statuses(results) == ["applied", "column-unknown", "depends-on-refused", "applied"]
    assert ops[1].op in str(results[2].problem)


def test_a_key_that_another_replica_gave_out_is_taken_with_all_that_points_at_it(ann, bob):
    ann.push(customer(ann, 1))
    ops = [
        customer(bob, 1),
        bob.op("insert", "invoice", [5], fields={"id": 5, "customer_id": 1, "total": 3}),
        bob.op("insert", "line", [5, 1], fields={"invoice_id": 5, "position": 1, "what": "nail"}),
        customer(bob, 2),
    ]
    assert statuses(bob.push(*ops)) == ["key-taken", "depends-on-refused", "depends-on-refused", "applied"]


def test_a_child_that_comes_before_its_refused_parent_is_refused_too(ann, bob):
    ann.push(customer(ann, 1))
    ops = [bob.op("insert", "invoice", [5], fields={"id": 5, "customer_id": 1, "total": 3}), customer(bob, 1)]
    assert statuses(bob.push(*ops)) == ["depends-on-refused", "key-taken"]


def test_a_generated_key_that_was_seen_may_be_written_again(ann, bob):
    ann.push(customer(ann, 1))
    assert statuses(bob.push(customer(bob, 1, 5, base=1))) == ["applied"]
    ann.push(customer(ann, 2))
    again = [bob.op("delete", "customer", [2], 6, base=1), customer(bob, 2, 7, base=1)]
    assert statuses(bob.push(*again)) == ["applied", "applied"]


def test_the_writer_of_a_generated_key_may_insert_it_again(ann):
    ann.push(customer(ann, 1))
    assert statuses(ann.push(customer(ann, 1, 5))) == ["applied"]


def test_natural_keys_are_one_record_on_both_replicas(ann, bob):
    for device, what in ((ann, "nail"), (bob, "screw")):
        fields = {"invoice_id": 1, "position": 1, "what": what}
        assert statuses(device.push(device.op("insert", "line", [1, 1], device is bob, fields=fields))) == ["applied"]
    assert shown(ann.pull()) == [("line", [1, 1], {"invoice_id": 1, "position": 1, "what": "screw"})]


def test_a_refusal_spreads_along_a_chain_through_the_whole_push(ann):
    ops = [ann.op("update", "line", [1, (n + 1) // 2], fields={"what": n}, group=f"g{n // 2}") for n in range(1998)]
    ops[0].fields = {"secret": 1}
    ops += [ann.op("update", "line", [2, n], fields={"what": n}) for n in range(2)]
    results = statuses(ann.push(*ops))
    assert results == ["column-unknown"] + ["depends-on-refused"] * 1997 + ["applied"] * 2


# ----------------------------------------------------------------------------------------------------------- clocks


def test_from_a_stamp_that_is_too_far_ahead_on_everything_is_to_be_retried(ann):
    ops = [customer(ann, 1), customer(ann, 2, at=60_001), customer(ann, 3)]
    results = ann.push(*ops)
    assert statuses(results) == ["applied", "clock-drift", "clock-drift"]
    assert [r.status for r in results] == ["applied", "retry", "retry"]
    assert statuses(ann.push(*ops, now=NOW + 1)) == ["duplicate", "applied", "applied"]


def test_a_stamp_that_does_not_count_may_be_anything(ann):
    ops = [ann.op("void", "customer", [], 99_999), ann.op("backfill", "customer", [1], 99_999, fields={"name": "x"})]
    assert statuses(ann.push(*ops)) == ["applied", "applied"]
    assert ann.pull().hlc == "000000000000-0000"


def test_a_whole_record_has_its_key_as_fields_whether_the_op_says_so_or_not(ann):
    ann.push(ann.op("insert", "line", [1, 2], fields={"what": "nail"}))
    assert shown(ann.pull()) == [("line", [1, 2], {"invoice_id": 1, "position": 2, "what": "nail"})]


def test_a_group_with_a_stamp_too_far_ahead_is_kept_back_whole(ann):
    ops = [customer(ann, 1, group="a"), customer(ann, 2, group="b"), customer(ann, 3, group="a", at=90_000)]
    assert {r.status for r in ann.push(*ops)} == {"retry"}
    assert ann.pull().records == []


# ------------------------------------------------------------------------------------------------ tables and digests


def test_tables_grow_and_keep_their_key(ann, store):
    wider = Table(name="customer", columns=[Column(name="id"), Column(name="email")], key=["id"])
    store.declare("shop", [wider])
    assert statuses(ann.push(customer(ann, 1, fields={"id": 1, "email": "a", "phone": "b"}))) == ["applied"]
    other_key = Table(name="customer", columns=[Column(name="email")], key=["email"])
    with pytest.raises(Refused) as refused:
        store.declare("shop", [other_key])
    assert (refused.value.problem, refused.value.status) == ("schema-conflict", 409)


@pytest.mark.parametrize(
    "table",
    [
        Table(name="", columns=[Column(name="id")], key=["id"]),
        Table(name="a\0b", columns=[Column(name="id")], key=["id"]),
        Table(name="t", columns=[Column(name="id"), Column(name="id")], key=["id"]),
        Table(name="t", columns=[Column(name="id")], key=[]),
        Table(name="t", columns=[Column(name="id")], key=["other"]),
        Table(
            name="t",
            columns=[Column(name="id")],
            key=["id"],
            references=[Reference(columns=["x"], table="y", target=["z"])],
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(ann, store, table):
    with pytest.raises(Refused) as refused:
        store.declare("shop", [table])
    assert refused.value.problem == "table-invalid"


def test_the_digest_counts_and_sums_what_is_alive(ann, store):
    fields = {"invoice_id": 1, "position": 1, "what": 0.5}
    ann.push(
        ann.op("insert", "line", [1, 1], fields=fields),
        ann.op("insert", "line", [1, 2], fields=fields | {"position": 2, "what": None}),
        ann.op("delete", "line", [1, 3]),
        ann.op("update", "line", [1, 4], fields={"what": "not whole"}),
    )
    digest = store.digest("shop", NOW)
    mine = fingerprint([row_hash("line", [1, 1], fields), row_hash("line", [1, 2], {"invoice_id": 1, "position": 2})])
    assert [(t.table, t.count) for t in digest.tables] == [("customer", 0), ("invoice", 0), ("line", 2)]
    assert (digest.tables[2].fingerprint, digest.position) == (mine, 4)


# ------------------------------------------------------------------------------------------------------ cost and races


def test_a_push_is_as_many_statements_for_a_thousand_ops_as_for_ten(ann, store):
    counts = []
    for size in (10, 1000):
        statements: list[str] = []

        def count(_connection, _cursor, statement, *_rest, seen=statements):
            seen.append(statement)

        ops = [customer(ann, n, ann.seq) for n in range(size)]
        ann.push(ops[0])  # the hourly purge is not part of a push
        event.listen(store.database.engine, "before_cursor_execute", count)
        ann.push(*ops[1:], customer(ann, 0, 9999))
        event.remove(store.database.engine, "before_cursor_execute", count)
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 10


def test_pushes_at_once_to_one_scope_all_stand_and_a_reader_misses_none(store, join):
    devices, reader = [join() for _ in range(4)], join()
    done, errors = threading.Event(), []

    def write(device: Device, first: int) -> None:
        try:
            for number in range(first, first + 20):
                device.push(customer(device, number))
        except Exception as error:
            errors.append(error)

    seen: list[int] = []

    def read() -> None:
        finished = False
        while not finished:
            finished = done.is_set()
            seen.extend(r.key[0] for r in reader.pull(limit=7).records)
            while (page := reader.pull(limit=7)).more:
                seen.extend(r.key[0] for r in page.records)
            seen.extend(r.key[0] for r in page.records)

    writers = [threading.Thread(target=write, args=(device, index * 100)) for index, device in enumerate(devices)]
    reading = threading.Thread(target=read)
    for thread in (*writers, reading):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reading.join()
    assert errors == []
    assert sorted(seen) == sorted(index * 100 + n for index in range(4) for n in range(20))
