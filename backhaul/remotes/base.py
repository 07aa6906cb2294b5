"""The remote seam: what a replica needs of a server. Below this line only bytes and HTTP, above it only our values.

Every method raises of our own errors alone: `Unreachable` (no answer, or one that cannot be read: the outcome is
unknown, the same call again is safe), `Busy` (with the wait that was asked for), `SignInRequired`, `Refused` (with
the problem's name and the HTTP status). `HttpRemote` speaks to a server; `MemoryRemote` is one, in memory, for tests.
One contract suite runs over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backhaul.wire import Block, Digest, OutgoingOp, Page, Pushed, Record, Registered, Table, Versions, Wanted


class Remote(Protocol):
    @property
    def signed_in_as(self) -> str | None:
        """The replica for which this remote speaks, as far as it is known."""

    def register(
        self, code: str, tables: Sequence[Table], name: str, *, was: str = "", nonce: str = "", knows: Versions = ()
    ) -> Registered:
        """Spend a one-time code; the token that comes back is this remote's from then on.

        was: the replica that this one was before. nonce: with the same one, the same code may be said again. knows: as
        for `succeed`."""

    def succeed(self, was: str, knows: Versions = ()) -> Registered:
        """Another identity for a replica that was copied, or put back. This remote speaks for it from then on, with the
        token that it has: who is not the first to ask must leave no token that is of another than the database.

        was: the identity that its database has. knows: the versions of what that database has written.
        """

    def become(self, registered: Registered) -> None:
        """The database is that successor now: its token is this remote's from then on, and is stored."""

    def speak_for(self, replica: str) -> None:
        """Ask for this replica from now on, with the token that there is. Raises Refused `replica-unrelated` when that
        is of none that it was; the remote speaks for whom it spoke then."""

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        """Tell the server the tables as they are now; the scope's tables come back, as they are agreed."""

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        """Send ops in the order of their send seq, groups whole; one result for each op that has an outcome."""

    def pull(self, cursor: str, limit: int, *, sent: int | None = None, settled: int | None = None) -> Page:
        """The records that changed since the cursor ("" is the beginning), oldest first, groups whole.

        sent: the last number that this replica has given out, from before the request; a server that has outcomes of
        later ones knows that the database was copied, or put back. settled: the number up to which this replica, that
        pushes in one lane, knows every outcome; a server that has none of some of them knows that it was put back.
        """

    def catch_up(self, cursor: str, limit: int, table: str, columns: Sequence[str]) -> Page:
        """As `pull`, but of one table alone, and of nothing but these columns, unless there are none."""

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        """The records of these (table, key), whole, as they are now; those the server never had are left out."""

    def blocks(self, wanted: Mapping[str, Wanted]) -> list[Block]:
        """Numbers that are this replica's alone, for the keys of these tables; a table that has none is left out."""

    def digest(self) -> Digest:
        """Count and fingerprint of every table, at one position of the feed."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Fetched:
    """A part of a content. size: of the whole content, in bytes."""

    content: bytes
    size: int


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A small content, with what an upload says of it."""

    sha256: str
    name: str
    media_type: str
    content: bytes


class MediaRemote(Protocol):
    """Resumable uploads (tus 1.0). chunk: bytes of one append; an append is kept whole or not at all."""

    def fetch(self, sha256: str, at: int, most: int) -> Fetched:
        """What the content holds from this byte on, at most so many bytes (and at least one, where there are more).

        Raises Refused: 404 when the server does not have it, 416 for a place beyond its end.
        """

    def has(self, sha256: str) -> bool:
        """Whether the server has this content, whole and checked."""

    def known(self, hashes: Sequence[str]) -> set[str]:
        """Those of these contents that the server has, as `has` would say of each."""

    def send_whole(self, contents: Sequence[Whole]) -> set[str]:
        """Send contents whole, in one message; returns those of them that the server has then. It judges each by
        itself; why it does not take one is said when that is uploaded."""

    def create(self, *, size: int, sha256: str, name: str, media_type: str) -> str:
        """A new upload; returns its address, relative to the server."""

    def sent(self, address: str) -> int | None:
        """How many bytes of the upload the server has; None when it does not know the upload (any more)."""

    def append(self, address: str, at: int, chunk: bytes | memoryview) -> int:
        """Send bytes; returns how many the server has then. The chunk is not kept beyond the call.

        Raises Refused: `offset-mismatch` (409) when `at` is wrong, `content-mismatch` when the whole is not what its
        hash promised, status 404 or 410 when the server does not know the upload (any more).
        """

    def close(self) -> None: ...
