"""Strategies as a replica says them: what cannot work is refused, what is agreed is captured."""

from __future__ import annotations

import json

import pytest

from backhaul.errors import TableUnfit, TableUnknown
from backhaul.replica import enrol, strategies
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Column, Reference, Table
from tests.replicas import make_replica

ARTICLE = Table(
    name="article",
    columns=[
        Column(name="id", type="INTEGER"),
        Column(name="stock", type="INTEGER"),
        Column(name="price", type="NUMERIC(10, 2)"),
        Column(name="weight", type="REAL"),
        Column(name="tags", type="TEXT"),
        Column(name="shop", type="INTEGER"),
    ],
    key=["id"],
    references=[Reference(columns=["shop"], table="shop", target=["id"])],
)


def ruled(dialect: str = "sqlite", **said) -> Table:
    (table,) = strategies.ruled([ARTICLE], {"article": Rules(**said)}, dialect, ["article", "shop"])
    return table


def test_what_the_settings_say_of_a_table_is_in_its_definition():
    table = ruled(
        merge={"stock": "counter", "tags": "set", "*": "max", "price": "lww"}, deletes="edit_wins", aggregate="shop"
    )
    assert table.merge == {"stock": "counter", "tags": "set", "weight": "max", "shop": "max"}
    assert (table.deletes, table.aggregate) == ("edit_wins", "shop")
    assert table.deltas() == {"stock": "counter", "tags": "set"}


@pytest.mark.parametrize(
    ("dialect", "merge", "why"),
    [
        ("sqlite", {"weight": "counter"}, "its type is REAL"),
        ("sqlite", {"price": "counter"}, "its type is NUMERIC"),
        ("postgresql", {"weight": "counter"}, "its type is REAL"),
        ("sqlite", {"stock": "set"}, "its type is INTEGER"),
        ("sqlite", {"stock": "text"}, "its type is INTEGER"),
        ("sqlite", {"id": "max"}, "part of the primary key"),
        ("sqlite", {"stok": "counter"}, "no column 'stok'"),
        ("sqlite", {"stock": "sum"}, "no strategy 'sum'"),
        ("sqlite", {"stock": "counter:fast"}, "no strategy 'counter:fast'"),
        ("sqlite", {"stock": "custom"}, "no strategy 'custom'"),
        ("sqlite", {"stock": "custom:shop"}, "names no function"),
        ("sqlite", {"stock": "custom:shop:"}, "names no function"),
    ],
)
def test_a_strategy_that_cannot_be_the_columns_is_refused_with_the_reason(dialect, merge, why):
    with pytest.raises(TableUnfit, match=why) as raised:
        ruled(dialect, merge=merge)
    assert raised.value.hint
    assert raised.value.where == ("tables", "article", "merge", *merge)


def test_a_decimal_is_a_counter_where_it_is_exact():
    assert ruled("postgresql", merge={"price": "counter"}).merge == {"price": "counter"}


def test_an_aggregate_needs_a_reference_and_a_section_a_table():
    with pytest.raises(TableUnfit, match="no foreign key to 'till'"):
        ruled(aggregate="till")
    with pytest.raises(TableUnknown, match="no table 'artikel'"):
        strategies.ruled([ARTICLE], {"artikel": Rules()}, "sqlite", ["article"])


def test_what_the_scope_has_agreed_on_is_adopted_unless_it_cannot_be_here():
    told = [Table(name="article", columns=[], key=["id"], merge={"stock": "counter", "unknown": "max"}, keys="blocks")]
    (table,) = strategies.agreed([ARTICLE], told, "sqlite")
    assert (table.merge, table.keys) == (
        {"stock": "counter"},
        ARTICLE.keys,
    )  # who numbers the rows is a matter of each database
    with pytest.raises(TableUnfit, match="has agreed on counter"):
        strategies.agreed(
            [ARTICLE], [Table(name="article", columns=[], key=["id"], merge={"price": "counter"})], "sqlite"
        )


def test_an_update_of_a_column_that_is_merged_by_what_was_done_tells_what_was_there(tmp_path):
    server = MemoryServer()
    schema = "CREATE TABLE article (id INTEGER PRIMARY KEY, stock INTEGER, tags TEXT, name TEXT);"
    rules = {"article": Rules(merge={"stock": "counter", "tags": "set"})}
    replica = make_replica(tmp_path / "a.db", MemoryRemote(server), schema=schema, code=server.enrol(), rules=rules)
    replica.write("INSERT INTO article VALUES (1, 5, NULL, 'nail')")
    replica.write("UPDATE article SET stock = stock + 2, name = 'screw' WHERE id = 1")
    replica.write("UPDATE article SET tags = x'00ff', stock = 9e999 WHERE id = 1")
    assert [json.loads(row["fields"]) for row in replica.outbox()] == [
        {"stock": 5, "tags": None, "name": "nail"},
        {"stock": {"was": 5, "now": 7}, "name": "screw"},
        {"stock": {"was": 7, "now": {"real": "Infinity"}}, "tags": {"was": None, "now": {"hex": "00ff"}}},
    ]
    replica.close()


def test_renewing_adopts_what_another_replica_has_said_meanwhile(tmp_path):
    server = MemoryServer()
    schema = "CREATE TABLE article (id INTEGER PRIMARY KEY, stock INTEGER);"
    ann = make_replica(tmp_path / "a.db", MemoryRemote(server), schema=schema, code=server.enrol())
    assert enrol.renew(ann.database, ann.remote).tables == []
    told = Table(name="article", columns=[Column(name="stock")], key=["id"], merge={"stock": "max"})
    told.columns.append(Column(name="id"))
    server.store.declare("default", [told])
    assert enrol.renew(ann.database, ann.remote).tables == ["article"]
    assert enrol.renew(ann.database, ann.remote).tables == []
    ann.close()
