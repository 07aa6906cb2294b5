"""`Backhaul(engine).conditions`: what a host program, which may know more of its machine than any probe, says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta

from backhaul.bell import Bell
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Misused
from backhaul.work.adjusting import milliseconds
from backhaul.work.conditions import Condition, clear_condition, set_condition
from backhaul.work.in_force import in_force


class NodeConditions:
    """Of this node, by the name that its settings give it. Its workers follow within a second."""

    def __init__(self, database: Database, bell: Bell, clock: Clock) -> None:
        self._database = database
        self._bell = bell
        self._clock = clock

    def publish(self, name: str, value: bool, *, for_: timedelta | None = None) -> Condition:
        """Say that a condition holds, or does not; an operator's override goes before it.

        for_: how long that counts; say it again in time, and a program that dies is believed no longer. None: until it
        is withdrawn. Returns what was said. Raises Misused, DatabaseBusy.
        """
        if not isinstance(value, bool):
            raise Misused(f"{name} is said to be {value!r}", hint="True or False")
        now, lasting = self._clock.now(), None if for_ is None else milliseconds("for_", for_)
        if lasting == 0:
            raise Misused("it would count for no time at all", hint="for_=timedelta(minutes=5)")
        expires_at = None if lasting is None else now + lasting
        with self._database.writing() as connection:
            return set_condition(
                connection, name, value, now=now, expires_at=expires_at, node=self._bell.node.name, source="published"
            )

    def withdraw(self, name: str) -> bool:
        """Take back what was published; whether there was something. Raises Misused, DatabaseBusy."""
        with self._database.writing() as connection:
            return clear_condition(connection, name, node=self._bell.node.name, source="published")

    def in_force(self) -> Mapping[str, Condition]:
        """Every condition, whether it holds, and who says so. Raises DatabaseBusy."""
        with self._database.reading() as connection:
            return in_force(connection, self._clock.now(), self._bell.node, os.environ)[0]
