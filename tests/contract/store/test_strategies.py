"""Strategies through the store: whatever the split into pushes and the order of the replicas, the records are those
that follow from what was done; what cannot be is refused, and what was merged is told to all."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backhaul.merge.delta import edited, put_and_cut
from backhaul.wire import Column, Table, to_plain
from tests.contract.store.devices import Device, shown, statuses

ARTICLE = Table(
    name="article",
    columns=[
        Column(name="id", type="INTEGER"),
        Column(name="stock", type="INTEGER"),
        Column(name="tags", type="TEXT"),
        Column(name="notes", type="TEXT"),
        Column(name="best", type="INTEGER"),
        Column(name="serial", type="TEXT"),
    ],
    key=["id"],
    merge={"stock": "counter", "tags": "set", "notes": "text", "best": "max", "serial": "immutable"},
)
FIRST: dict[str, Any] = {"stock": 5, "tags": '["a"]', "notes": "a box", "best": 0, "serial": None}
scopes = (f"strategies-{number}" for number in count())


@pytest.fixture
def meet(join):
    """So many replicas of a fresh scope, which all have article 1."""

    def meet(number: int = 2, table: Table = ARTICLE) -> list[Device]:
        scope = next(scopes)
        devices = [join(scope, [table]) for _ in range(number)]
        fields = {name: FIRST[name] for name in FIRST if any(name == column.name for column in table.columns)}
        assert statuses(devices[0].push(devices[0].op("insert", "article", [1], fields=fields))) == ["applied"]
        for device in devices:
            device.pull()
        return devices

    return meet


def builtins(said: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(said))


def update(device: Device, at: int = 1, base: int = 1, **said: Any) -> Any:
    fields = msgspec.convert(builtins(said), type=dict[str, Any])
    op = device.op("update", "article", [1], at, base=base)
    return msgspec.convert({**msgspec.to_builtins(op), "fields": fields}, type=type(op))


def now(device: Device) -> dict[str, Any]:
    raw = msgspec.json.encode(device.store.records(device.replica.scope, [("article", [1])]))
    (record,) = msgspec.json.decode(raw, type=list[Any])
    return {
        name: value["text"] if isinstance(value, dict) else value for name, value in record.get("fields", {}).items()
    }


WORDS = st.text("ab ", max_size=6)
TAGS = st.sets(st.sampled_from("abc"), max_size=3).map(lambda tags: json.dumps(sorted(tags)))
STEP = st.tuples(st.integers(0, 2), st.integers(-9, 9), TAGS, TAGS, WORDS, st.integers(-5, 5))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=1, max_size=12), split=st.booleans(), random=st.randoms())
def test_the_records_follow_from_what_was_done_however_it_was_sent(meet, steps, split, random):
    devices = meet(3)
    marks: dict[str, Any] = {"a": (0, "", True)}
    queues: list[list[Any]] = [[], [], []]
    texts: list[bytes | None] = [None] * 3
    seen = ["a box"] * 3
    for at, (who, add, was, then, words, best) in enumerate(steps):
        said: dict[str, Any] = {"stock": {"add": add}, "best": best}
        tags = put_and_cut(was, then)
        said |= {"tags": tags} if tags["put"] or tags["cut"] else {}
        change, texts[who] = edited(texts[who], seen[who], seen[who] + words)
        seen[who] += words
        said["notes"] = {"update": change.hex()}
        for name, present in (("put", True), ("cut", False)):
            for tag in tags[name]:
                tag = json.loads(bytes(tag))
                marks[tag] = max(marks.get(tag, (0,)), (at + 1, devices[who].replica.id, present))
        queues[who].append(update(devices[who], at + 1, **said))
    while any(queues):
        who = random.choice([number for number in range(3) if queues[number]])
        size = random.randint(1, len(queues[who])) if split else len(queues[who])
        sent, queues[who] = queues[who][:size], queues[who][size:]
        assert set(statuses(devices[who].push(*sent))) == {"applied"}
        if random.random() < 0.3:
            assert set(statuses(devices[who].push(*sent))) == {"duplicate"}
    there = now(devices[0])
    assert there["stock"] == 5 + sum(step[1] for step in steps)
    assert there["best"] == max([0, *(step[5] for step in steps)])
    assert json.loads(there["tags"]) == sorted(tag for tag, mark in marks.items() if mark[2])
    assert sorted(there["notes"]) == sorted("a box" + "".join(step[4] for step in steps))
    for device in devices:
        told = dict(FIRST)
        for record in device.pull().records:
            told |= {name: to_plain(value) for name, value in record.fields.items()}
        assert {name: told[name] for name in ("stock", "tags", "notes")} == {
            name: there[name] for name in ("stock", "tags", "notes")
        }, "what several have made of a field is told to each of them"


def test_a_text_that_nobody_has_edited_travels_plain_and_then_with_its_document(meet):
    ann, bob = meet()
    assert FIRST["notes"] == "a box"
    change, state = edited(None, "a box", "a red box")
    ann.push(update(ann, notes={"update": change.hex()}))
    ((_, _, fields),) = shown(bob.pull())
    assert (fields["notes"].text, bytes.fromhex(fields["notes"].state)) == ("a red box", state)
    change, _ = edited(state, "a red box", "a red bag")
    bob.push(update(bob, 2, notes={"update": change.hex()}))
    assert now(ann)["notes"] == "a red bag"


def test_a_counter_stops_at_what_an_integer_can_hold_and_the_op_is_refused(meet):
    ann, bob = meet()
    most = 2**63 - 1
    assert statuses(ann.push(update(ann, stock={"add": most - 6}), update(ann, 2, stock={"add": 1}))) == ["applied"] * 2
    assert statuses(bob.push(update(bob, stock={"add": 1}))) == ["value-invalid"]
    assert now(ann)["stock"] == most
    assert (
        statuses(bob.push(update(bob, 2, stock={"add": -most}), update(bob, 3, stock={"add": -6}))) == ["applied"] * 2
    )
    assert now(ann)["stock"] == -6


def test_a_value_that_is_there_is_immutable_to_who_has_seen_it(meet):
    ann, bob = meet()
    assert statuses(ann.push(update(ann, 5, serial="A-1"), update(ann, 6, serial="A-2"), update(ann, 7, best=9))) == [
        "applied",
        "immutable",
        "depends-on-refused",
    ]
    assert statuses(bob.push(update(bob, 4, serial="B-1"))) == ["applied"], "it had not seen the other, and was before"
    assert now(ann)["serial"] == "B-1"
    head = ann.pull().position
    assert statuses(ann.push(update(ann, 8, base=head, serial="B-1"))) == ["applied"], "it is the same"
    assert statuses(bob.push(update(bob, 9, base=head, serial="C-1"))) == ["immutable"]


def test_garbage_is_refused_and_harms_nothing(meet):
    ann, bob = meet()
    garbage = [
        {"notes": {"update": "00"}},
        {"notes": {"update": "01ffffffff0f0100"}},
        {"notes": 5},
        {"tags": {"put": [], "add": 1}},
        {"tags": "x"},
        {"stock": "six"},
        {"stock": {"hex": "00", "add": 1}},
        {"best": {"was": 1, "now": 2}},
        {"best": {"hex": "00", "real": "Infinity"}},
    ]
    for at, said in enumerate(garbage):
        assert statuses(ann.push(update(ann, at, **said))) == ["value-invalid"], said
    assert now(bob) == FIRST


def test_what_loses_to_another_value_of_the_same_replica_comes_back_to_it(meet):
    ann, _ = meet()
    ann.push(update(ann, 1, best=7), update(ann, 2, best=3))
    assert shown(ann.pull()) == [("article", [1], {"best": 7})]


def test_an_edit_that_the_deleter_had_not_seen_keeps_the_record(meet):
    ann, bob = meet(table=msgspec.structs.replace(ARTICLE, deletes="edit_wins"))
    ann.push(ann.op("delete", "article", [1], 5, base=1))
    bob.push(update(bob, 1, stock={"add": 2}))
    assert now(ann)["stock"] == 7
    assert [(record.whole, record.fields["stock"]) for record in ann.pull().records] == [(True, 7)]
    head = bob.pull().position
    bob.push(bob.op("delete", "article", [1], 6, base=head))
    assert shown(ann.pull()) == [("article", [1], "deleted")]


def test_what_stands_there_comes_with_a_conflict_as_the_feed_tells_it(meet):
    held = msgspec.structs.replace(ARTICLE, merge={**ARTICLE.merge, "best": "manual"})
    ann, bob = meet(table=held)
    change, state = edited(None, "a box", "a red box")
    ann.push(update(ann, notes={"update": change.hex()}, best=1))
    change, _ = edited(None, "a box", "a big box")
    (result,) = bob.push(update(bob, notes={"update": change.hex()}, best=2, stock={"add": 1}))
    assert result.status == "conflict"
    theirs = builtins(result.problem.theirs)
    assert theirs == {"notes": {"text": "a red box", "state": state.hex()}, "best": 1, "stock": 5}


def test_an_edit_that_builds_on_one_that_was_given_up_is_refused_and_not_kept_waiting(meet):
    ann, _ = meet()
    _, state = edited(None, "a box", "a red box")
    change, _ = edited(state, "a red box", "a very red box")
    assert statuses(ann.push(update(ann, notes={"update": change.hex()}))) == ["value-invalid"]
    assert now(ann)["notes"] == "a box"
