"""What waits of an aggregate, and what of it is offered to a server that was put back, are judged as one."""
from __future__ import annotations
from collections.abc import Callable
from typing import Any
import pytest
from tests.disputes import RULES, SCHEMA, add_line
from tests.replicas import Replica
from tests.unit.replica.test_restored import MINUTE, Server, done, make, seen_between_pushes, server, settle


@pytest.mark.parametrize("heard", ["by a pull", "by a push"])
@pytest.mark.parametrize("sent", [False, True])
def test_what_waits_of_an_aggregate_goes_together_with_what_is_offered_of_it(
    server: Server, make: Callable[..., Replica], heard: str, sent: bool
) -> None:
    a, b = (make(name, schema=SCHEMA, rules=RULES) for name in "ab")
    a.write_together("INSERT INTO invoice VALUES ('i', 3, NULL)", "INSERT INTO line VALUES ('l1', 'i', 3)")
    settle(server, a, b)
    saved = server.back_up()
    server.clock.moment += MINUTE
    add_line(a, "l2", 4)
    a.write("INSERT INTO note VALUES ('n', 'beside it', NULL)")
    settle(server, a)
    server.clock.moment += MINUTE
    add_line(a, "l3", 5)
    if sent:
        push = a.remote.push
        from backhaul.errors import TryLater
        def lost(ops):
            raise TryLater("nobody there")
        a.remote.push = lost
        with pytest.raises(TryLater):
            a.push()
        a.remote.push = push
    server.put_back(saved)
    server.clock.moment += 60*MINUTE
    if heard == "by a pull":
        a.pull()
    seen = seen_between_pushes(a, b)
    assert seen[-1] == (12, 12)
    assert [each for each in seen if each[0] != each[1]] == []
    settle(server, a, b)
    assert a.rows("line") == b.rows("line")
    assert done(a) and done(b)
