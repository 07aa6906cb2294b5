"""backhaul condition: what this machine may do just now, as a person says it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from backhaul.clock import iso
from backhaul.errors import Misused
from backhaul.work import conditions
from backhaul.work.conditions import Condition, clear_condition, known_condition, set_condition, spoken_value
from config.units import duration_ms
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import make_table, say_json, say_table

Name = Annotated[str, typer.Argument(help=f"One of {', '.join(conditions.KNOWN)}.")]


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="The machine's conditions: queues open and close with them.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("set")(set_)
    group.command()(clear)
    program.add_typer(group, name="condition")


def list_(*, home: Home = None, as_json: AsJson = False) -> None:
    """Every condition, whether it holds, and who says so."""
    with opened(home) as here:
        known = _in_force(here)
    if as_json:
        return say_json({"conditions": [_shown(one) for one in known]})
    table = make_table("condition", "is", "says", "until")
    for one in known:
        table.add_row(one.name, _spoken(one.value), one.source, iso(one.expires_at) or "-")
    return say_table(table)


def set_(
    name: Name,
    value: Annotated[str, typer.Argument(metavar="on|off")],
    *,
    home: Home = None,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help='For example "2h"; else for good.')
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say that a condition holds, or does not, whatever is configured. The workers follow within a second."""
    known_condition(name)
    holds, lasting = spoken_value(value), _duration(for_)
    with opened(home) as here, here.database.writing() as connection:
        now = here.now
        expires_at = None if lasting is None else now + lasting
        said = set_condition(connection, name, holds, now=now, expires_at=expires_at)
    _say(said, as_json)


def clear(name: Name, *, home: Home = None, as_json: AsJson = False) -> None:
    """Take back what was set: the environment, backhaul.toml or the default say it again."""
    known_condition(name)
    with opened(home) as here:
        with here.database.writing() as connection:
            clear_condition(connection, name)
        said = next(one for one in _in_force(here) if one.name == name)
    _say(said, as_json)


def _in_force(here: Here) -> list[Condition]:
    with here.database.reading() as connection:
        return list(here.conditions(connection)[0].values())


def _duration(written: str | None) -> int | None:
    try:
        return None if written is None else duration_ms(written)
    except ValueError as error:
        raise Misused(f"{written!r} is {error}") from None


def _say(one: Condition, as_json: bool) -> None:
    if as_json:
        return say_json(_shown(one))
    until = f", until {iso(one.expires_at)}" if one.expires_at is not None else ""
    return print(f"{one.name} is {_spoken(one.value)} ({one.source}{until})")


def _shown(one: Condition) -> dict[str, Any]:
    return {
        "name": one.name,
        "on": one.value,
        "source": one.source,
        "since": one.since,
        "expires_at": one.expires_at,
    }


def _spoken(value: bool) -> str:
    return "on" if value else "off"
