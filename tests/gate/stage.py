"""A worker with a queue for each condition, and what can be seen of its gate.

Queues have names of their own for each stage, for those on RabbitMQ share a broker. Latencies are read from the
worker's log: Celery says when it lets go of a queue, and when it takes it up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from backhaul.clock import SystemClock
from backhaul.work import ledger
from backhaul.work.conditions import IMPLIED, KNOWN
from backhaul.work.ledger import Work
from backhaul.work.request import WorkRequest
from tests.crew import CONFIGURATION, ENDS_SECONDS, Crew
from tests.gate.line import Line
from tests.waiting import eventually

FLIPPED = tuple(KNOWN)  # the queue of one that every queue implies has no tag at all
ALONE = tuple(one for one in KNOWN if one not in IMPLIED)  # those that close one queue each, and not all
PREFETCHING = ("prefork", "threads")  # pools that hold what they cannot begin yet
SECONDS = 15.0  # wide: machines that run tests are busy
_LINE = re.compile(r"\[([\d-]+ [\d:,]+): INFO/MainProcess\] (Canceling queue|Started consuming from) (\S+)")


def configuration(name: str) -> str:
    start, end = CONFIGURATION.index("[queues.sync]"), CONFIGURATION.index("[sync]")
    queues = "".join(f"[queues.{name}-{one}]\ntags = {_tags(one)}\n" for one in FLIPPED)
    return CONFIGURATION[:start] + queues + CONFIGURATION[end:]


def _tags(condition: str) -> str:
    return "[]" if condition in IMPLIED else f'["{condition}"]'


class Stage:
    def __init__(self, name: str, pool: str, line: Line | None, *options: str, functions: str | None = None) -> None:
        """line: to RabbitMQ; None: a Redis of the crew's own."""
        self.name, self.pool, self.line = name, pool, line
        given: dict[str, Any] = {"functions": functions} if functions else {}
        home = Path(f"gate-{name}")
        self.crew = Crew(home, broker=line and line.url, configuration=configuration(name), **given)
        self.options = ("-P", pool, "-Q", ",".join(map(self.queue, FLIPPED)), *options)
        self.process = self.crew.worker("one", *self.options)

    def queue(self, condition: str) -> str:
        return f"{self.name}-{condition}"

    def flip(self, condition: str, value: bool) -> float:
        """How many seconds it took until the consumer had followed."""
        began, word = time.time(), "Started consuming from" if value else "Canceling queue"
        self.crew.set(**{condition: value})

        def followed() -> float | None:
            times = [at for at, said, queue in self.said() if (said, queue) == (word, self.queue(condition))]
            return next((at - began for at in times if at > began - 0.002), None)

        return eventually(followed, SECONDS, f"{self.queue(condition)} is {'open' if value else 'closed'}")

    def said(self) -> list[tuple[float, str, str]]:
        """When Celery let go of which queue, or took it up."""
        found = _LINE.findall(self.crew.log("worker-one"))
        return [(datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp(), said, queue) for at, said, queue in found]

    def touched(self) -> dict[str, int]:
        """How often each queue was opened or closed."""
        queues = [queue for _, _, queue in self.said()]
        return {queue: queues.count(queue) for queue in set(queues)}

    def enqueue(self, function: str, condition: str, *, asks: bool = True, **given: Any) -> Work:
        """asks: whether the work itself requires what its queue is for."""
        work = self.keep(function, condition, asks=asks, **given)
        self.crew.ring(work.ring)
        return work

    def keep(self, function: str, condition: str, *, asks: bool = True, **given: Any) -> Work:
        """In the database only: nobody rings."""
        requires = frozenset([condition]).difference(IMPLIED) if asks else frozenset[str]()
        request = WorkRequest(task=function, requires=requires, input=given)
        with self.crew.database.writing() as connection:
            return ledger.enqueue(connection, request, queue=self.queue(condition), now=SystemClock().now())

    def waiting(self, condition: str) -> int:
        """How many messages the broker holds; none while it cannot be asked."""
        try:
            return self.crew.waiting(self.queue(condition))
        except Exception:  # a connection that was lost meanwhile, in the words of either client
            return 0

    def open_all(self) -> None:
        self.crew.set(**dict.fromkeys(FLIPPED, True))
        eventually(lambda: len(self.gate()["consumed"]) == len(FLIPPED), SECONDS, "all is open", pause=0.2)

    def gate(self) -> dict[str, Any]:
        """What `celery inspect backhaul_gate` says."""

        def answer() -> Any:
            try:
                said = self.crew.app.control.inspect(["one@crew"], timeout=5)._request("backhaul_gate")
            except Exception:  # a connection that was lost meanwhile, in the words of either client
                return None
            return said and said["one@crew"]

        found: dict[str, Any] = eventually(answer, SECONDS, "the worker answers")
        return found

    def end_worker(self) -> None:
        """Its broker is there all the same."""
        self.process.terminate()
        self.process.wait(ENDS_SECONDS)
        if self.line is None:
            self.crew.broker.ensure()

    def begin_worker(self) -> None:
        word, log = "one@crew ready", "worker-one"
        before = self.crew.log(log).count(word)
        self.process = self.crew.start_worker("one", *self.options)
        eventually(lambda: self.crew.log(log).count(word) > before, 2 * SECONDS, "the worker is ready", pause=0.1)

    def cut(self) -> None:
        if self.line is None:
            self.crew.broker.end()
        else:
            self.line.cut()

    def mend(self) -> None:
        if self.line is None:
            eventually(self.crew.broker.answers, 30, "the broker is back")
        else:
            self.line.mend()


@contextmanager
def staged(name: str, pool: str, line: Line | None, *options: str, functions: str | None = None) -> Iterator[Stage]:
    stage = Stage(name, pool, line, *options, functions=functions)
    try:
        yield stage
    finally:
        stage.crew.end(now=line is not None)
