"""Everything that Backhaul raises, as a small tree sorted by what the caller can do about it.

    BackhaulError
    ├── Misused          the call or the configuration is wrong: a person changes it, nothing was done
    ├── TryLater         nothing is wrong that time does not heal: the same call again, later
    ├── SignInRequired   the token is not valid: sign in, the queue is kept
    ├── Refused          the other side will never accept this: a person decides
    └── Stopped          running work was asked to stop; it has checkpointed

The message says what happened, `hint` says what to type. Foreign errors become one of these once, at the edge
(`remotes/`, `database.py`, `config/loading.py`), and only these travel further.
"""

from __future__ import annotations

from typing import ClassVar


class BackhaulError(Exception):
    """Something in Backhaul could not be done."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().split("\n")[0])
        self.hint = hint


class Misused(BackhaulError):
    """The call or the configuration is wrong; nothing was done."""

    code = "misused"
    exit_status = 2


class ConfigurationInvalid(Misused):
    """backhaul.toml or the environment cannot be used."""

    code = "configuration-invalid"


class NotInitialised(Misused):
    """This folder holds no replica."""

    code = "not-initialised"


class AlreadyInitialised(Misused):
    """This folder holds a replica already."""

    code = "already-initialised"


class TableUnknown(Misused):
    """No such table."""

    code = "table-unknown"
    where: tuple[str, ...] = ()  # the setting that names it, if one does


class TableUnfit(Misused):
    """This table cannot be synced as it stands."""

    code = "table-unfit"
    where: tuple[str, ...] = ()  # the setting that cannot be, if it is one


class TableAltered(Misused):
    """A synced table was altered since `backhaul init`; nothing was sent or applied."""

    code = "table-altered"


class RemoteInsecure(Misused):
    """The remote would be spoken to in clear text across a network."""

    code = "remote-insecure"


class WorkUnplaceable(Misused):
    """No declared queue can serve this work."""

    code = "work-unplaceable"


class WorkerUnknown(Misused):
    """There is no worker function of this name."""

    code = "worker-unknown"


class Unknown(Misused):
    """There is no such record, change or work here."""

    code = "unknown"


class TryLater(BackhaulError):
    """The same call may succeed later."""

    code = "try-later"
    exit_status = 75  # EX_TEMPFAIL, sysexits(3)

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_ms = retry_after_ms  # what the other side asked for, if it did


class Unreachable(TryLater):
    """The remote did not answer, or not in a way that can be understood; the outcome is unknown."""

    code = "unreachable"


class TimedOut(Unreachable):
    """The exchange began, and was not through in time: the outcome is unknown, and less at once may do better."""

    code = "timed-out"


class Busy(TryLater):
    """The remote answered that it is busy."""

    code = "busy"


class DatabaseBusy(TryLater):
    """The database is locked by another program, or out of space."""

    code = "database-busy"


class LinkLimited(TryLater):
    """The file is larger than the link, as it is now, may carry."""

    code = "link-limited"


class StorageFull(TryLater):
    """The folder of kept media takes no more."""

    code = "storage-full"


class MediaNotHere(TryLater):
    """The content is not here.

    why: `waiting` (its download has been asked for, and goes on or is tried again), `constraint` (its queue is closed
    here), `budget` (the bytes of the day or the month are used up), `not-on-server` (nobody has sent it there yet),
    `refused` (the server refuses it, or its bytes are spoilt), `not-fetched` (and was not to be).
    """

    code = "media-not-here"

    def __init__(self, message: str | None = None, *, why: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.why = why


class BrokerUnreachable(TryLater):
    """The broker cannot be reached; nothing is lost, the workers are just not told at once."""

    code = "broker-unreachable"


class SignInRequired(BackhaulError):
    """The remote does not accept this replica's token; pending changes are kept."""

    code = "sign-in-required"
    exit_status = 77  # EX_NOPERM


class Refused(BackhaulError):
    """The remote refuses this for good.

    problem: the `type` of the problem details (RFC 9457) without its base, for example `batch-too-large`.
    status: the HTTP status. limit: the number that was exceeded, if that is the reason. due: of `sequence-gap` and
    `server-restored`, the number to go on with. cursor, position: of `server-restored`, the last place in the feed that
    both sides know.
    """

    code = "refused"
    exit_status = 65  # EX_DATAERR

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        problem: str = "refused",
        status: int = 400,
        due: int | None = None,
        cursor: str = "",
        position: int = 0,
        limit: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.problem = problem
        self.status = status
        self.due = due
        self.cursor = cursor
        self.position = position
        self.limit = limit


class MediaMissing(Refused):
    """The file to upload is not there, or is no longer the file that was registered."""

    code = "media-missing"


class Stopped(BackhaulError):
    """Running work was asked to stop."""

    code = "stopped"

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__(message or f"stopped: {reason}")
        self.reason = reason
