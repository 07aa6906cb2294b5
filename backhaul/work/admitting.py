"""What a host asks for, as the ledger is told it: placed on a queue, its function known, its files looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from backhaul.bell import Bell
from backhaul.errors import Misused, WorkerUnknown
from backhaul.work import looking
from backhaul.work.chain import Chain
from backhaul.work.constraints import FileTrigger
from backhaul.work.functions import is_registered
from backhaul.work.ledger import Circumstances, Entry, Limits
from backhaul.work.one_time import OneTimeWork
from backhaul.work.periodic import PeriodicWork
from backhaul.work.placing import place, place_expedited
from backhaul.work.request import CELERY_TASK, WorkRequest

Asked = OneTimeWork | PeriodicWork | Chain
STANDING = re.compile(r"(push|pull|reconcile)(-\d+)?")  # ids and names of sync's own


def entries_of(asked: Asked | Sequence[Asked], bell: Bell, within: Connection | Session | None = None) -> list[Entry]:
    """Raises Misused for what is no work, WorkerUnknown, WorkUnplaceable. within: the app's own; while it has a
    transaction open the host's modules are not imported to see whether there is a function: it would wait for them, and
    they for it if they write."""
    each = asked if isinstance(asked, Sequence) else (asked,)
    if not each:
        raise Misused("there is no work to enqueue", hint="enqueue(OneTimeWork(...))")
    desk = _Desk(bell, importing=within is None or not within.in_transaction())
    return [entry for one in each for entry in desk.entries(one)]


def circumstances_of(entries: Sequence[Entry], bell: Bell) -> Circumstances:
    """The files are looked at before the transaction, which is not to wait for a disk. Of one that does not answer the
    first look that does is what later ones are held against."""
    files = {one for entry in entries for one in entry.request.triggers if isinstance(one, FileTrigger)}
    return Circumstances(limits=Limits(expedited_runs=bell.expedited_runs), looks=looking.look_afresh(files).said)


class _Desk:
    """For the works that are admitted together: of many, most want the same function and the same queue."""

    def __init__(self, bell: Bell, *, importing: bool) -> None:
        self._bell = bell
        self._importing = importing
        self._queues = bell.queues
        self._admitted: set[str] = set()
        self._places: dict[tuple[frozenset[str], str], str] = {}

    def entries(self, asked: Asked) -> list[Entry]:
        if isinstance(asked, OneTimeWork | PeriodicWork):
            return [self._entry(asked.request)]
        if isinstance(asked, Chain):
            parents = dict(asked.parents)
            return [self._entry(work.request, parents.get(work.id, ())) for work in asked.works]
        raise Misused(f"{type(asked).__name__} is no work", hint="OneTimeWork, PeriodicWork, or a chain of the former")

    def _entry(self, request: WorkRequest, parents: Sequence[str] = ()) -> Entry:
        if STANDING.fullmatch(str(request.id)):
            raise Misused(f"the id {request.id!r} is of sync's own work", hint="leave the id out")
        if request.task not in self._admitted:
            self._admit(request.task)
        where = request.requires, request.kind
        queue = self._places.get(where)
        if queue is None:
            queue = self._places[where] = place(self._queues, *where).name
        if request.expedited is None:
            return Entry(request, queue, None, parents)
        return Entry(request, place_expedited(self._queues, *where).name, queue, parents)

    def _admit(self, task: str) -> None:
        known = None if task == CELERY_TASK or is_registered(task) else self._bell.workers(importing=self._importing)
        if known is not None and task not in known:
            nearest = get_close_matches(task, known, n=1)
            said = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise WorkerUnknown(
                f"no worker function {task!r} is registered in the modules of [work] modules",
                hint=f"{said}name its module in backhaul.toml, [work] modules",
            )
        self._admitted.add(task)
