"""Numbers for keys: no two replicas ever get the same, and none lies where a record is."""

from __future__ import annotations

from backhaul.wire import Block, Table, Wanted
from tests.contract.store.devices import NOW, Device, customer


def ask(device: Device, *names: str, count: int = 100, above: int = 0) -> list[Block]:
    wanted = {name: Wanted(count=count, above=above) for name in names or ["customer"]}
    return device.store.blocks(device.replica, wanted, NOW).blocks


def test_blocks_follow_each_other_whoever_asks(ann: Device, bob: Device) -> None:
    given = [ask(one)[0] for one in (ann, bob, ann, bob)]
    assert [(block.first, block.last) for block in given] == [(1, 100), (101, 200), (201, 300), (301, 400)]


def test_a_block_lies_above_every_key_of_the_scope(ann: Device, bob: Device) -> None:
    ann.push(customer(ann, 7), customer(ann, 70), customer(ann, -9))
    assert ask(bob)[0].first == 71
    ann.push(customer(ann, 500), ann.op("delete", "customer", [500], 1))
    assert ask(bob)[0].first == 501
    ann.push(ann.op("update", "customer", [1000], fields={"name": "not whole"}))
    assert ask(ann)[0].first == 1001
    assert ask(ann, above=5000)[0].first == 5001
    assert ask(bob)[0].first == 5101


def test_tables_count_for_themselves(ann: Device, bob: Device) -> None:
    ann.push(customer(ann, 7))
    assert [(block.table, block.first) for block in ask(bob, "invoice", "customer")] == [
        ("customer", 8),
        ("invoice", 1),
    ]


def test_scopes_count_for_themselves(ann: Device, join) -> None:
    ask(ann)
    assert ask(join("another"))[0].first == 1


def test_what_has_no_numbers_is_left_out(ann: Device, join) -> None:
    assert ask(ann, "line", "nothing") == []
    assert ask(ann, above=2**63 - 50) == []
    tables = [Table(name="tag", columns=[], key=["id"])]
    assert ann.store.blocks(ann.replica, {table.name: Wanted(count=1) for table in tables}, NOW).blocks == []


def test_keys_of_the_largest_size_are_looked_at(ann: Device) -> None:
    ann.push(customer(ann, 2**63 - 2))
    assert ask(ann) == []
    assert ask(ann, count=1) == [Block(table="customer", first=2**63 - 1, last=2**63 - 1)]


def test_a_block_is_no_larger_than_a_server_gives(ann: Device) -> None:
    (block,) = ask(ann, count=2**31)
    assert block.last == 100_000
