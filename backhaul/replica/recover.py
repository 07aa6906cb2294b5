"""Recovery: what a journey does when the server says that this replica, or the server itself, is not what it was.

    replica-forked    another op was sent under our number: this database is a copy, or was put back to a backup. It
                      becomes another replica, the successor of the one it was, and pulls from the beginning.
    sequence-gap      the server has lost outcomes that it had given: it was put back. What is still here goes again,
                      from the number that is due.
    server-restored   the same, seen by the cursor, or by what the app has seen: see restored.py.
    cursor-expired    we come so late that deletions are forgotten: everything is pulled anew, and what the server does
                      not have any more is deleted here, unless a change of it waits (see sweep.py).

`recovering` in backhaul_replica says where a recovery stands, so that another process can take it up:

    late       pulling from the beginning, noting which records come; then
    sweep      deleting what did not come
    restored   fetching all that a server has that was put back; then
    offer      putting what it has lost into the outbox; then `late`, if there is no cursor to go on from
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Refused, TryLater
from backhaul.remotes.base import Remote
from backhaul.replica import blocks, checkpoint, conflicts, lanes, outbox, renumbering, stage, tables, withheld
from backhaul.replica.apart import Ours
from backhaul.telemetry import emit
from backhaul.wire import Page, Registered

OnReset = Literal["recover", "discard"]


def be_oneself(database: Database, remote: Remote) -> None:
    """See to it that the remote speaks for the replica that the database is. Its token may be of one that this was
    before: another process, or another machine, has made it a successor. Where it is of none of those (only one of the
    two was put back from a backup, or who signed in was killed in between), the database becomes a successor."""
    with database.reading() as connection:
        known = checkpoint.read(connection).replica
    try:
        speak_for(known, remote)
    except Refused as refusal:
        if refusal.problem != "replica-unrelated":
            raise
        _become_successor(database, remote, known)


def speak_for(known: str, remote: Remote) -> None:
    """Raises Refused `replica-unrelated` when the remote's token is of none that the replica was."""
    if remote.signed_in_as not in (None, known):
        remote.speak_for(known)


def check_is_oneself(known: checkpoint.Checkpoint, remote: Remote) -> None:
    """Raises TryLater when the remote does not speak for this database any more: another process has signed it in
    anew meanwhile."""
    if remote.signed_in_as not in (None, known.replica):
        raise _overtaken()


def heal_push(database: Database, remote: Remote, refusal: Refused, hear: Callable[[Database, Remote], object]) -> bool:
    """Whether the push may go on: what was refused was about us, not about what is sent, and is put right. hear: what
    there is to pull.

    Raises TryLater while another lane is sending, and what pulling raises.
    """
    if refusal.problem in ("cursor-expired", "server-restored"):  # first hear what is gone
        hear(database, remote)
        with database.writing() as connection:
            checkpoint.hold(connection)
            renumbering.forget_another_past(connection)
        return True
    if refusal.problem == "replica-unrelated":
        be_oneself(database, remote)
        return True
    if refusal.problem == "replica-forked":
        with database.reading() as connection:
            known = checkpoint.read(connection).replica
        if remote.signed_in_as in (None, known):  # else another process was faster, and what waits goes as that one
            _become_successor(database, remote, known)
        return True
    if refusal.problem == "sequence-gap" and refusal.due is not None:
        with database.writing() as connection:
            checkpoint.hold(connection)
            check_is_oneself(checkpoint.read(connection), remote)  # the numbers of a former self are not ours
            lanes.wait_until_all_rest(connection)
            renumbering.go_on_from(connection, refusal.due)
        emit("replica.renumbered", due=refusal.due)
        if _any_aggregate(database):
            hear(database, remote)  # what it has lost, too: what waits goes with that
        return True
    return False


def _any_aggregate_waits(connection: Connection) -> bool:
    return Ours(connection, tables.checked(connection)).any()


def _any_aggregate(database: Database) -> bool:
    with database.reading() as connection:
        return any(one.table.aggregate for one in tables.checked(connection))


def heal_pull(database: Database, remote: Remote, known: checkpoint.Checkpoint) -> None:
    """The server has outcomes of numbers that this database had not given out when it asked: unless it has done so
    meanwhile, another one has. known: as it was when it asked."""
    with database.reading() as connection:
        now = checkpoint.read(connection)
    if (now.replica, now.given_out) == (known.replica, known.given_out):
        _become_successor(database, remote, known.replica)


def begin_anew(database: Database, *, since: str, on_reset: OnReset = "recover") -> None:
    """Pull everything, and delete what did not come. What waits stays, unless it was said to discard it.

    since: the cursor that has expired; nothing is done when another process was faster. It may be one of a recovery
    that is under way: the device was away once more in the middle of it.
    """
    with database.writing() as connection:
        checkpoint.hold(connection)
        if checkpoint.read(connection).fetched == since:
            if on_reset == "discard":
                outbox.give_up(connection)
            _pull_anew(connection)
    emit("replica.recovering", because="cursor-expired")


def note(connection: Connection, known: checkpoint.Checkpoint, page: Page) -> None:
    """The page is applied, with what was staged, in this same transaction: how far that brings a recovery."""
    if known.recovering not in ("late", "sweep"):
        if known.staged_cursor:
            stage.clear(connection)
        return
    stage.applied(connection)
    stage.note(connection, page.records)
    if known.recovering == "late" and not page.more:
        checkpoint.recover(connection, "sweep")


def begin_restored(
    database: Database,
    refusal: Refused,
    *,
    since: str,
    settled: int | None = None,
    now: int = 0,
    on_reset: OnReset = "recover",
) -> None:
    """The server was put back: go on from the last place that both know. since, settled: the cursor, and the number up
    to which every outcome was known, with which it was asked. on_reset: where there is no such place, as in
    `begin_anew`. Raises Busy while something is being sent."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        known = checkpoint.read(connection)
        if known.fetched != since or lanes.settled(connection) != settled:
            return
        lanes.wait_until_all_rest(connection)
        if on_reset == "discard" and not refusal.cursor:
            outbox.give_up(connection)
        if settled is not None and refusal.due is not None and refusal.due <= settled:
            lanes.wait_until_it_rests(connection, now)
            renumbering.go_on_from(connection, refusal.due)
        else:
            renumbering.take_back(connection, due=refusal.due or 1)
            renumbering.into_one_lane(connection)
            if settled is not None and refusal.due is not None:
                renumbering.never_taken(connection, refusal.due, now=now)
        blocks.abandon(connection)
        withheld.forget_what_stands_here(connection, tables.checked(connection))
        conflicts.forget_there(connection)
        stage.clear(connection)
        # Who is named another cursor than his own had seen more than the backup holds.
        seen_all = refusal.cursor != since
        checkpoint.server_restored(connection, cursor=refusal.cursor, position=refusal.position, seen_all=seen_all)
        if known.recovering in ("late", "sweep") or not refusal.cursor:
            # What is gone there is not known yet, or is forgotten: nothing can be offered, but beside what waits.
            _pull_anew(connection)
            if refusal.position and known.recovering not in ("late", "sweep") and _any_aggregate_waits(connection):
                checkpoint.recover(connection, "restored")
        else:
            checkpoint.recover(connection, "restored")
    emit("replica.recovering", because="server-restored")


def sign_in(database: Database, registered: Registered, *, was: str) -> None:
    """The database becomes the registered replica. was: what it was when that was asked for.

    A server that does not know that one has none of our rows: they all go out, and none is deleted here.
    """
    with database.writing() as connection:
        checkpoint.hold(connection)
        if checkpoint.read(connection).replica != was:
            raise _overtaken()
        lanes.wait_until_all_rest(connection)
        blocks.abandon(connection)
        if registered.succeeds:
            renumbering.sign_in(connection, registered)
            _pull_anew(connection)
        else:
            renumbering.start_over(connection, registered)
            tables.backfill_again(connection)
            stage.clear(connection)
            checkpoint.pull_elsewhere(connection)
    emit("replica.signed_in", replica=registered.replica, was=was)


def _pull_anew(connection: Connection) -> None:
    stage.clear(connection)
    checkpoint.pull_from_the_beginning(connection)
    checkpoint.recover(connection, "late")


def _become_successor(database: Database, remote: Remote, known: str) -> None:
    """Several processes find the same at once: the first one's successor is the one that the database becomes. The
    token is stored after that, so that those who come too late leave none."""
    with database.reading() as connection:
        if checkpoint.read(connection).replica != known:
            raise _overtaken()
        lanes.wait_until_all_rest(connection)
        knows = outbox.written(connection)
    registered = remote.succeed(known, knows)
    sign_in(database, registered, was=known)
    remote.become(registered)


def _overtaken() -> TryLater:
    return TryLater("another process has signed this replica in meanwhile", hint="try again")
