"""Sync's standing work: push, pull and reconcile, each periodic, each by its own name; where a push has several lanes,
push-1, push-2 and so on for those beside the first; and where rows name files, attach and transform."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Connection

from backhaul.lanes import MOST_LANES
from backhaul.remotes import pace
from backhaul.remotes.pace import Direction
from backhaul.work import ledger
from backhaul.work.ledger import Work
from backhaul.work.placing import place
from backhaul.work.request import WorkRequest
from config.queues import declared
from config.retry import policy
from config.settings import Settings

CONNECTED = frozenset({"connected"})
STANDING = ("push", "pull", "reconcile")
ATTACHING, TRANSFORMING = "attach", "transform"


def ensure_standing(connection: Connection, settings: Settings, now: int) -> None:
    """Make the standing work, or bring it to what the settings say now; an unchanged one stays as it is."""
    queues = declared(settings)
    for name in (*STANDING, *map(lane_work, range(1, settings.sync.push_lanes))):
        request = standing(settings, name, interval_ms=_interval(connection, settings, journey_of(name)))
        queue = place(queues, request.requires, request.kind)
        ledger.enqueue_unique(connection, request, queue=queue.name, policy="update", now=now)
    for number in range(settings.sync.push_lanes, MOST_LANES):
        ledger.cancel(connection, lane_work(number), now=now, by="settings: sync.push_lanes")
    named = [one.media for one in settings.tables.values() if one.media and one.media.column]
    wanted = {ATTACHING: bool(named), TRANSFORMING: any(media.transform for media in named)}
    for name, is_wanted in wanted.items():
        if is_wanted:
            request = reading(settings, name)
            queue = place(queues, request.requires, request.kind)
            ledger.enqueue_unique(connection, request, queue=queue.name, policy="update", now=now)
        else:
            ledger.cancel(connection, name, now=now, by="settings: no table names such files")


def reading(settings: Settings, name: str) -> WorkRequest:
    """The work that reads the files that rows name, or makes something of them. It is woken when one is named; the
    interval is only for hints that were lost."""
    requires = frozenset(settings.media.transform_requires) if name == TRANSFORMING else frozenset[str]()
    return WorkRequest(
        task=f"backhaul.{name}",
        id=name,
        name=name,
        requires=requires,
        interval_ms=settings.sync.push_every,
        backoff=policy(settings, "upload"),
    )


def lane_work(number: int) -> str:
    """The id of the work that pushes in this lane."""
    return f"push-{number}" if number else "push"


def lane_number(work_id: str) -> int:
    _, _, number = work_id.partition("-")
    return int(number or 0)


def journey_of(name: str) -> Direction:
    return cast(Direction, name.partition("-")[0])


def pace_interval(connection: Connection, settings: Settings, work: Work, *, changed: int, now: int) -> None:
    """A run of sync's own periodic work has found so many changes: its next one may come sooner, or later."""
    journey, sync = journey_of(work.id), settings.sync
    interval = pace.looked(
        connection, journey, changed=changed, usual=sync.usual(journey), bounds=sync.bounds(journey), now=now
    )
    if interval is not None:
        ledger.set_interval(connection, work, interval)


def _interval(connection: Connection, settings: Settings, journey: Direction) -> int:
    """As it was learned, which outlives every process."""
    known = pace.learned(connection, journey)
    return pace.interval(known, settings.sync.usual(journey), settings.sync.bounds(journey))


def standing(settings: Settings, name: str, *, interval_ms: int) -> WorkRequest:
    journey = journey_of(name)
    return WorkRequest(
        task=f"backhaul.{journey}",
        id=name,
        name=name,
        requires=CONNECTED,
        interval_ms=interval_ms,
        flex_ms=min(getattr(settings.sync, f"{journey}_flex"), interval_ms),
        backoff=policy(settings, journey),
    )
