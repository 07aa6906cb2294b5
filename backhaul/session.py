"""A session with the server, in the caller's own thread: everything out, everything in, and an end to it.

    with client.session(context) as session:
        session.upload_all_local_changes(timeout=timedelta(minutes=5))
        session.download_all_server_changes(timeout=timedelta(minutes=5))

The journeys are the workers' own, and claim what they send as these do: a session may run beside workers, and two of
them beside each other. What a worker has in hand is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, TypeVar

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Misused, TableAltered, TryLater
from backhaul.remotes.base import Remote
from backhaul.replica import outbox
from backhaul.replica.arriving import Arriving, untold
from backhaul.replica.pull import Brought, Received, pull
from backhaul.replica.push import Sent, push

LOOK_SECONDS = 0.1
Timeout = timedelta | float
Done = TypeVar("Done", Sent, Received)


class Run(Protocol):
    """What a session needs of the run of work that it is part of, if it is part of one."""

    def check(self) -> None: ...

    def progress(self, said: dict[str, Any]) -> None: ...


class Session:
    """Signed in with the credentials that `backhaul init` has kept. Without `with`, each call opens its own connection.

    Both calls raise TryLater when the time is up, with what is left, and whenever only time is missing (the server
    cannot be reached, is busy, the database is locked); SignInRequired; Refused; TableAltered, where more was done to a
    table than to add columns; and, inside a run of work, Stopped. What was sent and applied by then stands; what was
    not is kept. A request that is under way when the time is up is waited for.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        open_remote: Callable[[], Remote],
        *,
        wake_push: Callable[[], None] = lambda: None,
        run: Run | None = None,
        renew: Callable[[Remote], bool] = lambda _: False,
        arriving: Arriving = untold,
        brought: Brought = lambda _connection, _records: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._open_remote = open_remote
        self._wake_push = wake_push
        self._run = run
        self._renew = renew
        self._arriving = arriving
        self._brought = brought
        self._remote: Remote | None = None

    def __enter__(self) -> Session:
        """Raises SignInRequired, ConfigurationInvalid."""
        self._remote = self._open_remote()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remote, self._remote = self._remote, None
        if remote is not None:
            remote.close()

    def upload_all_local_changes(self, timeout: Timeout) -> Sent:
        """Until no change waits: everything that was committed before the call is on the server then, or parked with
        its reason (of that, the answer says how much). timeout: a timedelta, or seconds."""
        deadline = _Deadline(timeout, self._run, self._left_to_upload)
        acked = parked = 0
        with self._opened() as remote:
            while True:
                sent = self._renewing(push, remote, deadline)
                acked, parked = acked + sent.acked, parked + sent.parked
                if not self._waiting():
                    return Sent(acked=acked, parked=parked)
                deadline.check()  # a worker has the rest in hand, or had, and it goes again once its lease has passed
                time.sleep(LOOK_SECONDS)

    def download_all_server_changes(self, timeout: Timeout) -> Received:
        """Until what the server has is here, or set aside with its reason. timeout: a timedelta, or seconds."""
        deadline = _Deadline(timeout, self._run, lambda: "not all that the server has was downloaded yet")
        with self._opened() as remote:
            received = self._renewing(pull, remote, deadline)
        if received.offered:
            self._wake_push()
        return received

    def _renewing(self, journey: Callable[..., Done], remote: Remote, deadline: _Deadline) -> Done:
        """And once more, as workers do it, after tables have grown that need no person to be synced as they are now."""
        options = {
            "clock": self._clock,
            "context": deadline,
            "arriving": self._arriving,
            "brought": self._brought,
        }
        try:
            return journey(self._database, remote, **options)
        except TableAltered:
            if not self._renew(remote):
                raise
            return journey(self._database, remote, **options)

    @contextmanager
    def _opened(self) -> Iterator[Remote]:
        if self._remote is not None:
            yield self._remote
            return
        with closing(self._open_remote()) as remote:
            yield remote

    def _waiting(self) -> int:
        with self._database.reading() as connection:
            return outbox.waiting(connection)

    def _left_to_upload(self) -> str:
        number = self._waiting()
        return f"{number} {'change is' if number == 1 else 'changes are'} not uploaded yet"


class _Deadline:
    """The context of a journey that ends when its time is up, or when the run that it is part of is to stop."""

    def __init__(self, timeout: Timeout, run: Run | None, left: Callable[[], str]) -> None:
        self._until = time.monotonic() + _seconds(timeout)
        self._run = run
        self._left = left
        self._said: dict[str, Any] = {}

    def check(self) -> None:
        if self._run is not None:
            self._run.check()
        if time.monotonic() < self._until:
            return
        done, total = self._said.get("done"), self._said.get("total")
        far = f" ({done} of {total})" if total else ""
        raise TryLater(f"time is up: {self._left()}{far}", hint="what waits is kept: try again, with more time")

    def progress(self, said: dict[str, Any]) -> None:
        self._said = said
        if self._run is not None:
            self._run.progress(said)


def _seconds(timeout: object) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds >= 0:
        raise Misused(f"timeout is {timeout!r}", hint="timeout=timedelta(minutes=5), or seconds")
    return float(seconds)
