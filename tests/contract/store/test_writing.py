"""What the server writes itself goes the way of every op, and stands where a column says so."""

from __future__ import annotations

import pytest

from backhaul.errors import Refused, Unknown
from backhaul.wire import Column, Table, to_plain
from tests.contract.store.devices import NOW, shown, statuses

PRICE = Table(
    name="price",
    columns=[Column(name=name, type="TEXT") for name in ("id", "amount", "stock", "tags", "notes", "seen")],
    key=["id"],
    merge={"amount": "server_wins", "stock": "counter", "tags": "set", "notes": "text", "seen": "max"},
)


@pytest.fixture
def ann(join):
    return join("prices", [PRICE])


def write(store, fields, at=0):
    return store.write("prices", "price", ["p-1"], fields, NOW + at)


def test_the_servers_word_stands_over_what_replicas_write_later(ann, store):
    assert write(store, {"amount": "9.90"}) == 1
    late = ann.op("update", "price", ["p-1"], 50_000, base=0, fields={"amount": "1.00", "seen": "a"})
    assert statuses(ann.push(late)) == ["applied"]
    ((_, _, fields),) = shown(ann.pull())
    assert (fields["amount"], fields["seen"]) == ("9.90", "a")
    write(store, {"amount": "8.80"}, at=-1_000_000)
    assert shown(ann.pull()) == [("price", ["p-1"], {"amount": "8.80"})], "a clock that was put back changes nothing"


def test_what_the_server_sets_is_added_and_woven_in(ann, store):
    write(store, {"stock": 10, "tags": '["a","b"]', "notes": "a box"})
    ann.pull()
    ann.push(ann.op("update", "price", ["p-1"], 1, base=1, fields={"stock": {"add": 5}}))
    write(store, {"stock": 12, "tags": '["b","c"]', "notes": "a red box", "seen": None})
    ((_, _, fields),) = shown(ann.pull())
    assert fields["stock"] == 12
    assert fields["tags"] == '["b","c"]'
    assert to_plain(fields["notes"]) == "a red box"


def test_what_no_op_may_the_server_may_not(ann, store):
    for table, fields, problem in [
        ("prices", {}, "table-unknown"),
        ("price", {"colour": 1}, "column-unknown"),
        ("price", {"tags": "none"}, "value-invalid"),
        ("price", {"stock": 1.5}, "value-invalid"),
        ("price", {"amount": object()}, "value-invalid"),
    ]:
        with pytest.raises(Refused) as raised:
            store.write("prices", table, ["p-1"], fields, NOW)
        assert raised.value.problem == problem
    with pytest.raises(Unknown):
        store.write("nowhere", "price", ["p-1"], {}, NOW)
    assert ann.pull().records == []
