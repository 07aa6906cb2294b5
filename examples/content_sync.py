"""An hourly content sync: what the shop shows is fetched while the device is charging, over a network that costs
nothing, and laid out as one file for a program that does not know the database.

Put this file into the replica's folder, name it in backhaul.toml, and say that it is wanted. (It runs in the queue
`media`, which every replica has: it waits for room on the disk, too, and one of its own would not.)

    [work]
    modules = ["content_sync"]

    python content_sync.py
"""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from backhaul import Backhaul
from backhaul.work import Constraints, Context, PeriodicWork, worker

HERE = Path(__file__).resolve().parent
DATABASE = f"sqlite:///{HERE / 'shop.db'}"


@worker("content_sync.fetch")
def fetch(context: Context) -> dict[str, Any]:
    engine = create_engine(DATABASE)
    with closing(Backhaul(engine)) as client:
        client.session(context).download_all_server_changes(timeout=timedelta(minutes=10))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, name FROM customer ORDER BY id")).mappings().all()
    engine.dispose()
    context.check()  # stopped by now: what was fetched stays, and the file is written by the next run
    written = HERE / "content.json.part"
    written.write_text(json.dumps([dict(row) for row in rows]), "utf-8")
    written.replace(HERE / "content.json")
    return {"shown": len(rows)}


def schedule(client: Backhaul) -> None:
    """Takes the place of what was registered before, whatever its interval was; the hour begins now."""
    client.work.enqueue_unique_periodic(
        "content-sync",
        "cancel_and_reenqueue",
        PeriodicWork(
            fetch,
            every=timedelta(hours=1),
            constraints=Constraints(network="unmetered", charging=True),
            tags={"content"},
        ),
    )


if __name__ == "__main__":
    with closing(Backhaul(create_engine(DATABASE))) as here:
        schedule(here)
