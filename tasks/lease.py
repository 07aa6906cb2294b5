"""The lease of a run: short, and renewed by a thread while the process lives.

A body may be silent for long (a server that takes a minute to answer, a host's function that never calls `check`);
its work must not be taken for lost. A process that dies renews nothing, and its work runs again within seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from backhaul.errors import DatabaseBusy, Stopped
from backhaul.work import ledger
from backhaul.work.run import Context

LEASE_MS = 20_000
RENEW_SECONDS = 5.0


@contextmanager
def renewed(context: Context) -> Iterator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(ended, context), name="backhaul-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _renew_until(ended: threading.Event, context: Context) -> None:
    with suppress(Stopped):  # not this run's any more: the settling will say so
        while not ended.wait(RENEW_SECONDS):
            with suppress(DatabaseBusy), context.database.writing() as connection:
                ledger.renew(connection, context.work, now=context.clock.now(), lease_ms=LEASE_MS)
