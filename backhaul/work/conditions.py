"""Conditions: what a machine may be just now (connected, charging, ...), and who says so. Owner of backhaul_condition.

A value comes from, each going before those above it:

    default       what is taken where nothing is known: KNOWN, or `[unknown]` in backhaul.toml
    probe         what was read of the machine, if it says yes or no and is not too old
    configured    `[conditions]` in backhaul.toml
    environment   BACKHAUL_CONDITION_UNMETERED=off
    published     by a host program, in the database
    override      by a person or an agent, in the database

Of two words of one source, that of the node goes before that of all nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal, get_args

from sqlalchemy import Boolean, ColumnElement, Connection, Text, bindparam, case, delete, literal, null, or_, select

from backhaul.errors import ConfigurationInvalid, Misused
from backhaul.schema import condition, worker
from backhaul.statements import insert
from backhaul.work.reading import STALE_MS, Answer, Reading, Readings, as_of, decode_readings, latest

KNOWN: Mapping[str, bool] = MappingProxyType(
    {
        "connected": True,
        "unmetered": True,
        "metered": False,
        "not_roaming": True,
        "charging": True,
        "battery_not_low": True,
        "device_idle": True,
        "storage_not_low": True,
        "not_quiet": True,
        "not_paused": True,
        "budget": True,
    }
)
IMPLIED = ("not_paused",)  # by every queue, and every work
MOST_SKEW_MS = 120_000
ENVIRONMENT_PREFIX = "BACKHAUL_CONDITION_"
SPOKEN: Mapping[str, bool] = MappingProxyType(
    {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
)
EVERY_NODE = ""
NOBODY = "none"  # the source of a reading that nothing on the machine gives
NOTHING: Mapping[str, Any] = MappingProxyType({})

Source = Literal["default", "probe", "configured", "environment", "published", "override"]
Said = Literal["published", "override"]
SAID: tuple[Said, ...] = get_args(Said)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """since, expires_at: milliseconds; not known for what is configured.

    node: of a word in the database, the one it is said for; "" for all. by, detail: of a probe, as people know it.
    answer, read_at: what the probe said, also where another word goes before it; None where there is none. good_for:
    how old that may be, milliseconds.
    """

    name: str
    value: bool
    source: Source = "default"
    since: int | None = None
    expires_at: int | None = None
    node: str = EVERY_NODE
    by: str = ""
    detail: str = ""
    answer: Answer | None = None
    read_at: int | None = None
    good_for: int = STALE_MS

    @property
    def who(self) -> str:
        """Who says so, for people."""
        about = f": {self.detail}" if self.detail else ""
        if self.source == "probe":
            return f"{self.by}{about}"
        if self.source == "default" and self.by:
            return f"default, unknown{about}" if self.by == NOBODY else f"default, unknown to {self.by}{about}"
        return self.source


def is_label(tag: str) -> bool:
    """Whether the tag says what a machine is (`region:eu`), and not what it must satisfy now."""
    return ":" in tag


def known_condition(name: str) -> str:
    """The name itself. Raises Misused, with the nearest name, when there is no such condition."""
    if name not in KNOWN:
        raise Misused(f"there is no condition {name!r}; there are {', '.join(KNOWN)}", hint=_nearest(name))
    return name


def spoken_value(text: str) -> bool:
    """on or off, as people and environments write it. Raises Misused."""
    try:
        return SPOKEN[text.strip().lower()]
    except KeyError:
        raise Misused(f"{text!r} is neither on nor off", hint="say on or off") from None


def effective(
    configured: Mapping[str, bool],
    environment: Mapping[str, str],
    overrides: Mapping[str, Condition],
    *,
    readings: Readings = NOTHING,
    unknown: Mapping[str, bool] = NOTHING,
    now: int = 0,
) -> dict[str, Condition]:
    """Every condition as it holds. Raises Misused for unknown names, ConfigurationInvalid for what is wrong in the
    environment.

    overrides: what the database says, as `overrides` gives it. unknown: what is taken where nothing is known, other
    than KNOWN.
    """
    read = {name: _read(readings.get(name), name, unknown.get(name, value), now) for name, value in KNOWN.items()}
    said: dict[str, Condition] = {}
    for name, value in configured.items():
        said[known_condition(name)] = Condition(name=name, value=value, source="configured")
    for name, value in from_environment(environment).items():
        said[known_condition(name)] = Condition(name=name, value=value, source="environment")
    return read | {name: _beside(read[name], one) for name, one in (said | dict(overrides)).items()}


def _read(reading: Reading | None, name: str, otherwise: bool, now: int) -> Condition:
    if reading is None:
        return Condition(name=name, value=otherwise)
    seen = as_of(reading, now)
    known = seen.answer != "unknown"
    return Condition(
        name=name,
        value=seen.answer == "yes" if known else otherwise,
        source="probe" if known else "default",
        since=seen.since,
        by=seen.source,
        detail=seen.detail,
        answer=seen.answer,
        read_at=seen.read_at,
        good_for=seen.good_for,
    )


def _beside(read: Condition, said: Condition) -> Condition:
    return (
        said if read.answer is None else replace(said, answer=read.answer, read_at=read.read_at, good_for=read.good_for)
    )


# ------------------------------------------------------------------------------------------------ in the database

_words = (
    select(condition, null().cast(Text).label("readings"))
    .where(condition.c.node.in_((EVERY_NODE, bindparam("of_node", type_=Text))))
    .where(or_(condition.c.expires_at.is_(None), condition.c.expires_at > bindparam("of_now")))
    # One for a while that was said in what is the future now, was said while the clock was ahead.
    .where(or_(condition.c.expires_at.is_(None), condition.c.set_at <= bindparam("of_latest")))
)
_seen = (
    select(
        worker.c.name,
        worker.c.node,
        literal("worker").label("source"),
        null().cast(Boolean).label("value"),
        worker.c.seen_at.label("set_at"),
        null().cast(condition.c.expires_at.type).label("expires_at"),
        worker.c.readings,
    )
    .where(worker.c.node == bindparam("of_node", type_=Text))
    .where(worker.c.seen_at.between(bindparam("of_earliest"), bindparam("of_latest")))
)
_words_and_readings = _words.union_all(_seen)


def implied_is_off() -> ColumnElement[bool]:
    """For another statement: whether any word, for whichever node, says that something implied is off. Whether that
    holds here is to be judged then."""
    named = or_(*(condition.c.name == name for name in IMPLIED))
    return select(condition.c.name).where(named, condition.c.value.is_(False)).correlate(None).exists()


def overrides(connection: Connection, now: int, node: str = EVERY_NODE) -> dict[str, Condition]:
    """What holds now of what was said for this node or for all, published or overridden. A word of a newer Backhaul, of
    a name unknown here, is left out."""
    said = {"of_node": node, "of_now": now, "of_latest": now + MOST_SKEW_MS}
    return _strongest(connection.execute(_words, said).all())


def said_and_read(
    connection: Connection, now: int, node: str, worker_name: str = ""
) -> tuple[dict[str, Condition], dict[str, Reading]]:
    """As `overrides`, and what the workers of this node have read of it, in one statement.

    worker_name: the one whose readings are taken, as long as it is heard of: its runs must not see the machine
    otherwise than its gate. A worker counts for as long as what it has read does, and not only while it is alive: a
    database that the app keeps busy may hold it up.
    """
    latest_at = now + MOST_SKEW_MS
    said = {"of_node": node, "of_now": now, "of_latest": latest_at, "of_earliest": now - STALE_MS}
    rows = connection.execute(_words_and_readings, said).all()
    seen = [row for row in rows if row.source == "worker"]
    own = [row for row in seen if row.name == worker_name]
    read = latest((one for row in own or seen for one in decode_readings(row.readings)), now)
    return _strongest([row for row in rows if row.source != "worker"]), read


def _strongest(rows: Any) -> dict[str, Condition]:
    weakest_first = sorted(rows, key=lambda row: (row.name, row.source == "override", row.node != EVERY_NODE))
    return {row.name: _from_row(row) for row in weakest_first if row.name in KNOWN}


def _from_row(row: Any) -> Condition:
    return Condition(
        name=row.name,
        value=row.value,
        source=row.source,
        since=row.set_at,
        expires_at=row.expires_at,
        node=row.node,
    )


def set_condition(
    connection: Connection,
    name: str,
    value: bool,
    *,
    now: int,
    expires_at: int | None = None,
    node: str = EVERY_NODE,
    source: Said = "override",
) -> Condition:
    """Say that a condition holds or not, until it is cleared or expires. Saying the same again keeps the time since
    when it holds. Returns the word itself, whatever goes before it."""
    statement = insert(connection, condition).values(
        name=known_condition(name), node=node, source=source, value=value, set_at=now, expires_at=expires_at
    )
    same = (condition.c.value == statement.excluded.value) & (
        condition.c.expires_at.is_(None) | (condition.c.expires_at > now)
    )
    row = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[condition.c.name, condition.c.node, condition.c.source],
            set_={
                "value": statement.excluded.value,
                "set_at": case((same, condition.c.set_at), else_=statement.excluded.set_at),
                "expires_at": statement.excluded.expires_at,
            },
        ).returning(condition)
    ).one()
    return _from_row(row)


def clear_condition(
    connection: Connection, name: str, *, node: str | None = EVERY_NODE, source: Said = "override"
) -> bool:
    """Whether there was a word to take back. node: None takes it back wherever it was said."""
    where = (condition.c.name == known_condition(name)) & (condition.c.source == source)
    if node is not None:
        where &= condition.c.node == node
    return bool(connection.execute(delete(condition).where(where).returning(condition.c.name)).all())


def forget_expired(connection: Connection, now: int) -> int:
    """Drop the words whose time is over; returns how many."""
    gone = delete(condition).where(condition.c.expires_at <= now).returning(condition.c.name)
    return len(connection.execute(gone).all())


def from_environment(environment: Mapping[str, str]) -> dict[str, bool]:
    """What BACKHAUL_CONDITION_... say. Raises ConfigurationInvalid, naming the variable."""
    values = {}
    for variable in environment:  # each look asks: of the others not even the text is read
        if variable.startswith(ENVIRONMENT_PREFIX):
            text = environment[variable]
            try:
                name = known_condition(variable.removeprefix(ENVIRONMENT_PREFIX).lower())
            except Misused as error:
                raise ConfigurationInvalid(f"{variable}: {error}", hint=error.hint) from None
            try:
                values[name] = spoken_value(text)
            except Misused as error:
                raise ConfigurationInvalid(f"{variable}: {error}", hint=f"{variable}=on or {variable}=off") from None
    return values


def _nearest(name: str) -> str:
    nearest = get_close_matches(name.lower().replace("-", "_"), KNOWN, n=1)
    return f"did you mean {nearest[0]}?" if nearest else "a label has a colon, as in region:eu"
