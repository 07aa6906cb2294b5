"""What a person does about a conflict: stand by our side, give in to the other, or say what is to be; and take it back.

All of it works offline: a choice is new changes, which travel like any others, and may be a conflict again if another
replica was faster. Each is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_hex
from typing import Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backhaul.database import Database
from backhaul.errors import Misused, TryLater, Unknown
from backhaul.merge.aggregate import Place
from backhaul.replica import additions, aside, checkpoint, conflicts, holding, outbox, tables, unseen
from backhaul.replica import rows as app_rows
from backhaul.replica.apply import apply_what_fits
from backhaul.replica.contested import Entry
from backhaul.replica.misfit import Misfit
from backhaul.replica.names import field_names, root_columns
from backhaul.replica.roots import decode_key, rows
from backhaul.replica.rows import TablePlan
from backhaul.telemetry import emit
from backhaul.wire import Table, Tagged, Value, canonical_key, encode, to_plain

Fields = dict[str, Value]
Side = Literal["mine", "theirs"]


def resolve(database: Database, number: int, choice: Side | Mapping[str, Value], *, now: int) -> None:
    """choice: `mine`, `theirs`, or the fields' values (of a conflict of one record).

    Raises Unknown (no such open conflict), Misused (such values cannot be), TryLater (what the other side wrote is not
    all here): nothing is changed then.
    """
    with database.writing() as connection:
        checkpoint.hold(connection)
        tracked = tables.checked(connection)
        known = {one.table.name: one.table for one in tracked}
        entries = holding.open_entries(connection, tracked, number, now=now)
        if not entries:
            raise Unknown(f"no open conflict {number}", hint="list them: backhaul conflicts list")
        _check_known(connection, entries, whole=choice == "theirs")
        added = additions.Sides.of(known, entries, outbox.conflicting(connection, [number]))
        here = _here(connection, known, entries)
        if choice == "theirs":
            before = _give_in(connection, number, known, entries, now=now)
        elif choice == "mine":
            before = _insist(connection, number, known, entries, {}, now=now)
        elif isinstance(choice, Mapping):
            before = _insist(connection, number, known, entries, choice, now=now)
        else:
            raise Misused(f"{choice!r} is no side", hint="choose mine or theirs, or say the fields' values")
        said = choice if isinstance(choice, str) else "values"
        unseen.forget(connection, [entry.place for entry in entries])
        before, after = added.beside(choice, here, before, _here(connection, known, entries))
        conflicts.resolved(connection, number, said, before, after, now=now)
    emit("conflict.resolved", conflict=number, choice=said)


def undo(database: Database, number: int) -> None:
    """Put back, as a new change, what the choice did away with: theirs after `mine` or values, ours after `theirs`.

    Raises Unknown (no such conflict), Misused (it is not resolved, or is a conflict again; its aggregate was changed
    since; what stood before does not fit the database any more): nothing is changed then.
    """
    with database.writing() as connection:
        checkpoint.hold(connection)
        known = {one.table.name: one.table for one in tables.checked(connection)}
        entries = conflicts.of_number(connection, number)
        app_rows.hold_all(connection, known.values(), [entry.place for entry in entries])
        _check_undoable(connection, number, entries)
        plans = _put_back(connection, known, entries)
        checkpoint.mark_group(connection, _group(number))
        with _fitting():
            app_rows.write(connection, plans)
        checkpoint.mark_group(connection, None)
        conflicts.undone(connection, number)
    emit("conflict.undone", conflict=number)


# ------------------------------------------------------------------------------------------------ theirs


def _give_in(
    connection: Connection, number: int, known: Mapping[str, Table], entries: Sequence[Entry], *, now: int
) -> dict[Place, Fields | None]:
    """The records become what the server has; returns what they were."""
    before = _here(connection, known, entries)
    outbox.give_in(connection, [change.id for change in outbox.conflicting(connection, [number])])
    there = [entry.theirs_as_record() for entry in entries]
    _, misfits = apply_what_fits(connection, list(known.values()), there, checkpoint.read(connection).position)
    for record, reason in misfits:
        aside.keep(connection, record.table, canonical_key(record.key), reason=reason, now=now)
    return {entry.place: before.get(entry.place) for entry in entries}


# ------------------------------------------------------------------------------------------------ mine, values


def _insist(
    connection: Connection,
    number: int,
    known: Mapping[str, Table],
    entries: Sequence[Entry],
    values: Mapping[str, Value],
    *,
    now: int,
) -> dict[Place, Fields | None]:
    """Our changes go out anew, and with them what makes the records there what they are here; returns theirs."""
    group = _group(number)
    said = _set(connection, known, entries, values) if values else []
    here = _here(connection, known, entries)
    again: list[int] = []
    written: list[tuple[str, str, str, str | None]] = []
    of_place: dict[Place, list[int]] = {}
    for change in outbox.conflicting(connection, [number]):
        of_place.setdefault((change.table, change.key), []).append(change.id)
    for entry in entries:
        ours, ids = here.get(entry.place), of_place.get(entry.place, [])
        if entry.must_be_made_anew and ours is not None:
            again += ids
            outbox.restate(connection, _anew(ids, encode(ours).decode()))
            written += [] if ids else [(*entry.place, "insert", encode(ours).decode())]
            continue
        again += ids
        rest = _differing(known[entry.table], entry, ours)
        if rest is None:
            named = {name: entry.theirs.get(name) for name in root_columns(known[entry.table])}
            written.append((*entry.place, "delete", encode(named).decode() if named else None))
        elif rest:
            written.append((*entry.place, "update", encode(rest).decode()))
    outbox.insist(connection, sorted(again), group, now=now)
    outbox.write(connection, [*written, *said], group, now=now)
    return {entry.place: None if entry.theirs_as_record().deleted else entry.theirs for entry in entries}


def _anew(ids: Sequence[int], whole: str) -> list[tuple[int, str, str]]:
    """The record is made anew by the first of our changes; the others are in that. They go out all the same: should
    this database be put back to a backup, and ask again, the server knows that it has all of them."""
    return [(number, "insert", whole) if not place else (number, "update", "{}") for place, number in enumerate(ids)]


def _differing(table: Table, entry: Entry, ours: Fields | None) -> Fields | None:
    """What our changes of the record do not say, and is otherwise there than here; None: it is there, and not here.

    Only of a record that is withheld as a whole: of others the feed's word was taken.
    """
    if not entry.roots or entry.there not in ("whole", "changed"):
        return {}
    if ours is None:
        return {} if entry.kind == "delete" else None
    names = set(entry.theirs) | (set(ours) if entry.there == "whole" else set())
    deltas = table.deltas()
    rest: Fields = {}
    for name in sorted(names - entry.mine.keys()):
        there = entry.theirs.get(name)
        if encode(there) != encode(ours.get(name)):
            rest[name] = Tagged(was=there, now=ours.get(name)) if name in deltas else ours.get(name)
    return rest


def _set(
    connection: Connection, known: Mapping[str, Table], entries: Sequence[Entry], values: Mapping[str, Value]
) -> list[tuple[str, str, str, str | None]]:
    """The values, written here with capture muted; returns the change that says them."""
    if len(entries) > 1:
        raise Misused(
            f"the conflict is of {len(entries)} records, which go together",
            hint="choose mine or theirs; or edit them in your app, and then choose mine",
        )
    entry, table = entries[0], known[entries[0].table]
    unknown = sorted(values.keys() - set(field_names(table)))
    if unknown:
        raise Misused(f"{table.name} has no field {unknown[0]!r}", hint=f"its fields: {', '.join(field_names(table))}")
    ours = _here(connection, known, entries).get(entry.place)
    if ours is None:
        raise Misused(f"{table.name} {entry.key} was deleted here", hint="choose mine or theirs")
    plan = TablePlan(table=table)
    _change(plan, entry.key, values)
    checkpoint.mute(connection)
    with _fitting():
        app_rows.write(connection, [plan])
    checkpoint.unmute(connection)
    if entry.must_be_made_anew:  # the whole row goes out, as it is now
        return []
    deltas = table.deltas()
    said = {name: Tagged(was=ours.get(name), now=value) if name in deltas else value for name, value in values.items()}
    return [(*entry.place, "update", encode(said).decode())]


# ------------------------------------------------------------------------------------------------ undo


def _check_undoable(connection: Connection, number: int, entries: Sequence[Entry]) -> None:
    if not entries:
        raise Unknown(f"no conflict {number}", hint="list them: backhaul conflicts list --all")
    if entries[0].state != "resolved":
        hint = f"backhaul conflicts resolve {number} mine|theirs" if entries[0].state == "open" else None
        raise Misused(f"conflict {number} is {entries[0].state}", hint=hint)
    again = conflicts.live(connection, [entry.place for entry in entries])
    open_again = [entry.number for entry in again.values() if entry.state == "open"]
    if open_again:
        raise Misused(
            f"its records are a conflict again, number {open_again[0]}",
            hint=f"backhaul conflicts show {open_again[0]}",
        )


def _put_back(connection: Connection, known: Mapping[str, Table], entries: Sequence[Entry]) -> list[TablePlan]:
    """What an app would write, so that the records are what they were before the choice, in the fields it was about."""
    here = _here(connection, known, entries)
    plans: dict[str, TablePlan] = {}
    for entry in entries:
        if entry.roots and not _is_as_left(known[entry.table], entry, here.get(entry.place)):
            raise Misused(
                f"{entry.table} {entry.key} was changed since, and is part of a whole",
                hint="put it right in your app, by an ordinary edit",
            )
        plan = plans.setdefault(entry.table, TablePlan(table=known[entry.table]))
        before, now = entry.before, here.get(entry.place)
        if before is None:
            if now is not None:
                plan.deleted.append(_plain(entry.key))
        elif now is not None:
            _change(plan, entry.key, additions.without(plan.table, entry, before, now))
        else:
            names = tuple(name for name in field_names(plan.table) if name in before)
            row = (*_plain(entry.key), *(to_plain(before[name]) for name in names))
            plan.whole.setdefault(names, []).append(row)
    return list(plans.values())


# ------------------------------------------------------------------------------------------------ both


def _check_known(connection: Connection, entries: Sequence[Entry], *, whole: bool) -> None:
    """Raises TryLater: what was not pulled was not seen, and would be a conflict again. whole: all of what stands there
    is needed; as it always is of an aggregate."""
    position = checkpoint.read(connection).position
    needed = [entry for entry in entries if whole or entry.roots]
    if any(entry.there in (None, "unknown") for entry in needed) or any(entry.since > position for entry in entries):
        raise TryLater("what the other side wrote is not all here yet", hint="backhaul pull, and then again")


def _here(connection: Connection, known: Mapping[str, Table], entries: Iterable[Entry]) -> dict[Place, Fields]:
    keys: dict[str, list[str]] = {}
    for entry in entries:
        keys.setdefault(entry.table, []).append(entry.key)
    return {
        (name, key): fields
        for name, some in keys.items()
        for key, fields in rows(connection, known[name], some).items()
    }


def _is_as_left(table: Table, entry: Entry, now: Fields | None) -> bool:
    """Whether the choice still stands here: what was made of the whole since would not go with what stood before. What
    was added to it since does."""
    if now is None or entry.after is None:
        return now is None and entry.after is None
    contested = (entry.mine.keys() | entry.theirs.keys()) - additions.columns(table, entry).keys()
    return all(encode(now.get(name)) == encode(entry.after.get(name)) for name in contested)


def _change(plan: TablePlan, key: str, values: Mapping[str, Value]) -> None:
    pairs = [(name in values, to_plain(values.get(name))) for name in plan.others]
    plan.changed.append((*(part for pair in pairs for part in pair), *_plain(key)))


def _plain(key: str) -> tuple[object, ...]:
    return tuple(to_plain(part) for part in decode_key(key))


@contextmanager
def _fitting() -> Iterator[None]:
    """Raises Misused where the app's schema refuses what is written."""
    try:
        yield
    except (DBAPIError, Misfit) as error:
        reason = app_rows.refusal(error)
        if reason is None:
            raise
        hint = "put it right in your app, by an ordinary edit"
        raise Misused(f"it does not fit this database: {reason}", hint=hint) from error


def _group(number: int) -> str:
    return f"conflict-{number}-{token_hex(4)}"
