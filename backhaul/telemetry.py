"""What happens, in words and numbers. Code says `emit("work.claimed", work=..., ...)`; this file knows the rest.

An event is a line of the catalogue: its level, its sentence, whose braces are its fields, and its counter. Counters
live in this process only; what must survive it is derived from the database. No field may hold a row's data, a
token or a URL with a password in it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from logging import DEBUG, ERROR, INFO, WARNING
from threading import Lock
from typing import NamedTuple

logger = logging.getLogger("backhaul")


class Event(NamedTuple):
    level: int
    sentence: str
    metric: str


CATALOGUE = {
    "work.claimed": Event(DEBUG, "{task} {work}: try {attempt} begins on {worker}", "backhaul_work_claimed_total"),
    "work.succeeded": Event(INFO, "{task} {work}: done in {milliseconds} ms", "backhaul_work_succeeded_total"),
    "work.failed": Event(ERROR, "{task} {work}: failed: {error}", "backhaul_work_failed_total"),
    "work.retried": Event(
        WARNING,
        "{task} {work}: try {attempt} failed, again at {next_at}: {error}",
        "backhaul_work_retried_total",
    ),
    "work.stopped": Event(INFO, "{task} {work}: stopped: {reason}", "backhaul_work_stopped_total"),
    "work.lost": Event(WARNING, "{task} {work}: its worker was lost, it waits again", "backhaul_work_lost_total"),
    "work.expired": Event(WARNING, "{task} {work}: had not begun in its time", "backhaul_work_expired_total"),
    "work.unwatched": Event(
        WARNING, "{task} {work}: its row cannot be looked at: {error}", "backhaul_work_unwatched_total"
    ),
    "work.ignores_stop": Event(
        WARNING,
        "{task} {work}: was asked to stop ({reason}) {seconds} s ago, and goes on: {then}",
        "backhaul_work_ignored_stops_total",
    ),
    "work.output_dropped": Event(
        WARNING, "{task} {work}: what it returned is not kept: {error}", "backhaul_work_outputs_dropped_total"
    ),
    "work.modules_unknown": Event(
        WARNING,
        "the modules of [work] modules cannot be imported here, so no name of a function is checked: {error}",
        "backhaul_work_modules_unknown_total",
    ),
    "hook.failed": Event(ERROR, "{hook} was told of a failure, and raised {error}", "backhaul_hook_failed_total"),
    "work.handed_back": Event(
        WARNING, "{task} {work}: came by queue {came_by}, belongs to {queue}", "backhaul_work_handed_back_total"
    ),
    "media.tidied": Event(
        WARNING,
        "kept files: {leftovers} unfinished, {orphans} without a row and {dangling} rows without their file taken away",
        "backhaul_media_tidied_total",
    ),
    "media.evicted": Event(
        INFO,
        "{contents} kept files have gone for others; {excess} bytes too many are left",
        "backhaul_media_evicted_total",
    ),
    "media.not_transformed": Event(
        WARNING,
        "nothing could be made of a file named by a row of {table}; on_failure: {then}",
        "backhaul_media_transforms_failed_total",
    ),
    "media.unread": Event(
        WARNING,
        "a file named by a row of {table} cannot be read, {tries} tries so far",
        "backhaul_media_unread_total",
    ),
    "media.untidy": Event(WARNING, "{folder} cannot be tidied: {error}", "backhaul_media_untidy_total"),
    "pace.halved": Event(
        INFO, "{direction}: less at once from now on ({dials}): {reason}", "backhaul_pace_halved_total"
    ),
    "pace.grown": Event(DEBUG, "{direction}: more at once from now on ({dials})", "backhaul_pace_grown_total"),
    "pace.interval": Event(
        DEBUG, "{direction}: its interval is {value} ms, was {before} ms: {reason}", "backhaul_pace_intervals_total"
    ),
    "push.sent": Event(DEBUG, "push: {ops} changes sent", "backhaul_push_batches_total"),
    "push.settled": Event(INFO, "push: {acked} acknowledged, {refused} refused", "backhaul_push_settled_total"),
    "push.parked": Event(WARNING, "push: {ops} changes are parked: {reason}", "backhaul_push_parked_total"),
    "conflict.opened": Event(
        WARNING, "conflict {conflict}: {table}: {reason}; it waits for a person", "backhaul_conflicts_opened_total"
    ),
    "conflict.resolved": Event(INFO, "conflict {conflict}: resolved: {choice}", "backhaul_conflicts_resolved_total"),
    "conflict.undone": Event(INFO, "conflict {conflict}: its resolution is undone", "backhaul_conflicts_undone_total"),
    "pull.applied": Event(INFO, "pull: {records} records applied", "backhaul_pull_pages_total"),
    "pull.set_aside": Event(
        WARNING, "pull: the app's own schema refuses {records} records; they are set aside", "backhaul_pull_aside_total"
    ),
    "replica.signed_in": Event(
        WARNING, "this database was the replica {was}; it is {replica} from now on", "backhaul_replica_signed_in_total"
    ),
    "replica.renumbered": Event(
        WARNING, "the server has lost what came after number {due}: it goes again", "backhaul_replica_renumbered_total"
    ),
    "replica.recovering": Event(WARNING, "everything is pulled anew: {because}", "backhaul_replica_recovering_total"),
    "replica.recovered": Event(
        WARNING, "recovered: {deleted} records deleted here, {offered} offered anew", "backhaul_replica_recovered_total"
    ),
    "blocks.given": Event(INFO, "numbers for the keys of {tables} tables are in hand", "backhaul_blocks_given_total"),
    "blocks.failed": Event(
        WARNING, "no numbers for keys could be had, asked again later: {error}", "backhaul_blocks_failed_total"
    ),
    "pull.caught_up": Event(
        INFO, "pull: {records} records for what is new here in {table}", "backhaul_pull_caught_up_total"
    ),
    "queue.opened": Event(INFO, "queue {queue} is open", "backhaul_gate_opened_total"),
    "queue.closed": Event(INFO, "queue {queue} is closed: {reason}", "backhaul_gate_closed_total"),
    "probe.changed": Event(
        INFO, "{condition}: the answer is {answer} now ({source}: {detail})", "backhaul_probe_changes_total"
    ),
    "broker.started": Event(INFO, "the broker runs at {address}", "backhaul_broker_started_total"),
    "broker.lost": Event(WARNING, "the broker cannot be reached: {error}", "backhaul_broker_lost_total"),
    "bell.failed": Event(DEBUG, "the bell could not be rung: {error}", "backhaul_broker_publish_failures_total"),
    "errand.failed": Event(WARNING, "the worker's {errand} failed: {error}", "backhaul_worker_errands_failed_total"),
    "upload.created": Event(INFO, "upload {upload}: {size} bytes to send", "backhaul_media_uploads_created_total"),
    "upload.advanced": Event(DEBUG, "upload {upload}: {sent} of {size} bytes", "backhaul_media_chunks_total"),
    "upload.done": Event(INFO, "upload {upload}: the server has all {size} bytes", "backhaul_media_uploads_done_total"),
    "upload.parked": Event(WARNING, "upload {upload}: parked: {reason}", "backhaul_media_uploads_parked_total"),
    "capture.renewed": Event(INFO, "the triggers of {tables} tables were made anew", "backhaul_capture_renewed_total"),
    "server.op_failed": Event(ERROR, "op {op} is refused: {error} in {place}", "backhaul_server_ops_failed_total"),
    "capture.followed": Event(
        INFO, "{tables} tables are captured as the scope has agreed by now", "backhaul_capture_followed_total"
    ),
    "capture.made_up_for": Event(
        WARNING, "{changes} edits of {table} were made while it had no triggers", "backhaul_capture_made_up_for_total"
    ),
    "leader.taken": Event(INFO, "{owner} leads the beats", "backhaul_leader_taken_total"),
    "leader.lost": Event(WARNING, "{owner} leads the beats no longer", "backhaul_leader_lost_total"),
}

_counters: Counter[str] = Counter()
_counting = Lock()


def emit(event: str, *, trace: BaseException | None = None, **fields: object) -> None:
    """Say that something happened. trace: an exception whose traceback goes to the log. A field left out reads `?`."""
    level, sentence, metric = CATALOGUE[event]
    with _counting:
        _counters[metric] += 1
    if logger.isEnabledFor(level):
        text = sentence.format_map(_Fields(fields))
        logger.log(level, "%s", text, exc_info=trace, extra={"event": event, "fields": fields})


def counters() -> dict[str, int]:
    """Every counter of this process by its metric's name; those of events that never happened are 0."""
    with _counting:
        return {event.metric: _counters[event.metric] for event in CATALOGUE.values()}


def _begin_in_the_child() -> None:
    global _counting
    _counting = Lock()  # another thread may have held it when this process was forked


os.register_at_fork(after_in_child=_begin_in_the_child)


class _Fields(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return "?"
