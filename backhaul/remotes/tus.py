"""Resumable uploads to a server: tus 1.0.0 with the extensions creation and checksum, under /v1/media; small files
by the dozen in one message; and downloads.

The protocol: https://tus.io/protocols/resumable-upload (core, creation, checksum). How far an upload has come is the
server's to say. The whole carries its SHA-256; a chunk carries one of its own, and is kept whole or not at all, where
nothing else guards its bytes: over plain http to another machine. Contents come in ranges (RFC 9110, 14).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256 as new_sha256

from backhaul.errors import Refused, Unreachable
from backhaul.remotes.answers import Answer, accept, message, signed_out, stranger
from backhaul.remotes.base import Fetched, Whole
from backhaul.remotes.connection import CONNECT_AND_READ, Body, Connection
from backhaul.remotes.elsewhere import MOVED, OUT_OF_RANGE, Elsewhere
from backhaul.remotes.endpoint import Endpoint
from backhaul.wire import CONTENTS_TYPE, MOST_HASHES, Entered, Hashes, NewContent, encode, packed

TUS = {"Tus-Resumable": "1.0.0"}
JSON = {"Content-Type": "application/json"}
MEDIA = "/v1/media"
ADDRESS = re.compile(rf"{MEDIA}/[0-9A-Za-z_-]+$")  # wherever the server stands, our address starts here
FORGOTTEN = (404, 410)
REVOKED = 403
CHECKSUM_MISMATCH = 460
WHOLE, PARTIAL = 200, 206
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


class TusRemote:
    """A MediaRemote. The arguments are those of HttpRemote."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        allow_plain: bool = False,
        timeout: tuple[float, float] = CONNECT_AND_READ,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._connection = Connection(url, token, allow_plain=allow_plain, timeout=timeout, endpoint=endpoint)
        self._elsewhere = Elsewhere(allow_plain=allow_plain, timeout=timeout, endpoint=endpoint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.origin!r})"

    def has(self, sha256: str) -> bool:
        answer = self._connection.exchange("HEAD", f"{MEDIA}/sha256/{sha256}", headers=TUS)
        if answer.status in FORGOTTEN and answer.from_backhaul:
            return False
        _accept_head(answer)
        return True

    def known(self, hashes: Sequence[str]) -> set[str]:
        """One request for each thousand."""
        wanted, found = sorted(set(hashes)), set[str]()
        for start in range(0, len(wanted), MOST_HASHES):
            asked = Hashes(hashes=wanted[start : start + MOST_HASHES])
            answer = self._connection.exchange("POST", f"{MEDIA}/known", headers=JSON, body=encode(asked))
            found.update(message(answer, Hashes).hashes)
        return found & set(wanted)

    def send_whole(self, contents: Sequence[Whole]) -> set[str]:
        told = [
            NewContent(sha256=one.sha256, size=len(one.content), name=one.name, media_type=one.media_type)
            for one in contents
        ]
        body = packed([(head, one.content) for head, one in zip(told, contents, strict=True)])
        headers = {"Content-Type": CONTENTS_TYPE}
        answer = self._connection.exchange("POST", f"{MEDIA}/contents", headers=headers, body=body)
        problems = message(answer, Entered).problems
        if len(problems) != len(told):
            raise stranger(answer, "it does not say of each content whether it has it")
        return {head.sha256 for head, problem in zip(told, problems, strict=True) if problem is None}

    def create(self, *, size: int, sha256: str, name: str, media_type: str) -> str:
        headers = create_headers(size=size, sha256=sha256, name=name, media_type=media_type)
        answer = self._connection.exchange("POST", MEDIA, headers=headers)
        accept(answer)
        return _address(answer)

    def sent(self, address: str) -> int | None:
        answer = self._connection.exchange("HEAD", address, headers=TUS)
        if answer.status in FORGOTTEN and answer.from_backhaul:
            return None
        _accept_head(answer)
        return number(answer, "Upload-Offset")

    def append(self, address: str, at: int, chunk: Body) -> int:
        answer = self._connection.exchange("PATCH", address, headers=self._append_headers(at, chunk), body=chunk)
        if answer.status == CHECKSUM_MISMATCH:
            raise Unreachable(f"{answer.origin} received damaged bytes and threw them away")
        accept(answer)
        return number(answer, "Upload-Offset")

    def fetch(self, sha256: str, at: int, most: int) -> Fetched:
        headers = {
            "Range": f"bytes={at}-{at + most - 1}",
            "If-Range": f'"{sha256}"',
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        answer = self._connection.exchange("GET", f"{MEDIA}/sha256/{sha256}", headers=headers)
        if answer.status == OUT_OF_RANGE and answer.from_backhaul and at == 0:
            return Fetched(b"", 0)  # no range is satisfiable where there is no byte
        if answer.status == MOVED and answer.from_backhaul:
            return self._fetch_elsewhere(answer, at, most)
        accept(answer)
        return _range(answer, at)

    def _append_headers(self, at: int, chunk: Body) -> dict[str, str]:
        return append_headers(at) if self._connection.guarded else append_headers(at) | checksum_header(chunk)

    def close(self) -> None:
        self._connection.close()
        self._elsewhere.close()

    def _fetch_elsewhere(self, told: Answer, at: int, most: int) -> Fetched:
        try:
            return _range(self._elsewhere.fetch(told, at, most), at)
        except Refused as refusal:
            if refusal.status == OUT_OF_RANGE and at == 0:
                return Fetched(b"", 0)
            raise


def create_headers(*, size: int, sha256: str, name: str, media_type: str) -> dict[str, str]:
    return TUS | {
        "Upload-Length": str(size),
        "Upload-Metadata": _metadata(sha256=sha256, filename=name, filetype=media_type),
    }


def append_headers(at: int) -> dict[str, str]:
    return TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at)}


def checksum_header(chunk: Body) -> dict[str, str]:
    return {"Upload-Checksum": f"sha256 {b64encode(new_sha256(chunk).digest()).decode()}"}


def _metadata(**values: str) -> str:
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in values.items())


def _address(answer: Answer) -> str:
    """The path of the upload. A host in the answer is not followed: the token is for the one we know."""
    found = ADDRESS.search(answer.headers.get("Location", ""))
    if found is None:
        raise stranger(answer, "it made an upload but does not say where")
    return found[0]


def _range(answer: Answer, at: int) -> Fetched:
    """A whole content instead of a range of it counts where it was asked for from its beginning."""
    if answer.status == WHOLE and at == 0:
        return Fetched(answer.body, len(answer.body))
    found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != PARTIAL or found is None:
        raise stranger(answer, "it does not say which part of the content it has sent")
    first, last, size = (int(number) for number in found.groups())
    if not first == at <= last < size or last + 1 - first != len(answer.body):
        raise stranger(answer, "it has sent another part of the content than was asked for")
    return Fetched(answer.body, size)


def number(answer: Answer, name: str) -> int:
    text = answer.headers.get(name, "")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise stranger(answer, f"it does not say how far the upload is: its {name} is no number")
    return int(text)


def _accept_head(answer: Answer) -> None:
    """A question has nothing to refuse, and its answer no body to say why: 403 is a replica that was revoked."""
    if answer.status == REVOKED and answer.from_backhaul:
        raise signed_out(answer)
    accept(answer)
