"""Looking at what work waits for: tables by the outbox, and by what a pull has brought; files by how they look.

Whoever looks (Beat every second; a pull, when it applies records) says what is there now, and the ledger reckons when
the work is due. Where no work waits for a change, a look is one read of a small table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.work import ledger, looking
from backhaul.work.constraints import FileTrigger
from backhaul.work.looking import Looks

Look = Callable[[Iterable[FileTrigger]], Looks]


def look_at_tables(database: Database, now: int) -> int:
    """Returns how many works have a new time for it. Raises DatabaseBusy."""
    with database.reading() as connection:
        watched = ledger.watched(connection)
        moves = ledger.moves(connection, watched.tables)
    if not moves and not watched.unfired:
        return 0
    with database.writing() as connection:
        number = ledger.touch_tables(connection, moves, now, before=ledger.number(connection)) if moves else 0
        return number or (ledger.fire(connection) if watched.unfired else 0)


def noting(clock: Clock) -> Callable[[Connection, Collection[str]], object]:
    """What the journeys of sync tell of the tables that they write."""
    return lambda connection, tables: note_tables(connection, clock.now(), arriving=tables)


def note_tables(connection: Connection, now: int, *, arriving: Collection[str] = ()) -> int:
    """The same in a transaction of the caller's. arriving: tables that sync writes in it; it is noted before what the
    app has changed leaves the outbox, for after that nobody could see it any more. So who holds what waits for a change
    is waited for, as long as for any lock, and it is looked at again after that. Raises DatabaseBusy."""
    tables = ledger.watched(connection).tables
    moves = ledger.moves(connection, tables)
    by_sync = tables.keys() & set(arriving)
    changed = by_sync | {move.table for move in moves if move.changed}
    if changed:
        ledger.hold_tables(connection, changed)
        moves = ledger.moves(connection, ledger.watched(connection).tables)
    return ledger.touch_tables(connection, moves, now, by_sync=by_sync)


def look_at_files(
    database: Database, now: int, *, look: Callable[[Iterable[FileTrigger]], Looks] = looking.look
) -> int:
    """Returns how many works have a new time for it. Raises DatabaseBusy. A file that does not answer costs a moment,
    and is said to be so."""
    with database.reading() as connection:
        watched = ledger.watched(connection)
    known: Mapping[FileTrigger, Collection[str]] = watched.files
    looks = look(known)
    changed = {one: said for one, said in looks.said.items() if set(known[one]) != {said}}
    lost, back = looks.hanging - watched.unanswered, watched.unanswered & looks.said.keys()
    if not changed and not lost and not back:
        return 0
    with database.writing() as connection:
        ledger.mark_unanswered(connection, lost, now)
        ledger.mark_unanswered(connection, back, None)
        return ledger.touch_files(connection, changed, now)
