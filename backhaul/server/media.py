"""Media over HTTP: tus 1.0.0 with creation, creation-with-upload, checksum, expiration and termination; and content.

What is answered as Upload-Offset is kept, whatever becomes of this process; a power cut takes no more than the last few
MiB of it, and the offset says so then. A chunk with a checksum is kept whole or not at all; of one without, all that
came is kept. The whole is on disk, and held against the hash that was promised, before anyone can ask for it. Memory
stays at a few blocks, whatever is sent.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from typing import ParamSpec, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from backhaul.errors import Busy, Refused
from backhaul.server import exchange, tus
from backhaul.server.arrival import Arrival
from backhaul.server.auth import Replica
from backhaul.server.batch import Batch
from backhaul.server.delivery import deliver
from backhaul.server.expiry import Expiry
from backhaul.server.intake import Intake
from backhaul.server.problems import refusal
from backhaul.server.receiving import Turns, body
from backhaul.server.syncing import Syncing
from backhaul.server.tus import COLLECTION
from backhaul.server.uploads import Upload
from backhaul.wire import CONTENTS_TYPE, Entered, Hashes, unpacked

ALL_METHODS = ["OPTIONS", "HEAD", "PATCH", "DELETE", "POST"]

THREADS = 6  # of media's own, for its store may hang: data never waits for one of them

Authenticate = Callable[[Request], Awaitable[Replica]]
Given = ParamSpec("Given")
Found = TypeVar("Found")


class Media:
    def __init__(self, intake: Intake, batch: Batch, expiry: Expiry, most: int, authenticate: Authenticate) -> None:
        self._intake = intake
        self._batch = batch
        self._expiry = expiry
        self._most = most
        self._authenticate = authenticate
        self._turns = Turns()
        self._threads = CapacityLimiter(THREADS)
        self._syncing = Syncing(intake, self._run)

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route(COLLECTION, self.collection, methods=["OPTIONS", "POST"]),
            Route(COLLECTION + "/known", self.known, methods=["POST"]),
            Route(COLLECTION + "/contents", self.contents, methods=["POST"]),
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
        if not tus.UPLOAD.fullmatch(name):
            raise refusal("not-found", "there is no such upload")
        async with self._turns.take(_turn(replica.scope, name)) as give_way:
            found, held = await self._run(self._intake.take, replica, name)
            with closing(held):
                if method == "HEAD":
                    return await self._head(replica, found)
                if method == "PATCH":
                    return await self._patch(request, replica, found, give_way)
                if method == "DELETE":
                    return await self._terminate(found)
        raise refusal("method-not-allowed", "an upload is asked with HEAD, continued with PATCH, ended with DELETE")

    async def known(self, request: Request) -> Response:
        """Which of many contents are here, before any of them is sent."""
        replica = await self._authenticate(request)
        raw = await exchange.body(request)
        return await self._run(self._known, request, replica, raw)

    async def contents(self, request: Request) -> Response:
        """Many small ones at once, whole."""
        replica = await self._authenticate(request)
        raw = await exchange.body(request, CONTENTS_TYPE)
        await self._run(self._expiry.look_now_and_then, self._busy)
        return await self._run(self._contents, request, replica, raw)

    async def content(self, request: Request) -> Response:
        """The whole content, or ranges of it (RFC 9110, 14); HEAD asks whether it is here."""
        replica = await self._authenticate(request)
        hashed = request.path_params["hash"]
        if not tus.SHA256.fullmatch(hashed):
            raise refusal("not-found", "there is no such content")
        found = await self._run(self._intake.content, replica, hashed)
        return await deliver(request, self._intake.store, replica.scope, found, self._threads)

    def _known(self, request: Request, replica: Replica, raw: bytes) -> Response:
        asked = exchange.message(request, raw, Hashes).hashes
        return exchange.answer(request, Hashes(hashes=self._intake.known(replica, asked)))

    def _contents(self, request: Request, replica: Replica, raw: bytes) -> Response:
        try:
            sent = unpacked(raw)
        except ValueError as error:
            raise refusal("malformed", str(error)[:500]) from error
        return exchange.answer(request, Entered(problems=self._batch.take(replica, sent)))

    async def _create(self, request: Request, replica: Replica) -> Response:
        parts = tus.parts(request.headers)
        if parts is not None:
            return await self._concatenate(request, replica, parts)
        length = tus.length(request.headers, self._most)
        metadata = request.headers.get("Upload-Metadata", "")
        tus.metadata(metadata)
        tus.checksum(request.headers)
        with_bytes = _has_body(request)
        if with_bytes:
            _check_is_chunk(request)
        await self._run(self._expiry.look_now_and_then, self._busy)
        concat = "partial" if tus.is_partial(request.headers) else ""
        made = await self._run(self._intake.make, _fresh_id(), replica, length, metadata, concat)
        if with_bytes or not length:
            made = await self._receive_first(request, replica, made)
        location = {"Location": f"{COLLECTION}/{made.id}"}
        return Response(status_code=201, headers=location | _standing(made))

    async def _concatenate(self, request: Request, replica: Replica, parts: list[str]) -> Response:
        metadata = request.headers.get("Upload-Metadata", "")
        tus.metadata(metadata)
        if _has_body(request):
            raise refusal("upload-final", "send the bytes to its parts")
        await self._run(self._expiry.look_now_and_then, self._busy)
        name = _fresh_id()
        async with self._turns.take(_turn(replica.scope, name)):
            made = await self._run(self._intake.concatenate, name, replica, parts, metadata, self._most)
        return Response(status_code=201, headers={"Location": f"{COLLECTION}/{made.id}"} | _standing(made))

    async def _receive_first(self, request: Request, replica: Replica, made: Upload) -> Upload:
        """The bytes that came with the creation. Whoever loses this answer knows no address: nothing is kept for it."""
        async with self._turns.take(_turn(made.scope, made.id)) as give_way:
            try:
                return await self._receive(request, replica, made, give_way)
            except (Refused, Busy):
                with suppress(Busy):
                    await self._run(self._intake.discard, made.id)
                raise

    async def _head(self, replica: Replica, upload: Upload) -> Response:
        if upload.position == upload.length:  # the server may have died between the last byte and its completion
            await self._run(self._intake.complete, replica, upload)
        headers = _standing(upload) | {"Upload-Length": str(upload.length)}
        if upload.metadata:
            headers["Upload-Metadata"] = upload.metadata
        if upload.concat:
            headers["Upload-Concat"] = upload.concat
        return Response(status_code=200, headers=headers)

    async def _patch(self, request: Request, replica: Replica, upload: Upload, give_way: asyncio.Event) -> Response:
        _check_is_chunk(request)
        if upload.concat.startswith("final"):
            raise refusal("upload-final", "send the bytes to its parts")
        if tus.integer(request.headers, "Upload-Offset") != upload.position:
            raise refusal("offset-mismatch", f"the upload stands at {upload.position}")
        return Response(status_code=204, headers=_standing(await self._receive(request, replica, upload, give_way)))

    async def _terminate(self, upload: Upload) -> Response:
        await self._run(self._intake.discard, upload.id)
        return Response(status_code=204)

    async def _receive(self, request: Request, replica: Replica, upload: Upload, give_way: asyncio.Event) -> Upload:
        """Take the body in, and complete the upload if that was the rest of it."""
        checksum = tus.checksum(request.headers)
        _check_room(request, upload)
        if upload.position < upload.length:
            arrival = Arrival(
                self._intake, self._syncing, upload, checksum=checksum, announced=_announced(request), run=self._run
            )
            with body(request, give_way) as coming:
                upload = await arrival.take(coming)
        if upload.position == upload.length:
            await self._run(self._intake.complete, replica, upload)
        return upload

    def _busy(self, scope: str, upload: str) -> bool:
        return self._turns.busy(_turn(scope, upload))

    async def _run(self, function: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs) -> Found:
        """What blocks, on a thread of media's own."""
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._threads)

    def _options(self) -> Response:
        headers = {
            "Tus-Version": tus.VERSION,
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Max-Size": str(self._most),
            "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        }
        return Response(status_code=204, headers=headers)


def _turn(scope: str, upload: str) -> str:
    """Nobody of another scope takes the turn of an upload, whatever he knows of its name."""
    return f"{upload} {scope}"


def _fresh_id() -> str:
    return secrets.token_urlsafe(18)


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
    if (_announced(request) or 0) > upload.length - upload.position:
        raise refusal("upload-too-large", f"the upload has {upload.length} bytes, of which {upload.position} are here")


def _announced(request: Request) -> int | None:
    """Bytes of the body."""
    said = request.headers.get("Content-Length", "")
    return int(said) if said.isdigit() else None


def _standing(upload: Upload) -> dict[str, str]:
    return {
        "Upload-Offset": str(upload.position),
        "Upload-Expires": tus.expires(upload.expires_at),
        "Cache-Control": "no-store",
    }
