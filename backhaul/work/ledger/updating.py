"""Other terms for work that is there already: it keeps its id, its state, its attempts and the times it is measured
from. A run that is under way ends as it began, under the old terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, delete, select, update

from backhaul.errors import Misused, Unknown
from backhaul.schema import work as table
from backhaul.schema import work_tag
from backhaul.work.ledger import triggering
from backhaul.work.ledger.asking import existing, get, one
from backhaul.work.ledger.chaining import hold
from backhaul.work.ledger.enqueueing import (
    ORDINARY,
    Circumstances,
    insert_tags,
    insert_triggers,
    specification,
    take_turn,
)
from backhaul.work.ledger.timing import due_anew, expiry
from backhaul.work.request import WorkRequest
from backhaul.work.row import Work

Applied = Literal["APPLIED_IMMEDIATELY", "APPLIED_FOR_NEXT_RUN", "NOT_APPLIED"]


def update_work(
    connection: Connection,
    request: WorkRequest,
    *,
    queue: str,
    ordinary_queue: str | None = None,
    now: int,
    circumstances: Circumstances = ORDINARY,
) -> Applied:
    """Give the work of this id these terms; `expires_after` counts from when it was first enqueued. Raises Unknown, and
    Misused for one-time work that would become periodic or the other way round, and as `enqueue_all` does."""
    take_turn(connection, [request], circumstances)
    hold(connection, table.c.id == request.id)
    old = get(connection, str(request.id))
    if old is None:
        raise Unknown(f"there is no work {request.id!r}", hint="enqueue it first")
    if old.finished:
        _check_kind(old, request)
        return "NOT_APPLIED"
    update_existing(
        connection, old, request, queue=queue, ordinary_queue=ordinary_queue, now=now, circumstances=circumstances
    )
    return "APPLIED_FOR_NEXT_RUN" if old.state == "RUNNING" else "APPLIED_IMMEDIATELY"


def update_existing(
    connection: Connection,
    old: Work,
    request: WorkRequest,
    *,
    queue: str,
    ordinary_queue: str | None = None,
    now: int,
    circumstances: Circumstances = ORDINARY,
    even_if_same: bool = True,
) -> Work:
    """The unfinished work under these terms; a new generation, whose messages alone count from now on. The caller has
    taken his turn."""
    _check_kind(old, request)
    if request.triggers and old.trigger_update_ms is None:
        triggering.check_room(connection, 1, circumstances.limits.triggers)
    values = _terms(old, request, queue, ordinary_queue)
    if not even_if_same and not _differs(connection, old, values):
        return old
    values |= {"generation": table.c.generation + 1}
    if old.state != "RUNNING":
        values["progress"] = None
    if old.state == "ENQUEUED":
        values["rung_at"] = 0
    changed = one(connection, update(table).where(table.c.id == old.id).values(values).returning(table)) or old
    if set(old.tags) != request.tags:
        connection.execute(delete(work_tag).where(work_tag.c.work_id == old.id))
        insert_tags(connection, [(old.id, request.tags)])
    if old.trigger_update_ms is not None or request.triggers:
        triggering.forget_others(connection, old.id, request.triggers)
        insert_triggers(connection, [(old.id, request.triggers)] if request.triggers else [], circumstances.looks)
    return _at_its_time(connection, old, changed, now)


def override_next_run(connection: Connection, work_id: str, moment: int | None, *, now: int) -> Work:
    """When periodic work runs next, whatever else says; None: as if that had never been said. A run under way has its
    end first. Raises Unknown, and Misused for one-time and for cancelled work."""
    hold(connection, table.c.id == work_id)
    old = get(connection, work_id)
    if old is None:
        raise Unknown(f"there is no work {work_id!r}", hint="enqueue it first")
    if not old.periodic or old.finished:
        said = "is finished" if old.finished else "is no periodic work"
        raise Misused(f"the work {work_id!r} {said}: it has no next run to override", hint="begin_at, when it is built")
    values = {"override_at": moment, "override_generation": table.c.override_generation + 1}
    changed = one(connection, update(table).where(table.c.id == work_id).values(values).returning(table)) or old
    return _at_its_time(connection, old, changed, now)


def _at_its_time(connection: Connection, old: Work, changed: Work, now: int) -> Work:
    if changed.state != "ENQUEUED":
        return changed
    anew = changed.override_at is not None or old.override_at is not None
    if old.due_at <= now and not anew and old.trigger_update_ms is None and changed.trigger_update_ms is None:
        return changed  # due, or woken: that is not the update's business
    same_backoff = changed.backoff == old.backoff
    if changed.attempt > 0 and same_backoff and not anew:
        return changed  # it waits as long as it was told to, which may be longer than its backoff
    at = due_anew(changed, old.due_at)
    connection.execute(update(table).where(table.c.id == changed.id).values(due_at=at))
    if changed.trigger_update_ms is not None:
        triggering.fire(connection, work_ids=[changed.id])
    return existing(connection, changed.id)


def _terms(old: Work, request: WorkRequest, queue: str, ordinary_queue: str | None) -> dict[str, Any]:
    values = specification(request, queue, ordinary_queue) | {"expires_at": expiry(request, old.created_at)}
    if request.override_at is None:  # one that was set before stays
        del values["override_at"], values["override_generation"]
    else:
        values["override_generation"] = table.c.override_generation + 1
    if request.expedited and (old.attempt > 0 or not old.expedited):
        values |= {"queue": ordinary_queue or queue, "ordinary_queue": None, "expedited": 0}
    return values


def _differs(connection: Connection, old: Work, values: Mapping[str, Any]) -> bool:
    stored = connection.execute(select(table).where(table.c.id == old.id)).mappings().one()
    return any(stored[column] != value for column, value in values.items() if column != "override_generation")


def _check_kind(old: Work, request: WorkRequest) -> None:
    if old.periodic != (request.interval_ms > 0):
        kind = "periodic" if old.periodic else "one-time"
        raise Misused(
            f"the work {old.name or old.id!r} is {kind}; an update cannot change that",
            hint="replace it, or use another name or id",
        )
