"""System services as their clients see them, played on a private D-Bus: their properties, and the signals of these.

with Played(address, "org.freedesktop.NetworkManager") as manager:
    manager.has(NETWORK_MANAGER, Metered=("u", 1))     the properties of an object's interface, from now on
    manager.tells(NETWORK_MANAGER, Metered=("u", 2))   some of them become other, and the service signals it
    manager.silent = True                              it is asked, and does not answer
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from workers.probes.idle import LOGIN, SEAT
from workers.probes.network import MODEM_MANAGER, NETWORK_MANAGER
from workers.probes.power import DISPLAY, UPOWER
from workers.probes.talk import OBJECTS, PROPERTIES, Watched

Result = TypeVar("Result")
DONE_SECONDS = 60


class Played:
    def __init__(self, address: str, service: str) -> None:
        self.silent = False
        self.asked = 0
        self._address = address
        self._service = service
        self._objects: dict[tuple[str, str], dict[str, Variant]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"plays {service}")
        self._bus: MessageBus | None = None

    def __enter__(self) -> Played:
        self._thread.start()
        self._do(self._join())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DONE_SECONDS)
        self._loop.close()

    def has(self, watched: Watched, *, path: str = "", **properties: tuple[str, Any]) -> None:
        values = {name: Variant(signature, value) for name, (signature, value) in properties.items()}
        self._objects.setdefault((path or watched.path, watched.interface), {}).update(values)

    def tells(self, watched: Watched, *, path: str = "", **properties: tuple[str, Any]) -> None:
        self.has(watched, path=path, **properties)
        changed = {name: Variant(signature, value) for name, (signature, value) in properties.items()}
        self.signals(
            path or watched.path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [watched.interface, changed, []]
        )

    def signals(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        self._do(self._send(Message.new_signal(path, interface, member, signature, body)))

    async def _join(self) -> None:
        self._bus = await MessageBus(bus_address=self._address, bus_type=BusType.SYSTEM).connect()
        self._bus.add_message_handler(self._handle)
        await self._bus.request_name(self._service)

    async def _leave(self) -> None:
        if self._bus is not None and self._bus.connected:
            self._bus.disconnect()

    async def _send(self, message: Message) -> None:
        assert self._bus is not None
        await self._bus.send(message)

    def _handle(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or message.interface not in (PROPERTIES, OBJECTS):
            return None
        self.asked += 1
        if self.silent:
            return True
        if message.member == "GetAll":
            found = self._objects.get((message.path, message.body[0]))
            if found is None:
                return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownObject", "there is no such object")
            return Message.new_method_return(message, "a{sv}", [found])
        tree: dict[str, dict[str, dict[str, Variant]]] = {}
        for (path, interface), properties in self._objects.items():
            tree.setdefault(path, {})[interface] = properties
        return Message.new_method_return(message, "a{oa{sa{sv}}}", [tree])

    def _do(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DONE_SECONDS)


def network_manager(address: str) -> Played:
    """Connected by wire, not metered."""
    played = Played(address, NETWORK_MANAGER.service)
    played.has(
        NETWORK_MANAGER,
        State=("u", 70),
        Connectivity=("u", 4),
        Metered=("u", 4),
        PrimaryConnectionType=("s", "802-3-ethernet"),
    )
    return played


def modem_manager(address: str, *, registration: int = 1) -> Played:
    played = Played(address, MODEM_MANAGER.service)
    played.has(MODEM_MANAGER, path=f"{MODEM_MANAGER.path}/Modem/0", RegistrationState=("u", registration))
    return played


def upower(address: str, *, battery: bool = True) -> Played:
    """Plugged in; the battery, if there is one, at 80 percent."""
    played = Played(address, UPOWER.service)
    played.has(UPOWER, OnBattery=("b", False))
    played.has(
        DISPLAY, IsPresent=("b", battery), Type=("u", 2 if battery else 0), Percentage=("d", 80.0 if battery else 0.0)
    )
    return played


def logind(address: str, *, session: str = "c1") -> Played:
    """Somebody sits there; session="": nobody ever does."""
    played = Played(address, LOGIN.service)
    played.has(LOGIN, IdleHint=("b", False), IdleSinceHint=("t", 1_000_000), PreparingForSleep=("b", False))
    played.has(SEAT, ActiveSession=("(so)", (session, "/org/freedesktop/login1/session/c1" if session else "/")))
    return played


def prepares_for_sleep(login: Played, asleep: bool) -> None:
    login.has(LOGIN, PreparingForSleep=("b", asleep))
    login.signals(LOGIN.path, LOGIN.interface, "PrepareForSleep", "b", [asleep])
