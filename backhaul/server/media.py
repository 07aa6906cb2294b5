"""Media over HTTP: tus 1.0.0 with creation, creation-with-upload, checksum, expiration and termination; and content.

What is answered as Upload-Offset is on disk. A chunk with a checksum is kept whole or not at all; of one without, all
that came is kept. The whole is held against the hash that was promised before anyone can ask for it. Memory stays at
one block, whatever is sent.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from backhaul.errors import Refused
from backhaul.server import exchange, tus
from backhaul.server.auth import Replica
from backhaul.server.files import Tail
from backhaul.server.intake import Intake
from backhaul.server.problems import refusal
from backhaul.server.receiving import Cut, Turns, blocks
from backhaul.server.tus import Checksum
from backhaul.server.uploads import Upload

COLLECTION = "/v1/media"
COMMIT_EVERY = 16 * 2**20  # bytes of a chunk without a checksum: what a crash can cost
ALL_METHODS = ["OPTIONS", "HEAD", "PATCH", "DELETE", "POST"]
KEPT = ("content-range",)  # of the headers that the framework gives to a refusal

Authenticate = Callable[[Request], Awaitable[Replica]]


class Media:
    def __init__(self, intake: Intake, most: int, authenticate: Authenticate) -> None:
        self._intake = intake
        self._most = most
        self._authenticate = authenticate
        self._turns = Turns()

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route(COLLECTION, self.collection, methods=["OPTIONS", "POST"]),
            Route(COLLECTION + "/sha256/{hash}", self.content, methods=["GET"]),
            Route(COLLECTION + "/{upload}", self.upload, methods=ALL_METHODS),
        ]

    async def collection(self, request: Request) -> Response:
        if _method(request) == "OPTIONS":
            return self._options()
        tus.check_version(request.headers)
        replica = await self._authenticate(request)
        if _method(request) != "POST":
            raise refusal("method-not-allowed", "uploads are made with POST")
        return await self._create(request, replica)

    async def upload(self, request: Request) -> Response:
        method = _method(request)
        if method == "OPTIONS":
            return self._options()
        tus.check_version(request.headers)
        replica = await self._authenticate(request)
        name = request.path_params["upload"]
        async with self._turns.take(name) as give_way:
            found = await run_in_threadpool(self._intake.find, replica, name)
            if method == "HEAD":
                return await self._head(found)
            if method == "PATCH":
                return await self._patch(request, found, give_way)
            if method == "DELETE":
                return await self._terminate(found)
        raise refusal("method-not-allowed", "an upload is asked with HEAD, continued with PATCH, ended with DELETE")

    async def content(self, request: Request) -> Response:
        """The whole content, or ranges of it (RFC 9110, 14); HEAD asks whether it is here."""
        replica = await self._authenticate(request)
        found = await run_in_threadpool(self._intake.content, replica, request.path_params["hash"])
        return _Content(
            self._intake.files.content(replica.scope, found.sha256),
            media_type=found.media_type,
            filename=found.name or found.sha256,
            headers={"ETag": f'"{found.sha256}"', "X-Content-Type-Options": "nosniff"},
        )

    async def _create(self, request: Request, replica: Replica) -> Response:
        length = tus.length(request.headers, self._most)
        metadata = request.headers.get("Upload-Metadata", "")
        tus.metadata(metadata)
        tus.checksum(request.headers)
        with_bytes = _has_body(request)
        if with_bytes:
            _check_is_chunk(request)
        await run_in_threadpool(self._intake.purge_now_and_then, self._turns.busy)
        made = await run_in_threadpool(self._intake.make, secrets.token_urlsafe(18), replica, length, metadata)
        if with_bytes or not length:
            made = await self._receive_first(request, made)
        location = {"Location": f"{COLLECTION}/{made.id}"}
        return Response(status_code=201, headers=location | _standing(made))

    async def _receive_first(self, request: Request, made: Upload) -> Upload:
        """The bytes that came with the creation. Whoever loses this answer knows no address: nothing is kept for it."""
        async with self._turns.take(made.id) as give_way:
            try:
                return await self._receive(request, made, give_way)
            except Refused:
                await run_in_threadpool(self._intake.discard, made.id)
                raise

    async def _head(self, upload: Upload) -> Response:
        if upload.position == upload.length:  # the server may have died between the last byte and its completion
            await run_in_threadpool(self._intake.complete, upload)
        headers = _standing(upload) | {"Upload-Length": str(upload.length)}
        if upload.metadata:
            headers["Upload-Metadata"] = upload.metadata
        return Response(status_code=200, headers=headers)

    async def _patch(self, request: Request, upload: Upload, give_way: asyncio.Event) -> Response:
        _check_is_chunk(request)
        if tus.integer(request.headers, "Upload-Offset") != upload.position:
            raise refusal("offset-mismatch", f"the upload stands at {upload.position}")
        return Response(status_code=204, headers=_standing(await self._receive(request, upload, give_way)))

    async def _terminate(self, upload: Upload) -> Response:
        await run_in_threadpool(self._intake.discard, upload.id)
        return Response(status_code=204)

    async def _receive(self, request: Request, upload: Upload, give_way: asyncio.Event) -> Upload:
        """Take the body in, and complete the upload if that was the rest of it."""
        checksum = tus.checksum(request.headers)
        _check_room(request, upload)
        if upload.position < upload.length:
            tail = await run_in_threadpool(self._intake.open, upload, checksum)
            try:
                upload = await self._take(request, upload, tail, checksum, give_way)
            finally:
                tail.close()
        if upload.position == upload.length:
            await run_in_threadpool(self._intake.complete, upload)
        return upload

    async def _take(
        self, request: Request, upload: Upload, tail: Tail, checksum: Checksum | None, give_way: asyncio.Event
    ) -> Upload:
        try:
            async for block in blocks(request, give_way):
                if tail.position + len(block) > upload.length:
                    raise refusal("upload-too-large", f"the upload has {upload.length} bytes")
                await run_in_threadpool(tail.write, block)
                if checksum is None and tail.position - upload.position >= COMMIT_EVERY:
                    upload = await run_in_threadpool(self._intake.commit, upload, tail)
            if checksum is not None and tail.checksum() != checksum.value:
                raise refusal("checksum-mismatch", "the bytes are not those of the checksum; they were thrown away")
        except Cut as cut:
            if checksum is None:
                await run_in_threadpool(self._intake.commit, upload, tail)
            raise refusal("request-timeout", "the rest of the bytes did not come") from cut
        except Refused:
            tail.cut_back(upload.position)
            raise
        return await run_in_threadpool(self._intake.commit, upload, tail)

    def _options(self) -> Response:
        headers = {
            "Tus-Version": tus.VERSION,
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Max-Size": str(self._most),
            "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        }
        return Response(status_code=204, headers=headers)


class _Content(FileResponse):
    """A file, whose refusals of a range are problems like all others."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: dict[int, Response] = {}

        async def sending(message: Message) -> None:
            status = message.get("status", 200) if message["type"] == "http.response.start" else 0
            if status in (400, 416):
                headers = {name: value for name, value in Headers(raw=message["headers"]).items() if name in KEPT}
                name = "range-unsatisfiable" if status == 416 else "malformed"
                refused[status] = exchange.failed(name, "the Range cannot be served", headers=headers)
            if not refused:
                await send(message)

        await super().__call__(scope, receive, sending)
        for response in refused.values():
            await response(scope, receive, send)


def _method(request: Request) -> str:
    """For clients that cannot send PATCH or DELETE (tus, "X-HTTP-Method-Override")."""
    return request.headers.get("X-HTTP-Method-Override", request.method).upper()


def _has_body(request: Request) -> bool:
    return request.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in request.headers


def _check_is_chunk(request: Request) -> None:
    if not tus.is_chunk(request.headers):
        raise refusal("unsupported-media-type", f"send the bytes as {tus.CHUNK_TYPE}")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise refusal("unsupported-coding", "the bytes of a file are sent as they are")


def _check_room(request: Request, upload: Upload) -> None:
    """Before a byte is read, if the request says how many will come."""
    announced = request.headers.get("Content-Length", "0")
    if announced.isdigit() and int(announced) > upload.length - upload.position:
        raise refusal("upload-too-large", f"the upload has {upload.length} bytes, of which {upload.position} are here")


def _standing(upload: Upload) -> dict[str, str]:
    return {
        "Upload-Offset": str(upload.position),
        "Upload-Expires": tus.expires(upload.expires_at),
        "Cache-Control": "no-store",
    }
