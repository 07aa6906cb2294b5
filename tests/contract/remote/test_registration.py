"""Who is served, and which tables are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backhaul.errors import Refused, SignInRequired
from backhaul.remotes.base import Remote
from backhaul.wire import Column, Table
from tests.contract.remote.conftest import Join
from tests.contract.remote.replicas import CUSTOMER, PLAYLIST, TABLES, outcome


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


def test_tables_can_be_declared_later_but_not_with_another_key(join: Join) -> None:
    a = join("a", [CUSTOMER])
    assert outcome(a.do("insert", "playlist", [1, 1], note=1)) == "table-unknown"
    a.remote.declare(TABLES)
    assert a.do("insert", "playlist", [1, 1], note=1).status == "applied"
    with pytest.raises(Refused) as caught:
        a.remote.declare([Table(name="playlist", columns=PLAYLIST.columns, key=["a"])])
    assert (caught.value.problem, caught.value.status) == ("schema-conflict", 409)


def test_tables_grow_by_what_each_replica_says_and_lose_nothing(join: Join) -> None:
    join("a")
    narrow = Table(name="customer", columns=[Column(name="id"), Column(name="email")], key=["id"])
    b = join("b", [narrow])
    assert b.do("insert", "customer", [1], name="x", phone="", email="y").status == "applied"
    assert [table.table for table in b.remote.digest().tables] == sorted(table.name for table in TABLES)
    join("c").do("insert", "customer", [2], name="c's", phone="")
    assert outcome(b.do("insert", "customer", [2], name="b's")) == "key-taken"
