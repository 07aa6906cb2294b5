"""What the replicas of a scope say of a table is joined, and told to each: the first strategy of a column stands."""

from __future__ import annotations

import sys
from types import ModuleType

import msgspec
import pytest

from backhaul.errors import Refused
from backhaul.merge import Functions
from backhaul.server.store import Store
from backhaul.wire import Column, Reference, Table

LINE = Table(
    name="stock_line",
    columns=[Column(name=name) for name in ("id", "stock", "best", "of")],
    key=["id"],
    references=[Reference(columns=["of"], table="invoice", target=["id"])],
)


def said(**what) -> Table:
    return msgspec.structs.replace(LINE, **what)


def test_who_says_nothing_follows_what_was_said_first(ann, store):
    store.declare(
        "shop", [said(merge={"stock": "counter"}, deletes="edit_wins", aggregate="invoice", keys="generated")]
    )
    *_, line = [table for table in store.declare("shop", [LINE]) if table.name == "stock_line"]
    assert line == said(merge={"stock": "counter"}, deletes="edit_wins", aggregate="invoice", keys="generated")
    wider = said(
        columns=[*LINE.columns, Column(name="tags")], merge={"tags": "set"}, keys="blocks", renamed={"a": "tags"}
    )
    *_, line = [table for table in store.declare("shop", [wider]) if table.name == "stock_line"]
    assert line.merge == {"stock": "counter", "tags": "set"}
    assert (line.keys, line.renamed) == ("blocks", {"a": "tags"})
    assert {table.name for table in store.declare("shop", [])} >= {"stock_line", "customer", "invoice"}


@pytest.mark.parametrize(
    ("first", "then", "agreed"),
    [
        ({}, {"best": "max"}, {"best": "max"}),
        ({}, {"stock": "counter"}, {"stock": "counter"}),
        ({"stock": "counter"}, {"stock": "max"}, None),
        ({"stock": "counter"}, {"stock": "set"}, None),
        ({"best": "max"}, {"best": "min"}, None),
        ({"best": "max"}, {"best": "max"}, {"best": "max"}),
    ],
)
def test_what_is_agreed_stands_and_a_column_of_last_writes_may_get_any_strategy(ann, store, first, then, agreed):
    store.declare("shop", [said(merge=first)])
    if agreed is None:
        with pytest.raises(Refused) as raised:
            store.declare("shop", [said(merge=then)])
        assert raised.value.problem == "schema-conflict"
    else:
        *_, line = [table for table in store.declare("shop", [said(merge=then)]) if table.name == "stock_line"]
        assert line.merge == agreed


@pytest.mark.parametrize(
    "wrong",
    [
        {"merge": {"id": "max"}},
        {"merge": {"colour": "max"}},
        {"merge": {"stock": "sum"}},
        {"merge": {"stock": "counter:"}},
        {"merge": {"stock": "custom:os:getcwd"}},
        {"aggregate": "shop"},
    ],
)
def test_what_cannot_be_is_refused(ann, store, wrong):
    with pytest.raises(Refused) as raised:
        store.declare("shop", [said(**wrong)])
    assert raised.value.problem == "table-invalid"


@pytest.fixture
def module(monkeypatch):
    made = ModuleType("shop_merges")
    exec("import os\ndef longer(base, mine, theirs): return max(mine, theirs, key=len)\n", made.__dict__)
    monkeypatch.setitem(sys.modules, "shop_merges", made)


def test_a_custom_function_is_of_a_module_that_the_operator_has_listed(ann, database, module):
    listed, unlisted = Store(database, Functions(["shop_merges"])), Store(database)
    for store, path in [
        (unlisted, "custom:shop_merges:longer"),
        (listed, "custom:shop_merges:os"),
        (listed, "custom:shop_merges:shorter"),
        (listed, "custom:shop_merges"),
    ]:
        with pytest.raises(Refused) as raised:
            store.declare("shop", [said(merge={"best": path})])
        assert raised.value.problem == "table-invalid"
    *_, line = [
        t for t in listed.declare("shop", [said(merge={"best": "custom:shop_merges:longer"})]) if t.name == "stock_line"
    ]
    assert line.merge == {"best": "custom:shop_merges:longer"}
