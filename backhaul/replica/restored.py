"""What a server that was put back to a backup has lost, and this replica has: it is offered anew.

Everything that the server has is fetched, and held against the rows that are here, before anything that it says is
applied. Where they differ, the server has lost something, or was told something new since. Ours goes to the outbox as a
change of this replica, with the highest stamp that it knew when it heard of the loss: so it wins over what the backup
holds, it loses against what was written since, and of two replicas the one that had seen more wins. What stands in the
end comes with the pull that follows, which goes on from the last position that both have in common.

A record that is there and not here was deleted here, if nobody has written it since; otherwise it comes back.

Rows are looked at without a lock, and offered in small transactions; whatever waits of a record already goes before.
Counters, sets, texts and the like are left as the server has them: two replicas that both offered what they add would
add it twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Refused
from backhaul.remotes.base import Remote
from backhaul.replica import checkpoint, renumbering, stage, tables
from backhaul.replica.capture import row_expressions
from backhaul.replica.context import Context
from backhaul.replica.names import field_names
from backhaul.replica.renumbering import Offer
from backhaul.statements import quoted, run
from backhaul.telemetry import emit
from backhaul.wire import DELTAS, Record, Table

AT_ONCE = 500  # offers of one transaction
STEPS = ("restored", "offer")
_fields = msgspec.json.Decoder(dict[str, Any]).decode


def go_on(database: Database, remote: Remote, *, clock: Clock, context: Context, limit: int) -> int:
    """These steps of a recovery. Returns how many changes are offered."""
    while _step(database) == "restored":
        context.check()
        _fetch(database, remote, limit)
    return _offer_all(database, clock=clock, context=context) if _step(database) == "offer" else 0


def _step(database: Database) -> str:
    with database.reading() as connection:
        return checkpoint.read(connection).recovering


def _fetch(database: Database, remote: Remote, limit: int) -> None:
    with database.reading() as connection:
        since = checkpoint.read(connection).staged_cursor
    try:
        page = remote.pull(since, limit)
    except Refused as refusal:
        if refusal.status != 410 or not since:
            raise
        with database.writing() as connection:
            checkpoint.hold(connection)
            stage.clear(connection)
            checkpoint.compared(connection, since=since, cursor="")
        return
    with database.writing() as connection:
        checkpoint.hold(connection)
        known = checkpoint.read(connection)
        if known.recovering == "restored" and known.staged_cursor == since:
            stage.keep(connection, page.records)
            checkpoint.compared(connection, since=since, cursor=page.cursor if page.more else "")
            if not page.more:
                checkpoint.recover(connection, "offer")


def _offer_all(database: Database, *, clock: Clock, context: Context) -> int:
    offered = 0
    with database.reading() as connection:
        known = checkpoint.read(connection)
        behind = tables.not_fetched(connection)
        for one in tables.checked(connection):
            if behind.get(one.table.name) == ():
                continue  # nothing of it has come yet
            found = _differences(connection, one.table, known, unknown=behind.get(one.table.name, ()))
            while some := list(islice(found, AT_ONCE)):
                context.check()
                offered += _offer(database, one.table.name, some, known, now=clock.now())
    with database.writing() as connection:
        checkpoint.hold(connection)
        if checkpoint.read(connection).recovering == "offer":
            stage.clear(connection)
            checkpoint.recover(connection, "")
    emit("replica.recovered", deleted=0, offered=offered)
    return offered


def _offer(database: Database, table: str, offers: Sequence[Offer], known: checkpoint.Checkpoint, *, now: int) -> int:
    with database.writing() as connection:
        checkpoint.hold(connection)
        if checkpoint.read(connection).recovering != "offer":
            return 0
        return renumbering.offer(connection, table, offers, hlc=known.common_hlc, now=now)


def _differences(
    connection: Connection, table: Table, known: checkpoint.Checkpoint, *, unknown: Sequence[str]
) -> Iterator[Offer]:
    """What the server has lost of a table. unknown: columns whose values have not come yet."""
    names = [name for name in field_names(table) if name not in unknown]
    plain = [name for name in names if table.merge.get(name, "").partition(":")[0] not in DELTAS]
    key, fields = row_expressions(connection, table, "held")
    here = f"""
        SELECT {key}, {fields}, stage.record FROM {quoted(table.name)} AS held
        LEFT JOIN backhaul_stage AS stage ON stage.table_name = ? AND stage.key = {key}
    """  # noqa: S608 - the catalogue's own names, quoted
    with run(connection, here, (table.name,), stream=True) as rows:
        for row in rows:
            held, said, staged = tuple(row)
            here_now = {name: value for name, value in _fields(said).items() if name in names}
            yield from _lost(held, here_now, msgspec.json.decode(staged, type=Record) if staged else None, plain)
    there = f"""
        SELECT key FROM backhaul_stage
        WHERE table_name = ? AND deleted = 0 AND version <= ?
          AND key NOT IN (SELECT {key} FROM {quoted(table.name)} AS held)
          AND key NOT IN (SELECT key FROM backhaul_aside WHERE table_name = ?)
    """  # noqa: S608 - the same
    with run(connection, there, (table.name, known.common_position, table.name), stream=True) as rows:
        for row in rows:
            yield Offer(row[0], "delete", None)


def _lost(key: str, here: dict[str, Any], record: Record | None, plain: Sequence[str]) -> Iterator[Offer]:
    """Of one row that is here."""
    ours = {name: here.get(name) for name in plain}
    if record is None:
        yield Offer(key, "backfill", here)  # it takes nothing from a record that another replica offers, too
        yield Offer(key, "update", ours)
    elif record.deleted:
        yield Offer(key, "insert", here)
    else:
        theirs = {name: msgspec.to_builtins(value) for name, value in record.fields.items()}
        lost = {name: value for name, value in ours.items() if not _same(value, theirs.get(name))}
        if lost:
            yield Offer(key, "update", lost)


def _same(ours: Any, theirs: Any) -> bool:
    """As databases hold them: true is 1 to SQLite, and a decimal may be spelt in more than one way."""
    if ours == theirs:
        return True
    if ours is None or theirs is None or isinstance(ours, dict) or isinstance(theirs, dict):
        return False
    try:
        return Decimal(str(ours)) == Decimal(str(theirs))
    except InvalidOperation:
        return False
