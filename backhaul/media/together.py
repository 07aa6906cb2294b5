"""The journey of small files together: what has the server of all that waits, then message after message of many files.

A run has been rung for one upload, and takes along what waits beside it: claimed in one statement, sent in one message,
settled in one transaction. What cannot be settled so, whatever the reason, is given back untouched; why it cannot be
sent is found out, and said, by the run of its own. A message is a chunk, and follows the link as one does; when it is
lost, it is sent again at the most. Memory: one message, twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

from sqlalchemy import Connection

from backhaul.errors import BackhaulError, Refused, TimedOut
from backhaul.media import contents, transfer, turns, uploads
from backhaul.media.chunks import Chunks
from backhaul.media.content import Unreadable, opened
from backhaul.media.transfer import Transfer, outcome
from backhaul.media.turns import SMALL_BYTES, Order
from backhaul.media.uploads import Upload
from backhaul.remotes.base import Whole

MOST_ASKED = 1_000  # of one question
MOST_SENT = 500  # files of one message
LONGEST_MS = 20_000  # how long a run goes on with those of others, before it lets large files have their turn


class Beside(Protocol):
    """Works of other uploads that the run may take along, by the ids of these."""

    def claim(self, connection: Connection, ids: Collection[str], /) -> list[str]:
        """Those that are this run's from now on."""

    def succeed(self, connection: Connection, outputs: Mapping[str, Mapping[str, Any]], /) -> None: ...

    def give_back(self, connection: Connection, ids: Collection[str], /) -> None:
        """They wait as before."""


@dataclass(frozen=True, kw_only=True)
class Together:
    """A run, and what it takes along. own: the upload that it was rung for. queue: where the others wait, too. done: by
    id, with the bytes that were sent. left: ids of those that could not be settled so, and are not tried so again."""

    run: Transfer
    beside: Beside
    order: Order
    queue: str
    own: Upload
    done: dict[str, int] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)

    def ids(self, some: Collection[Upload]) -> list[str]:
        """Of those that are others'."""
        return [one.id for one in some if one.id != self.own.id]


def upload(run: Transfer, upload_id: str, beside: Beside, *, order: Order) -> dict[str, Any]:
    """As `transfer.upload`; and what waits beside it on the run's queue is taken along."""
    own = transfer.take(run, upload_id)
    if own.state == "done" or run.queue is None:
        return transfer.send(run, upload_id)
    together = Together(run=run, beside=beside, order=order, queue=run.queue, own=own)
    _complete_known(together)
    if own.id not in together.done and own.state == "pending":
        _send_small(together)
    if own.id in together.done:
        return outcome(own, sent=together.done[own.id])
    return transfer.send(run, upload_id)


def _complete_known(together: Together) -> None:
    """What the server has needs no sending. Of each it is asked so once, and of one alone not at all."""
    run, own = together.run, together.own
    with run.database.reading() as connection:
        others = turns.waiting(
            connection,
            queue=together.queue,
            now=run.clock.now(),
            order=together.order,
            most=MOST_ASKED - 1,
            unasked=True,
            begun=False,
        )
    if not others:
        return
    asked = [own, *others] if own.state == "pending" else others
    known = run.remote.known([one.sha256 for one in asked])
    with run.database.writing() as connection:
        uploads.mark_asked(connection, [one.id for one in asked], now=run.clock.now())
        here = _claim(together, connection, [one for one in asked if one.sha256 in known])
        _finish(together, connection, here, sent=False)


def _send_small(together: Together) -> None:
    """Message after message, the own file in the first; it is over when nothing small waits, or soon after."""
    run = together.run
    chunks, began = Chunks(run.database, most=run.chunk_bytes), run.clock.now()
    if together.own.size > min(SMALL_BYTES, chunks.size):
        return
    transfer.check_link(run, together.own)
    while together.own.id not in together.done or run.clock.now() - began < LONGEST_MS:
        run.context.check()
        batch = _batch(together, chunks.size)
        if not batch or not _send(together, batch, chunks):
            return
        run.context.progress({"sent": together.own.size, "total": together.own.size, "files": len(together.done)})


def _batch(together: Together, most_bytes: int) -> list[Upload]:
    """What the next message holds, claimed: the own file first, unless it is done; then the others in their order."""
    run, own = together.run, together.own
    chosen = [] if own.id in together.done else [own]
    room, limit = most_bytes - sum(one.size for one in chosen), run.most_bytes()
    with run.database.writing(lasting=False) as connection:  # a claim that is forgotten is made again
        waiting = turns.waiting(
            connection,
            queue=together.queue,
            now=run.clock.now(),
            order=together.order,
            most=MOST_SENT - len(chosen),
            most_bytes=min(SMALL_BYTES, most_bytes, SMALL_BYTES if limit is None else limit),
            begun=False,
        )
        for one in waiting:
            if one.id in together.left:
                continue
            room -= one.size
            if room < 0:
                break
            chosen.append(one)
        return _claim(together, connection, chosen)


def _claim(together: Together, connection: Connection, wanted: Sequence[Upload]) -> list[Upload]:
    """Those of them that this run has then, work and upload; its own it has."""
    own = [one for one in wanted if one.id == together.own.id]
    claimed = together.beside.claim(connection, together.ids(wanted)) if len(wanted) > len(own) else []
    taken = {one.id: one for one in uploads.take_all(connection, claimed)} if claimed else {}
    together.beside.give_back(connection, [one for one in claimed if one not in taken])
    return own + [taken[one.id] for one in wanted if one.id in taken]


def _send(together: Together, batch: Sequence[Upload], chunks: Chunks) -> bool:
    """One message. Whether another one may follow: what the server does not take so is left to the runs of its own."""
    run, began, whole = together.run, together.run.clock.now(), _read(together.run, batch)
    try:
        there = _there(run, list(whole.values()), chunks)
    except BackhaulError as error:  # of its files it is not known what the server has
        with run.database.writing() as connection:
            _leave(together, connection, batch)
        if isinstance(error, Refused):
            return False  # that the message is refused is no verdict on any of them
        raise
    now = run.clock.now()
    with run.database.writing() as connection:
        here = {one.id: one for one in batch if one.id in whole and one.sha256 in there}
        _finish(together, connection, list(here.values()), sent=True)
        _leave(together, connection, [one for one in batch if one.id not in here])
        chunks.went_through(connection, _bytes(whole.values()), took_ms=now - began, now=now)
    return together.own.id in together.done


def _there(run: Transfer, whole: Sequence[Whole], chunks: Chunks) -> set[str]:
    """Those that the server has then."""
    if not whole:
        return set()
    began = run.clock.now()
    try:
        return run.remote.send_whole(whole)
    except (TimedOut, Refused) as error:
        if isinstance(error, TimedOut) or transfer.is_too_large(error):
            chunks.halve(_bytes(whole), error, now=began)
        raise


def _bytes(whole: Iterable[Whole]) -> int:
    return sum(len(one.content) for one in whole)


def _read(run: Transfer, batch: Sequence[Upload]) -> dict[str, Whole]:
    """By id; without those whose file is not there, or not the one any more."""
    whole = {}
    for one in batch:
        try:
            with opened(run.file_of(one)) as file:
                content = file.read(one.size + 1)
        except (Unreadable, OSError):
            continue
        if sha256(content).hexdigest() == one.sha256:
            whole[one.id] = Whole(sha256=one.sha256, name=one.name, media_type=one.media_type, content=content)
    return whole


def _finish(together: Together, connection: Connection, here: Sequence[Upload], *, sent: bool) -> None:
    if not here:
        return
    run = together.run
    queue, worker = (run.queue, run.worker) if sent else (None, None)
    finished = set(uploads.finish_all(connection, here, now=run.clock.now(), queue=queue, worker=worker))
    contents.all_on_server(connection, {one.sha256 for one in here})
    done = {one.id: one.size if sent else 0 for one in here if one.id in finished}
    by_id = {one.id: one for one in here}
    outputs = {name: outcome(by_id[name], sent=size) for name, size in done.items() if name != together.own.id}
    together.beside.succeed(connection, outputs)
    together.beside.give_back(connection, [name for name in together.ids(here) if name not in finished])
    together.done.update(done)


def _leave(together: Together, connection: Connection, batch: Sequence[Upload]) -> None:
    if batch:
        together.left.update(one.id for one in batch)
        uploads.mark_asked(connection, [one.id for one in batch], now=None)
        together.beside.give_back(connection, together.ids(batch))
