"""Uploads to a tus server of others: what is in tus 1.0.0 (core, creation), and nothing that only ours has.

What such a server lacks, and what is done without it:

    existence by hash        every content is sent; `has` and `known` name the one that this remote has seen whole
    the hash of the whole    an upload is taken to be whole when the server's offset is its length
    a chunk whole or none    of a chunk that is cut the server keeps what came, and says how much; the checksum is sent,
                             and counts where the server knows the extension
    problem details          the status alone says why

Nothing can be fetched from it, so `open` does not find there what the cache has let go: no setting puts it in the place
of the replica's own server. It is for `transfer.upload`, and it answers in tus alone, not in our protocol.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

from backhaul.errors import BackhaulError, Refused, SignInRequired, Unreachable
from backhaul.remotes.answers import OUT_OF_TIME, TOO_LARGE, Answer, failure, stranger
from backhaul.remotes.base import Fetched, Whole
from backhaul.remotes.connection import CONNECT_AND_READ, Body, Connection
from backhaul.remotes.tus import (
    CHECKSUM_MISMATCH,
    FORGOTTEN,
    TUS,
    append_headers,
    checksum_header,
    create_headers,
    number,
)

CONFLICT, LOCKED = 409, 423
PROBLEMS = {CONFLICT: "offset-mismatch", TOO_LARGE: "too-large", 404: "not-found", 410: "upload-expired"}


class PlainTusRemote:
    """A MediaRemote. url: where uploads are made. token: sent as bearer token, if there is one; never ours."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        allow_plain: bool = False,
        timeout: tuple[float, float] = CONNECT_AND_READ,
    ) -> None:
        place = urlsplit(url)
        self._url = url
        self._path = place.path or "/"
        self._connection = Connection(
            f"{place.scheme}://{place.netloc}", token, allow_plain=allow_plain, timeout=timeout
        )
        self._open: tuple[str, int, str] | None = None  # address, length and hash of the upload that was named last
        self._whole: str | None = None  # the content that was seen whole last

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.origin!r})"

    def has(self, sha256: str) -> bool:
        return sha256 == self._whole

    def known(self, hashes: Sequence[str]) -> set[str]:
        return {one for one in hashes if self.has(one)}

    def send_whole(self, contents: Sequence[Whole]) -> set[str]:  # noqa: ARG002 - the seam's
        """tus has no message of many: each is uploaded by itself."""
        return set()

    def create(self, *, size: int, sha256: str, name: str, media_type: str) -> str:
        headers = create_headers(size=size, sha256=sha256, name=name, media_type=media_type)
        answer = self._exchange("POST", self._path, headers)
        address = self._address(answer)
        self._open = (address, size, sha256)
        self._look(address, 0)
        return address

    def sent(self, address: str) -> int | None:
        try:
            answer = self._exchange("HEAD", address, TUS)
        except Refused as refusal:
            if refusal.status in FORGOTTEN:
                return None
            raise
        at = number(answer, "Upload-Offset")
        self._open = (address, number(answer, "Upload-Length"), _promised(answer))
        self._look(address, at)
        return at

    def append(self, address: str, at: int, chunk: Body) -> int:
        answer = self._exchange("PATCH", address, append_headers(at) | checksum_header(chunk), chunk)
        reached = number(answer, "Upload-Offset")
        self._look(address, reached)
        return reached

    def fetch(self, sha256: str, at: int, most: int) -> Fetched:  # noqa: ARG002 - the seam's
        """tus has no downloads."""
        raise Refused("a tus server gives nothing back", problem="no-downloads", status=405)

    def close(self) -> None:
        self._connection.close()

    def _look(self, address: str, at: int) -> None:
        if self._open is not None and self._open[:2] == (address, at):
            self._whole = self._open[2]

    def _exchange(self, method: str, path: str, headers: dict[str, str], body: Body = b"") -> Answer:
        answer = self._connection.exchange(method, path, headers=headers, body=body)
        if not answer.good:
            raise _meaning(answer)
        if answer.headers.get("Tus-Resumable") != TUS["Tus-Resumable"]:
            raise stranger(answer, "it does not speak tus 1.0.0")
        return answer

    def _address(self, answer: Answer) -> str:
        """The path of the upload, on the server that we know and on no other."""
        where = urlsplit(urljoin(self._url, answer.headers.get("Location", "")))
        here = urlsplit(self._url)
        if not answer.headers.get("Location") or (where.scheme, where.netloc) != (here.scheme, here.netloc):
            raise stranger(answer, "it made an upload but does not say where, or says elsewhere")
        return f"{where.path}?{where.query}" if where.query else where.path


def _meaning(answer: Answer) -> BackhaulError:
    status, origin = answer.status, answer.origin
    if status == 401:
        return SignInRequired(f"{origin} does not accept the token", hint="give it one that it knows")
    if status == CHECKSUM_MISMATCH:
        return Unreachable(f"{origin} received damaged bytes and threw them away")
    if status == LOCKED:
        return Unreachable(f"{origin} still holds the upload for another request")
    if status in OUT_OF_TIME or status == 429 or not 400 <= status < 500:
        return failure(answer)
    return Refused(f"{origin} refuses (HTTP {status})", problem=PROBLEMS.get(status, f"http-{status}"), status=status)


def _promised(answer: Answer) -> str:
    """The hash that was put into the metadata when the upload was made; "" without."""
    for pair in answer.headers.get("Upload-Metadata", "").split(","):
        name, _, coded = pair.strip().partition(" ")
        if name == "sha256":
            try:
                return b64decode(coded, validate=True).decode()
            except (NotBase64, UnicodeDecodeError):
                return ""
    return ""
