"""One machine with its clock, its conditions and its work, for the tests of runs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.work import Work, WorkRequest, conditions, ledger, run
from backhaul.work.conditions import Condition, effective
from backhaul.work.context import Context
from backhaul.work.run import Body, Settled


class Bench:
    """One machine with its clock, its conditions and its work."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database, self.clock = database, clock

    def enqueue(self, **asked: Any) -> Work:
        with self.database.writing() as connection:
            request = WorkRequest(**{"task": "backhaul.upload", **asked})
            return ledger.enqueue(connection, request, queue="sync", now=self.clock.now())

    def run(self, work: Work, body: Body, *, queue: str | None = "sync", **options: Any) -> Settled:
        return run.run(
            self.database,
            work.id,
            work.generation,
            worker="w1",
            queue=queue,
            clock=self.clock,
            body=body,
            **{"conditions": _conditions, **options},
        )

    def row(self, work: Work) -> Work:
        with self.database.reading() as connection:
            row = ledger.get(connection, work.id)
        assert row is not None
        return row

    def switch(self, name: str, value: bool) -> None:
        with self.database.writing() as connection:
            conditions.set_condition(connection, name, value, now=self.clock.now())

    def cancel(self, work: Work) -> None:
        with self.database.writing() as connection:
            ledger.cancel_by_id(connection, work.id, now=self.clock.now(), by="the test")


def _conditions(connection: Connection, now: int) -> tuple[dict[str, Condition], frozenset[str]]:
    return effective({}, {}, conditions.overrides(connection, now)), frozenset()


def never(context: Context) -> None:
    raise AssertionError("this must not run")


def raising(error: BaseException) -> Body:
    def body(context: Context) -> None:
        raise error

    return body
