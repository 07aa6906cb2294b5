"""`Backhaul(engine).work`: what a host does with its background work.

client.work.enqueue(OneTimeWork(report, input={"month": "2026-01"}))
client.work.enqueue_unique("tidy", "keep", chain(fetch).then(tidy))
with engine.begin() as connection:
    connection.execute(...)
    client.work.enqueue(OneTimeWork(mail), connection=connection)     # with its data, or not at all
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from backhaul.bell import Bell, Ring
from backhaul.clock import Clock
from backhaul.database import Database, in_autocommit, translated
from backhaul.errors import Misused
from backhaul.work import ledger, observing, roster
from backhaul.work.adjusting import moment
from backhaul.work.admitting import STANDING, Asked, circumstances_of, entries_of
from backhaul.work.chain import Chain
from backhaul.work.in_force import in_force
from backhaul.work.ledger import Applied, Circumstances, Entry, OneTimePolicy, PeriodicPolicy, State, Work
from backhaul.work.one_time import OneTimeWork
from backhaul.work.periodic import PeriodicWork
from backhaul.work.why import why as why_work

RING_AT_ONCE = 200  # of what is enqueued together; Beat finds the others
PRUNE_AT_ONCE = 1_000  # the app waits for no more
MOST_OBSERVED = 1_000  # at once, unless more ids are given

AfterCommit = Callable[[Connection, Callable[[], None]], bool]
Write = Callable[[Connection, int, Circumstances], "Receipt"]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was enqueued is stored, and no more than that. ids: of the work that is there now. kept: it was there before
    under its name, and nothing new was stored."""

    ids: tuple[str, ...]
    kept: bool = False


class Works:
    """Where work is given, these are raised, and nothing is stored: Misused, WorkUnplaceable, WorkerUnknown.

    connection: the app's own, or its Session: what is done is done in its transaction, and the bell rings after the
    commit; one in autocommit has none, and the work gets one of its own. So has every other method. In the app's
    transaction nothing is imported: the name of a function of a module that was not imported by then is taken as it is.
    DatabaseBusy is raised where the database is locked, or the transaction has read before another one wrote (SQLite).
    """

    def __init__(self, database: Database, bell: Bell, clock: Clock, after_commit: AfterCommit) -> None:
        self._database = database
        self._bell = bell
        self._clock = clock
        self._after_commit = after_commit

    # new work

    def enqueue(self, work: Asked | Sequence[Asked], *, connection: Connection | Session | None = None) -> Receipt:
        """Have this done: one work, a chain, or several of them. An id that exists already is left as it is."""
        entries = entries_of(work, self._bell, connection)

        def enqueue(opened: Connection, now: int, circumstances: Circumstances) -> Receipt:
            ledger.enqueue_all(opened, entries, now=now, circumstances=circumstances)
            return Receipt(ids=tuple(str(entry.request.id) for entry in entries))

        return self._write(enqueue, entries, connection)

    def enqueue_unique(
        self,
        name: str,
        policy: OneTimePolicy,
        work: OneTimeWork | Chain,
        *,
        connection: Connection | Session | None = None,
    ) -> Receipt:
        """Have this done under a name. What becomes of work that has it:

        keep: while it waits for its time or runs, nothing is stored. replace: it is cancelled. append: the new waits
        for it, and fails with it. append_or_replace: the new waits for it, unless it has failed or was cancelled.
        """
        entries = self._named(name, entries_of(work, self._bell, connection))
        if any(entry.request.interval_ms for entry in entries):
            raise Misused("periodic work has policies of its own", hint="enqueue_unique_periodic")

        def enqueue(opened: Connection, now: int, circumstances: Circumstances) -> Receipt:
            done = ledger.enqueue_named(opened, name, policy, entries, now=now, circumstances=circumstances)
            return Receipt(ids=done.ids, kept=done.kept)

        return self._write(enqueue, entries, connection)

    def enqueue_unique_periodic(
        self,
        name: str,
        policy: PeriodicPolicy,
        work: PeriodicWork,
        *,
        connection: Connection | Session | None = None,
    ) -> Receipt:
        """Have this done again and again, under a name. What becomes of work that has it:

        keep: it stays as it is. update: it keeps its id and its times, and takes all else from the new. A run that is
        under way ends as it began. cancel_and_reenqueue: it is cancelled, and the period begins now.
        """
        if not isinstance(work, PeriodicWork):
            raise Misused(f"{type(work).__name__} is no periodic work", hint="enqueue_unique")
        entries = self._named(name, entries_of(work, self._bell, connection))

        def enqueue(opened: Connection, now: int, circumstances: Circumstances) -> Receipt:
            (entry,) = entries
            done = ledger.enqueue_named_periodic(opened, name, policy, entry, now=now, circumstances=circumstances)
            return Receipt(ids=done.ids, kept=done.kept)

        return self._write(enqueue, entries, connection)

    # other terms

    def update(self, work: OneTimeWork | PeriodicWork) -> Applied:
        """Give the work of this id other terms. APPLIED_FOR_NEXT_RUN: it runs just now. NOT_APPLIED: it is finished.
        `expires_after` counts from when it was first enqueued. Raises Unknown, and Misused for one-time work that would
        become periodic, or the other way round."""
        (entry,) = entries_of(work, self._bell)
        circumstances = circumstances_of([entry], self._bell)
        with self._database.writing() as opened:
            self._check_hosts(opened, work.id)
            now = self._clock.now()
            applied = ledger.update_work(
                *(opened, entry.request),
                queue=entry.queue,
                ordinary_queue=entry.ordinary_queue,
                now=now,
                circumstances=circumstances,
            )
            rings = _rings(opened, (work.id,), now)
        self._ring(rings)
        return applied

    def override_next_run(self, work_id: str, at: datetime | None) -> None:
        """When periodic work runs next, in place of interval, flex, delay and backoff; None: as if that had never been
        said. Raises Unknown, Misused."""
        said = None if at is None else moment("at", at)
        with self._database.writing() as opened:
            self._check_hosts(opened, work_id)
            now = self._clock.now()
            ledger.override_next_run(opened, work_id, said, now=now)
            rings = _rings(opened, (work_id,), now)
        self._ring(rings)

    # the end

    def cancel(self, work_id: str) -> int:
        """End it for good, and all that waits for it, also when it has succeeded. Returns how many ended. Raises
        Misused for sync's own work."""
        with self._database.writing() as opened:
            self._check_hosts(opened, work_id)
            return ledger.cancel_by_id(opened, work_id, now=self._clock.now(), by="the app")

    def cancel_tag(self, tag: str) -> int:
        """The same, of all unfinished work with the tag."""
        with self._database.writing() as opened:
            return ledger.cancel_by_tag(opened, tag, now=self._clock.now(), by="the app")

    def cancel_name(self, name: str) -> int:
        """The same, of all unfinished work of the name."""
        self._check_name(name)
        with self._database.writing() as opened:
            return ledger.cancel_by_name(opened, name, now=self._clock.now(), by="the app")

    def cancel_all(self) -> int:
        """The same, of all unfinished work but sync's own."""
        with self._database.writing() as opened:
            return ledger.cancel_all(opened, now=self._clock.now(), by="the app")

    def last_cancel_all(self) -> int | None:
        """When that was last done, in milliseconds."""
        with self._database.reading() as opened:
            return ledger.marked(opened, ledger.CANCEL_ALL)

    def prune(self) -> int:
        """Forget all finished work that no unfinished work waits for; returns how much."""
        pruned = 0
        while True:
            with self._database.writing() as opened:
                some = ledger.prune(opened, now=self._clock.now(), older_than_ms=0, limit=PRUNE_AT_ONCE)
            pruned += some
            if some < PRUNE_AT_ONCE:
                return pruned

    # what there is

    def get(self, work_id: str) -> Work | None:
        with self._database.reading() as opened:
            return ledger.get(opened, work_id)

    def query(
        self,
        *,
        ids: Collection[str] | None = None,
        names: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        states: Collection[State] | None = None,
        ours: bool = False,
        after: str | None = None,
        limit: int = 1_000,
    ) -> list[Work]:
        """Any of each list, and all of the lists: what is unfinished first, the newest of it before the others, then
        what has finished last. A function's name is a tag of its work. ours: with sync's own. limit: so many at the
        most; of `ids`, all. after: the page after the work of this `place`, as it was read then. Raises Misused."""
        with self._database.reading() as opened:
            most = max(limit, len(ids or ()))
            return ledger.latest(
                opened, ids=ids, names=names, tags=tags, states=states, ours=ours, after=after, limit=most
            )

    def observe(
        self,
        *,
        ids: Collection[str] | None = None,
        names: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        states: Collection[State] | None = None,
        timeout: float | None = None,
    ) -> Iterator[Work]:
        """Each of these as it is, and again whenever it has changed; who is slow sees the last of several changes. Ends
        after `timeout` seconds, or, with ids, once all of these are finished. Without ids it is a thousand of them:
        what is unfinished goes before what is finished, and the newest before the others."""

        most = MOST_OBSERVED if ids is None else max(MOST_OBSERVED, len(ids))

        def ask(opened: Connection) -> list[Work]:
            found = ledger.latest(
                opened, ids=ids, names=names, tags=tags, states=states, ours=ids is not None, limit=most
            )
            return sorted(found, key=lambda work: (work.created_at, work.id))

        return observing.observe(self._database, ask, ids=ids, timeout=timeout)

    def why(self, work_id: str) -> str:
        """Why it is not done yet, in one line. Raises Unknown."""
        with self._database.reading() as opened:
            now = self._clock.now()
            node, workers = self._bell.node, roster.alive(opened, now)
            held, labels = in_force(opened, now, node, os.environ)
            return why_work(opened, work_id, held, labels, self._bell.queues, workers, now, node=node.name)

    # how

    def _named(self, name: str, entries: list[Entry]) -> list[Entry]:
        self._check_name(name)
        _ = replace(entries[0].request, name=name)  # Misused for what is no name
        return entries

    def _check_name(self, name: str) -> None:
        if STANDING.fullmatch(name):
            raise Misused(f"the name {name!r} is sync's own", hint="another name")

    def _check_hosts(self, opened: Connection, work_id: str) -> None:
        work = ledger.get(opened, work_id)
        if work is not None and work.ours:
            raise Misused(
                f"the work {work_id!r} is sync's own", hint="backhaul condition set connected off: it waits then"
            )

    def _write(self, write: Write, entries: Sequence[Entry], connection: Connection | Session | None) -> Receipt:
        circumstances, now = circumstances_of(entries, self._bell), self._clock.now()
        opened = connection if connection is None or isinstance(connection, Connection) else connection.connection()
        if opened is None or _commits_each_statement(opened):
            with self._database.writing() as own:
                receipt = write(own, now, circumstances)
                rings = _rings(own, receipt.ids, now)
            self._ring(rings)
            return receipt
        with translated():
            receipt = write(opened, now, replace(circumstances, in_turn=False))  # it may be open for long
            rings = _rings(opened, receipt.ids, now)
        self._after_commit(opened, lambda: self._ring(rings))
        return receipt

    def _ring(self, rings: Sequence[Ring]) -> None:
        for ring in rings:
            self._bell.ring(ring)


def _commits_each_statement(opened: Connection) -> bool:
    """Whether there is no transaction to take part in: a chain must not be seen before all of it is there."""
    if not opened.in_transaction():
        opened.begin()
    return in_autocommit(opened.connection.driver_connection)


def _rings(opened: Connection, ids: Sequence[str], now: int) -> list[Ring]:
    works = ledger.query(opened, ids=ids[:RING_AT_ONCE], states=["ENQUEUED"], limit=RING_AT_ONCE)
    return [work.ring for work in works if work.due_at <= now]
