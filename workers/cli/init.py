"""backhaul init: make the folder's database a replica, or bring a replica up to date after its tables were altered."""

from __future__ import annotations

import socket
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from backhaul.clock import SystemClock
from backhaul.database import sqlite_file
from backhaul.errors import AlreadyInitialised, Misused, NotInitialised
from backhaul.replica.enrol import Enrolled
from config.loading import INIT, load
from workers import joining
from workers.cli.options import AsJson, Home
from workers.cli.output import make_table, say_json, say_table
from workers.joining import Wanted
from workers.signing_in import sign_in

SAID = {
    "tables": "renewed",
    "gone": "gone, synced no more (what waits goes out; one that was only renamed: see tables.NAME.formerly)",
    "renamed": "renamed, with what waits",
    "new": "new columns (one that was only renamed: say so in backhaul.toml, see tables.NAME.renamed, first)",
    "uncertain": "edited while there was no trigger, perhaps (where another replica has edited the same "
    "field, its value stands: look, and write yours once more)",
}


def add_to(program: typer.Typer) -> None:
    program.command()(init)


def init(
    *,
    home: Home = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database", metavar="URL", help="The app's database: sqlite:///FILE or postgresql://USER@HOST/NAME."
        ),
    ] = None,
    remote: Annotated[str | None, typer.Option("--remote", metavar="URL", help="The sync server.")] = None,
    code: Annotated[str | None, typer.Option("--code", help="A one-time code from `backhaul enroll`.")] = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", metavar="NAME", help="Only this table; may be said again.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the server's people call this replica.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the database of this folder a replica of the server, in one step: everything, or nothing.

    In a folder that holds a replica: without --remote and --code, renew what captures its changes, after its tables
    were altered; --table adds a table. With --code alone, sign it in again; what waits is kept.
    """
    folder = replica_folder(home)
    if code and not (database or remote or table) and joining.holds_a_replica(load(folder, initialised=False)):
        return _sign_in(folder, code, name, as_json)
    if remote is None and code is None:
        return _renew(folder, table or [], as_json)
    if not (database and remote and code):
        raise _refusal_of_half(folder)
    wanted = Wanted(
        database=found_database(database, folder),
        remote=remote,
        code=code,
        name=name or f"{socket.gethostname()}:{folder.name}",
        tables=table or [],
    )
    _say_enrolled(folder, joining.join(folder, wanted, SystemClock()), as_json)
    return None


def _sign_in(folder: Path, code: str, name: str | None, as_json: bool) -> None:
    settings = load(folder)
    registered = sign_in(settings, code, name or f"{socket.gethostname()}:{folder.name}", SystemClock())
    if as_json:
        return say_json({"replica": registered.replica, "scope": registered.scope, "was": registered.succeeds or None})
    print(f"{folder} is replica {registered.replica} of the scope {registered.scope!r} from now on.")
    if not registered.succeeds:
        print("The server did not know what it was before: all its rows are sent.")
    return print("What waited still does, and goes out with the next push.")


def replica_folder(home: Path | None) -> Path:
    folder = load(home, initialised=False).home if home is None else home.resolve()
    if not folder.is_dir():
        raise Misused(f"there is no folder {folder}", hint="make it first, or name another --home")
    return folder


def _refusal_of_half(folder: Path) -> Misused:
    settings = load(folder, initialised=False)
    if joining.holds_a_replica(settings):
        return AlreadyInitialised(
            f"{folder} holds a replica of {settings.replica.remote} already; nothing was changed",
            hint="after altering tables run `backhaul init` without --remote and --code",
        )
    return Misused("--database, --remote and --code go together", hint=INIT)


def found_database(database: str, folder: Path) -> str:
    """A relative file is looked for beside backhaul.toml; one that is only here is named in full."""
    file = sqlite_file(database)
    if file is None or file.is_absolute() or (folder / file).exists() or not file.exists():
        return database
    return make_url(database).set(database=str(file.resolve())).render_as_string()


def _renew(folder: Path, names: list[str], as_json: bool) -> None:
    settings = load(folder, initialised=False)
    if not joining.holds_a_replica(settings):
        raise NotInitialised(f"{folder} holds no replica", hint=INIT)
    renewed = joining.bring_up_to_date(load(folder), names, SystemClock())
    if as_json:
        say_json(asdict(renewed) | {"renewed": renewed.tables})
    elif renewed.tables or renewed.gone:
        for what, names_of_it in asdict(renewed).items():
            if names_of_it:
                print(f"{SAID[what]}: {', '.join(names_of_it)}")
        print("the next pull fetches what the server has of what is new; what was only here is sent")
    else:
        print("all is up to date; nothing was changed")


def _say_enrolled(folder: Path, enrolled: Enrolled, as_json: bool) -> None:
    if as_json:
        return say_json(
            {
                "replica": enrolled.registered.replica,
                "scope": enrolled.registered.scope,
                "tables": [
                    {
                        "name": table.name,
                        "key": table.key,
                        "keys": table.keys,
                        "why": enrolled.why[table.name],
                        "columns": len(table.columns),
                    }
                    for table in enrolled.tables
                ],
                "left_out": [{"reason": str(one), "hint": one.hint} for one in enrolled.left_out],
            }
        )
    table = make_table("table", "key", "keys are", "because")
    for one in enrolled.tables:
        table.add_row(one.name, ", ".join(one.key), one.keys, enrolled.why[one.name])
    say_table(table)
    for unfit in enrolled.left_out:
        print(f"left out: {unfit} ({unfit.hint})")
    print(f"{folder} is replica {enrolled.registered.replica} of the scope {enrolled.registered.scope!r}.")
    print(
        "blocks: numbers of this replica's own. generated: two replicas could make the same one; such a row is parked,"
    )
    print("never merged (backhaul parked remap). natural: the same key is the same record everywhere.")
    return print("next: backhaul up")
