"""backhaul replicas, backhaul revoke: who may sync with this server, how far each one is, and shutting one out."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import RowMapping

from backhaul.clock import SystemClock, iso
from backhaul.errors import Unknown
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table
from workers.cli.server import Data, DatabaseUrl, server_settings
from workers.enrolment import known_replicas, revoke_replica


def add_to(program: typer.Typer) -> None:
    program.command()(replicas)
    program.command()(revoke)


def replicas(
    *,
    home: Home = None,
    data: Data = None,
    scope: Annotated[str | None, typer.Option("--scope", metavar="NAME", help="Those of this scope alone.")] = None,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """The replicas of this server: when each was heard of, and how far behind the feed it is."""
    known = known_replicas(server_settings(home, data, database), scope)
    if as_json:
        return say_json([_as_json(row) for row in known])
    now = SystemClock().now()
    table = make_table("replica", "scope", "name", "pushed", "pulled", "behind", "is")
    for row in known:
        behind = "-" if row["position"] is None else str(max(0, row["head"] - row["position"]))
        state = "revoked" if row["revoked_at"] else "good"
        pulled = ago(row["pulled_at"], now)
        table.add_row(row["replica"], row["scope"], row["name"], ago(row["seen_at"], now), pulled, behind, state)
    return say_table(table)


def revoke(
    replica: Annotated[str, typer.Argument(metavar="REPLICA", help="Its id, as `backhaul replicas` lists it.")],
    *,
    home: Home = None,
    data: Data = None,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """From now on this replica may not sync. It keeps what it has; a fresh code signs it in again, as another one."""
    if not revoke_replica(server_settings(home, data, database), replica):
        raise Unknown(f"there is no replica {replica!r}, or it is revoked already", hint="list them: backhaul replicas")
    if as_json:
        say_json({"revoked": replica})
    else:
        print(f"{replica} is revoked")


def _as_json(row: RowMapping) -> dict[str, object]:
    said: dict[str, object] = dict(row)
    times = {name: iso(row[name]) for name in ("created_at", "seen_at", "pulled_at", "revoked_at")}
    return said | times
