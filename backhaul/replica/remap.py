"""Remap: give a parked row whose generated key is another replica's record (`key-taken`) a key that nobody has.

The row, every reference to it that a foreign key declares (in fields, in keys, in the keys of what refers to those in
turn), and the changes that wait with it are rewritten; they go out again as new ops, and the other replica's records
come in where ours stood. What is rewritten is what our own waiting changes speak of: rows that another replica made
under the old key refer to its record, and stay.

Where it may be cut: everything of ours is one transaction. The numbers are fetched before it; if it does not come to
pass, they are lost, and nobody misses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backhaul.database import Database
from backhaul.errors import Misused, Refused, TryLater
from backhaul.remotes.base import Remote
from backhaul.replica import blocks, checkpoint, dependents, numbering, outbox, parked, refetch, rekeying, rows, tables
from backhaul.replica.misfit import Misfit
from backhaul.replica.rekeying import Moves
from backhaul.wire import Table, Wanted

AT_ONCE = 500  # rows of one transaction


@dataclass(frozen=True, kw_only=True)
class Remapped:
    table: str
    old: int
    new: int


class _Moved(Exception):
    """More has come to depend on the rows since the server was asked."""


def remap(database: Database, remote: Remote, op_ids: Sequence[str], *, now: int) -> list[Remapped]:
    """Give the rows of these parked changes (with none named: of all that are `key-taken`) fresh keys, and send them.

    Raises Unknown, Misused, TryLater, Refused: nothing is changed then.
    """
    done: list[Remapped] = []
    while True:
        with database.writing() as connection:
            checkpoint.hold(connection)
            parked.park_dependents(connection, now=now)
            chosen = _chosen(connection, op_ids)[:AT_ONCE]
            _check_nothing_is_out(connection)
            drawn = _draw(connection, chosen)
        if not chosen:
            return done
        _fetch(database, remote, drawn)
        done += _remap(database, remote, drawn, now=now)
        op_ids = [op_id for op_id in op_ids if op_id not in {row["op_id"] for row in chosen}]
        if not op_ids and len(chosen) < AT_ONCE:
            return done


def _chosen(connection: Connection, op_ids: Sequence[str]) -> list[Mapping[str, Any]]:
    known = {one.table.name: one.table for one in tables.checked(connection)}
    found = [row for row in parked.chosen(connection, op_ids) if not op_ids or row["op_id"] in op_ids]
    fit = [row for row in found if row["reason"] == "key-taken" and _is_numbered(known.get(row["table_name"]))]
    if op_ids and len(fit) < len(found):
        other = next(row for row in found if row not in fit)
        raise Misused(
            f"the change {other['op_id']} is parked as {other['reason']}, which no other key would mend",
            hint="backhaul parked edit, retry or discard",
        )
    return fit


def _is_numbered(table: Table | None) -> bool:
    return table is not None and table.keys != "natural"


def _check_nothing_is_out(connection: Connection) -> None:
    if dependents.find(connection, tables.checked(connection), state="sent"):
        raise TryLater("changes that depend on it are on their way", hint="run backhaul push first, then remap again")


def _draw(connection: Connection, chosen: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """For each table, old keys (JSON) -> new numbers, as far as there are some in hand; 0 for the others."""
    tracked = {one.table.name: one.table for one in tables.all_tracked(connection)}
    places: dict[str, dict[str, int]] = {}
    for row in chosen:
        places.setdefault(row["table_name"], {})[row["key"]] = 0
    for name, keys in places.items():
        if tracked[name].keys == "blocks":
            keys.update(zip(keys, blocks.draw(connection, tracked[name], len(keys)), strict=False))
    return places


def _fetch(database: Database, remote: Remote, drawn: dict[str, dict[str, int]]) -> None:
    with database.reading() as connection:
        tracked = {one.table.name: one.table for one in tables.all_tracked(connection)}
        lacking = {name: [key for key, number in keys.items() if not number] for name, keys in drawn.items()}
        wanted = {
            name: Wanted(count=len(keys), above=numbering.highest(connection, tracked[name]))
            for name, keys in lacking.items()
            if keys
        }
    given = {block.table: block for block in remote.blocks(wanted)} if wanted else {}
    for name in wanted:
        if name not in given or given[name].last - given[name].first + 1 < len(lacking[name]):
            raise Refused(f"the server has no numbers for {name}", hint="are they used up? see docs/keys.md")
        drawn[name].update(zip(lacking[name], range(given[name].first, given[name].last + 1), strict=False))


def _remap(database: Database, remote: Remote, fresh: dict[str, dict[str, int]], *, now: int) -> list[Remapped]:
    with database.reading() as connection:
        asked = rekeying.plan(connection, fresh).places
    for _ in range(refetch.TRIES):
        try:
            moves = refetch.lay_under(
                database,
                remote,
                dict.fromkeys(asked, ()),
                partial(_rewrite, fresh=fresh, asked=asked, now=now),
                absent="leave",
                after=rekeying.settle_in,
            )
        except _Moved:
            with database.reading() as connection:
                asked = rekeying.plan(connection, fresh).places
        except (DBAPIError, Misfit) as error:
            reason = rows.refusal(error)
            if reason is None:
                raise
            raise Refused(
                f"this database refuses it: {reason}", hint="nothing was changed; look at that row"
            ) from error
        else:
            return [Remapped(table=one.table.name, old=one.old[0], new=one.new[0]) for one in moves.roots]
    raise TryLater("the app keeps changing what depends on these rows", hint="try again")


def _rewrite(
    connection: Connection, *, fresh: dict[str, dict[str, int]], asked: list[tuple[str, str]], now: int
) -> Moves:
    rows.hold_all(connection, [one.table for one in tables.all_tracked(connection)], asked)
    parked.park_dependents(connection, now=now)
    _check_nothing_is_out(connection)
    moves = rekeying.plan(connection, fresh)
    if not set(moves.places) <= set(asked):
        raise _Moved
    rekeying.take_out(connection, moves)
    going = parked.with_all_that_waits(outbox.parked(connection), moves.ids)
    outbox.rewrite(connection, moves.changes)
    outbox.requeue(connection, going, now=now)
    return moves
