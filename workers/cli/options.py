"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="The replica's folder; default: BACKHAUL_HOME, else the current folder.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Node = Annotated[
    str | None, typer.Option("--node", metavar="NAME", help="Another machine, as `status --nodes` calls it.")
]
AllNodes = Annotated[bool, typer.Option("--all-nodes", help="Every machine that works for this replica.")]
For = Annotated[str | None, typer.Option("--for", metavar="DURATION", help='For example "2h"; else for good.')]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the outcome; 75 when there is none in time.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", min=0, help="Seconds to wait at the most.")]
