"""One connection to the system's D-Bus: what is asked there, what is answered, and what is given up.

A signal is only a hint: whatever comes makes us ask the service anew, and what it answers is what is known. So a
service that comes later, goes, or comes back, and a signal that is lost, are all the same. A question that is not
answered within half a second leaves "not known" behind, and its answer is taken when it comes after all.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from jeepney import DBusAddress, HeaderFields, Message, MessageFlag, MessageType, Parser, new_method_call
from jeepney.auth import Authenticator
from jeepney.bus import get_bus
from jeepney.bus_messages import message_bus

from backhaul.clock import Clock

CALL_SECONDS = 0.5
BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECTS = "org.freedesktop.DBus.ObjectManager"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The properties of one object of a service.

    tree: of all objects under it, by path and interface; what is named as interface is what they signal. signals: of
    the interface, beside that its properties have changed. starts: the bus may start the service, when it is first
    asked.
    """

    service: str
    path: str
    interface: str
    tree: bool = False
    signals: tuple[str, ...] = ()
    starts: bool = False

    def rules(self) -> list[str]:
        place = f"path{'_namespace' if self.tree else ''}='{self.path}'"
        ours = f"type='signal',sender='{self.service}'"
        return [
            f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{self.service}'",
            f"{ours},{place},interface='{PROPERTIES}',member='PropertiesChanged',arg0='{self.interface}'",
            *(f"{ours},{place},interface='{self.interface}',member='{signal}'" for signal in self.signals),
            *([f"{ours},path='{self.path}',interface='{OBJECTS}'"] if self.tree else []),
        ]

    def question(self, *, first: bool) -> Message:
        if self.tree:
            call = new_method_call(DBusAddress(self.path, self.service, OBJECTS), "GetManagedObjects")
        else:
            call = new_method_call(DBusAddress(self.path, self.service, PROPERTIES), "GetAll", "s", (self.interface,))
        if not (first and self.starts):
            call.header.flags |= MessageFlag.no_auto_start
        return call

    def concerned(self, signal: Message) -> bool:
        fields = signal.header.fields
        if fields.get(HeaderFields.member) == "NameOwnerChanged":
            return bool(signal.body[:1] == (self.service,))
        path = str(fields.get(HeaderFields.path))
        return path == self.path or (self.tree and path.startswith(self.path + "/"))

    def read(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer without the signatures that D-Bus puts beside each value."""
        if not self.tree:
            return _values(said)
        return {path: {name: _values(values) for name, values in one.items()} for path, one in said.items()}


@dataclass(frozen=True)
class Answered:
    properties: Mapping[str, Any]
    read_at: int


class Talk:
    """One connection."""

    def __init__(self, watched: Sequence[Watched], wake: int, clock: Clock) -> None:
        self.answers: dict[Watched, Answered] = {}
        self._watched = watched
        self._clock = clock
        self._wake = wake
        self._serials = count(1)
        self._parser = Parser()
        self._asked: dict[Watched, int] = {}  # the serial of the latest question to each
        self._waiting: dict[Watched, float] = {}  # until when it is waited for
        self._again: set[Watched] = set()
        self._socket = _authenticated(get_bus("SYSTEM"), time.monotonic() + CALL_SECONDS)
        self._socket.settimeout(CALL_SECONDS)  # for sending; it is read when there is something to read
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._selector.register(wake, selectors.EVENT_READ)
        self._hello: int | None = self._send(message_bus.Hello())
        self._hello_until = time.monotonic() + CALL_SECONDS
        for rule in dict.fromkeys(rule for one in watched for rule in one.rules()):
            self._send(message_bus.AddMatch(rule))
        for one in watched:
            self._ask(one, first=True)

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # processes that were forked from this one hold it open, too
        self._socket.close()

    @property
    def all_asked(self) -> bool:
        return self._hello is None and not self._waiting

    def go_on(self) -> bool:
        """Sleep until something is to be done, and do it; whether anything is known that was not, or no more.

        Raises OSError, or what the library raises, when there is no bus to talk to.
        """
        changed = False
        for key, _ in self._selector.select(self._sleep()):
            if key.fd == self._wake:
                drain(self._wake)
                self._ask_all(self._watched)
            else:
                for message in self._received():
                    changed |= self._hear(message)
        return self._give_up() or changed

    def _sleep(self) -> float | None:
        until = list(self._waiting.values()) + ([] if self._hello is None else [self._hello_until])
        return max(0.0, min(until) - time.monotonic()) if until else None

    def _received(self) -> list[Message]:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the bus has hung up")
        messages: list[Message] = self._parser.feed(data)
        return messages

    def _hear(self, message: Message) -> bool:
        kind = message.header.message_type
        if kind is MessageType.signal:
            self._ask_all([one for one in self._watched if one.concerned(message)])
            return False
        serial = message.header.fields.get(HeaderFields.reply_serial)
        if serial is not None and serial == self._hello:
            self._hello = None
        one = next((one for one in self._watched if serial is not None and self._asked[one] == serial), None)
        if one is None:
            return False
        self._waiting.pop(one, None)
        if kind is MessageType.method_return:
            self.answers[one] = Answered(one.read(message.body[0]), self._clock.now())
        else:
            self.answers.pop(one, None)
        if one in self._again:
            self._ask(one)
        return True

    def _give_up(self) -> bool:
        now = time.monotonic()
        if self._hello is not None and now >= self._hello_until:
            raise TimeoutError("the bus does not answer")
        late = [one for one, until in self._waiting.items() if now >= until]
        for one in late:
            del self._waiting[one]
            self.answers.pop(one, None)
            if one in self._again:  # it has changed meanwhile, so it is alive
                self._ask(one)
        return bool(late)

    def _ask_all(self, watched: Sequence[Watched]) -> None:
        for one in watched:
            self._ask(one)

    def _ask(self, one: Watched, *, first: bool = False) -> None:
        """Once at a time: what changes while the answer is on its way is asked for after that."""
        if one in self._waiting:
            self._again.add(one)
            return
        self._again.discard(one)
        self._asked[one] = self._send(one.question(first=first))
        self._waiting[one] = time.monotonic() + CALL_SECONDS

    def _send(self, message: Message) -> int:
        serial = next(self._serials)
        self._socket.sendall(message.serialise(serial))
        return serial


def _authenticated(address: str, deadline: float) -> socket.socket:
    """A connection that has said who it is. Raises OSError, and ValueError when the bus will not have us."""
    connection = socket.socket(socket.AF_UNIX)

    def within(seconds: float) -> socket.socket:
        if seconds <= 0:
            raise TimeoutError("the bus does not answer")
        connection.settimeout(seconds)
        return connection

    try:
        within(deadline - time.monotonic()).connect(address)
        said = Authenticator(inc_null_byte=True)
        for line in said:
            within(deadline - time.monotonic()).sendall(line)
            heard = within(deadline - time.monotonic()).recv(1024)
            if not heard:
                raise ConnectionResetError("the bus has hung up")
            said.feed(heard)
        within(deadline - time.monotonic()).sendall(b"BEGIN\r\n")
    except BaseException:
        connection.close()
        raise
    return connection


def _values(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, (_, value) in properties.items()}


def drain(wake: int) -> None:
    with suppress(BlockingIOError):
        os.read(wake, 4096)
