"""The checker's world: replicas as real processes around a real server, and the faults that a seed says.

Each replica has a process that pulls, one that pushes, and one that pushes beside it, and its apps.

build, and let everyone come to the same beginning
work: apps write, sync runs, and every now and then a fault strikes
heal: no more faults, no more writes; until every outbox is empty
judge: what the apps have seen meanwhile, and what all see in the end
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from sqlalchemy import make_url, text

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.remotes.http import HttpRemote
from backhaul.replica import enrol
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from backhaul.server import auth
from backhaul.server.settings import Settings
from config.credentials import write_token
from tests.checker import processes
from tests.checker.history import Transaction, Undone, read_notes
from tests.checker.judging import State, Violation, violations
from tests.checker.plan import Backup, Member, Plan, back_up
from tests.checker.processes import Place
from tests.checker.session import KEYS, MOST_SESSIONS, make_registers
from tests.faults.proxy import Rule, every, halved, honest, lost, proxy, truncated, unsent
from tests.replicas import Undisturbed
from tests.services import free_port
from tests.waiting import eventually

SCOPE = "checked"
HOUR_MS = 3_600_000
QUIET_SECONDS = 600  # for what a batch of one has left behind, on a busy machine
LEAST_TRANSACTIONS = 101  # that the apps do, however slow the machine


class World:
    def __init__(self, folder: Path, plan: Plan, stack: ExitStack) -> None:
        self.folder = folder
        self.plan = plan
        self.random = Random(plan.seed)
        self.faults: list[str] = []
        self.undone: list[Undone] = []
        self._backup: Backup | None = None
        self._sessions = 0
        self._stack = stack
        self._data = folder / "server"
        self._port = free_port()
        self._server: BaseProcess | None = None
        stack.callback(self._stop_server)
        self._start_server()
        self.members = [self._member(number, url) for number, url in enumerate(plan.urls)]
        for member in self.members:
            self._start_syncs(member)
        self._until_all_have_the_rows()

    # ---------------------------------------------------------------------------------------------- the four acts

    def work(self) -> None:
        for member in self.members:
            self._start_apps(member)
        began = time.monotonic()
        turns = [began + self.plan.seconds * part / TURNS for part in range(1, TURNS)]
        while time.monotonic() < began + self.plan.seconds or len(self.history()) < LEAST_TRANSACTIONS:
            assert time.monotonic() < began + self.plan.seconds + QUIET_SECONDS, "the apps stand still"
            time.sleep(self.random.uniform(*self.plan.pauses))
            self._fault()
            if self.plan.put_back != "nobody" and turns and time.monotonic() > turns[0]:
                del turns[0]
                self.faults.append(self._put_back() if self._backup else self._back_up())
        if self.plan.put_back != "nobody":  # at least once, however slow the machine
            self.faults += [self._put_back()] if self._backup else [self._back_up(), self._put_back()]
        for member in self.members:
            self._end_apps(member)

    def heal(self) -> None:
        for member in self.members:
            member.between.rule = honest
            self._start_syncs(member)
        if self._server is None:
            self._start_server()
        eventually(self._quiet, QUIET_SECONDS, "every outbox is empty", pause=0.1)

    def judge(self) -> list[Violation]:
        finals = {member.name: self._registers(member.place.url) for member in self.members}
        waiting = {member.name: self._waiting(member.place.url) for member in self.members}
        return violations(self.history(), finals, waiting, self.undone)

    def history(self) -> list[Transaction]:
        return read_notes(sorted(self.folder.glob("notes *")))

    def all_equal_to_the_server(self) -> bool:
        for member in self.members:
            database = open_database(member.place.url)
            with processes.remote_of(member.place) as remote:
                comparison = compare(database, remote, context=Undisturbed())
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
        role = self.random.choice(processes.ROLES)
        if role not in member.syncs:
            self._start_sync(member, role)
            return f"{role} started"
        processes.kill(member.syncs.pop(role))
        if self.random.random() < 0.7:
            self._start_sync(member, role)
        return f"{role} killed"

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

    def _back_up(self) -> str:
        member = self.random.choice(self.members) if self.plan.put_back == "replica" else None
        url = member.place.url if member is not None else Settings(data=self._data).url
        self._backup = back_up(Path(str(make_url(url).database)), self.folder / "backup", member)
        return f"{member.name if member is not None else 'server'}: backed up"

    def _put_back(self) -> str:
        backup, self._backup = self._backup, None
        assert backup is not None
        member = backup.member
        if member is None:
            self._stop_server()
            backup.put_back()
            self._start_server()
            return "server: put back"
        self._end_apps(member)
        while member.syncs:
            processes.kill(member.syncs.popitem()[1])
        backup.put_back()
        self.undone.append(Undone(sessions=list(member.sessions), since=backup.since, until=time.monotonic_ns()))
        self._start_apps(member)
        self._start_syncs(member)
        return f"{member.name}: put back"

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
        eventually(lambda: self._listens(remote), QUIET_SECONDS, "the server listens", pause=0.05)
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
        state = self.folder / f"state {number}"
        state.mkdir()
        write_token(state, enrolled.registered.token, enrolled.registered.replica)
        place = Place(
            url=url,
            remote=between.url,
            state=state,
            page=self.random.choice(PAGES),
            batch=self.random.choice(BATCHES),
            own=KEYS if self.plan.shared else KEYS[number :: len(self.plan.urls)],
            clock_offset_ms=processes.shared_number(),
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

    def _start_syncs(self, member: Member) -> None:
        for role in processes.ROLES:
            if role not in member.syncs:
                self._start_sync(member, role)

    def _start_sync(self, member: Member, role: str) -> None:
        member.syncs[role] = processes.start(processes.sync_on, member.place, role, self.random.random())

    def _start_apps(self, member: Member) -> None:
        member.ended.clear()
        for _ in range(self.plan.apps):
            self._sessions += 1
            assert self._sessions < MOST_SESSIONS
            name, notes = f"{member.name} app {self._sessions}", self.folder / f"notes {self._sessions}"
            given = (member.place, name, self._sessions, self.random.random(), notes, member.ended)
            member.sessions.append(name)
            member.apps.append(processes.start(processes.work_on, *given))

    def _end_apps(self, member: Member) -> None:
        """Not killed: what an app has committed, it has noted."""
        member.ended.set()
        for app in member.apps:
            app.join(QUIET_SECONDS)
            assert app.exitcode == 0, f"an app of {member.name} ended with {app.exitcode}"
        member.apps.clear()

    def _stop(self, member: Member) -> None:
        for process in (*member.apps, *member.syncs.values()):
            processes.kill(process)

    def _until_all_have_the_rows(self) -> None:
        def complete() -> bool:
            return all(len(self._registers(member.place.url)) == len(KEYS) for member in self.members)

        eventually(complete, QUIET_SECONDS, "everyone has every register", pause=0.05)

    def _quiet(self) -> bool:
        for member in self.members:
            for role, process in member.syncs.items():
                assert process.is_alive(), f"the {role} of {member.name} ended with {process.exitcode}"
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
TURNS = 7  # by turns a backup is made and put back, after each of these parts of the time but the last


@contextmanager
def world(folder: Path, plan: Plan) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(folder, plan, stack)
