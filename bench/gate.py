"""The gate: what it costs while nothing flips, and how soon the consumer follows a signal.

idle      a worker (prefork, one child, the embedded Redis, SQLite) on a machine whose services are played by another
          process, without anything to do, for half a minute: the processor time of all threads of the gate (the one
          that looks and judges, its errands, the doorbell, D-Bus, looks at disks), the ended ones too: what the main
          process has taken without the threads that Celery has.
latency   50 flips, by pool: from a signal of NetworkManager on a private D-Bus until the consumer has let go of the
          queue, or taken it up. Where there is no dbus-daemon, from the condition's change in memory.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.crew import CONFIGURATION, Crew, check_endings
from tests.played import network_manager
from tests.services import system_bus
from tests.waiting import eventually
from workers.probes.network import NETWORK_MANAGER

IDLE_SECONDS = 30
FLIPS = 50
PAUSE_SECONDS = 0.13
POOLS = ("prefork", "threads", "gevent", "solo")
BUS = "DBUS_SYSTEM_BUS_ADDRESS"
ALL_ON = CONFIGURATION.replace("[probes]\non = []\n", "")
UNMETERED = CONFIGURATION.replace("on = []", 'on = ["unmetered"]\nsteady = "0ms"')  # or flips would be flaps
PLAY = """
import sys
from tests.played import logind, modem_manager, network_manager, upower
address = sys.argv[1]
with network_manager(address), modem_manager(address), upower(address), logind(address):
    print("ready", flush=True)
    sys.stdin.read()
"""
SPENT = """
import pathlib, threading, time

HERE = pathlib.Path(__file__).parent

def spent():
    others = [one for one in threading.enumerate() if not one.name.startswith("backhaul-") and one is not MINE]
    return time.process_time() - sum(time.clock_gettime(time.pthread_getcpuclockid(one.ident)) for one in others)

def tell():
    while True:
        own = time.thread_time()
        (HERE / "spent.new").write_text(f"{time.monotonic()} {spent() - own}")
        (HERE / "spent.new").rename(HERE / "spent")
        time.sleep(1)

MINE = threading.Thread(target=tell, daemon=True)
MINE.start()
"""
FOLLOWED = """
import gc, os, pathlib, threading, time

HERE = pathlib.Path(__file__).parent

def follow():
    from workers.gate import Gate
    while not (HERE / "begin").exists():
        time.sleep(0.2)
    gate = next(one for one in gc.get_objects() if isinstance(one, Gate))
    was = True
    with (HERE / "seen").open("a") as seen:
        while True:
            wished = HERE / "wished"  # where no bus says so
            if wished.exists():
                os.environ["BACKHAUL_CONDITION_UNMETERED"] = wished.read_text()
                wished.unlink()
                gate._lookout.wake()
            if ("media" in gate._consumed()) is not was:
                was = not was
                print(time.monotonic(), file=seen, flush=True)
            time.sleep(0.0005)

threading.Thread(target=follow, daemon=True).start()
"""


def idle() -> float:
    """The share of a core that the gate's threads take."""
    with ExitStack() as stack:
        if shutil.which("dbus-daemon"):
            stack.enter_context(_services(_bus(stack)))
        crew = stack.enter_context(_crew("prefork", SPENT, ALL_ON))
        time.sleep(5)  # until what begins has begun
        began, before = _spent(crew)
        eventually(lambda: _spent(crew)[0] >= began + IDLE_SECONDS, 2 * IDLE_SECONDS, pause=0.5)
        ended, after = _spent(crew)
        return (after - before) / (ended - began)


def latencies(pool: str) -> list[float]:
    """Milliseconds."""
    with ExitStack() as stack:
        bus = _bus(stack) if shutil.which("dbus-daemon") else ""
        manager = stack.enter_context(network_manager(bus)) if bus else None
        crew = stack.enter_context(_crew(pool, FOLLOWED, UNMETERED if bus else CONFIGURATION))
        (crew.home / "begin").touch()
        eventually((crew.home / "seen").exists, 60, "it is followed", pause=0.2)

        def flip(is_open: bool) -> None:
            if manager is not None:
                manager.tells(NETWORK_MANAGER, Metered=("u", 2 if is_open else 1))
            else:
                (crew.home / "wished.new").write_text("on" if is_open else "off")
                (crew.home / "wished.new").rename(crew.home / "wished")

        return [_followed(crew.home / "seen", number, flip) for number in range(FLIPS)]


def _followed(seen: Path, number: int, flip: Callable[[bool], None]) -> float:
    time.sleep(PAUSE_SECONDS)
    began = time.monotonic()  # one clock for all processes of the machine
    flip(number % 2 == 1)
    lines = eventually(lambda: _more_than(seen, number), 20, "the consumer follows", pause=0.01)
    return 1000 * (float(lines[number]) - began)


def _more_than(seen: Path, number: int) -> list[str] | None:
    lines = seen.read_text().splitlines(keepends=True)
    return lines if len(lines) > number and lines[number].endswith("\n") else None


def _spent(crew: Crew) -> tuple[float, float]:
    at, seconds = (crew.home / "spent").read_text().split()
    return float(at), float(seconds)


def _bus(stack: ExitStack) -> str:
    """Its address, which the processes that are started from here know."""
    bus, before = stack.enter_context(system_bus()), os.environ.get(BUS)
    os.environ[BUS] = bus.address
    stack.callback(lambda: os.environ.pop(BUS) if before is None else os.environ.update({BUS: before}))
    return bus.address


@contextmanager
def _services(address: str) -> Iterator[None]:
    command = [sys.executable, "-c", PLAY, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as players:
        assert players.stdout is not None
        players.stdout.readline()
        try:
            yield
        finally:
            players.communicate()


@contextmanager
def _crew(pool: str, functions: str, configuration: str) -> Iterator[Crew]:
    with tempfile.TemporaryDirectory(prefix="backhaul-bench-") as name:
        crew = Crew(Path(name) / "home", functions=functions, configuration=configuration)
        try:
            crew.worker("one", "-P", pool)
            yield crew
        finally:
            crew.end(now=True)


if __name__ == "__main__":
    print(f"idle: {idle():.3%}")
    for each in POOLS:
        figures = latencies(each)
        print(f"{each}: {statistics.median(figures):.1f} ms, {max(figures):.1f} at most")
    check_endings()
