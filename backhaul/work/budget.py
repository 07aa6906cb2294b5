"""The condition `budget`: whether there are bytes left for the link as it is now.

While the link costs nothing there always are. It costs something when `metered` holds, or `unmetered` does not; it is
roaming where, beside that, `not_roaming` does not. What bounds all such links bounds each kind, beside its own limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection

from backhaul.bell import Node
from backhaul.remotes import traffic
from backhaul.remotes.traffic import Budget, Limits, Spent, Used
from backhaul.work.conditions import Condition
from backhaul.work.reading import Answer

NAME = "budget"
SOURCE = "the ledger of traffic"
SAID = ("published", "override", "configured", "environment")
UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What may be spent, and was, in bytes, over links of one kind. None: as much as one likes."""

    day: int | None
    month: int | None
    spent_day: int
    spent_month: int


@dataclass(frozen=True, kw_only=True)
class Budgeted(Allowance):
    """What a node may spend, and has spent, over all metered links; and over each kind of them. network: what the
    link is now; None: it costs nothing. again_at: when there is some for it again, milliseconds; None while some is."""

    node: str
    network: str | None
    networks: Mapping[str, Allowance]
    again_at: int | None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One of those that bound a link. network: the kind of link; None: all that cost something."""

    network: str | None
    span: Literal["day", "month"]
    most: int
    spent: int

    @property
    def used_up(self) -> bool:
        return self.spent >= self.most

    def __str__(self) -> str:
        span = "today" if self.span == "day" else "this month"
        where = f" on {self.network} links" if self.network is not None else ""
        over = " is used up" if self.used_up else ""
        return f"{bytes_said(self.spent)} of {bytes_said(self.most)} {span}{where}{over}"


def network_of(conditions: Mapping[str, Condition]) -> str | None:
    """What kind of metered link this is; None when it costs nothing."""
    if conditions["unmetered"].value and not conditions["metered"].value:
        return None
    return "metered" if conditions["not_roaming"].value else "roaming"


def is_counted(node: Node, conditions: Mapping[str, Condition]) -> bool:
    """Whether the ledger of traffic has a say: a budget bounds the link as it is, and nobody has said otherwise."""
    network = network_of(conditions)
    if network is None or conditions[NAME].source in SAID:
        return False
    return bool(_bounding(node.budget, Spent(), network))


def with_budget(conditions: dict[str, Condition], node: Node, spent: Spent, now: int) -> dict[str, Condition]:
    """The conditions, with what the ledger of traffic says of `budget`, where it has a say."""
    if not is_counted(node, conditions):
        return conditions
    bounding = _bounding(node.budget, spent, network_of(conditions))
    left = not any(limit.used_up for limit in bounding)
    answer: Answer = "yes" if left else "no"
    detail = ", ".join(map(str, bounding))
    said = Condition(name=NAME, value=left, source="probe", by=SOURCE, detail=detail, answer=answer, read_at=now)
    return conditions | {NAME: said}


def budgeted(connection: Connection, now: int, node: Node, conditions: Mapping[str, Condition]) -> Budgeted:
    spent, network = traffic.spent(connection, node.name, traffic.local_day(now)), network_of(conditions)
    networks = {
        kind: _allowance(node.budget.networks.get(kind, Limits()), spent.networks.get(kind, Used()))
        for kind in traffic.NETWORKS
    }
    used_up = [limit for limit in _bounding(node.budget, spent, network) if limit.used_up]
    return Budgeted(
        node=node.name,
        network=network,
        networks=networks,
        again_at=_again_at(used_up, now) if used_up else None,
        **asdict(_allowance(node.budget, spent)),
    )


def bytes_said(number: int) -> str:
    """A number of bytes for people, as a budget is written."""
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"


def _bounding(budget: Budget, spent: Spent, network: str | None) -> list[Limit]:
    """The limits of all metered links, and those of this kind."""
    limits = _limits(None, budget, spent)
    if network is None:
        return limits
    return limits + _limits(network, budget.networks.get(network, Limits()), spent.networks.get(network, Used()))


def _limits(network: str | None, limits: Limits, used: Used) -> list[Limit]:
    day = [] if limits.day is None else [Limit(network=network, span="day", most=limits.day, spent=used.day)]
    if limits.month is None:
        return day
    return [*day, Limit(network=network, span="month", most=limits.month, spent=used.month)]


def _allowance(limits: Limits, used: Used) -> Allowance:
    return Allowance(day=limits.day, month=limits.month, spent_day=used.day, spent_month=used.month)


def _again_at(used_up: Sequence[Limit], now: int) -> int:
    """The next local midnight, or the one that begins the next month."""
    today = traffic.local_day(now)
    day = today + timedelta(days=1)
    if any(limit.span == "month" for limit in used_up):
        day = (today.replace(day=28) + timedelta(days=4)).replace(day=1)
    return int(datetime(day.year, day.month, day.day).timestamp() * 1000)
