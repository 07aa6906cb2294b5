"""What is parked of an aggregate that another replica has changed is given up as a whole, or sent and decided about: at
no time does a total stand beside lines that are not its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backhaul.errors import Misused, Refused, TryLater
from backhaul.replica import parked
from backhaul.server.memory import MemoryRemote
from tests.disputes import (
    RULES,
    SCHEMA,
    add_line,
    all_equal,
    drop_line,
    edit_line,
    invoice_of,
    open_numbers,
    populate,
    resolve,
)
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica

NEWS: dict[str, Callable[[Replica], None]] = {
    "a line more": lambda a: add_line(a, "l3", 5),
    "the first line": lambda a: edit_line(a, "l1", 100),
    "the second line": lambda a: edit_line(a, "l2", 100),
    "a line less": lambda a: drop_line(a, "l2"),
}


class Refusing(MemoryRemote):
    def push(self, ops: Any) -> Any:
        if any(op.kind != "void" for op in ops):
            raise Refused("this is not JSON", problem="malformed", status=400)
        return super().push(ops)


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    """Of two edits of one invoice, in two transactions, both are parked at b."""
    a, b = populate(make(schema=SCHEMA, rules=RULES), make("b", schema=SCHEMA, rules=RULES))
    edit_line(b, "l1", 9)
    edit_line(b, "l2", 20)
    b.remote.__class__ = Refusing  # type: ignore[assignment]
    b.push()
    b.remote.__class__ = MemoryRemote  # type: ignore[assignment]
    return a, b


def groups(b: Replica) -> list[str]:
    """An op of each parked transaction."""
    return list({row["group_id"]: str(row["op_id"]) for row in b.parked()}.values())


def agree(*replicas: Replica) -> None:
    for replica in replicas:
        total, lines = invoice_of(replica)
        assert total == lines


@pytest.mark.parametrize("end", ["give up", "send"])
@pytest.mark.parametrize("what", NEWS)
def test_a_part_of_what_is_parked_is_not_given_up_over_news_of_the_whole(
    pair: tuple[Replica, Replica], what: str, end: str
) -> None:
    a, b = pair
    NEWS[what](a)
    a.sync()
    with pytest.raises(TryLater, match="not all here"):
        parked.discard(b.database, b.remote, groups(b)[1:])
    b.pull()
    agree(b)
    with pytest.raises(Misused, match="other changes of it wait"):
        parked.discard(b.database, b.remote, groups(b)[1:])
    assert invoice_of(b) == (29, 29)
    assert len(b.parked()) == 4
    if end == "give up":
        assert parked.discard(b.database, b.remote, groups(b)[:1]) == 4  # with what was made on top of it
        agree(b)
    else:
        parked.retry(b.database, [], now=b.clock.now())
        b.sync()
        agree(b)
        for number in open_numbers(b):
            resolve(b, "mine", number)
    assert all_equal(a, b)
    agree(a, b)


def test_a_part_of_what_is_parked_is_given_up_where_nobody_else_has_written(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    assert parked.discard(b.database, b.remote, groups(b)[1:]) == 2
    assert invoice_of(b) == (13, 13)
    parked.retry(b.database, [], now=b.clock.now())
    assert all_equal(a, b)
    assert invoice_of(a) == (13, 13)
