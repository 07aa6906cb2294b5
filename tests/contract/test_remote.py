"""The contract of a Remote: what every server keeps, in memory and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from msgspec import UNSET, Raw

from backhaul.clock import SystemClock, stamp, stamp_from_text, stamp_to_text
from backhaul.errors import Refused, SignInRequired
from backhaul.remotes.base import Remote
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.memory import MemoryRemote
from backhaul.remotes.memory_server import MemoryServer
from backhaul.wire import Column, OutgoingOp, Pushed, Record, Reference, Result, Table, Tagged, problem_name
from tests.services import SyncServer, sync_server

CUSTOMER = Table(
    name="customer",
    columns=[Column(name="id"), Column(name="name"), Column(name="phone")],
    key=["id"],
    keys="generated",
)
INVOICE = Table(
    name="invoice",
    columns=[Column(name="id"), Column(name="customer_id"), Column(name="total")],
    key=["id"],
    keys="generated",
    references=[Reference(columns=["customer_id"], table="customer", target=["id"])],
)
PLAYLIST = Table(name="playlist", columns=[Column(name="a"), Column(name="b"), Column(name="note")], key=["a", "b"])
TABLES = [CUSTOMER, INVOICE, PLAYLIST]

Join = Callable[..., "Replica"]


class Replica:
    """One registered replica: numbers and stamps its ops, and follows the feed."""

    numbers = count(1)

    def __init__(self, remote: Remote, code: str, name: str, tables: list[Table]) -> None:
        self.remote = remote
        self.registered = remote.register(code, tables, name)
        self.cursor = ""
        self.seen = 0
        self._sequence = count(1)
        self._tick = count(1)

    def op(
        self,
        kind: str,
        table: str,
        key: list[Any],
        *,
        group: str | None = None,
        ahead_ms: int = 0,
        hlc: int | None = None,
        **fields: Any,
    ) -> OutgoingOp:
        milliseconds = self.registered.now + next(self._tick) + ahead_ms
        return OutgoingOp(
            op=f"{next(self.numbers):032x}",
            seq=next(self._sequence),
            table=table,
            key=Raw(json.dumps(key).encode()),
            kind=kind,
            hlc=stamp_to_text(stamp(milliseconds) if hlc is None else hlc),
            base=self.seen,
            group=group,
            fields=UNSET if kind in ("delete", "void") else Raw(json.dumps(fields).encode()),
        )

    def push(self, *ops: OutgoingOp) -> list[Result]:
        pushed: Pushed = self.remote.push(ops)
        assert [result.op for result in pushed.results] == [op.op for op in ops]
        return pushed.results

    def do(self, kind: str, table: str, key: list[Any], **rest: Any) -> Result:
        return self.push(self.op(kind, table, key, **rest))[0]

    def pull(self, limit: int = 1_000) -> list[Record]:
        """Everything new, page by page."""
        records: list[Record] = []
        while True:
            page = self.remote.pull(self.cursor, limit)
            records += page.records
            self.cursor, self.seen = page.cursor, page.position
            if not page.more:
                assert page.position == page.head
                return records


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as real:
        yield real


@dataclass(frozen=True, kw_only=True)
class Side:
    """A way to one scope of a server."""

    connect: Callable[[], Remote]
    enrol: Callable[[], str]


@pytest.fixture(params=["memory", "http"])
def side(request: pytest.FixtureRequest) -> Side:
    """A scope that no other test uses."""
    if request.param == "memory":
        server = MemoryServer(SystemClock())
        return Side(connect=lambda: MemoryRemote(server), enrol=server.enrol)
    real = request.getfixturevalue("real")
    return Side(connect=lambda: HttpRemote(real.url), enrol=lambda: real.enrol(request.node.name))


@pytest.fixture
def connect(side: Side) -> Iterator[Callable[[], Remote]]:
    """A remote that is not registered yet."""
    with ExitStack() as stack:

        def connect() -> Remote:
            remote = side.connect()
            stack.callback(remote.close)
            return remote

        yield connect


@pytest.fixture
def join(side: Side, connect: Callable[[], Remote]) -> Join:
    """Registers a replica in the scope."""

    def join(name: str, tables: list[Table] = TABLES) -> Replica:
        return Replica(connect(), side.enrol(), name, tables)

    return join


def test_a_code_registers_one_replica_once(join: Join) -> None:
    first, second = join("a"), join("b")
    assert first.registered.replica != second.registered.replica
    assert first.registered.scope == second.registered.scope
    assert first.registered.now > 1_700_000_000_000
    with pytest.raises(Refused) as caught:
        join("c").remote.register("nonsense", TABLES, "c")
    assert (caught.value.problem, caught.value.status) == ("code-invalid", 403)


def test_nobody_without_a_registration_is_served(join: Join, connect: Callable[[], Remote]) -> None:
    join("a")
    remote = connect()
    for ask in (remote.digest, lambda: remote.pull("", 1), lambda: remote.push([]), lambda: remote.declare([])):
        with pytest.raises(SignInRequired):
            ask()


def test_a_change_reaches_the_other_replica_and_does_not_come_back(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [0, "first"], a=0, b="first", note=None)
    a.pull()
    b.pull()
    a.do("insert", "playlist", [1, "x"], a=1, b="x", note="hello")
    (record,) = b.pull()
    assert (record.table, record.key, record.whole, record.deleted) == ("playlist", [1, "x"], True, False)
    assert record.fields == {"a": 1, "b": "x", "note": "hello"}
    assert a.pull() == []


def test_only_changed_fields_travel(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [1], id=1, name="Ada", phone="1")
    b.pull()
    a.do("update", "customer", [1], phone="2")
    (record,) = b.pull()
    assert (record.whole, record.fields) == (False, {"phone": "2"})


def test_fields_changed_before_the_page_are_not_lost_between_pages(join: Join) -> None:
    a, b = join("a"), join("b")
    for number in (1, 2, 3):
        a.do("insert", "customer", [number], id=number, name="n", phone="p")
    b.pull()
    a.do("update", "customer", [1], name="changed first")
    a.do("update", "customer", [2], name="between")
    a.do("update", "customer", [3], name="between")
    a.do("update", "customer", [1], phone="changed last")
    found = {record.key[0]: record.fields for record in b.pull(limit=1)}
    assert found[1] == {"name": "changed first", "phone": "changed last"}


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
    a.do("insert", "playlist", [1, 2], a=1, b=2, note=plain)
    got = b.pull()[0].fields["note"]
    assert (type(got), repr(got)) == (type(value), repr(value))


def _untagged(value: Tagged) -> dict[str, str]:
    return {"hex": str(value.hex)} if value.hex is not UNSET else {"real": str(value.real)}


def test_a_key_is_the_same_however_it_is_written(join: Join) -> None:
    a = join("a")
    a.do("insert", "playlist", [1, "\u00e9/\n"], a=1, b="\u00e9/\n", note="x")
    (record,) = a.remote.records([("playlist", [1, "\u00e9/\n"]), ("playlist", [2, "\u00e9"]), ("customer", [9])])
    assert (record.key, record.whole, record.fields["note"]) == ([1, "\u00e9/\n"], True, "x")


def test_a_resend_has_the_same_outcome_and_no_effect(join: Join) -> None:
    a, b = join("a"), join("b")
    good, bad = a.op("insert", "customer", [1], id=1, name="Ada", phone=""), a.op("insert", "nowhere", [1], id=1)
    first = a.push(good, bad)
    assert [result.status for result in first] == ["applied", "rejected"]
    again = a.push(good, bad)
    assert [result.status for result in again] == ["duplicate", "rejected"]
    assert again[0].version == first[0].version > 0
    assert _problem(again[1]) == _problem(first[1]) == "table-unknown"
    assert len(b.pull()) == 1


def test_a_resend_together_with_new_ops_is_told_apart(join: Join) -> None:
    a = join("a")
    old, new = a.op("insert", "customer", [1], id=1, name="x", phone=""), a.op("update", "customer", [1], name="y")
    a.push(old)
    assert [result.status for result in a.push(old, new)] == ["duplicate", "applied"]


def test_another_op_under_a_known_number_is_a_fork(join: Join) -> None:
    a = join("a")
    op = a.op("insert", "customer", [1], id=1, name="x", phone="")
    a.push(op)
    op.op = "f" * 32
    with pytest.raises(Refused) as caught:
        a.push(op)
    assert (caught.value.problem, caught.value.status) == ("replica-forked", 409)


def test_a_gap_in_the_numbers_is_refused_and_changes_nothing(join: Join) -> None:
    a = join("a")
    first, second = a.op("insert", "playlist", [1, 1], a=1, b=1), a.op("insert", "playlist", [1, 2], a=1, b=2)
    with pytest.raises(Refused) as caught:
        a.push(second)
    assert (caught.value.problem, caught.value.status) == ("sequence-gap", 409)
    assert a.remote.digest().position == 0
    assert [result.status for result in a.push(first, second)] == ["applied", "applied"]


def test_a_void_op_fills_its_number(join: Join) -> None:
    a = join("a")
    assert a.do("void", "customer", [1]).status == "applied"
    assert a.do("insert", "customer", [1], id=1, name="x", phone="").status == "applied"
    assert len(a.remote.records([("customer", [1])])) == 1


def test_a_group_has_one_version_and_is_never_cut_by_a_page(join: Join) -> None:
    a, b = join("a"), join("b")
    ops = [
        a.op("insert", "customer", [1], group="g", id=1, name="x", phone=""),
        a.op("insert", "invoice", [1], group="g", id=1, customer_id=1, total=9),
        a.op("insert", "customer", [2], id=2, name="y", phone=""),
    ]
    versions = [result.version for result in a.push(*ops)]
    assert versions[0] == versions[1] < versions[2]
    page = b.remote.pull("", 1)
    assert {record.table for record in page.records} == {"customer", "invoice"}
    assert page.more


def test_a_group_is_all_or_none(join: Join) -> None:
    a, b = join("a"), join("b")
    ops = [
        a.op("insert", "customer", [1], group="g", id=1, name="x", phone=""),
        a.op("insert", "nowhere", [1], group="g", id=1),
        a.op("insert", "customer", [2], id=2, name="y", phone=""),
    ]
    results = a.push(*ops)
    assert [_problem(result) for result in results] == ["depends-on-refused", "table-unknown", ""]
    assert [record.key for record in b.pull()] == [[2]]


def test_what_depends_on_a_refused_insert_is_refused_and_nothing_else(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [7], id=7, name="A's", phone="")
    results = b.push(
        b.op("insert", "customer", [7], id=7, name="B's", phone=""),
        b.op("update", "customer", [7], name="B's again"),
        b.op("insert", "invoice", [1], id=1, customer_id=7, total=1),
        b.op("insert", "invoice", [2], id=2, customer_id=8, total=1),
        b.op("update", "invoice", [1], total=2),
    )
    refused = "depends-on-refused"
    assert [_problem(result) for result in results] == ["key-taken", refused, refused, "", refused]
    assert results[1].problem is not None
    assert results[0].op in results[1].problem.detail


def test_a_generated_key_that_was_seen_may_be_written_again(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [7], id=7, name="A's", phone="")
    b.pull()
    assert b.do("insert", "customer", [7], id=7, name="B's", phone="").status == "applied"


def test_equal_natural_keys_are_one_record(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, 1], a=1, b=1, note="A's")
    assert b.do("insert", "playlist", [1, 1], a=1, b=1, note="B's", ahead_ms=1_000).status == "applied"
    assert a.pull()[0].fields["note"] == "B's"


def test_the_later_stamp_wins_and_the_loser_hears_of_it(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [1], id=1, name="x", phone="")
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
    a.do("backfill", "customer", [1], id=1, name="old", phone="1", hlc=0)
    b.do("update", "customer", [1], name="new")
    a.do("backfill", "customer", [1], id=1, name="old", phone="1", hlc=0)
    (whole,) = a.remote.records([("customer", [1])])
    assert whole.fields == {"name": "new", "phone": "1"}  # the key says itself


def test_an_update_of_an_unknown_record_waits_for_the_rest(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("update", "customer", [1], name="early")
    assert b.pull() == []
    a.do("backfill", "customer", [1], id=1, name="old", phone="1", hlc=0)
    (record,) = b.pull()
    assert (record.whole, record.fields["name"], record.fields["phone"]) == (True, "early", "1")


def test_a_delete_leaves_a_tombstone_that_updates_do_not_revive(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "customer", [1], id=1, name="x", phone="")
    b.pull()
    a.do("delete", "customer", [1])
    assert b.do("update", "customer", [1], name="y", ahead_ms=9_000).status == "applied"
    (record,) = b.pull()
    assert (record.deleted, record.fields) == (True, {})
    assert a.remote.digest().tables[0].count == 0


def test_a_later_insert_revives(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, 1], a=1, b=1, note="one")
    a.do("delete", "playlist", [1, 1])
    a.do("insert", "playlist", [1, 1], a=1, b=1, note="two")
    (record,) = b.pull()
    assert (record.deleted, record.fields["note"]) == (False, "two")


def test_pages_end_and_cover_everything_in_order(join: Join) -> None:
    a, b = join("a"), join("b")
    a.push(*(a.op("insert", "playlist", [1, number], a=1, b=number) for number in range(25)))
    keys = [record.key[1] for record in b.pull(limit=4)]
    assert keys == list(range(25))
    assert b.pull() == []


def test_the_highest_stamp_of_a_page_is_told(join: Join) -> None:
    a, b = join("a"), join("b")
    op = a.op("insert", "customer", [1], id=1, name="x", phone="", ahead_ms=7_000)
    a.push(op)
    assert stamp_from_text(b.remote.pull("", 10).hlc) == stamp_from_text(op.hlc)


def test_a_foreign_cursor_is_refused(join: Join) -> None:
    with pytest.raises(Refused) as caught:
        join("a").remote.pull("not-a-cursor", 10)
    assert (caught.value.problem, caught.value.status) == ("cursor-expired", 410)


def test_a_stamp_too_far_ahead_is_to_be_sent_again(join: Join) -> None:
    a = join("a")
    fine, ahead = (
        a.op("insert", "customer", [1], id=1, name="x", phone=""),
        a.op("update", "customer", [1], name="from the future", ahead_ms=3_600_000),
    )
    results = a.push(fine, ahead)
    assert [result.status for result in results] == ["applied", "retry"]
    ahead.hlc = stamp_to_text(stamp(a.registered.now + 100))
    assert a.push(ahead)[0].status == "applied"


def test_both_sides_reckon_the_same_digest(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("insert", "playlist", [1, 1], a=1, b=1, note=None)
    b.do("insert", "playlist", [1, 2], a=1, b=2, note={"hex": "00"})
    one, two = a.remote.digest(), b.remote.digest()
    assert one.tables == two.tables
    assert {table.table: table.count for table in one.tables} == {"customer": 0, "invoice": 0, "playlist": 2}
    assert next(table.fingerprint for table in one.tables if table.table == "customer") == "0" * 16


def test_tables_can_be_declared_later_but_not_with_another_key(join: Join) -> None:
    a = join("a", [CUSTOMER])
    assert _problem(a.do("insert", "playlist", [1, 1], a=1, b=1)) == "table-unknown"
    a.remote.declare(TABLES)
    assert a.do("insert", "playlist", [1, 1], a=1, b=1).status == "applied"
    with pytest.raises(Refused) as caught:
        a.remote.declare([Table(name="playlist", columns=PLAYLIST.columns, key=["a"])])
    assert (caught.value.problem, caught.value.status) == ("schema-conflict", 409)


def test_an_empty_push_is_answered(join: Join) -> None:
    assert join("a").push() == []


def _problem(result: Result) -> str:
    return problem_name(result.problem) if result.problem else ""
