"""Numbers for keys, asked for in memory and over HTTP."""

from __future__ import annotations

import msgspec
import pytest

from backhaul.wire import Block, BlocksWanted, Wanted
from tests.contract.remote.conftest import Join


def test_each_replica_is_given_numbers_of_its_own(join: Join) -> None:
    a, b = join("a").remote, join("b").remote
    (one,) = a.blocks({"customer": Wanted(count=10, above=41)})
    assert one == Block(table="customer", first=42, last=51)
    assert b.blocks({"customer": Wanted(count=5)}) == [Block(table="customer", first=52, last=56)]
    assert a.blocks({"nothing": Wanted(count=5)}) == []
    assert a.blocks({}) == []


@pytest.mark.parametrize("wanted", [{"count": 0}, {"count": 1, "above": -1}, {"count": 1, "more": 1}, {}])
def test_what_cannot_be_wanted_cannot_be_read(wanted: dict[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"tables": {"customer": wanted}}, BlocksWanted)
