"""What this machine is, its labels, and what it may do just now, its conditions."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sqlalchemy import Connection

from backhaul.work.conditions import Condition, effective, overrides
from backhaul.work.run import Conditions
from config.settings import Settings


def conditions_of(settings: Settings) -> Conditions:
    labels = frozenset(settings.labels)

    def now_in_force(connection: Connection, now: int) -> tuple[Mapping[str, Condition], frozenset[str]]:
        return effective(settings.conditions, os.environ, overrides(connection, now)), labels

    return now_in_force
