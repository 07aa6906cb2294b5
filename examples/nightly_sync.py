"""A nightly sync of a local database: every 12 hours, when the battery is not low and the network costs nothing.

Put this file into the replica's folder, name it in backhaul.toml, and say once that it is wanted. (It runs in the queue
`background`, which every replica has.)

    [work]
    modules = ["nightly_sync"]

    python nightly_sync.py
"""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from backhaul import Backhaul
from backhaul.work import Constraints, Context, PeriodicWork, worker

DATABASE = f"sqlite:///{Path(__file__).resolve().parent / 'shop.db'}"
LONGEST = timedelta(minutes=5)


@worker("nightly_sync.sync")
def sync(context: Context) -> dict[str, Any]:
    """Signs in with the credentials that `backhaul init` has kept, sends what waits, fetches what is new, and closes.

    When the time is up, or the server cannot be reached, this is tried again later (TryLater); when the network or the
    battery is lost on the way, the work is stopped, and goes on from there once they are back.
    """
    with closing(Backhaul(create_engine(DATABASE))) as client, client.session(context) as session:
        sent = session.upload_all_local_changes(timeout=LONGEST)
        received = session.download_all_server_changes(timeout=LONGEST)
    return {"sent": sent.acked, "received": received.records}


def schedule(client: Backhaul) -> None:
    """May be called at each start of the program: what is there already stays as it is, and keeps its time."""
    client.work.enqueue_unique_periodic(
        "nightly-sync",
        "keep",
        PeriodicWork(
            sync,
            every=timedelta(hours=12),
            flex=timedelta(hours=12),
            constraints=Constraints(network="unmetered", battery_not_low=True),
            tags={"sync"},
        ),
    )


if __name__ == "__main__":
    with closing(Backhaul(create_engine(DATABASE))) as here:
        schedule(here)
