"""What the probes of an idle machine cost, and how long a signal of D-Bus takes to become a reading.

The machine is one on which everything is: NetworkManager, UPower and logind, played by another process on a bus of its
own, and a server that is reached. It is let look once a second, as a worker's lookout does. Prints both when it is run
by itself: `python -m bench.probes`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backhaul.clock import SystemClock
from tests.played import network_manager
from tests.probed import settings
from tests.services import system_bus
from workers.probes.machine import Machine
from workers.probes.network import NETWORK_MANAGER

SECONDS = 20.0
SIGNALS = 50
PLAY = """
import sys
from tests.played import logind, network_manager, upower
address = sys.argv[1]
with upower(address), logind(address):
    if sys.argv[2] == "all":
        with network_manager(address):
            print("ready", flush=True)
            sys.stdin.read()
    else:
        print("ready", flush=True)
        sys.stdin.read()
"""


def idle() -> float:
    """Share of a core, over 20 seconds."""
    with _machine("all") as (machine, _, _):
        ended = threading.Event()
        lookout = threading.Thread(target=_look, args=(machine, ended))
        lookout.start()
        begun, at = time.process_time(), time.monotonic()
        ended.wait(SECONDS)
        share = (time.process_time() - begun) / (time.monotonic() - at)
        ended.set()
        lookout.join()
    return share


def signals() -> list[float]:
    """Milliseconds from each signal of NetworkManager until the worker is woken. No two of them are a flap."""
    took = []
    with _machine("all but NetworkManager", steady="0ms") as (machine, woken, address), network_manager(address) as one:
        while machine.readings()["unmetered"].answer != "yes":
            time.sleep(0.01)
        for number in range(SIGNALS):
            woken.clear()
            begun = time.perf_counter()
            one.tells(NETWORK_MANAGER, Metered=("u", 2 if number % 2 else 1))
            woken.wait(5)
            took.append(1000 * (time.perf_counter() - begun))
            time.sleep(0.02)
    return took


@contextmanager
def _machine(played: str, **probes: str) -> Iterator[tuple[Machine, threading.Event, str]]:
    woken = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    remote = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with system_bus() as bus, tempfile.TemporaryDirectory() as home, listener:
        before = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
        command = [sys.executable, "-c", PLAY, bus.address, played]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as players:
            assert players.stdout is not None
            players.stdout.readline()
            machine = Machine(settings(Path(home), remote=remote, probes=probes), SystemClock(), environment={})
            machine.start(woken.set)
            try:
                yield machine, woken, bus.address
            finally:
                machine.end()
                players.communicate()
                os.environ.pop("DBUS_SYSTEM_BUS_ADDRESS")
                if before is not None:
                    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = before


def _look(machine: Machine, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        machine.look(SystemClock().now())


if __name__ == "__main__":
    print(f"idle: {idle():.3%} of a core")
    took = sorted(signals())
    print(f"a signal: {took[len(took) // 2]:.1f} ms, {took[0]:.1f} to {took[-1]:.1f}")
