"""backhaul parked: the changes that were refused for good, and what a person does about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from backhaul.errors import Misused
from backhaul.replica import mending, outbox, parked, remap
from backhaul.work import ledger
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table

Op = Annotated[str, typer.Argument(metavar="OP", help="As `parked list` names it.")]
Ops = Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="As `parked list` names them.")]
All = Annotated[bool, typer.Option("--all", help="Every parked change.")]
Said = Annotated[
    list[str], typer.Argument(metavar="FIELD=VALUE...", help="Text or a number; FIELD:=JSON for null and others.")
]


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="Changes that the server refused for good, each with its reason.")
    group.callback(invoke_without_command=True)(_without_a_word)
    group.command("list")(list_)
    group.command("remap")(remap_)
    for command in (retry, edit, discard, export):
        group.command()(command)
    program.add_typer(group, name="parked")


def _without_a_word(context: typer.Context, *, home: Home = None, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_(home=home, as_json=as_json)


def list_(*, home: Home = None, as_json: AsJson = False) -> None:
    """The parked changes and why they are parked."""
    with opened(home) as here:
        rows = _rows(here)
        if as_json:
            return say_json({"parked": rows})
        table = make_table("op", "table", "key", "change", "captured", "reason")
        for row in rows:
            key = msgspec.json.encode(row["key"]).decode()
            reason = f"{row['reason']}: {row['detail']}"
            table.add_row(row["op"], row["table"], key, row["kind"], ago(row["captured_at"], here.now), reason)
        if not rows:
            return print("nothing is parked")
        say_table(table)
        if any(row["reason"] == "key-taken" for row in rows):
            print("key-taken: backhaul parked remap --all   (gives such rows another number)")
        if any(row["reason"] == "record-gone" for row in rows):
            print("record-gone: backhaul parked retry OP   (brings the record back, as it is here), or discard OP")
        return None


def retry(ops: Ops = None, *, home: Home = None, all_: All = False, as_json: AsJson = False) -> None:
    """Send parked changes again, as new ones: after what was wrong has been put right."""
    chosen = _chosen(ops, all_)
    with opened(home) as here:
        number = parked.retry(here.database, chosen, now=here.now)
        _wake_push(here)
    _say(number, "go out again with the next push", "retried", as_json)


def edit(op: Op, said: Said, *, home: Home = None, as_json: AsJson = False) -> None:
    """Have a parked change say something else, here too, and send it again."""
    fields = dict(map(_field, said))
    with opened(home) as here:
        with here.database.reading() as connection:
            typed = {name: _typed(value, _declared(connection, op, name)) for name, value in fields.items()}
        number = mending.edit(here.database, op, typed, now=here.now)
        _wake_push(here)
    _say(number, "go out again with the next push", "edited", as_json)


def remap_(ops: Ops = None, *, home: Home = None, all_: All = False, as_json: AsJson = False) -> None:
    """Give rows whose key is taken another number, here and in all that refers to them, and send them again."""
    chosen = _chosen(ops, all_)
    with opened(home) as here:
        done = remap.remap(here.database, here.remote, chosen, now=here.now)
        _wake_push(here)
    if as_json:
        return say_json({"remapped": [{"table": one.table, "old": one.old, "new": one.new} for one in done]})
    for one in done:
        print(f"{one.table} {one.old} is {one.new} now; {one.old} is as the server has it")
    return None if done else print("no parked change has a key that is taken")


def discard(ops: Ops = None, *, home: Home = None, all_: All = False, as_json: AsJson = False) -> None:
    """Give parked changes up: their records become what the server has."""
    chosen = _chosen(ops, all_)
    with opened(home) as here:
        number = parked.discard(here.database, here.remote, chosen)
    _say(number, "given up; their records are as the server has them", "discarded", as_json)


def export(
    *,
    home: Home = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: standard output.")] = None,
    as_json: AsJson = False,  # noqa: ARG001 - it is JSON anyway
) -> None:
    """Everything about every parked change, its fields too, as JSON."""
    with opened(home) as here:
        rows = _rows(here)
    if out is None:
        return say_json(rows)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
    return print(f"{len(rows)} parked changes are in {out}")


def _rows(here: Here) -> list[dict[str, Any]]:
    with here.database.reading() as connection:
        return [parked.exported(row) for row in outbox.parked(connection)]


def _chosen(ops: list[str] | None, all_: bool) -> list[str]:
    """None named means every one, further down; here that must be said."""
    if bool(ops) == all_:
        raise Misused("name the changes, or say --all", hint="backhaul parked list names them")
    return ops or []


def _field(said: str) -> tuple[str, tuple[str, bool]]:
    """The name, what is written for it, and whether that is JSON."""
    name, equals, value = said.partition("=")
    if not equals or not name.strip(":"):
        raise Misused(f"{said!r} is not FIELD=VALUE", hint="backhaul parked edit OP name=Ada, or name:=null")
    return name.removesuffix(":"), (value, name.endswith(":"))


def _declared(connection: Any, op: str, name: str) -> str:
    """The type of the column, as the table declares it."""
    known = parked.table_of(connection, op)
    return next((column.type for column in known.columns if column.name == name), "") if known else ""


def _typed(said: tuple[str, bool], declared: str) -> Any:
    value, is_json = said
    if is_json:
        try:
            return parked.value_of(value)
        except msgspec.MsgspecError as error:
            raise Misused(f"{value!r} is no JSON value", hint='null, true, 7, 0.5, "text" or {"hex":"00ff"}') from error
    for kind, read in (("INT", int), ("BOOL", _truth), ("REAL", float), ("FLOA", float), ("DOUB", float)):
        if kind in declared.upper():
            try:
                return read(value)
            except ValueError as error:
                raise Misused(f"{value!r} is no {declared}", hint="FIELD:=JSON says it exactly") from error
    return value


def _truth(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(value)
    return value == "true"


def _wake_push(here: Here) -> None:
    with here.database.writing() as connection:
        woken = ledger.wake(connection, "push", here.now, force=True)
    if woken is not None:
        here.bell.ring(woken.ring)


def _say(number: int, became: str, word: str, as_json: bool) -> None:
    if as_json:
        say_json({word: number})
    else:
        print(f"{number} {'change' if number == 1 else 'changes'}: {became}")
