"""Fetching records once more: those that the feed has told of while something of ours was laid over them.

The server is asked outside of any transaction. What it said is only good as long as no page of the feed was applied
meanwhile: else the page may be newer, and the server is asked again.

A record as it is now may be one of several that another replica has changed together, of which the feed has not told
yet. So what was overtaken is laid under the next page, in its transaction: the page was asked for later, and brings the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Refused, TryLater
from backhaul.remotes.base import Remote
from backhaul.replica import apply, aside, blocks, checkpoint, conflicts, outbox, tables, upgrades
from backhaul.replica.apart import Ours, apart, check_whole
from backhaul.replica.tables import Tracked
from backhaul.wire import Record, Value, canonical_key

Settled = TypeVar("Settled")

AT_ONCE = 500  # records of one question
MOST_OVERTAKEN = 2_000  # changes whose records are held for the next page
TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Overtaken:
    """changes: their ids, in the outbox. records: as the server has them. absent: those that it does not have. since:
    the cursor when that was asked."""

    since: str
    changes: list[int]
    records: list[Record]
    absent: list[Record]


def overtaken(database: Database, remote: Remote, held: Overtaken | None = None) -> Overtaken | None:
    """The records of the changes that were overtaken, of many those of the first; None when there are none.

    held: what was fetched before, and is good for as long as no page was applied.
    """
    with database.reading() as connection:
        since = checkpoint.read(connection).cursor
        passed = outbox.overtaken(connection, MOST_OVERTAKEN)
    if not passed:
        return None
    changes = [row["id"] for row in passed]
    if held is not None and (held.since, held.changes) == (since, changes):
        return held
    places = dict.fromkeys((row["table_name"], row["key"]) for row in passed)
    there = _there(remote, places)
    return Overtaken(since=since, changes=changes, records=there, absent=never_were(keys_of(places), there))


def lay_overtaken(
    connection: Connection,
    tracked: Sequence[Tracked],
    found: Overtaken | None,
    known: checkpoint.Checkpoint,
    *,
    upto: int,
    now: int,
) -> tuple[int, list[tuple[Record, str]]]:
    """What was overtaken is what the server has, under what else of ours waits; the page that was asked for after it is
    to be applied in this same transaction. Of an aggregate that a change of ours touches it is withheld, as in any
    page. If something of it is newer than the position up to which the page tells, it waits for a later one: its round
    is applied in pieces. Returns how many changes that were, and what the app's schema refuses, each with the reason.
    """
    if found is None or found.since != known.cursor or any(record.version > upto for record in found.records):
        return 0, []
    outbox.forget_overtaken(connection, found.changes)
    shapes = [one.table for one in tracked]
    records = list(upgrades.under_present_names(shapes, found.records))
    stale = conflicts.live(connection, [(one.table, canonical_key(one.key)) for one in found.absent])
    records += [one for one in found.absent if (one.table, canonical_key(one.key)) in stale]
    parts = apart(connection, Ours(connection, tracked), records, now=now)
    _, refused = apply.apply_what_fits(connection, shapes, parts.released, known.position)
    return len(found.changes), refused + apply.lay_under(connection, shapes, parts.records, known.position)


def contested(database: Database, remote: Remote) -> int:
    """Ask what stands on the server of records in conflicts of which it is not known; returns of how many."""
    with database.reading() as connection:
        places = conflicts.to_ask_for(connection)
    if not places:
        return 0
    keys = keys_of(places)
    there = ask(remote, keys)
    there += never_were(keys, there)
    with database.writing() as connection:
        checkpoint.hold(connection)
        return conflicts.hear(connection, there)


def lay_under(
    database: Database,
    remote: Remote,
    places: Mapping[tuple[str, str], Collection[str]],
    settle: Callable[[Connection], Settled],
    *,
    absent: Literal["delete", "leave"],
    after: Callable[[Connection, Settled, Sequence[Record]], None] | None = None,
) -> Settled:
    """Settle, and in the same transaction make the records what the server has, under what else of ours waits.

    places: table and key, as JSON, with the fields that are NULL where the server has the record, and no value of them.
    absent: what becomes of a record that it does not have.
    after: what is still to be done then, with the settling's answer and with the records. What this database refuses is
    set aside; or, where something is still to be done with it, raised. Raises TryLater, SignInRequired, Refused, and
    Misused for a part of an aggregate that others have changed and other changes of ours touch: nothing was done then.
    """
    for _ in range(TRIES):
        with database.reading() as connection:
            since = checkpoint.read(connection).cursor
        there = _there(remote, places)
        if absent == "delete":
            there += never_were(keys_of(places), there)
        with database.writing() as connection:
            checkpoint.hold(connection)
            known_tables = tables.checked(connection)
            tracked = [one.table for one in known_tables]
            known = checkpoint.read(connection)
            if known.cursor == since:
                settled, now = settle(connection), known.last_pull_at or 0
                there = [_filled(one, places) for one in upgrades.under_present_names(tracked, there)]
                check_whole(connection, Ours(connection, known_tables), there, known.position)
                misfits = apply.lay_under(connection, tracked, there, known.position)
                misfits = [*misfits, *_let_go(connection, known_tables, known.position, now=now)]
                if after is not None:
                    _check_all_fit(misfits)
                    after(connection, settled, there)
                aside.keep_all(connection, misfits, now=now)
                blocks.turn(connection, tracked, now=now)
                return settled
    raise TryLater("changes of the server keep coming in between", hint="try again")


def _filled(record: Record, places: Mapping[tuple[str, str], Collection[str]]) -> Record:
    names = places.get((record.table, canonical_key(record.key)), ())
    if record.deleted or not names:
        return record
    return msgspec.structs.replace(record, fields=dict.fromkeys(names) | record.fields)


def _there(remote: Remote, places: Collection[tuple[str, str]]) -> list[Record]:
    keys = keys_of(places)
    return [record for at in range(0, len(keys), AT_ONCE) for record in ask(remote, keys[at : at + AT_ONCE])]


def keys_of(places: Iterable[tuple[str, str]]) -> list[tuple[str, list[Any]]]:
    return [(table, msgspec.json.decode(key, type=list[Value])) for table, key in places]


def _let_go(
    connection: Connection, tracked: Sequence[Tracked], position: int, *, now: int
) -> Sequence[tuple[Record, str]]:
    """Lay in what was withheld of aggregates that no change of ours touches any more: a root comes with its parts.
    Returns what this database refuses of it."""
    released = apart(connection, Ours(connection, tracked), [], now=now).released
    return apply.apply_what_fits(connection, [one.table for one in tracked], released, position)[1] if released else []


def _check_all_fit(misfits: Sequence[tuple[Record, str]]) -> None:
    for _, reason in misfits[:1]:
        raise Refused(f"this database refuses it: {reason}", hint="nothing was changed; look at that row")


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
