"""Commands and workers as processes of their own, without the seconds that Python takes to import them for each.

One process imports what they are made of and waits; for each that is started it forks, and the child has the folder,
the environment and the output that a new process would have. The commands that people start and let run (`up`,
`serve`, `demo`), and whatever tests how a program starts, have a Python of their own. What is forked has all modules
that any of them imports, and one seed of hashes with the others: tests/journey/test_own_pythons.py goes without.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 120
COMMANDS, CELERY = "workers.cli", "celery"
IMPORTED = (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.events.state",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "kombu.transport.redis",
    "workers.beat",
    "workers.watcher",
)
_forking: dict[int, Path] = {}  # where the process listens that forks for us, by our own id


def run(arguments: Sequence[str], *, folder: Path | None, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """One command to its end: its exit status, and what it wrote on stdout and on stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = Process(COMMANDS, arguments, folder=folder, environment=environment, out=out, err=err)
        try:
            return process.wait(LIMIT_SECONDS), _text(out), _text(err)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


class Process:
    """A command or a worker, the first of a session of its own. Its methods are those of subprocess.Popen."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        environment: Mapping[str, str],
        out: IO[bytes],
        err: IO[bytes],
    ) -> None:
        self.args = [module, *arguments]
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(_listening()))
        said = {"words": self.args, "folder": str(folder or Path.cwd()), "environment": dict(environment)}
        socket.send_fds(self._connection, [json.dumps(said).encode()], [out.fileno(), err.fileno()])
        self._connection.shutdown(socket.SHUT_WR)
        told = self._connection.makefile("rb", buffering=0)
        self.pid = int(told.readline())
        told.close()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.001)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int(self._connection.recv(16))
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _listening() -> Path:
    if os.getpid() not in _forking:
        _forking[os.getpid()] = _start()
    return _forking[os.getpid()]


def _start() -> Path:
    path = Path(tempfile.mkdtemp(prefix="bh-")) / "socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.commands", str(path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,  # which ends with us, however we end
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"ready\n"

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        path.unlink()
        path.parent.rmdir()

    atexit.register(end)
    return path


# ------------------------------------------------------------------------------------------- the process that forks


def _serve(path: str) -> None:
    from workers.cli.program import FILES

    for module in [*IMPORTED, *(f"{COMMANDS}.{file}" for file in dict.fromkeys(FILES.values()))]:
        import_module(module)
    # A worker shares memory with its children, which is made when the tasks are imported: each must have its own.
    assert "tasks" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> NoReturn:
    """Tells the id of the process, and its exit status when it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, (out, err), _, _ = socket.recv_fds(connection, 2**16, 2)
    while more := connection.recv(2**16):
        said += more
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        connection.close()
        os.closerange(3, max(out, err) + 1)
        _become(**json.loads(said))
    os.close(out)
    os.close(err)
    with contextlib.suppress(OSError):  # whoever asked may have ended
        connection.send(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        connection.send(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(words: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.path[0] = folder
    sys.argv = words
    status: object = None
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    _end(status)


def _end(status: object) -> NoReturn:
    """As Python ends, but that nothing is taken apart: all that was imported is memory shared with whom we were forked
    from, and to take that apart copies it, which takes ten times as long as most commands."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does first
    atexit._run_exitfuncs()
    if isinstance(status, str):
        print(status, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    _serve(sys.argv[1])
