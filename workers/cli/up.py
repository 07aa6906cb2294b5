"""backhaul up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from workers.cli.init import found_database, replica_folder
from workers.cli.options import AsJson, Home
from workers.cli.output import say_json
from workers.up import Options, Running
from workers.up import up as run_up

Port = Annotated[int | None, typer.Option("--server-port", min=1, max=65535, help="Default: 8765, or a free one.")]
FlowerPort = Annotated[int | None, typer.Option("--flower-port", min=1, max=65535, help="Default: 5555, or free.")]


def add_to(program: typer.Typer) -> None:
    program.command()(up)


def up(
    *,
    home: Home = None,
    server: Annotated[bool, typer.Option("--server", help="Also a sync server, in this folder.")] = False,
    server_port: Port = None,
    database: Annotated[
        str | None,
        typer.Option("--database", metavar="URL", help="Of the app, for the first --server."),
    ] = None,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Flower shows workers and tasks.")] = True,
    flower_port: FlowerPort = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", min=1, help="Processes of each worker.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run what this replica needs: broker, workers, beat and Flower, until Ctrl-C or SIGTERM."""
    folder = replica_folder(home)
    options = Options(
        server=server,
        server_port=server_port,
        flower=flower,
        flower_port=flower_port,
        concurrency=concurrency,
        database=found_database(database, folder) if database else None,
    )
    say = _silent if as_json else _say
    run_up(folder, options, ready=_ready_json if as_json else _ready, say=say)


def _say(line: str) -> None:
    print(line, flush=True)


def _silent(_: str) -> None:
    pass


def _ready_json(running: Running) -> None:
    say_json({"ready": True, **asdict(running)})


def _ready(running: Running) -> None:
    for name, address in running.addresses.items():
        print(f"{name:8} {address}")
    for name, queues in running.queues.items():
        print(f"worker   {name}: {', '.join(queues)}")
    print(f"logs     {running.logs}")
    print("ready; Ctrl-C ends it", flush=True)
