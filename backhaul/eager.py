"""Contents that are fetched when the record that names them arrives, and not when somebody opens them.

Which column of a table holds the hash is said in the settings. What is kept here, is on its way here, or was put here
is not asked for; what was let go later is not, either: it was here, and `open` brings it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from backhaul.bell import MediaRules, Queue
from backhaul.clock import Clock
from backhaul.files import DOWNLOAD, HASH
from backhaul.media import downloads
from backhaul.replica.pull import Brought
from backhaul.wire import Record
from backhaul.work import ledger
from backhaul.work.ledger import Entry
from backhaul.work.placing import place
from backhaul.work.request import WorkRequest


def fetching(rules: MediaRules, queues: Sequence[Queue], clock: Clock) -> Brought:
    """What a journey calls with what it has brought."""

    def brought(connection: Connection, records: Sequence[Record]) -> None:
        if rules.eager:
            requires = rules.download_requires
            want(connection, records, rules.eager, queues=queues, requires=requires, now=clock.now())

    return brought


def want(
    connection: Connection,
    records: Iterable[Record],
    columns: Mapping[str, str],
    *,
    queues: Sequence[Queue],
    requires: frozenset[str],
    now: int,
) -> int:
    """Ask for what these records name, each as work of its own; how many are new. columns: by table, where the hash
    stands. A handful of statements. Raises WorkUnplaceable."""
    named = (record.fields.get(columns[record.table]) for record in records if record.table in columns)
    hashes = {value for value in named if isinstance(value, str) and HASH.fullmatch(value)}
    lacking = downloads.lacking(connection, hashes) if hashes else []
    if not lacking:
        return 0
    queue = place(queues, requires, DOWNLOAD)
    entries = [
        Entry(WorkRequest(task=DOWNLOAD, id=f"download-{one}", requires=requires, input={"sha256": one}), queue.name)
        for one in lacking
    ]
    downloads.ask_all(connection, lacking, now=now)
    return len(ledger.enqueue_all(connection, entries, now=now))
