"""backhaul pause, backhaul resume: a person's word that nothing runs for now, on this machine or on all."""

from __future__ import annotations

from typing import Any

import typer

from backhaul.clock import iso
from backhaul.work.conditions import EVERY_NODE, Condition, clear_condition, set_condition
from workers.cli.condition import conditions_there, lasting_ms, note_stranger, said_for
from workers.cli.here import Here, opened
from workers.cli.options import AllNodes, AsJson, For, Home, Node
from workers.cli.output import say_json

PAUSE = "not_paused"
STILL_PAUSED = 75


def add_to(program: typer.Typer) -> None:
    program.command()(pause)
    program.command()(resume)


def pause(
    *, home: Home = None, node: Node = None, all_nodes: AllNodes = False, for_: For = None, as_json: AsJson = False
) -> None:
    """Close every queue within a second, and stop what runs, with its progress kept. Nothing is lost."""
    lasting = lasting_ms(for_)
    with opened(home) as here:
        where = said_for(here, node, all_nodes)
        with here.database.writing() as connection:
            expires_at = None if lasting is None else here.now + lasting
            said = set_condition(connection, PAUSE, False, now=here.now, expires_at=expires_at, node=where)
            note_stranger(here, connection, where)
    if as_json:
        return say_json(paused_shown(said))
    return print(f"{_place(where)} is paused{_until(said)}: backhaul resume")


def resume(*, home: Home = None, node: Node = None, all_nodes: AllNodes = False, as_json: AsJson = False) -> int:
    """Take the pause back; with --all-nodes, that of each node, too. 75 when something else still pauses it."""
    with opened(home) as here:
        where = said_for(here, node, all_nodes)
        with here.database.writing() as connection:
            clear_condition(connection, PAUSE, node=None if all_nodes else where)
            note_stranger(here, connection, where)
        there = _pause_there(here, where)
    if as_json:
        say_json(paused_shown(there))
    elif there is None:
        print(f"{_place(where)} goes on")
    else:
        print(f"{_place(where)} is still paused, by {_said_by(there)}{_until(there)}")
    return 0 if there is None else STILL_PAUSED


def paused_shown(one: Condition | None) -> dict[str, Any]:
    if one is None:
        return {"paused": False}
    return {
        "paused": True,
        "node": one.node,
        "source": one.source,
        "since": one.since,
        "until": one.expires_at,
    }


def _pause_there(here: Here, where: str) -> Condition | None:
    there = conditions_there(here, where).get(PAUSE)
    return None if there is None or there.value else there


def _said_by(one: Condition) -> str:
    if one.source == "override":
        return "an override of all nodes (backhaul resume --all-nodes)" if one.node == EVERY_NODE else "an override"
    return {"published": "a host program"}.get(one.source, f"what is said in {one.source}")


def _until(one: Condition) -> str:
    return f" until {iso(one.expires_at)}" if one.expires_at is not None else ""


def _place(where: str) -> str:
    return where or "every node"
