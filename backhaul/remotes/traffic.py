"""Ledger of backhaul_traffic: how many bytes went over metered links, for each node, network and day.

What is counted is what the remotes send and receive: bodies as they travel, and the heads around them; not what TLS and
the retries of the network add. A day is one of the node's local time, and so is a month. Each exchange is put down to
the link as it was known when it ended. One transaction a second at most writes them down, one more at the end of a run,
and none while the link costs nothing; a process that is killed forgets a second's bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo

from sqlalchemy import Connection, text

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import DatabaseBusy

LOOK_EVERY_MS = 1_000
KEPT_DAYS = 400

NETWORKS = ("metered", "roaming")  # the kinds of link that cost something

Network = Callable[[Connection, int], str | None]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bytes to send and receive in a day, and in a month. None: as many as one likes."""

    day: int | None = None
    month: int | None = None

    def __bool__(self) -> bool:
        return self.day is not None or self.month is not None


@dataclass(frozen=True, kw_only=True)
class Budget(Limits):
    """What a node may send and receive over all metered links together; and over those of one kind, beside it."""

    networks: Mapping[str, Limits] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return super().__bool__() or any(self.networks.values())


@dataclass(frozen=True, kw_only=True)
class Used:
    """Bytes sent and received: today, and since the first of the month."""

    day: int = 0
    month: int = 0


@dataclass(frozen=True, kw_only=True)
class Spent(Used):
    """Over all metered links together; and over those of each kind that was used this month."""

    networks: Mapping[str, Used] = field(default_factory=dict)


class Meter:
    """Counts what a process sends and receives. network: what kind of metered link this is now; None: it is free."""

    def __init__(self, database: Database, clock: Clock, *, node: str, network: Network) -> None:
        self._database = database
        self._clock = clock
        self._node = node
        self._network = network
        self._link: str | None = None  # as it was at the last look
        self._looked_at = 0
        self._looking, self._counting = threading.Lock(), threading.Lock()
        self._counted: dict[tuple[str, date], tuple[int, int]] = {}  # by link and day

    def count(self, sent: int, received: int) -> None:
        now = self._clock.now()
        looked = self._look(now)
        if self._link is not None:
            self._keep({(self._link, local_day(now)): (sent, received)})
        if looked:
            self.write()

    def write(self) -> None:
        """Write down what was counted. Where the database is busy it is kept for the next time."""
        with self._counting:
            counted, self._counted = self._counted, {}
        if not counted:
            return
        try:
            with self._database.writing(lasting=False) as connection:
                for (network, day), (sent, received) in counted.items():
                    add(connection, node=self._node, network=network, day=day, sent=sent, received=received)
        except DatabaseBusy:
            self._keep(counted)

    def _look(self, now: int) -> bool:
        """Look what the link is, unless that was done within the last second."""
        with self._looking:
            if 0 <= now - self._looked_at < LOOK_EVERY_MS:
                return False
            try:
                with self._database.reading() as connection:
                    self._link = self._network(connection, now)
            except DatabaseBusy:
                return False
            self._looked_at = now
            return True

    def _keep(self, counted: Mapping[tuple[str, date], tuple[int, int]]) -> None:
        with self._counting:
            for place, (sent, received) in counted.items():
                before = self._counted.get(place, (0, 0))
                self._counted[place] = before[0] + sent, before[1] + received


def local_day(now: int, zone: tzinfo | None = None) -> date:
    """zone: None is this machine's."""
    return datetime.fromtimestamp(now / 1000, zone).date()


def add(connection: Connection, *, node: str, network: str, day: date, sent: int, received: int) -> None:
    statement = """
        INSERT INTO backhaul_traffic (node, network, day, sent, received)
        VALUES (:node, :network, :day, :sent, :received)
        ON CONFLICT (node, network, day) DO UPDATE
        SET sent = backhaul_traffic.sent + excluded.sent, received = backhaul_traffic.received + excluded.received
    """
    values = {"node": node, "network": network, "day": day.isoformat(), "sent": sent, "received": received}
    connection.execute(text(statement), values)


def spent(connection: Connection, node: str, day: date) -> Spent:
    """What this node has spent on that day, and in its month up to it."""
    statement = """
        SELECT network, sum(CASE WHEN day = :day THEN sent + received ELSE 0 END) AS today,
               sum(sent + received) AS month
        FROM backhaul_traffic WHERE node = :node AND day BETWEEN :first AND :day GROUP BY network
    """
    values = {"node": node, "day": day.isoformat(), "first": day.replace(day=1).isoformat()}
    rows = connection.execute(text(statement), values)
    networks = {row.network: Used(day=int(row.today), month=int(row.month)) for row in rows}
    day_, month = sum(one.day for one in networks.values()), sum(one.month for one in networks.values())
    return Spent(day=day_, month=month, networks=networks)


def forget_old(connection: Connection, day: date) -> None:
    """What was spent so long ago that nobody asks for it."""
    before = (day - timedelta(days=KEPT_DAYS)).isoformat()
    connection.execute(text("DELETE FROM backhaul_traffic WHERE day < :before"), {"before": before})
