"""Running the server: one process, one socket, until it is told to stop."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from backhaul.clock import Clock
from backhaul.errors import ConfigurationInvalid
from backhaul.server.app import create_app
from backhaul.server.bodies import Protocol
from backhaul.server.settings import Settings

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 10  # for requests that are under way
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """A server that says when it listens, and that returns when a signal stops it."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, on_ready: Callable[[int], None]) -> None:
        """Raises ConfigurationInvalid: the address cannot be had, or the TLS files or the database URL not used."""
        self._socket = _listen(settings.host, settings.port)
        self._on_ready = on_ready
        try:
            super().__init__(_config(settings, clock))
        except BaseException:
            self._socket.close()
            raise

    def run_until_stopped(self) -> None:
        with self._socket:
            self.run(sockets=[self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready(self._socket.getsockname()[1])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but a stop that was asked for is no death by signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self.handle_exit) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


def serve(settings: Settings, *, clock: Clock | None = None, on_ready: Callable[[int], None] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM. on_ready gets the port that is listened on. Raises ConfigurationInvalid."""
    Server(settings, clock=clock, on_ready=on_ready).run_until_stopped()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationInvalid(f"{host} is no address of this machine: {error.strerror}") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigurationInvalid(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="choose another --port; 0 takes a free one"
        ) from error
    return listening


def _config(settings: Settings, clock: Clock | None) -> uvicorn.Config:
    _check_tls(settings)
    return uvicorn.Config(
        create_app(settings, clock),
        http=Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
    )


def _check_tls(settings: Settings) -> None:
    """Before anything is made."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise ConfigurationInvalid("TLS needs both a certificate and a key", hint="give both files, or none")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationInvalid("the TLS certificate or key cannot be used", hint=str(error)) from error
