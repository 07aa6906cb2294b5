"""backhaul conflicts: what two replicas wrote at the same time, and what a person does about it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from backhaul.conflicts import Conflict, ContestedRecord, read_conflict, read_conflicts
from backhaul.errors import Misused
from backhaul.replica import resolution
from backhaul.wire import Value, from_plain
from backhaul.work import ledger
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table

Number = Annotated[int, typer.Argument(metavar="ID", help="As `conflicts list` numbers them.")]
Choice = Annotated[str | None, typer.Argument(metavar="[mine|theirs]", help="Which side is to stand.")]
Values = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Or what a field is to be: JSON, or text as it is. Repeatable."),
]
All = Annotated[bool, typer.Option("--all", help="Also those that were resolved in the last 30 days.")]


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="What two replicas wrote at the same time, for you to decide.", no_args_is_help=True)
    group.command("list")(list_)
    for command in (show, resolve, undo):
        group.command()(command)
    program.add_typer(group, name="conflicts")


def list_(*, home: Home = None, all_: All = False, as_json: AsJson = False) -> None:
    """The conflicts that wait for you."""
    with opened(home) as here, here.database.reading() as connection:
        found = read_conflicts(connection, resolved=all_)
    if as_json:
        return say_json({"conflicts": [_exported(one) for one in found]})
    table = make_table("id", "state", "since", "records", "mine", "theirs")
    for one in found:
        first = one.records[0]
        more = f" and {len(one.records) - 1} more" if len(one.records) > 1 else ""
        state = one.state if one.choice is None else f"{one.state}: {one.choice}"
        table.add_row(
            str(one.id),
            state,
            ago(one.opened_at, here.now),
            _name(first) + more,
            _side(first.mine),
            _side(first.theirs),
        )
    return say_table(table) if found else print("there is no conflict")


def show(number: Number, *, home: Home = None, as_json: AsJson = False) -> None:
    """One conflict, field by field: what was there, what this side wrote, what the other side has."""
    with opened(home) as here, here.database.reading() as connection:
        found = read_conflict(connection, number)
    if as_json:
        return say_json(_exported(found))
    print(f"conflict {found.id}, {found.state}: {found.reason}: {found.detail}")
    for record in found.records:
        table = make_table("field", "base", "mine", "theirs", title=f"{_name(record)}{_deleted(record)}")
        for name in sorted({*record.base, *(record.mine or {}), *(record.theirs or {})}):
            table.add_row(name, *(_value(side, name) for side in (record.base, record.mine, record.theirs)))
        say_table(table)
    if found.state == "open":
        print(f"decide: backhaul conflicts resolve {found.id} mine, or theirs, or --set FIELD=VALUE")
    return None


def resolve(
    number: Number, choice: Choice = None, *, values: Values = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Stand by this side, give in to the other, or say what the fields are to be. Works offline, too."""
    if (choice is None) == (not values):
        raise Misused("say mine or theirs, or what the fields are to be", hint=f"backhaul conflicts show {number}")
    with opened(home) as here:
        decided = choice if choice is not None else _values(values or [])
        resolution.resolve(here.database, number, decided, now=here.now)  # type: ignore[arg-type]  # any text is checked
        _push(here)
    _say(number, f"resolved: {choice or 'as you said'}; it goes out with the next push", "resolved", as_json)


def undo(number: Number, *, home: Home = None, as_json: AsJson = False) -> None:
    """Take a decision back: what it did away with is written again, as a new change."""
    with opened(home) as here:
        resolution.undo(here.database, number)
        _push(here)
    _say(number, "undone; what stood before goes out with the next push", "undone", as_json)


def _push(here: Here) -> None:
    with here.database.writing() as connection:
        woken = ledger.wake(connection, "push", here.now, force=True)
    if woken is not None:
        here.bell.ring(woken.ring)


def _values(said: list[str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not equals:
            raise Misused(f"{one!r} is no FIELD=VALUE", hint="for example: --set note='gate code 7'")
        try:
            values[name] = msgspec.json.decode(value, type=Value)
        except msgspec.MsgspecError:
            values[name] = value
    return values


def _exported(found: Conflict) -> dict[str, Any]:
    return {
        "id": found.id,
        "state": found.state,
        "reason": found.reason,
        "detail": found.detail,
        "opened_at": found.opened_at,
        "resolved_at": found.resolved_at,
        "choice": found.choice,
        "records": [
            {
                "table": record.table,
                "key": [from_plain(part) for part in record.key],
                "change": record.change,
                **{side: _wire(getattr(record, side)) for side in ("base", "mine", "theirs")},
            }
            for record in found.records
        ],
    }


def _wire(side: Any) -> Any:
    return None if side is None else {name: from_plain(value) for name, value in side.items()}


def _name(record: ContestedRecord) -> str:
    return f"{record.table} {msgspec.json.encode([from_plain(part) for part in record.key]).decode()}"


def _deleted(record: ContestedRecord) -> str:
    here = " (deleted here)" if record.mine is None else ""
    return here + (" (not there)" if record.theirs is None else "")


def _side(side: Any) -> str:
    return "deleted" if side is None else ", ".join(f"{name}={value}" for name, value in side.items())


def _value(side: Any, name: str) -> str:
    return "" if side is None or name not in side else str(side[name])


def _say(number: int, became: str, word: str, as_json: bool) -> None:
    if as_json:
        say_json({word: number})
    else:
        print(f"conflict {number} is {became}")
