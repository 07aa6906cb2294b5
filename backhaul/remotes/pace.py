"""Ledger of backhaul_pace: how much at once and how often, as it was learned of the server and the link to it.

A row is one dial of one direction: how many ops and bytes a push may hold, and how many lanes are in use; how many
records a page; how many bytes a chunk of an upload; how long the interval of the pull and of the reconcile is. It says
what the dial was before, since when it is what it is, and why. No row: nothing was learned, and the usual stands. What
is learned of one endpoint says nothing of another. It outlives every process.

The arithmetic is in aimd.py. Who turns a dial reads it in the same transaction, so what two have learned adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from backhaul.aimd import SLOW_MS, Bounds, after, halved, interval_after
from backhaul.statements import text
from backhaul.telemetry import emit

Direction = Literal["push", "pull", "upload", "download", "reconcile"]
Dial = Literal["ops", "bytes", "lanes", "records", "interval"]

WENT_WELL = "exchanges go through"
FIRST_LOOK = "counted from the first look on"
ENDPOINT = "coalesce((SELECT remote FROM backhaul_replica), '')"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One dial. value, before, usual: in the dial's own unit; an interval is milliseconds. decided_at: milliseconds."""

    direction: Direction
    dial: Dial
    value: int
    before: int
    usual: int
    reason: str
    decided_at: int


Learned = Mapping[str, Pace]


def learned(connection: Connection, direction: Direction) -> Learned:
    """By dial, what is known of this direction of the present endpoint."""
    return {pace.dial: pace for pace in _read(connection, "AND direction = :direction", direction=direction)}


def decisions(connection: Connection) -> list[Pace]:
    """All that is known of the present endpoint, by direction and dial."""
    return _read(connection, "ORDER BY direction, dial")


def within(known: Learned, dial: Dial, most: int) -> int:
    """What a dial allows where the caller would like so much."""
    return min(most, known[dial].value) if dial in known else most


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One that was made. used: how much it was of, by dial. bounds: what these dials stay within."""

    direction: Direction
    used: Mapping[Dial, int]
    bounds: Mapping[Dial, Bounds]


def went_through(connection: Connection, exchange: Exchange, *, took_ms: int, now: int) -> None:
    """It had its answer. What was learned grows, unless the exchange was slow."""
    known, slow = learned(connection, exchange.direction), took_ms > SLOW_MS
    values = {}
    for dial, amount in exchange.used.items():
        if slow or dial in known:
            bounds = exchange.bounds[dial]
            values[dial] = after(within(known, dial, bounds.most), amount, took_ms, bounds)
    reason = f"an exchange took {took_ms / 1000:.1f} s" if slow else WENT_WELL
    _decide(connection, exchange, known, values, reason=reason, now=now)


def trouble(connection: Connection, exchange: Exchange, *, reason: str, now: int) -> None:
    """It was too much: the next ones may be half of that. Two who were too much together halve it once."""
    known, values = learned(connection, exchange.direction), {}
    for dial, amount in exchange.used.items():
        bounds = exchange.bounds[dial]
        values[dial] = min(within(known, dial, bounds.most), halved(amount, bounds))
    _decide(connection, exchange, known, values, reason=reason, now=now)


def interval(known: Learned, usual: int, bounds: Bounds) -> int:
    """How long the interval of a direction is; what was learned under another usual one is of no use any more."""
    found = known.get("interval")
    return bounds.within(usual if found is None or found.usual != usual else found.value)


def looked(
    connection: Connection, direction: Direction, *, changed: int, usual: int, bounds: Bounds, now: int
) -> int | None:
    """A periodic look has found so many changes. Returns the interval from now on; None when it stays as it is. The
    first look decides nothing: no interval has passed before it, and what it brings has gathered since whenever."""
    known = learned(connection, direction)
    before, found = interval(known, usual, bounds), known.get("interval")
    if found is None or found.usual != usual:
        _write(connection, direction, {"interval": (before, before, usual)}, reason=FIRST_LOOK, now=now)
        return None
    since = now - found.decided_at
    value = interval_after(before, usual=usual, bounds=bounds, changed=changed, since_ms=since)
    if value == before:
        return None
    reason = f"a look found {changed} changes" if changed else "an interval passed without a change"
    _write(connection, direction, {"interval": (value, before, usual)}, reason=reason, now=now)
    emit("pace.interval", direction=direction, before=before, value=value, reason=reason)
    return value


def _decide(
    connection: Connection, exchange: Exchange, known: Learned, values: Mapping[Dial, int], *, reason: str, now: int
) -> None:
    changed = {}
    for dial, value in values.items():
        most = exchange.bounds[dial].most
        before = within(known, dial, most)
        if value != before:
            changed[dial] = (value, before, most)
    if not changed:
        return
    direction = exchange.direction
    _write(connection, direction, changed, reason=reason, now=now)
    said = ", ".join(f"{dial} {before} -> {value}" for dial, (value, before, _) in changed.items())
    if reason == WENT_WELL:
        emit("pace.grown", direction=direction, dials=said)
    else:
        emit("pace.halved", direction=direction, dials=said, reason=reason)


def _write(
    connection: Connection,
    direction: Direction,
    changed: Mapping[Dial, tuple[int, int, int]],
    *,
    reason: str,
    now: int,
) -> None:
    """All of them in one statement, however many."""
    rows = ", ".join(
        f"({ENDPOINT}, :direction, '{dial}', :value_{dial}, :before_{dial}, :usual_{dial}, :reason, :now)"
        for dial in changed
    )
    statement = f"""
        INSERT INTO backhaul_pace (endpoint, direction, dial, value, value_before, usual, reason, decided_at)
        VALUES {rows}
        ON CONFLICT (endpoint, direction, dial) DO UPDATE
        SET value = excluded.value, value_before = excluded.value_before, usual = excluded.usual,
            reason = excluded.reason, decided_at = excluded.decided_at
    """  # noqa: S608 - the dials are our own words
    values: dict[str, int | str] = {"direction": direction, "reason": reason[:500], "now": now}
    for dial, (value, before, usual) in changed.items():
        values |= {f"value_{dial}": value, f"before_{dial}": before, f"usual_{dial}": usual}
    connection.execute(text(statement), values)


def _read(connection: Connection, which: str, **values: str) -> list[Pace]:
    statement = f"""
        SELECT direction, dial, value, value_before, usual, reason, decided_at
        FROM backhaul_pace WHERE endpoint = {ENDPOINT} {which}
    """  # noqa: S608 - the parts are constants
    return [
        Pace(
            direction=row.direction,
            dial=row.dial,
            value=row.value,
            before=row.value_before,
            usual=row.usual,
            reason=row.reason,
            decided_at=row.decided_at,
        )
        for row in connection.execute(text(statement), values)
    ]
