"""The checker's world: replicas as real processes around a real server, and the faults that a seed says.

build, and let everyone come to the same beginning
work: apps write, sync runs, and every now and then a fault strikes
heal: no more faults, no more writes; until every outbox is empty
judge: what the apps have seen meanwhile, and what all see in the end
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from sqlalchemy import text

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.remotes.http import HttpRemote
from backhaul.replica import enrol
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from backhaul.server import auth
from backhaul.server.settings import Settings
from tests.checker import processes
from tests.checker.history import Transaction, read_notes
from tests.checker.judging import State, Violation, violations
from tests.checker.processes import Place
from tests.checker.session import KEYS, make_registers
from tests.faults.proxy import Proxy, Rule, every, halved, honest, lost, proxy, truncated, unsent
from tests.replicas import Undisturbed
from tests.services import free_port
from tests.waiting import eventually

SCOPE = "checked"
HOUR_MS = 3_600_000
QUIET_SECONDS = 40


@dataclass(kw_only=True)
class Member:
    """A replica with its processes and its own proxy. sync: None while it is dead."""

    name: str
    place: Place
    between: Proxy
    sync: BaseProcess | None = None
    apps: list[BaseProcess] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """urls: of the replicas' databases, each empty. apps: how many on each. pauses: between faults, in seconds.

    shared: everyone writes every key, and the greatest value stands (`max`); else each replica has its own keys, and
    the last write stands.
    """

    seed: int
    urls: list[str]
    apps: int = 1
    seconds: float = 4.0
    pauses: tuple[float, float] = (0.1, 0.5)
    server_url: str | None = None
    clock_jumps: bool = False
    shared: bool = False


class World:
    def __init__(self, folder: Path, plan: Plan, stack: ExitStack) -> None:
        self.folder = folder
        self.plan = plan
        self.random = Random(plan.seed)
        self.faults: list[str] = []
        self._stack = stack
        self._data = folder / "server"
        self._port = free_port()
        self._server: BaseProcess | None = None
        self._ended = processes.FORKS.Event()
        stack.callback(self._stop_server)
        self._start_server()
        self.members = [self._member(number, url) for number, url in enumerate(plan.urls)]
        for member in self.members:
            self._start_sync(member)
        self._until_all_have_the_rows()

    # ---------------------------------------------------------------------------------------------- the four acts

    def work(self) -> None:
        number = 0
        for member in self.members:
            for _ in range(self.plan.apps):
                number += 1
                name = f"{member.name} app {number}"
                notes = self.folder / f"notes {number}"
                seed = self.random.random()
                given = (member.place, name, number, seed, notes, self._ended)
                member.apps.append(processes.start(processes.work_on, *given))
        end = time.monotonic() + self.plan.seconds
        while time.monotonic() < end:
            time.sleep(self.random.uniform(*self.plan.pauses))
            self._fault()
        self._ended.set()
        for member in self.members:
            for app in member.apps:
                app.join(20)
                assert app.exitcode == 0, f"an app of {member.name} ended with {app.exitcode}"

    def heal(self) -> None:
        for member in self.members:
            member.between.rule = honest
            if member.sync is None:
                self._start_sync(member)
        if self._server is None:
            self._start_server()
        eventually(self._quiet, QUIET_SECONDS, "every outbox is empty", pause=0.1)

    def judge(self) -> list[Violation]:
        finals = {member.name: self._registers(member.place.url) for member in self.members}
        waiting = {member.name: self._waiting(member.place.url) for member in self.members}
        return violations(self.history(), finals, waiting)

    def history(self) -> list[Transaction]:
        return read_notes(sorted(self.folder.glob("notes *")))

    def all_equal_to_the_server(self) -> bool:
        for member in self.members:
            database = open_database(member.place.url)
            remote = HttpRemote(member.place.remote, member.place.token)
            comparison = compare(database, remote, context=Undisturbed())
            remote.close()
            database.close()
            if not comparison.equal:
                return False
        return True

    # ---------------------------------------------------------------------------------------------- faults

    def _fault(self) -> None:
        member = self.random.choice(self.members)
        deeds: list[Callable[[Member], str]] = [
            self._kill_sync,
            self._kill_sync,
            self._bad_weather,
            self._bad_weather,
            self._bad_weather,
            self._fair_weather,
            self._kill_server,
        ]
        if self.plan.clock_jumps:
            deeds.append(self._turn_clock)
        said = self.random.choice(deeds)(member)
        self.faults.append(f"{member.name}: {said}")

    def _kill_sync(self, member: Member) -> str:
        if member.sync is None:
            self._start_sync(member)
            return "sync started"
        processes.kill(member.sync)
        member.sync = None
        if self.random.random() < 0.7:
            self._start_sync(member)
        return "sync killed"

    def _bad_weather(self, member: Member) -> str:
        name = self.random.choice(sorted(WEATHER))
        member.between.rule = every(self.random.choice([1, 2, 3]), WEATHER[name])
        return name

    def _fair_weather(self, member: Member) -> str:
        member.between.rule = honest
        return "fair weather"

    def _kill_server(self, _member: Member) -> str:
        if self._server is None:
            self._start_server()
            return "server started"
        processes.kill(self._server)
        self._server = None
        if self.random.random() < 0.8:
            self._start_server()
        return "server killed"

    def _turn_clock(self, member: Member) -> str:
        jump = self.random.choice([-8_760 * HOUR_MS, -HOUR_MS, -500, 0, 500, HOUR_MS, 8_760 * HOUR_MS])
        member.place.clock_offset_ms.value = jump
        return f"clock off by {jump} ms"

    # ---------------------------------------------------------------------------------------------- what there is

    def _start_server(self) -> None:
        self._server = processes.start(processes.serve_on, self._port, self._data, self.plan.server_url)

    def _stop_server(self) -> None:
        if self._server is not None:
            processes.kill(self._server)
            self._server = None

    def _member(self, number: int, url: str) -> Member:
        name = f"replica {number}"
        between = self._stack.enter_context(proxy(f"http://127.0.0.1:{self._port}"))
        make_registers(url, rows=number == 0)
        database = open_database(url)
        remote = HttpRemote(between.url)
        eventually(lambda: self._listens(remote), 20, "the server listens", pause=0.05)
        enrolled = enrol.enrol(
            database,
            remote,
            code=self._code(),
            url=between.url,
            home=str(self.folder),
            name=name,
            names=[],
            clock=SystemClock(),
            rules=GREATEST if self.plan.shared else {},
        )
        remote.close()
        database.close()
        place = Place(
            url=url,
            remote=between.url,
            token=enrolled.registered.token,
            page=self.random.choice(PAGES),
            batch=self.random.choice(BATCHES),
            own=KEYS if self.plan.shared else KEYS[number :: len(self.plan.urls)],
            clock_offset_ms=processes.FORKS.Value("q", 0),
        )
        member = Member(name=name, place=place, between=between)
        self._stack.callback(self._stop, member)
        return member

    def _listens(self, remote: HttpRemote) -> bool:
        try:
            remote.digest()
        except Exception as error:
            return "token" in str(error)
        return True

    def _code(self) -> str:
        database = open_database(Settings(data=self._data, database_url=self.plan.server_url).url)
        with database.writing() as connection:
            code = auth.enrol(connection, SCOPE, SystemClock().now())
        database.close()
        return code

    def _start_sync(self, member: Member) -> None:
        member.sync = processes.start(processes.sync_on, member.place, self.random.random())

    def _stop(self, member: Member) -> None:
        self._ended.set()
        for process in (*member.apps, member.sync):
            if process is not None:
                processes.kill(process)

    def _until_all_have_the_rows(self) -> None:
        def complete() -> bool:
            return all(len(self._registers(member.place.url)) == len(KEYS) for member in self.members)

        eventually(complete, 20, "everyone has every register", pause=0.05)

    def _quiet(self) -> bool:
        for member in self.members:
            assert member.sync is not None
            assert member.sync.is_alive(), f"the sync of {member.name} ended with {member.sync.exitcode}"
        return not any(self._waiting(member.place.url) for member in self.members) and self.all_equal_to_the_server()

    def _registers(self, url: str) -> State:
        return {str(key): int(value) for key, value in self._rows(url, "SELECT k, v FROM register")}

    def _waiting(self, url: str) -> int:
        ((count,),) = self._rows(url, "SELECT count(*) FROM backhaul_outbox")
        return int(count)

    def _rows(self, url: str, statement: str) -> list[tuple[object, ...]]:
        database = open_database(url)
        try:
            with database.reading() as connection:
                return [tuple(row) for row in connection.execute(text(statement))]
        finally:
            database.close()


WEATHER: dict[str, Rule] = {
    "answers lost": lost,
    "nothing arrives": unsent,
    "answers cut off": truncated,
    "half of each answer": halved,
}
GREATEST = {"register": Rules(merge={"v": "max"})}
PAGES = [2, 5, 2_000]
BATCHES = [1, 4, 1_000]


@contextmanager
def world(folder: Path, plan: Plan) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(folder, plan, stack)
