"""What persons do in a simulated world: about parked changes and conflicts, and to a table's columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from random import Random

from backhaul.errors import Misused, Refused, TableAltered, TryLater
from backhaul.replica import enrol, mending, parked, remap, resolution
from tests.convergence.branch import Branch
from tests.convergence.network import Killed

WORDS = count(1)
SIDES = ["mine", "mine", "theirs", "values"]


@contextmanager
def surviving() -> Iterator[None]:
    """A run that fails or dies is taken up by a later one."""
    with suppress(TryLater, TableAltered, Killed):
        yield


# ------------------------------------------------------------------------------------------------ parked


def retry(branch: Branch, random: Random) -> None:
    with branch.a_person(), suppress(Misused):
        parked.retry(branch.replica.database, _some_parked(branch, random), now=branch.clock.now())


def discard(branch: Branch, random: Random, *, everything: bool = False) -> None:
    chosen = [] if everything else _some_parked(branch, random)
    with surviving(), suppress(Misused):
        with branch.replica.database.writing() as connection:  # what depends on them, and may be given up with them
            parked.park_dependents(connection, now=branch.clock.now())
        with branch.a_person(alone=False):
            parked.discard(branch.replica.database, branch.network, chosen)


def edit(branch: Branch, random: Random) -> None:
    for row in branch.replica.parked()[:1]:
        fields = {"customer": "name", "doc": "shade", "memo": "said", "line": "what", "ticket": "what"}
        if row["table_name"] in fields:
            said = {fields[row["table_name"]]: f"said {next(WORDS)} {random.random()}"}
            with branch.a_person(), suppress(Misused):
                mending.edit(branch.replica.database, row["op_id"], said, now=branch.clock.now())


def give_another_key(branch: Branch, random: Random) -> None:
    taken = [str(row["op_id"]) for row in branch.replica.parked() if row["reason"] == "key-taken"]
    if taken:
        chosen = [] if random.random() < 0.5 else taken[:1]
        with branch.a_person(), surviving(), suppress(Misused, Refused):
            remap.remap(branch.replica.database, branch.network, chosen, now=branch.clock.now())


def _some_parked(branch: Branch, random: Random) -> list[str]:
    rows = branch.replica.parked()
    return [str(row["op_id"]) for row in random.sample(rows, min(len(rows), random.randint(1, 3)))] or ["none"]


# ------------------------------------------------------------------------------------------------ conflicts


def resolve(branch: Branch, random: Random, *, sides: list[str] = SIDES) -> None:
    for number in branch.open_conflicts():
        if random.random() < 0.7:
            side = random.choice(sides)
            choice = {"body": f"decided {next(WORDS)}"} if side == "values" else side
            with branch.a_person(), suppress(Misused, TryLater):
                resolution.resolve(branch.replica.database, number, choice, now=branch.clock.now())  # type: ignore[arg-type]
                branch.decided.append(number)


def undo(branch: Branch, _random: Random) -> None:
    if branch.decided:
        with branch.a_person(), suppress(Misused):
            resolution.undo(branch.replica.database, branch.decided.pop())


# ------------------------------------------------------------------------------------------------ columns of `tag`


def alter(branch: Branch, random: Random) -> None:
    """Now or later somebody runs `init`; until then push and pull wait."""
    columns = {row[1] for row in branch.replica.app.execute("PRAGMA table_info(tag)")}
    statement = random.choice(["add", "rename", "drop", "init", "init"])
    if statement == "add" and "size" not in columns:
        branch.replica.write("ALTER TABLE tag ADD COLUMN size TEXT")
    elif statement == "rename" and "colour" in columns:
        branch.replica.write("ALTER TABLE tag RENAME COLUMN colour TO hue")
    elif statement == "drop" and "picture" in columns and not branch.altered:
        for event in ("insert", "update", "rekey", "delete"):  # SQLite drops no column that a trigger names
            branch.replica.write(f"DROP TRIGGER backhaul_{event}_tag")
        branch.replica.write("ALTER TABLE tag DROP COLUMN picture")
        branch.altered = True
        while branch.altered:  # what is written without triggers is not what this is about
            init(branch)
        return
    elif statement == "init":
        init(branch)
        return
    branch.altered = True


def init(branch: Branch) -> None:
    with surviving():
        enrol.renew(branch.replica.database, branch.network, rules=branch.rules)
        branch.altered = False
