"""A parked change that says something else goes out again; what does not fit is refused and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine

from backhaul import Backhaul
from backhaul.bell import SilentBell
from backhaul.errors import Misused, Unknown
from backhaul.replica import mending
from backhaul.replica.reconcile import compare
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica

REFUSED = (
    "UPDATE backhaul_outbox SET state = 'parked', reason = 'test', attempts = 1, settled_at = 1,"
    " op_id = 'op' || id WHERE "
)
SCHEMA = """
    CREATE TABLE person (id TEXT PRIMARY KEY, name TEXT NOT NULL, age NUMERIC CHECK (age < 200), picture BLOB);
"""


def parked_update(make: MakeReplica) -> tuple[Replica, str]:
    a = make("a", schema=SCHEMA)
    a.write("INSERT INTO person VALUES ('p', 'Ada', 30, NULL)")
    a.sync()
    a.write("UPDATE person SET name = 'wrong', age = 31")
    a.write(REFUSED + "state = 'pending'")
    return a, a.parked()[0]["op_id"]


def edit(replica: Replica, op: str, **fields: object) -> int:
    return mending.edit(replica.database, op, fields, now=replica.clock.now())


def test_what_is_edited_goes_out_and_stands_here(make: MakeReplica) -> None:
    a, op = parked_update(make)
    b = make("b", schema=SCHEMA)
    assert edit(a, op, name="right", picture=b"\x00\xff", age="32.50") == 1
    assert a.rows("person") == [("p", "right", 32.5, b"\x00\xff")]
    a.sync()
    b.sync()
    assert a.parked() == []
    assert b.rows("person") == a.rows("person")
    assert compare(a.database, a.remote, context=a.context).equal


def test_a_later_change_of_the_field_stands_over_what_is_edited(make: MakeReplica) -> None:
    a, op = parked_update(make)
    a.write("UPDATE person SET name = 'later'")
    assert edit(a, op, name="right", age=33) == 2
    assert a.rows("person") == [("p", "later", 33, None)]
    a.sync()
    assert a.parked() == []
    assert compare(a.database, a.remote, context=a.context).equal


def test_an_edit_is_no_change_of_its_own(make: MakeReplica) -> None:
    a, op = parked_update(make)
    edit(a, op, name="right")
    assert [(row["kind"], row["state"]) for row in a.outbox()] == [("update", "pending")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": "q"}, "part of the primary key"),
        ({"nothing": 1}, "has no column 'nothing'"),
        ({"name": None}, "NOT NULL constraint failed"),
        ({"age": 500}, "CHECK constraint failed"),
        ({}, "no field is named"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(make: MakeReplica, fields: dict[str, object], said: str) -> None:
    a, op = parked_update(make)
    before = (a.rows("person"), a.outbox())
    with pytest.raises(Misused, match=said) as refused:
        edit(a, op, **fields)
    assert refused.value.hint
    assert (a.rows("person"), a.outbox()) == before


def test_a_delete_has_nothing_to_edit_and_an_op_must_be_parked(make: MakeReplica) -> None:
    a, _ = parked_update(make)
    with pytest.raises(Unknown):
        edit(a, "none", name="x")
    a.write("DELETE FROM person")
    a.write("UPDATE backhaul_outbox SET state = 'parked', op_id = 'gone', settled_at = 1 WHERE kind = 'delete'")
    with pytest.raises(Misused, match="a delete has no fields"):
        edit(a, "gone", name="x")


class BellWithAServer(SilentBell):
    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self._replica = replica

    def remote(self) -> object:  # type: ignore[override]
        return self._replica.remote


def test_a_program_lists_edits_remaps_exports_and_discards(make: MakeReplica, tmp_path: Path) -> None:
    a, b = make("a"), make("b")
    for one, name in ((a, "Ada"), (b, "Bob")):
        one.write("INSERT INTO customer (id, name) VALUES (1, ?)", name)
    a.sync()
    b.sync()
    backhaul = Backhaul(create_engine(f"sqlite:///{b.path}"), bell=BellWithAServer(b))
    (row,) = backhaul.parked.list()
    assert (row["reason"], row["table"], row["key"]) == ("key-taken", "customer", [1])
    assert backhaul.parked.export(tmp_path / "parked.json") == 1
    assert [(one.table, one.old, one.new) for one in backhaul.parked.remap()] == [("customer", 1, 2)]
    b.write("UPDATE customer SET phone = 'x' WHERE id = 2")
    b.write(REFUSED + "kind = 'update'")
    assert backhaul.parked.edit("op" + str(b.parked()[0]["id"]), {"phone": "7"}) == 1
    b.write(REFUSED + "kind = 'update'")
    assert backhaul.parked.retry() == 1
    b.write(REFUSED + "kind = 'update'")
    b.push()
    assert backhaul.parked.discard() == 1
    b.sync()
    assert b.rows("customer") == [(1, "Ada", None, None, None), (2, "Bob", None, None, None)]
    backhaul.close()
