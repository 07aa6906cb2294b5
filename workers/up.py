"""`backhaul up`: everything a replica needs, in one terminal: broker, workers, beat, Flower, and a server if asked.

One `up` for each folder: it holds a lock. It is ready when every worker says in the database that it is there. It ends
with Ctrl-C or SIGTERM: running work is asked to stop and checkpoints, the processes end, and the broker last.
"""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.errors import BackhaulError, DatabaseBusy, Misused, NotInitialised
from backhaul.server.settings import Settings as ServerSettings
from backhaul.work import ledger, roster
from config.broker import EmbeddedBroker
from config.loading import FILE, load
from config.settings import Settings, state_folder
from workers import crew, joining
from workers.enrolment import make_code
from workers.folder_lock import the_only_one
from workers.joining import Wanted
from workers.ports import free_port, listens
from workers.supervisor import LOOK_SECONDS, Child, Supervisor
from workers.warden import shut_broker

SERVER_PORT = 8765
FLOWER_PORT = 5555
PATIENT_SECONDS = 20.0
SEEN_MS = 60_000
MOST_STARTS = 3  # of a process that does not even come up: then something is wrong that starting does not heal
MEND_SECONDS = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Ports: None takes the usual one if it is free, else a free one. database, tables: for the first `--server`."""

    server: bool = False
    server_port: int | None = None
    flower: bool = True
    flower_port: int | None = None
    concurrency: int | None = None
    database: str | None = None


@dataclass(kw_only=True)
class Running:
    """What is up: addresses by name, process ids by name, the queues of each worker."""

    replica: str
    addresses: dict[str, str]
    queues: dict[str, list[str]]
    logs: str
    processes: dict[str, int] = field(default_factory=dict)


def up(home: Path, options: Options, *, ready: Callable[[Running], None], say: Callable[[str], None]) -> None:
    """Runs until it is told to stop. Raises NotInitialised, Misused (it runs already), and what starting raises."""
    if not options.server:
        load(home)
    with the_only_one(state_folder(home)) as lock, _stopping() as stop:
        house = House(home, options, say, lock=lock, stop=stop)
        try:
            house.open()
            if not stop():
                ready(house.running())
            while not stop():
                house.look()
                time.sleep(LOOK_SECONDS)
        finally:
            say("stopping")
            house.close()


class House:
    """The processes of one replica."""

    def __init__(
        self, home: Path, options: Options, say: Callable[[str], None], *, lock: int, stop: Callable[[], bool]
    ) -> None:
        self._home = home
        self._options = options
        self._say = say
        self._stop = stop
        self._supervisor = Supervisor(self._died, lock=lock)
        self._addresses: dict[str, str] = {}
        self._workers: dict[str, list[str]] = {}
        self._settings: Settings | None = None
        self._broker: EmbeddedBroker | None = None
        self._mend_at = 0.0
        self._opening = True

    def open(self) -> None:
        if self._options.server:
            self._open_server()
        self._settings = settings = load(self._home)
        self._open_broker(settings)
        for worker in crew.workers_of(settings, self._options.concurrency):
            self._supervisor.start(crew.worker_child(settings, worker))
            self._workers[worker.name] = list(worker.queues)
        self._supervisor.start(crew.beat_child(settings))
        if self._options.flower:
            self._open_flower(settings)
        self._until(self._all_answer, "workers")
        self._opening = False

    def look(self) -> None:
        self._supervisor.look()
        if self._broker is not None and time.monotonic() >= self._mend_at:
            self._mend_at = time.monotonic() + MEND_SECONDS
            with suppress(BackhaulError):
                self._broker.ensure()

    def running(self) -> Running:
        assert self._settings is not None
        return Running(
            replica=self._settings.replica.remote,
            addresses=self._addresses,
            queues=self._workers,
            logs=str(self._settings.state / "logs"),
            processes={child.name: child.pid for child in self._supervisor.children if child.pid is not None},
        )

    def close(self) -> None:
        """First whoever may still speak to the server, then the server, then the broker."""
        self._ask_work_to_stop()
        servers = [child for child in self._supervisor.children if child.name == "server"]
        self._supervisor.stop([child for child in self._supervisor.children if child not in servers])
        self._supervisor.stop(servers)
        if self._broker is not None:
            self._broker.stop()
            shut_broker(self._broker.socket)  # after a kill -9 a worker has started another one
        self._supervisor.close()

    def _open_server(self) -> None:
        known = load(self._home, initialised=False)
        if not joining.holds_a_replica(known) and not (self._options.database or known.replica.database):
            raise NotInitialised(
                f"{known.home} holds no replica", hint="backhaul up --server --database sqlite:///FILE makes it one"
            )
        port = _server_port(known, self._options.server_port)
        self._supervisor.start(crew.server_child(known, port))
        self._until(lambda: listens(port), "server")
        self._addresses["server"] = f"http://127.0.0.1:{port}"
        if not joining.holds_a_replica(known):
            self._enrol(known, port)

    def _enrol(self, known: Settings, port: int) -> None:
        code = make_code(ServerSettings(data=known.state / "server"), "default")
        database = known.replica.database or str(self._options.database)
        name = f"{socket.gethostname()}:{known.home.name}"
        wanted = Wanted(database=database, remote=f"http://127.0.0.1:{port}", code=code, name=name)
        enrolled = joining.join(known.home, wanted, SystemClock())
        self._say(f"the folder is a replica now, of {len(enrolled.tables)} tables; see {FILE}")

    def _open_broker(self, settings: Settings) -> None:
        if settings.broker.url is not None:
            self._addresses["broker"] = _without_password(settings.broker.url)
            return
        broker = EmbeddedBroker(settings.state)
        if not broker.answers():  # one that somebody else has started is not ours to end
            self._broker = broker
            self._supervisor.tell_warden(f"socket {broker.socket}")
        self._addresses["broker"] = broker.ensure()

    def _open_flower(self, settings: Settings) -> None:
        port = self._options.flower_port or free_port(FLOWER_PORT)
        self._supervisor.start(crew.flower_child(settings, port))
        self._addresses["flower"] = f"http://127.0.0.1:{port}"

    def _all_answer(self) -> bool:
        flower = urlsplit(self._addresses.get("flower", "")).port
        return self._workers_answer() and (flower is None or listens(flower))

    def _workers_answer(self) -> bool:
        assert self._settings is not None
        pids = {child.pid for child in self._supervisor.children if child.name in self._workers}
        database = open_database(self._settings.database_url)
        try:
            with database.reading() as connection:
                seen = {worker.pid for worker in roster.alive(connection, SystemClock().now(), SEEN_MS)}
        except DatabaseBusy:
            return False
        finally:
            database.close()
        return pids <= seen

    def _until(self, answers: Callable[[], bool], what: str) -> None:
        """However long it takes: a broker elsewhere may be away. Raises when a process cannot even be started."""
        patient_until = time.monotonic() + PATIENT_SECONDS
        while not self._stop() and not answers():
            self._supervisor.look()
            for child in self._supervisor.children:
                if child.starts >= MOST_STARTS:
                    raise BackhaulError(f"{child.name} does not start: {_last_line(child)}", hint=f"see {child.log}")
            if time.monotonic() > patient_until:
                patient_until = math.inf
                self._say(f"no answer from the {what} yet; see {self._home / '.backhaul' / 'logs'}")
            time.sleep(2 * LOOK_SECONDS)

    def _died(self, child: Child, status: int) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        self._say(f"{child.name} {how}; it is started again in {child.pause:g} s")

    def _ask_work_to_stop(self) -> None:
        """What runs checkpoints and waits again, instead of being cut off when the grace is over."""
        if self._settings is None or self._opening:
            return
        database = open_database(self._settings.database_url)
        try:
            with suppress(BackhaulError), database.writing() as connection:
                for work in ledger.query(connection, states=["RUNNING"]):
                    ledger.request_stop(connection, work.id, "DEPLOY_DRAIN")
        finally:
            database.close()


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether one of the signals has come that mean: stop."""
    came: list[int] = []
    former = {number: signal.signal(number, lambda given, _: came.append(given)) for number in STOP_SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _server_port(known: Settings, asked: int | None) -> int:
    """The one that the replica knows its server by; before it knows one, the usual one."""
    remote = urlsplit(known.replica.remote)
    if not remote.port:
        return asked or free_port(SERVER_PORT)
    if asked not in (None, remote.port):
        raise Misused(
            f"this replica knows its server as {known.replica.remote}",
            hint=f"leave --server-port out, or change [replica] remote in {FILE}",
        )
    return remote.port


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _last_line(child: Child) -> str:
    with suppress(OSError):
        lines = child.log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it says nothing"
    return "it says nothing"
