"""The remote seam: what a replica needs of a server. Below this line only bytes and HTTP, above it only our values.

Every method raises of our own errors alone: `Unreachable` (no answer, or one that cannot be read: the outcome is
unknown, the same call again is safe), `Busy` (with the wait that was asked for), `SignInRequired`, `Refused` (with
the problem's name and the HTTP status). `HttpRemote` speaks to a server; `MemoryRemote` is one, in memory, for tests.
One contract suite runs over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backhaul.wire import Block, Digest, OutgoingOp, Page, Pushed, Record, Registered, Table, Wanted


class Remote(Protocol):
    @property
    def signed_in_as(self) -> str | None:
        """The replica whose token this remote has, as far as it is known."""

    def register(self, code: str, tables: Sequence[Table], name: str, *, was: str = "", nonce: str = "") -> Registered:
        """Spend a one-time code; the token that comes back is this remote's from then on.

        was: the replica that this one was before. nonce: with the same one, the same code may be said again."""

    def succeed(self, was: str) -> Registered:
        """Another identity for a replica that was copied, or put back; its token is this remote's from then on.

        was: the identity that its database has.
        """

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        """Tell the server the tables as they are now; the scope's tables come back, as they are agreed."""

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        """Send ops in the order of their send seq, groups whole; one result for each op that has an outcome."""

    def pull(self, cursor: str, limit: int, *, sent: int | None = None) -> Page:
        """The records that changed since the cursor ("" is the beginning), oldest first, groups whole.

        sent: the last number that this replica has given out, from before the request; a server that has outcomes of
        later ones knows that the database was copied, or put back.
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


class MediaRemote(Protocol):
    """Resumable uploads (tus 1.0). chunk: bytes of one append; an append is kept whole or not at all."""

    def has(self, sha256: str) -> bool:
        """Whether the server has this content, whole and checked."""

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
