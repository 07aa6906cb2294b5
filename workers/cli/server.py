"""backhaul serve, backhaul enroll: the sync server, and who may join it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from backhaul.errors import Misused
from backhaul.server.settings import Settings
from config.loading import load
from workers.cli.options import AsJson, Home
from workers.cli.output import say_json
from workers.enrolment import make_code, write_record

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="The server's folder: its database and media.")
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="Another database, for example postgresql://HOST/NAME.")
]


def add_to(program: typer.Typer) -> None:
    program.command()(serve)
    program.command()(enroll)
    program.command("server-write")(write)


def serve(
    *,
    home: Home = None,
    data: Data = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on.")] = None,
    database: DatabaseUrl = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="PEM", help="Speak HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="PEM")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the sync server, until Ctrl-C or SIGTERM. Its address is said when it listens."""
    from backhaul.server.serve import serve as run_server

    settings = _settings(home, data, database, port, host, tls_cert, tls_key)

    def say(listening: int) -> None:
        url = f"{'https' if tls_cert else 'http'}://{_bracketed(settings.host)}:{listening}"
        if as_json:
            say_json({"url": url, "port": listening, "data": str(settings.data)})
        else:
            print(f"listening on {url}", flush=True)

    os.umask(0o077)  # the database holds everybody's data, and what proves who they are
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every revision that it looks at
    run_server(settings, on_ready=say)


def enroll(
    *,
    home: Home = None,
    data: Data = None,
    scope: Annotated[str, typer.Option("--scope", metavar="NAME", help="What the replica will share.")] = "default",
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a fresh one-time code, alone on a line: what `backhaul init` needs. It is good for an hour."""
    code = make_code(server_settings(home, data, database), scope)
    if as_json:
        say_json({"code": code, "scope": scope})
    else:
        print(code)


def write(
    *,
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    key: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="The parts of the key; a negative number after --.")
    ],
    fields: Annotated[str, typer.Option("--fields", metavar="JSON", help='The values: \'{"price": "9.90"}\'.')],
    home: Home = None,
    data: Data = None,
    scope: Annotated[str, typer.Option("--scope", metavar="NAME")] = "default",
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Write a record as the server itself: in columns that are merged as `server_wins`, that stands."""
    try:
        said = json.loads(fields)
    except ValueError as error:
        raise Misused(f"--fields is no JSON: {error}", hint='--fields \'{"price": "9.90"}\'') from error
    if not isinstance(said, dict):
        raise Misused("--fields is no JSON object", hint='--fields \'{"price": "9.90"}\'')
    version = write_record(_settings(home, data or _of_up(home), database), scope, (table, key), said)
    if as_json:
        say_json({"version": version})
    else:
        print(f"written, as version {version}")


def server_settings(home: Path | None, data: Path | None, database: str | None) -> Settings:
    """The server whose folder is on this machine."""
    return _settings(home, data or _of_up(home), database)


def _of_up(home: Path | None) -> Path | None:
    """The server that `backhaul up --server` runs in this folder, if there is one."""
    data = load(home, initialised=False).home / ".backhaul" / "server"
    return data if data.is_dir() else None


def _settings(
    home: Path | None,
    data: Path | None,
    database: str | None,
    port: int | None = None,
    host: str | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> Settings:
    """What was typed goes before backhaul.toml and the environment, `[server]`."""
    loaded = load(home, initialised=False)
    known = loaded.server
    return Settings(
        data=(data or loaded.home / known.data).resolve(),
        database_url=database or known.database,
        host=known.host if host is None else host,
        port=known.port if port is None else port,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        merge_modules=known.merge_modules,
        horizon_ms=known.horizon,
        media=known.media,
        media_quota=known.media_quota,
        media_types=known.media_types,
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
