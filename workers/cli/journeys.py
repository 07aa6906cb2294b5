"""Push, pull and reconcile in the process of a command: the same run of the same work as a worker's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backhaul.eager import fetching
from backhaul.errors import Refused
from backhaul.replica.pull import pull
from backhaul.replica.push import push
from backhaul.replica.reconcile import reconcile
from backhaul.work.changes import noting
from backhaul.work.context import Context
from backhaul.work.ledger import Work
from backhaul.work.run import Settled, run
from config.machine import conditions_of
from config.retry import policy
from workers.cli.here import Here

Watch = Callable[[dict[str, Any] | None], None]


def run_in_this_process(here: Here, row: Work, watch: Watch) -> Settled:
    """watch: is given the progress, as it is said."""

    def body(context: Context) -> None:
        JOURNEYS[row.id](here, _Watched(context, watch))

    return run(
        here.database,
        row.id,
        row.generation,
        worker="backhaul",
        queue=None,
        conditions=conditions_of(here.settings),
        clock=here.clock,
        body=body,
    )


class _Watched:
    """A run's context whose progress is shown as it is said."""

    def __init__(self, context: Context, watch: Watch) -> None:
        self.check = context.check
        self._context = context
        self._watch = watch

    def progress(self, said: dict[str, Any]) -> None:
        self._watch(said)
        self._context.progress(said)


def _push(here: Here, context: _Watched) -> None:
    push(here.database, here.remote, retry=policy(here.settings, "push"), **_given(here, context))


def _pull(here: Here, context: _Watched) -> None:
    pull(here.database, here.remote, limit=here.settings.sync.pull_most_records, **_given(here, context))


def _given(here: Here, context: _Watched) -> dict[str, Any]:
    return {
        "clock": here.clock,
        "context": context,
        "on_reset": here.settings.sync.on_reset,
        "arriving": noting(here.clock),
        "brought": fetching(here.bell.media, here.bell.queues, here.clock),
    }


def _reconcile(here: Here, context: _Watched) -> None:
    compared = reconcile(here.database, here.remote, clock=here.clock, context=context, arriving=noting(here.clock))
    differing = [one.table for one in compared.tables if not one.equal]
    if compared.moving is None and differing:
        raise Refused(f"the server and this replica differ in {', '.join(differing)}", problem="tables-differ")


JOURNEYS = {"push": _push, "pull": _pull, "reconcile": _reconcile}
