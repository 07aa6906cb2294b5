"""A token speaks for its own replica and for those that came of it, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backhaul.errors import Refused, SignInRequired
from backhaul.remotes.base import Remote
from tests.contract.remote.conftest import Join


def refusal(remote: Remote, replica: str) -> tuple[str, int]:
    """What it is refused with; the remote speaks for whom it spoke, then."""
    before = remote.signed_in_as
    with pytest.raises(Refused) as caught:
        remote.speak_for(replica)
    assert remote.signed_in_as == before
    remote.pull("", 1)
    return caught.value.problem, caught.value.status


def test_a_token_speaks_for_the_successors_of_its_replica(join: Join) -> None:
    a, b = join("a"), join("b")
    first = a.registered.replica
    a.do("insert", "playlist", [1, 1], note="of the first")
    second = a.remote.succeed(first).replica
    third = a.remote.succeed(second).replica
    assert a.remote.signed_in_as == third
    for number, one in enumerate((second, third, second)):
        a.remote.speak_for(one)
        assert a.remote.signed_in_as == one
        op = a.op("insert", "playlist", [2, number], note=one)
        op.seq = 1 + (number == 2)
        assert a.push(op)[0].status == "applied", "each of them numbers its own ops"
    a.remote.speak_for(first)
    op = a.op("insert", "playlist", [1, 2], note="of the first")
    op.seq = 2
    assert a.push(op)[0].status == "applied"
    assert len(b.pull()) == 5


def test_the_token_of_a_successor_does_not_speak_for_the_one_it_was(join: Join) -> None:
    a = join("a")
    registered = a.remote.succeed(a.registered.replica)
    a.remote.become(registered)
    assert a.remote.signed_in_as == registered.replica
    assert refusal(a.remote, a.registered.replica) == ("replica-unrelated", 409)


def test_the_token_of_a_successor_does_not_speak_for_another_successor(join: Join) -> None:
    a = join("a")
    first = a.registered.replica
    one = a.remote.succeed(first)
    a.remote.speak_for(first)
    other = a.remote.succeed(first)
    assert one.replica != other.replica
    a.remote.become(one)
    assert refusal(a.remote, other.replica) == ("replica-unrelated", 409)


@pytest.mark.parametrize("scope", ["", "another"])
def test_a_token_does_not_speak_for_an_unrelated_replica(join: Join, scope: str) -> None:
    a, b = join("a"), join("b", scope=scope)
    assert refusal(a.remote, b.registered.replica) == ("replica-unrelated", 409)
    assert refusal(a.remote, "0123456789abcdef") == ("replica-unrelated", 409)


def test_who_has_no_token_speaks_for_nobody(join: Join, connect: Callable[[], Remote]) -> None:
    a = join("a")
    with pytest.raises(SignInRequired):
        connect().speak_for(a.registered.replica)
