"""A content as an answer: the whole, or a range of it (RFC 9110, 13 and 14), a block at a time.

Several ranges at once are answered with the whole, as a server may (RFC 9110, 14.2).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from backhaul.server import exchange
from backhaul.server.contents.base import Blocks, ContentStore
from backhaul.server.uploads import Content

RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*")
SEVERAL = re.compile(r"bytes=[0-9\s,-]+")


class Malformed(Exception):
    """The Range cannot be read."""


class Unsatisfiable(Exception):
    """There are no such bytes."""


async def deliver(
    request: Request, store: ContentStore, scope: str, content: Content, threads: CapacityLimiter
) -> Response:
    """threads: on which the store is read. Raises Refused `not-found`, Busy."""
    headers = _headers(content)
    if f'"{content.sha256}"' in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers={"ETag": headers["ETag"]})
    disposition, media_type = headers["Content-Disposition"], content.media_type
    elsewhere = store.address(scope, content.sha256, disposition, media_type) if request.method == "GET" else None
    if elsewhere is not None:
        return Response(status_code=307, headers={"Location": elsewhere, "Cache-Control": "no-store"})
    try:
        start, stop = _wanted(request, content)
    except Malformed:
        return exchange.failed("malformed", "the Range cannot be served")
    except Unsatisfiable:
        told = {"Content-Range": f"bytes */{content.size}"}
        return exchange.failed("range-unsatisfiable", "the Range cannot be served", headers=told)
    partial = (start, stop) != (0, content.size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    headers["Content-Length"] = str(stop - start)
    status = 206 if partial else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    found = await anyio.to_thread.run_sync(store.read, scope, content.sha256, start, stop, limiter=threads)
    return _Delivery(found, status, headers, media_type, threads)


class _Delivery(StreamingResponse):
    def __init__(
        self, found: Blocks, status: int, headers: Mapping[str, str], media_type: str, threads: CapacityLimiter
    ) -> None:
        super().__init__(_read(found, threads), status, headers, media_type)
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._found.close()


async def _read(found: Blocks, threads: CapacityLimiter) -> AsyncIterator[bytes]:
    blocks = iter(found)
    while block := await anyio.to_thread.run_sync(next, blocks, b"", limiter=threads):
        yield block


def _headers(content: Content) -> dict[str, str]:
    name = content.name or content.sha256
    plain = quote(name, safe="") == name
    return {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{name}"'
        if plain
        else f"attachment; filename*=utf-8''{quote(name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "ETag": f'"{content.sha256}"',
        "X-Content-Type-Options": "nosniff",
    }


def _wanted(request: Request, content: Content) -> tuple[int, int]:
    """From the first byte up to the one after the last. Raises Malformed, Unsatisfiable."""
    said, whole = request.headers.get("Range"), (0, content.size)
    if request.method != "GET" or said is None or not said.startswith("bytes="):
        return whole  # other methods and other units have no ranges (RFC 9110, 14.2)
    if request.headers.get("If-Range", f'"{content.sha256}"') != f'"{content.sha256}"':
        return whole
    found = RANGE.fullmatch(said)
    if found is None and SEVERAL.fullmatch(said):
        return whole
    if found is None or not (found[1] or found[2]):
        raise Malformed
    if not found[1]:
        start, stop = max(0, content.size - int(found[2])), content.size
    else:
        start, stop = int(found[1]), min(int(found[2] or content.size) + 1, content.size)
        if found[2] and int(found[2]) < start:
            raise Malformed
    if start >= content.size or stop <= start:
        raise Unsatisfiable
    return start, stop
