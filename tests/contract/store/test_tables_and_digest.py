"""The tables of a scope, and the digest over them."""

from __future__ import annotations

import pytest

from backhaul.digest import fingerprint, row_hash
from backhaul.errors import Refused
from backhaul.wire import Column, Reference, Table
from tests.contract.store.devices import NOW, customer, statuses


def test_tables_grow_and_keep_their_key(ann, store):
    wider = Table(name="customer", columns=[Column(name="id"), Column(name="email")], key=["id"])
    store.declare("shop", [wider])
    assert statuses(ann.push(customer(ann, 1, fields={"email": "a", "phone": "b"}))) == ["applied"]
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
    ann.push(
        ann.op("insert", "line", [1, 1], fields={"what": 0.5}),
        ann.op("insert", "line", [1, 2], fields={"what": None}),
        ann.op("delete", "line", [1, 3]),
        ann.op("update", "line", [1, 4], fields={"what": "not whole"}),
    )
    digest = store.digest("shop", NOW)
    mine = fingerprint([row_hash("line", [1, 1], {"what": 0.5}), row_hash("line", [1, 2], {})])
    assert [(t.table, t.count) for t in digest.tables] == [("customer", 0), ("invoice", 0), ("line", 2)]
    assert (digest.tables[2].fingerprint, digest.position) == (mine, 4)
