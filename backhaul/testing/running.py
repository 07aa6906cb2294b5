"""One run in the caller's thread: what a worker does with a message, without the message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import WorkerUnknown
from backhaul.testing.clock import MovedClock
from backhaul.work.context import Conditions, Context
from backhaul.work.functions import registered
from backhaul.work.request import CELERY_TASK
from backhaul.work.row import Work
from backhaul.work.run import Kind, Returned, run


@dataclass(frozen=True, kw_only=True)
class Ran:
    """kind: done, failed, retry, stopped or cancelled. work: the row as it stood after it. error: what the function
    raised, if it did."""

    id: str
    label: str
    kind: Kind
    reason: str
    work: Work | None
    error: Exception | None = None


def run_here(
    database: Database, work: Work, *, conditions: Conditions, clock: Clock, tasks: Mapping[str, Callable[..., Any]]
) -> Ran:
    raised: list[Exception] = []

    def body(context: Context) -> Returned:
        try:
            return _plain(context, tasks) if work.task == CELERY_TASK else registered(work.task).function(context)
        except Exception as error:
            raised.append(error)
            raise

    settled = run(
        database,
        work.id,
        work.generation,
        worker="harness",
        queue=None,
        conditions=conditions,
        clock=clock,
        body=body,
        watch=_at_every_look,
    )
    error = raised[-1] if raised else None
    return Ran(id=work.id, label=work.label, kind=settled.kind, reason=settled.reason, work=settled.work, error=error)


def _plain(context: Context, tasks: Mapping[str, Callable[..., Any]]) -> Returned:
    name = str(context.work.function)
    if name not in tasks:
        raise WorkerUnknown(f"the harness knows no task {name!r}", hint=f"Harness(tasks={{{name!r}: function}})")
    returned = tasks[name](*context.input["args"], **context.input["kwargs"])
    return returned if isinstance(returned, Mapping) else None


@contextmanager
def _at_every_look(context: Context) -> Iterator[None]:
    """A worker looks twice a second; where time stands still, that would be never."""
    context.__class__ = _Eager
    yield


class _Eager(Context):
    """Looks into the ledger whenever it is asked; waiting moves the clock, if it is one that can be moved."""

    @property
    def stopped(self) -> bool:
        self.look()
        return self.stop is not None

    def check(self, *, force: bool = False) -> None:  # noqa: ARG002 - it always looks
        super().check(force=True)

    def wait(self, seconds: float) -> bool:
        if not isinstance(self.clock, MovedClock):
            return super().wait(seconds)
        if not self.stopped:
            self.clock.advance(timedelta(seconds=seconds))
        return self.stopped
