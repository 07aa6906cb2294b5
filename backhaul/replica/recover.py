"""Recovery: what a journey does when the server says that this replica, or the server itself, is not what it was.

    replica-forked    another op was sent under our number: this database is a copy, or was put back to a backup. It
                      becomes another replica, the successor of the one it was, and pulls from the beginning.
    sequence-gap      the server has lost outcomes that it had given: it was put back. What is still here goes again,
                      from the number that is due.
    server-restored   the same, seen by the cursor: see restored.py.
    cursor-expired    we come so late that deletions are forgotten: everything is pulled anew, and what the server does
                      not have any more is deleted here, unless a change of it waits (see sweep.py).

`recovering` in backhaul_replica says where a recovery stands, so that another process can take it up:

    late       pulling from the beginning, noting which records come; then
    sweep      deleting what did not come
    restored   fetching all that a server has that was put back; then
    offer      putting what it has lost into the outbox
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Refused, TryLater
from backhaul.remotes.base import Remote
from backhaul.replica import blocks, checkpoint, outbox, renumbering, stage, tables
from backhaul.telemetry import emit
from backhaul.wire import Page, Registered

OnReset = Literal["recover", "discard"]


def be_oneself(database: Database, remote: Remote) -> None:
    """See to it that the database is the replica whose token the remote has: whoever was killed in between, and whoever
    puts only one of the two back from a backup, leaves two that are not."""
    with database.reading() as connection:
        known = checkpoint.read(connection).replica
    if remote.signed_in_as not in (None, known):
        _become_successor(database, remote, known)


def is_oneself(known: checkpoint.Checkpoint, remote: Remote) -> bool:
    """Whether the remote still speaks for this database: another process may have signed it in anew meanwhile."""
    return remote.signed_in_as in (None, known.replica)


def heal_push(database: Database, remote: Remote, refusal: Refused) -> bool:
    """Whether the push may go on: what was refused was about who we are, or which numbers are due, and is put right."""
    if refusal.problem == "replica-forked":
        with database.reading() as connection:
            known = checkpoint.read(connection).replica
        _become_successor(database, remote, known)
        return True
    if refusal.problem == "sequence-gap" and refusal.due is not None:
        with database.writing() as connection:
            checkpoint.hold(connection)
            renumbering.go_on_from(connection, refusal.due)
        emit("replica.renumbered", due=refusal.due)
        return True
    return False


def heal_pull(database: Database, remote: Remote, known: checkpoint.Checkpoint) -> None:
    """The server has outcomes of numbers that this database had not given out when it asked: unless it has done so
    meanwhile, another one has. known: as it was when it asked."""
    with database.reading() as connection:
        now = checkpoint.read(connection)
    if (now.replica, now.last_send_seq) == (known.replica, known.last_send_seq):
        _become_successor(database, remote, known.replica)


def begin_anew(database: Database, *, on_reset: OnReset = "recover") -> None:
    """Pull everything, and delete what did not come. What waits stays, unless it was said to discard it."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        if checkpoint.read(connection).recovering not in ("late", "sweep"):
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


def begin_restored(database: Database, refusal: Refused, *, since: str) -> None:
    """The server was put back: go on from the last place that both know. since: the cursor that it does not know."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        known = checkpoint.read(connection)
        if known.fetched != since:
            return
        renumbering.forget_base(connection)
        renumbering.take_back(connection)
        blocks.abandon(connection)
        stage.clear(connection)
        checkpoint.server_restored(connection, cursor=refusal.cursor, position=refusal.position)
        if known.recovering in ("late", "sweep"):  # what is gone there is not known yet: nothing can be offered
            _pull_anew(connection)
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
            raise TryLater("another process has signed this replica in meanwhile", hint="try again")
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
    sign_in(database, remote.succeed(known), was=known)
