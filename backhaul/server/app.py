"""The server over HTTP: routes, who may ask, and what every failure is called. `docs/protocol.md` is the text.

Requests are read on the event loop, within bounds; whatever blocks (inflating, decoding, the database, files) is done
in a thread. Nothing that goes out in an error comes from SQL or from a stack.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backhaul.clock import Clock, SystemClock
from backhaul.database import open_database
from backhaul.errors import Busy, DatabaseBusy, Refused
from backhaul.merge import Functions
from backhaul.server import auth, exchange, tus
from backhaul.server.auth import Replica
from backhaul.server.batch import Batch
from backhaul.server.contents import open_store
from backhaul.server.expiry import Expiry
from backhaul.server.feed import Part
from backhaul.server.intake import Intake
from backhaul.server.media import Media
from backhaul.server.problems import refusal
from backhaul.server.settings import Settings
from backhaul.server.store import ServerDatabase, Store, prepare
from backhaul.wire import (
    MOST_PAGE,
    PROTOCOL,
    PROTOCOL_HEADER,
    BlocksWanted,
    Keys,
    Oneself,
    Push,
    Registration,
    Succession,
    Tables,
)

PUSHES_AT_ONCE = 1  # what more of them gain by waiting for the database together, they lose over the interpreter's lock
THREADS = 8  # with those of media, and of pushes, as many as the connections that SQLAlchemy's pool holds
STORE_WAIT_MS = 2_000
BY_STATUS = {404: "not-found", 405: "method-not-allowed"}


def create_app(settings: Settings, clock: Clock | None = None) -> Starlette:
    """The ASGI application, with its tables made. Raises ConfigurationInvalid, DatabaseBusy."""
    clock = clock or SystemClock()
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = ServerDatabase(open_database(settings.url))
    prepare(database, clock.now())
    api = Api(Store(database, Functions(settings.merge_modules), horizon_ms=settings.horizon_ms), clock)
    store = open_store(settings)
    intake, batch = Intake(store, settings, database, clock), Batch(store, settings, database, clock)
    media = Media(intake, batch, Expiry(store, database, clock), settings.most_upload, api.replica)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        database.close()

    app = Starlette(
        routes=[*api.routes, *media.routes],
        middleware=[Middleware(Spoken)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # clients do not follow redirects
    return app


class Api:
    """Everything but media."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._database = store.database
        self._clock = clock
        self._pushing = anyio.CapacityLimiter(PUSHES_AT_ONCE)

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/v1/health", self.health),
            Route("/v1/replicas", self.register, methods=["POST"]),
            Route("/v1/replicas/self", self.oneself),
            Route("/v1/replicas/successor", self.succeed, methods=["POST"]),
            Route("/v1/tables", self.declare, methods=["PUT"]),
            Route("/v1/push", self.push, methods=["POST"]),
            Route("/v1/pull", self.pull),
            Route("/v1/records", self.records, methods=["POST"]),
            Route("/v1/blocks", self.blocks, methods=["POST"]),
            Route("/v1/digest", self.digest),
        ]

    async def replica(self, request: Request) -> Replica:
        """For whom is asked. Raises Refused: `token-invalid`, `replica-revoked`, `replica-unrelated`,
        `protocol-unsupported`."""
        return await run_in_threadpool(self._authenticated, exchange.bearer(request), exchange.speaks_for(request))

    async def health(self, request: Request) -> Response:
        await run_in_threadpool(self._reachable)
        return exchange.answer(request, {"status": "ok", "protocol": PROTOCOL, "now": self._clock.now()})

    async def register(self, request: Request) -> Response:
        raw = await exchange.body(request)
        return await run_in_threadpool(self._register, request, raw)

    async def oneself(self, request: Request) -> Response:
        replica = await self.replica(request)
        return exchange.answer(request, Oneself(replica=replica.id, scope=replica.scope))

    async def succeed(self, request: Request) -> Response:
        replica = await self.replica(request)
        raw = await exchange.body(request)
        return await run_in_threadpool(self._succeed, request, replica, raw)

    async def declare(self, request: Request) -> Response:
        replica = await self.replica(request)
        raw = await exchange.body(request)
        return await run_in_threadpool(self._declare, request, replica, raw)

    async def push(self, request: Request) -> Response:
        replica = await self.replica(request)
        raw = await exchange.body(request)
        return await anyio.to_thread.run_sync(self._push, request, replica, raw, limiter=self._pushing)

    async def pull(self, request: Request) -> Response:
        replica = await self.replica(request)
        return await run_in_threadpool(self._pull, request, replica)

    async def records(self, request: Request) -> Response:
        replica = await self.replica(request)
        raw = await exchange.body(request)
        return await run_in_threadpool(self._records, request, replica, raw)

    async def blocks(self, request: Request) -> Response:
        replica = await self.replica(request)
        raw = await exchange.body(request)
        return await run_in_threadpool(self._blocks, request, replica, raw)

    async def digest(self, request: Request) -> Response:
        replica = await self.replica(request)
        return await run_in_threadpool(self._digest, request, replica)

    def _reachable(self) -> None:
        with self._database.reading() as connection:
            connection.execute(text("SELECT 1"))

    def _authenticated(self, token: str, speaks_for: str) -> Replica:
        with self._database.reading() as connection:
            return auth.authenticate(connection, token, speaks_for)

    def _register(self, request: Request, raw: bytes) -> Response:
        registration = exchange.message(request, raw, Registration)
        with self._database.writing() as connection:
            registered = auth.register(connection, registration, self._clock.now(), self._store.functions)
        return exchange.answer(request, registered, 201)

    def _succeed(self, request: Request, replica: Replica, raw: bytes) -> Response:
        succession = exchange.message(request, raw, Succession)
        with self._database.writing() as connection:
            made = auth.succeed(connection, replica, succession.was, self._clock.now(), succession.knows)
        return exchange.answer(request, made, 201)

    def _declare(self, request: Request, replica: Replica, raw: bytes) -> Response:
        agreed = self._store.declare(replica.scope, exchange.message(request, raw, Tables).tables, replica.id)
        return exchange.answer(request, Tables(tables=agreed))

    def _push(self, request: Request, replica: Replica, raw: bytes) -> Response:
        push = exchange.message(request, raw, Push)
        return exchange.answer(request, self._store.push(replica, push.ops, self._clock.now()))

    def _pull(self, request: Request, replica: Replica) -> Response:
        cursor, part = request.query_params.get("cursor", ""), _part(request)
        limit, now = _limit(request), self._clock.now()
        said = {"sent": _number(request, "sent"), "settled": _number(request, "settled")}
        return exchange.answer(request, self._store.pull(replica, cursor, limit, now, part, **said))

    def _records(self, request: Request, replica: Replica, raw: bytes) -> Response:
        keys = exchange.message(request, raw, Keys)
        return exchange.answer(request, self._store.records(replica.scope, keys.keys, replica.id))

    def _blocks(self, request: Request, replica: Replica, raw: bytes) -> Response:
        wanted = exchange.message(request, raw, BlocksWanted).tables
        return exchange.answer(request, self._store.blocks(replica, wanted, self._clock.now()))

    def _digest(self, request: Request, replica: Replica) -> Response:
        return exchange.answer(request, self._store.digest(replica.scope, self._clock.now(), replica.id))


class Spoken:
    """Every answer says which protocol it is of: a sign-in page of the network does not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[PROTOCOL_HEADER] = PROTOCOL
                if scope["path"].startswith(tus.COLLECTION):
                    headers["Tus-Resumable"] = tus.VERSION
            await send(message)

        await self._app(scope, receive, sending)


def _part(request: Request) -> Part | None:
    table, columns = request.query_params.get("table", ""), request.query_params.getlist("column")
    if columns and not table:
        raise refusal("malformed", "a column is one of a table: say which")
    return Part(table=table, columns=frozenset(columns)) if table else None


def _limit(request: Request) -> int:
    said = request.query_params.get("limit", str(MOST_PAGE))
    if not (said.isascii() and said.isdigit() and int(said[:9]) > 0):
        raise refusal("malformed", f"limit is a number from 1 to {MOST_PAGE}")
    return min(int(said[:9]), MOST_PAGE)


def _number(request: Request, name: str) -> int | None:
    said = request.query_params.get(name)
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) < 20):
        raise refusal("malformed", f"{name} is a number")
    return int(said)


async def _refused(_request: Request, error: Any) -> Response:
    return exchange.refused(error)


async def _busy(_request: Request, _error: Any) -> Response:
    return exchange.failed("busy", "the database is busy")


async def _store_busy(_request: Request, error: Any) -> Response:
    """The content store is across the network, and asks for time, or another process has the upload in hand; without a
    word of it in the answer."""
    wait = math.ceil((error.retry_after_ms or STORE_WAIT_MS) / 1000)
    return exchange.failed(
        "busy", "the content store is busy, or another process has this in hand", headers={"Retry-After": str(wait)}
    )


async def _http(_request: Request, error: Any) -> Response:
    name = BY_STATUS.get(error.status_code, "malformed")
    return exchange.failed(name, status=error.status_code, headers=error.headers)


async def _failed(_request: Request, _error: Any) -> Response:
    return exchange.failed("internal", "the server's log says more")


HANDLERS: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
    Refused: _refused,
    Busy: _store_busy,
    DatabaseBusy: _busy,
    OperationalError: _busy,
    PoolTimeout: _busy,
    HTTPException: _http,
    Exception: _failed,
}
