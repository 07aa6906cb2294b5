"""backhaul aside: records of the server that this database refuses, each with the reason."""

from __future__ import annotations

import typer

from backhaul.replica import aside, tables, tried_again
from backhaul.work.changes import noting
from workers.cli.here import opened
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="Records of the server that this database's own schema refuses, each with the reason.")
    group.callback(invoke_without_command=True)(_without_a_word)
    group.command("list")(list_)
    group.command()(retry)
    program.add_typer(group, name="aside")


def _without_a_word(context: typer.Context, *, home: Home = None, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_(home=home, as_json=as_json)


def list_(*, home: Home = None, as_json: AsJson = False) -> None:
    """The records that are set aside, and why they do not fit."""
    with opened(home) as here:
        with here.database.reading() as connection:
            rows = [dict(row) for row in aside.listed(connection)]
        if as_json:
            return say_json({"aside": rows})
        table = make_table("table", "key", "since", "last tried", "reason")
        for row in rows:
            since, tried = ago(row["since"], here.now), ago(row["tried_at"], here.now)
            table.add_row(row["table"], row["key"], since, tried, row["reason"])
        return say_table(table) if rows else print("nothing is set aside")


def retry(*, home: Home = None, as_json: AsJson = False) -> None:
    """Fetch them once more now, and see which fit: after what was in their way has been put right."""
    with opened(home) as here:
        with here.database.reading() as connection:
            names = [one.table.name for one in tables.checked(connection)]
        fitted = tried_again.after_a_page(here.database, here.remote, names, now=here.now, arriving=noting(here.clock))
        with here.database.reading() as connection:
            left = aside.count(connection)
    if as_json:
        return say_json({"fitted": fitted, "aside": left})
    return print(f"{fitted} fit now, {left} are still set aside")
