"""Requests and answers: bodies read within bounds, JSON in and out, and every failure as problem details (RFC 9457)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from backhaul.errors import Refused
from backhaul.server.doubles import has_double
from backhaul.server.problems import of_refusal, problem, refusal
from backhaul.wire import (
    MOST_BODY,
    MOST_HASHES,
    MOST_OPS,
    MOST_WIRE,
    PROTOCOL,
    PROTOCOL_HEADER,
    REPLICA_HEADER,
    Problem,
    compress,
    encode,
    inflate,
)

Message = TypeVar("Message")

QUIET_SECONDS = 60  # without a byte of the body
MOST_DISCARDED = 8 * MOST_WIRE  # read and thrown away, so that the sender gets to read why
CODINGS = ("zstd", "gzip")
LIMITS = {"body-too-large": MOST_WIRE, "inflated-too-large": MOST_BODY}
HEADERS = {
    "token-invalid": {"WWW-Authenticate": 'Bearer realm="backhaul"'},
    "unsupported-coding": {"Accept-Encoding": "zstd, gzip"},
    "busy": {"Retry-After": "1"},
    "tus-unsupported": {"Tus-Version": "1.0.0"},
}


class _Lists(msgspec.Struct):
    """The requests that may hold too much, as far as it takes to count."""

    ops: list[msgspec.Raw] = []
    keys: list[msgspec.Raw] = []
    hashes: list[msgspec.Raw] = []


def bearer(request: Request) -> str:
    """The token. Raises Refused: `token-invalid`; `protocol-unsupported`, which every request is asked here."""
    spoken = request.headers.get(PROTOCOL_HEADER, PROTOCOL)
    if spoken != PROTOCOL:
        raise refusal("protocol-unsupported", f"this server speaks protocol {PROTOCOL}")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise refusal("token-invalid", "send Authorization: Bearer and the token")
    return token.strip()


def speaks_for(request: Request) -> str:
    """The replica for which the asker says he speaks; "" is the one whose token he has."""
    return request.headers.get(REPLICA_HEADER, "").strip()


async def body(request: Request, media_type: str = "application/json") -> bytes:
    """The body as it was sent. Raises Refused: `unsupported-media-type`, `body-too-large`, `request-timeout`."""
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != media_type:
        raise refusal("unsupported-media-type", f"send {media_type}")
    pieces, size = [], 0
    try:
        stream = request.stream()
        while True:
            async with asyncio.timeout(QUIET_SECONDS):
                piece = await anext(stream, None)
            if piece is None or size > MOST_DISCARDED:
                break
            size += len(piece)
            if size <= MOST_WIRE:
                pieces.append(piece)
    except (TimeoutError, ClientDisconnect) as error:
        raise refusal("request-timeout", "the body did not arrive") from error
    if size > MOST_WIRE:
        raise refusal("body-too-large", f"a body may have {MOST_WIRE} bytes")
    return b"".join(pieces)


def message(request: Request, raw: bytes, kind: type[Message]) -> Message:
    """The message in a body. Raises Refused: `malformed`, `batch-too-large`, and those of `wire.inflate`."""
    plain = inflate(raw, request.headers.get("Content-Encoding"))
    try:
        read = msgspec.json.decode(plain, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        if most := _exceeded(plain):
            raise refusal("batch-too-large", f"a request may hold {most}", limit=most) from error
        raise refusal("malformed", str(error)[:500]) from error
    if has_double(plain, read):
        raise refusal("malformed", "an object names a member twice")
    return read


def answer(request: Request, value: Any, status: int = 200) -> Response:
    """A message, compressed when the asker can read that."""
    packed, coding = compress(encode(value), _accepted(request))
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
    if coding is not None:
        headers["Content-Encoding"] = coding
    return Response(packed, status, headers, "application/json")


def failed(
    name: str, detail: str = "", *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem from the catalogue. status, headers: what the framework has found beside it."""
    told = HEADERS.get(name, {}) | dict(headers or {})
    return _response(problem(name, detail, limit=LIMITS.get(name)), status, told)


def refused(error: Refused) -> Response:
    """What a refused request is answered with."""
    told = of_refusal(error, limit=LIMITS.get(error.problem))
    return _response(told, None, HEADERS.get(error.problem, {}))


def _response(told: Problem, status: int | None, headers: dict[str, str]) -> Response:
    return Response(
        encode(told),
        status or told.status,
        headers | {PROTOCOL_HEADER: PROTOCOL, "Cache-Control": "no-store"},
        "application/problem+json",
    )


def _accepted(request: Request) -> str | None:
    """The coding to answer in: RFC 9110, 12.5.3, as far as it goes for two codings of ours and a zero quality."""
    offered: dict[str, float] = {}
    for part in ",".join(request.headers.getlist("Accept-Encoding")).split(","):
        name, _, parameter = part.partition(";")
        offered[name.strip().lower()] = _quality(parameter)
    return next((coding for coding in CODINGS if offered.get(coding, offered.get("*", 0.0)) > 0), None)


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    try:
        return float(value) if name.strip().lower() == "q" else 1.0
    except ValueError:
        return 0.0


def _exceeded(plain: bytes) -> int | None:
    """How many a request may hold that holds more."""
    try:
        lists = msgspec.json.decode(plain, type=_Lists)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if len(lists.hashes) > MOST_HASHES:
        return MOST_HASHES
    return MOST_OPS if max(len(lists.ops), len(lists.keys)) > MOST_OPS else None
