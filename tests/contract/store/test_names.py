"""Names that change in a scope: what each replica is told, and what is kept goes along."""

from __future__ import annotations

import msgspec
import pytest

from backhaul.errors import Refused
from backhaul.server import feed
from backhaul.wire import Column, Reference, Table, Wanted, problem_name
from tests.contract.store.devices import NOW, TABLES, Device, customer

CUSTOMER, INVOICE, LINE = TABLES
CLIENT = msgspec.structs.replace(CUSTOMER, name="client", formerly=["customer"])
TO_CLIENT = msgspec.structs.replace(
    INVOICE, references=[Reference(columns=["customer_id"], table="client", target=["id"])]
)


def declare(device: Device, *tables: Table) -> dict[str, Table]:
    told = device.store.declare(device.replica.scope, tables, device.replica.id)
    return {table.name: table for table in told}


def test_each_replica_is_told_the_name_that_it_says(ann, bob, store):
    ann.push(customer(ann, 1))
    told = declare(bob, CLIENT, TO_CLIENT, LINE)
    assert sorted(told) == ["client", "invoice", "line"]
    assert (told["client"].formerly, told["invoice"].references[0].table) == (["customer"], "client")
    told = declare(ann, *TABLES)
    assert sorted(told) == ["customer", "invoice", "line"]
    assert (told["customer"].formerly, told["invoice"].references[0].table) == ([], "customer")
    bob.push(bob.op("update", "client", [1], 1, fields={"phone": "1"}, base=1))
    ann.push(ann.op("update", "customer", [1], 2, fields={"name": "new"}, base=2))
    assert [(r.table, r.fields) for r in ann.pull().records] == [("customer", {"name": "new", "phone": "1"})]
    assert [r.table for r in bob.pull().records] == ["client"]
    for device, name in ((ann, "customer"), (bob, "client")):
        keys = [(name, [1]), ("customer", [1])]  # an older name is always understood
        (record,) = store.records("shop", keys, device.replica.id)
        assert record.table == name
        digest = store.digest("shop", NOW, device.replica.id)
        assert {one.table: one.count for one in digest.tables}[name] == 1
        given = store.blocks(device.replica, {name: Wanted(count=5)}, NOW)
        assert [block.table for block in given.blocks] == [name]


def test_a_push_that_depends_on_a_record_under_its_old_name_depends_on_it(ann, bob):
    declare(bob, CLIENT, TO_CLIENT, LINE)
    ann.push(customer(ann, 1))
    taken = bob.op("insert", "client", [1], 1, fields={"name": "another", "phone": None})
    refers = bob.op("insert", "invoice", [9], 1, fields={"customer_id": 1, "total": None})
    results = bob.push(taken, refers)
    assert [problem_name(result.problem) for result in results] == ["key-taken", "depends-on-refused"]


def test_the_server_writes_under_any_name(ann, bob, store):
    ann.push(customer(ann, 1))
    declare(bob, CLIENT, TO_CLIENT, LINE)
    store.write("shop", "customer", [1], {"phone": "1"}, NOW)
    store.write("shop", "client", [1], {"name": "new"}, NOW)
    assert [(r.table, r.fields) for r in bob.pull().records] == [("client", {"name": "new", "phone": "1"})]


def test_a_version_that_is_cut_while_a_table_is_renamed_is_told_whole(ann, bob, store, monkeypatch):
    """What was to come after the cut comes before it under its new name."""
    monkeypatch.setattr(feed, "MOST_PAGE_BYTES", 100)
    line = {"what": "x" * 50}
    ann.push(
        *[ann.op("insert", "line", [1, n], group="one", fields=line) for n in range(4)], customer(ann, 1, group="one")
    )
    declare(ann, msgspec.structs.replace(LINE, name="a_line", formerly=["line"]), CUSTOMER, INVOICE)
    page = bob.pull()
    seen = {(r.table, str(r.key)) for r in page.records}
    assert page.more
    declare(ann, msgspec.structs.replace(CUSTOMER, name="Kunde", formerly=["customer"]), INVOICE)
    while page.more:
        page = bob.pull()
        seen |= {(r.table, str(r.key)) for r in page.records}
    assert seen == {("customer", "[1]"), *(("line", f"[1, {n}]") for n in range(4))}


def test_an_answer_that_is_given_again_says_what_stands_there_under_the_name_of_now(join, store):
    table = Table(name="note", columns=[Column(name="id"), Column(name="body")], key=["id"], merge={"body": "manual"})
    newer = msgspec.structs.replace(
        table,
        columns=[Column(name="id"), Column(name="remark")],
        merge={"remark": "manual"},
        renamed={"body": "remark"},
    )
    one, two, three = (join(tables=[table]) for _ in range(3))
    one.push(one.op("insert", "note", ["n"], fields={"body": "theirs"}))
    ops = {device: device.op("update", "note", ["n"], 1, fields={"body": "mine"}) for device in (two, three)}
    for device in (two, three):
        (result,) = device.push(ops[device])
        assert result.problem.theirs == {"body": "theirs"}
    declare(two, newer)
    assert two.push(ops[two])[0].problem.theirs == {"remark": "theirs"}
    assert three.push(ops[three])[0].problem.theirs == {"body": "theirs"}
    again = three.op("update", "note", ["n"], 2, fields={"body": "mine"})
    assert three.push(again)[0].problem.theirs == {"body": "theirs"}


def test_a_name_is_one_tables_alone(ann, bob, store):
    for tables, why in (
        ((CLIENT, CUSTOMER), "client was called customer before"),
        ((CLIENT, msgspec.structs.replace(CUSTOMER, name="party", formerly=["customer"])), "renamed to client here"),
        ((msgspec.structs.replace(CUSTOMER, formerly=["customer"]),), "cannot have been called so before"),
    ):
        with pytest.raises(Refused) as caught:
            declare(ann, *tables)
        assert why in str(caught.value)
        assert sorted(declare(ann, *TABLES)) == ["customer", "invoice", "line"]
