"""Chains: one-time works that wait for each other. A chain is a value; nothing is stored until it is enqueued, whole.

chain(a, b).then(c)                     c waits for a and b
combine(chain(a).then(b), chain(c)).then(d)
"""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from backhaul.errors import Misused
from backhaul.work.one_time import OneTimeWork

Parents = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Chain:
    """works: in the order in which they were named. parents: for each work's id, the ids that it waits for, in order.
    leaves: the ids that a further step would wait for, in order."""

    works: tuple[OneTimeWork, ...]
    parents: Parents
    leaves: tuple[str, ...]

    def then(self, *works: OneTimeWork) -> Chain:
        """These, each after everything that is last so far. Raises Misused for periodic work, and for a work that would
        wait for itself."""
        _check(works)
        added = tuple((work.id, self.leaves) for work in works)
        return _made((*self.works, *works), (*self.parents, *added), tuple(work.id for work in works))


def chain(*works: OneTimeWork) -> Chain:
    """These, beside each other. Raises Misused."""
    _check(works)
    ids = tuple(work.id for work in works)
    return _made(works, tuple((one, ()) for one in ids), ids)


def combine(*chains: Chain) -> Chain:
    """These chains, beside each other; `then` waits for all of them. A work of several is one work. Raises Misused."""
    if not chains:
        raise Misused("no chain is combined", hint="combine(chain(a), chain(b).then(c))")
    for one in chains:
        if not isinstance(one, Chain):
            raise Misused(f"{type(one).__name__} is no chain", hint="combine(chain(a), chain(b).then(c))")
    works: dict[str, OneTimeWork] = {}
    parents: dict[str, tuple[str, ...]] = {}
    for one in chains:
        for work in one.works:
            if works.setdefault(work.id, work) != work:
                raise Misused(f"two works have the id {work.id!r}", hint="leave the id out")
        for child, said in one.parents:
            parents[child] = tuple(dict.fromkeys((*parents.get(child, ()), *said)))
    # The end of one chain may be the middle of another: the next step waits for it all the same, and gets its output.
    leaves = tuple(dict.fromkeys(leaf for one in chains for leaf in one.leaves))
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        raise Misused(
            f"these works wait for each other in a circle: {' <- '.join(error.args[1])}", hint="take one step out"
        ) from None
    return _made(tuple(works.values()), tuple(parents.items()), leaves)


def _made(works: tuple[OneTimeWork, ...], parents: Parents, leaves: tuple[str, ...]) -> Chain:
    if len({work.id for work in works}) != len(works):
        raise Misused("a work is in the chain twice: it would wait for itself", hint="build it a second time")
    return Chain(works, parents, leaves)


def _check(works: tuple[OneTimeWork, ...]) -> None:
    if not works:
        raise Misused("a step of a chain needs a work", hint="chain(first).then(second)")
    for work in works:
        if not isinstance(work, OneTimeWork):
            raise Misused(f"{type(work).__name__} cannot be part of a chain", hint="only one-time work can")
