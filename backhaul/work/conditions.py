"""Conditions: what a machine may be just now (connected, charging, ...), and who says so. Owner of backhaul_condition.

A value comes from, each going before those left of it: the default, `[conditions]` in backhaul.toml, the environment
(`BACKHAUL_CONDITION_UNMETERED=off`), and an override that a person or an agent has set in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from sqlalchemy import Connection, case, delete, or_, select

from backhaul.errors import ConfigurationInvalid, Misused
from backhaul.schema import condition
from backhaul.statements import insert

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
    }
)
MOST_SKEW_MS = 120_000
ENVIRONMENT_PREFIX = "BACKHAUL_CONDITION_"
SPOKEN: Mapping[str, bool] = MappingProxyType(
    {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
)

Source = Literal["default", "configured", "environment", "override"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """since, expires_at: milliseconds; known for overrides only."""

    name: str
    value: bool
    source: Source = "default"
    since: int | None = None
    expires_at: int | None = None


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
    configured: Mapping[str, bool], environment: Mapping[str, str], overrides: Mapping[str, Condition]
) -> dict[str, Condition]:
    """Every condition as it holds. Raises Misused for unknown names, ConfigurationInvalid for unreadable values."""
    result = {name: Condition(name=name, value=value) for name, value in KNOWN.items()}
    for name, value in configured.items():
        result[known_condition(name)] = Condition(name=name, value=value, source="configured")
    for name, value in _from_environment(environment).items():
        result[known_condition(name)] = Condition(name=name, value=value, source="environment")
    return result | dict(overrides)


def overrides(connection: Connection, now: int) -> dict[str, Condition]:
    """The overrides that hold now. One that a newer Backhaul has set, of a name unknown here, is left out."""
    rows = connection.execute(
        select(condition)
        .where(or_(condition.c.expires_at.is_(None), condition.c.expires_at > now))
        # One for a while that was said in what is the future now, was said while the clock was ahead.
        .where(or_(condition.c.expires_at.is_(None), condition.c.set_at <= now + MOST_SKEW_MS))
        .order_by(condition.c.name)
    )
    return {
        row.name: Condition(
            name=row.name, value=row.value, source="override", since=row.set_at, expires_at=row.expires_at
        )
        for row in rows
        if row.name in KNOWN
    }


def set_condition(
    connection: Connection, name: str, value: bool, *, now: int, expires_at: int | None = None
) -> Condition:
    """Override a condition until it is cleared or expires. Saying the same again keeps the time since when it holds."""
    statement = insert(connection, condition).values(
        name=known_condition(name), value=value, set_at=now, expires_at=expires_at
    )
    same = (condition.c.value == statement.excluded.value) & (
        condition.c.expires_at.is_(None) | (condition.c.expires_at > now)
    )
    row = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[condition.c.name],
            set_={
                "value": statement.excluded.value,
                "set_at": case((same, condition.c.set_at), else_=statement.excluded.set_at),
                "expires_at": statement.excluded.expires_at,
            },
        ).returning(condition)
    ).one()
    return Condition(name=name, value=row.value, source="override", since=row.set_at, expires_at=row.expires_at)


def clear_condition(connection: Connection, name: str) -> bool:
    """Whether there was an override to clear."""
    statement = delete(condition).where(condition.c.name == known_condition(name)).returning(condition.c.name)
    return connection.execute(statement).one_or_none() is not None


def _from_environment(environment: Mapping[str, str]) -> dict[str, bool]:
    values = {}
    for variable, text in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            name = known_condition(variable.removeprefix(ENVIRONMENT_PREFIX).lower())
            try:
                values[name] = spoken_value(text)
            except Misused as error:
                raise ConfigurationInvalid(f"{variable}: {error}", hint=f"{variable}=on or {variable}=off") from None
    return values


def _nearest(name: str) -> str:
    nearest = get_close_matches(name.lower().replace("-", "_"), KNOWN, n=1)
    return f"did you mean {nearest[0]}?" if nearest else "a label has a colon, as in region:eu"
