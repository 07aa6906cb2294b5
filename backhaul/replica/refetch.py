"""Fetching records once more: those that the feed has told of while something of ours was laid over them.

The server is asked outside of any transaction. What it said is only good as long as no page of the feed was applied
meanwhile: else the page may be newer, and the server is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Refused, TryLater
from backhaul.remotes.base import Remote
from backhaul.replica import apply, aside, blocks, checkpoint, conflicts, outbox, refill, tables
from backhaul.wire import Record, Value, canonical_key

Settled = TypeVar("Settled")

AT_ONCE = 500  # records of one question
TRIES = 20
TURNS = 4  # questions about what was set aside, after a page


def overtaken(database: Database, remote: Remote) -> int:
    """Fetch the records of all changes that were overtaken; returns how many changes that were."""
    done = 0
    while True:
        with database.reading() as connection:
            passed = outbox.overtaken(connection, AT_ONCE)
        if not passed:
            return done
        places = [(row["table_name"], row["key"]) for row in passed]
        forget = partial(outbox.forget_overtaken, ids=[row["id"] for row in passed])
        lay_under(database, remote, places, forget, absent="leave")
        done += len(passed)


def contested(database: Database, remote: Remote) -> int:
    """Ask what stands on the server of records in conflicts of which it is not known; returns of how many."""
    with database.reading() as connection:
        places = conflicts.to_ask_for(connection)
    if not places:
        return 0
    keys = [(table, msgspec.json.decode(key, type=list[Value])) for table, key in places]
    there = ask(remote, keys)
    there += never_were(keys, there)
    with database.writing() as connection:
        checkpoint.hold(connection)
        return conflicts.hear(connection, there)


def set_aside(database: Database, remote: Remote, *, now: int) -> int:
    """Fetch records that were set aside, those first that were not tried for longest; returns how many fit now."""
    with database.reading() as connection:
        places = aside.longest_untried(connection, AT_ONCE)
    return _try_again(database, remote, places, now=now)


def try_again(database: Database, remote: Remote, arrived: Collection[str], *, now: int) -> int:
    """Fetch records that were set aside and may fit now that records of these tables have come: those of the same
    tables, and of tables that refer to them. Of many, only the first: all have their turn in `set_aside`."""
    with database.reading() as connection:
        if not aside.count(connection):
            return 0
        tracked = [one.table for one in tables.all_tracked(connection)]
    names = [table.name for table in tracked if {table.name, *(to.table for to in table.references)} & set(arrived)]
    fitted, after = 0, ("", "")
    for _ in range(TURNS):
        with database.reading() as connection:
            places = aside.of_tables(connection, names, after=after, limit=AT_ONCE)
        if not places:
            break
        fitted, after = fitted + _try_again(database, remote, places, now=now), places[-1]
    return fitted


def _try_again(database: Database, remote: Remote, places: Sequence[tuple[str, str]], *, now: int) -> int:
    if not places:
        return 0
    with database.reading() as connection:
        since = checkpoint.read(connection).cursor
    keys = [(table, msgspec.json.decode(key, type=list[Value])) for table, key in places]
    there = ask(remote, keys)
    there += never_were(keys, there)
    refill.make_room(database, remote, there, now=now)
    with database.writing() as connection:
        checkpoint.hold(connection)
        known = checkpoint.read(connection)
        if known.cursor != since:  # a page came in between, and may be newer: with the next pull
            return 0
        tracked = [one.table for one in tables.checked(connection)]
        held = [record for record in there if _must_wait(connection, record)]
        there = [record for record in there if record not in held]
        refused = apply.lay_under_what_fits(connection, tracked, there, known.position)
        refused += [(record, aside.HELD) for record in held]
        aside.keep_all(connection, refused, now=now)
        still = {(record.table, canonical_key(record.key)) for record, _ in refused}
        aside.forget(connection, [place for place in places if place not in still])
        blocks.turn(connection, tracked, now=now)
        return len(places) - len(still)


def _must_wait(connection: Connection, record: Record) -> bool:
    """The server does not have it, and has not judged yet what waits of it here, or a person has not."""
    return record.deleted and bool(outbox.of_record(connection, record.table, canonical_key(record.key)))


def lay_under(
    database: Database,
    remote: Remote,
    places: Iterable[tuple[str, str]],
    settle: Callable[[Connection], Settled],
    *,
    absent: Literal["delete", "leave"],
    after: Callable[[Connection, Settled, Sequence[Record]], None] | None = None,
) -> Settled:
    """Settle, and in the same transaction make the records what the server has, under what else of ours waits.

    places: table and key, as JSON. absent: what becomes of a record that the server does not have.
    after: what is still to be done then, with the settling's answer and with the records. Raises TryLater,
    SignInRequired, Refused: nothing was done then.
    """
    keys = [(table, msgspec.json.decode(key, type=list[Value])) for table, key in dict.fromkeys(places)]
    for _ in range(TRIES):
        with database.reading() as connection:
            since = checkpoint.read(connection).cursor
        there = [record for at in range(0, len(keys), AT_ONCE) for record in ask(remote, keys[at : at + AT_ONCE])]
        if absent == "delete":
            there += never_were(keys, there)
        with database.writing() as connection:
            checkpoint.hold(connection)
            tracked = [one.table for one in tables.checked(connection)]
            known = checkpoint.read(connection)
            if known.cursor == since:
                settled = settle(connection)
                apply.lay_under(connection, tracked, there, known.position)
                if after is not None:
                    after(connection, settled, there)
                blocks.turn(connection, tracked, now=known.last_pull_at or 0)
                return settled
    raise TryLater("changes of the server keep coming in between", hint="try again")


def ask(remote: Remote, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
    """The records, in as many answers as it takes."""
    try:
        return remote.records(keys)
    except Refused as refusal:
        if refusal.problem != "answer-too-large" or len(keys) == 1:
            raise
        half = len(keys) // 2
        return ask(remote, keys[:half]) + ask(remote, keys[half:])


def never_were(keys: Sequence[tuple[str, list[Any]]], there: Sequence[Record]) -> list[Record]:
    """The others of these keys, as records that never were."""
    found = {(record.table, canonical_key(record.key)) for record in there}
    return [
        Record(table=table, key=key, version=0, deleted=True)
        for table, key in keys
        if (table, canonical_key(key)) not in found
    ]
