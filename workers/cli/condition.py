"""backhaul condition: what a machine may do just now, as a person says it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from sqlalchemy import Connection

from backhaul.clock import iso
from backhaul.errors import Misused
from backhaul.work import conditions, roster
from backhaul.work.conditions import (
    EVERY_NODE,
    SAID,
    Condition,
    clear_condition,
    known_condition,
    set_condition,
    spoken_value,
)
from config.units import duration_ms
from workers.cli.here import Here, opened
from workers.cli.nodes import SHOWN_MS, condition_shown, conditions_elsewhere, say_conditions, seen_elsewhere
from workers.cli.options import AllNodes, AsJson, For, Home, Node
from workers.cli.output import say_json

Name = Annotated[str, typer.Argument(help=f"One of {', '.join(conditions.KNOWN)}.")]


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="A machine's conditions: queues open and close with them.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("set")(set_)
    group.command()(clear)
    program.add_typer(group, name="condition")


def list_(*, home: Home = None, node: Node = None, as_json: AsJson = False) -> None:
    """Every condition, whether it holds, who says so, and what the probe says."""
    with opened(home) as here:
        shown = [condition_shown(one, here.now) for one in in_force(here, node or here.settings.node)]
        named = node or here.settings.node
    if as_json:
        return say_json({"node": named, "conditions": shown})
    print(f"node {named}")
    return say_conditions(shown)


def set_(
    name: Name,
    value: Annotated[str, typer.Argument(metavar="on|off")],
    *,
    home: Home = None,
    node: Node = None,
    all_nodes: AllNodes = False,
    for_: For = None,
    as_json: AsJson = False,
) -> None:
    """Say that a condition holds, or does not, whatever is read or configured. The workers follow within a second."""
    known_condition(name)
    holds, lasting = spoken_value(value), lasting_ms(for_)
    with opened(home) as here:
        where = said_for(here, node, all_nodes)
        with here.database.writing() as connection:
            expires_at = None if lasting is None else here.now + lasting
            said = set_condition(connection, name, holds, now=here.now, expires_at=expires_at, node=where)
            note_stranger(here, connection, where)
        _say(here, said, as_json)


def clear(
    name: Name, *, home: Home = None, node: Node = None, all_nodes: AllNodes = False, as_json: AsJson = False
) -> None:
    """Take back what was set: whatever else says something of it counts again."""
    known_condition(name)
    with opened(home) as here:
        where = said_for(here, node, all_nodes)
        with here.database.writing() as connection:
            clear_condition(connection, name, node=where)
            note_stranger(here, connection, where)
        there = conditions_there(here, where).get(name)
        if there is None:
            _say_seen(here, name, where, as_json)
        else:
            _say(here, there, as_json)


def in_force(here: Here, node: str) -> list[Condition]:
    """On that node. Raises Unknown."""
    if node != here.settings.node:
        return conditions_elsewhere(here, node)
    with here.database.reading() as connection:
        return list(here.conditions(connection)[0].values())


def conditions_there(here: Here, where: str) -> dict[str, Condition]:
    """On the node that a word was said for; for all nodes, on this one."""
    if where not in (EVERY_NODE, here.settings.node):
        with here.database.reading() as connection:
            return conditions.overrides(connection, here.now, where)
    return {one.name: one for one in in_force(here, here.settings.node)}


def said_for(here: Here, node: str | None, all_nodes: bool) -> str:
    """The node that is meant. Raises Misused."""
    if all_nodes and node is not None:
        raise Misused("--node and --all-nodes say different things", hint="one of them, or neither: this machine")
    return EVERY_NODE if all_nodes else node or here.settings.node


def note_stranger(here: Here, connection: Connection, node: str) -> None:
    """A slip of the pen in a node's name would go unnoticed."""
    known = {EVERY_NODE, here.settings.node} | {one.node for one in roster.alive(connection, here.now, SHOWN_MS)}
    if node not in known:
        print(f"note: no worker of a node {node!r} was heard of: backhaul status --nodes lists them", file=sys.stderr)


def lasting_ms(written: str | None) -> int | None:
    """Raises Misused."""
    try:
        return None if written is None else duration_ms(written)
    except ValueError as error:
        raise Misused(f"{written!r} is {error}") from None


def _say_seen(here: Here, name: str, node: str, as_json: bool) -> None:
    """Of another machine, of which nothing is said: what it is taken for there, only its workers know."""
    seen = seen_elsewhere(here, node).get(name)
    if as_json:
        return say_json(condition_shown(seen, here.now) if seen else {"name": name, "on": None, "source": None})
    if seen is None:
        return print(f"{name}: nothing is said of it any more on {node}; no worker of it was heard of")
    value = "on" if seen.value else "off"
    return print(f"{name}: nothing is said of it any more on {node}; what its workers see: {value} ({seen.who})")


def _say(here: Here, one: Condition, as_json: bool) -> None:
    if as_json:
        return say_json(condition_shown(one, here.now))
    until = f", until {iso(one.expires_at)}" if one.expires_at is not None else ""
    where = f" on {one.node}" if one.node else " on all nodes" if one.source in SAID else ""
    return print(f"{one.name} is {'on' if one.value else 'off'}{where} ({one.who}{until})")
