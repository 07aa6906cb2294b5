"""A worker's main process forks, whatever PostgreSQL does; each fork in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.services import PostgreSQL

FORKS = """
import os, sys, threading, time
from workers.database import WorkerDatabase
from workers.listener import Listener

database, listener = WorkerDatabase(sys.argv[1]), Listener(sys.argv[1])

def ask(under_way):
    with database.using() as found:
        under_way.set()
        try:
            with found.reading() as connection:
                return connection.exec_driver_sql("SELECT 1").scalar_one()
        except Exception as error:
            return type(error).__name__

def beside(do, *given):
    thread = threading.Thread(target=do, args=given, daemon=True)
    thread.start()
    return thread

if sys.argv[2] == "reached":
    assert ask(threading.Event()) == 1
    assert listener.listen()
else:
    beside(listener.listen)
under_way = threading.Event()
if sys.argv[2] != "reached":
    asking = beside(ask, under_way)
    under_way.wait()
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "reached":
    asking = beside(ask, under_way)
    under_way.wait()
began = time.monotonic()
child = os.fork()
if not child:
    with database._in_use, listener._in_use, listener._making:
        os._exit(0 if database._database is None and listener._connection is None else 1)
print(time.monotonic() - began, os.waitpid(child, 0)[1], flush=True)
sys.stdin.readline()
if sys.argv[2] == "reached":
    asking.join()
    print(ask(under_way), listener.listen(), flush=True)
"""
WIDE = 20.0
PATIENT = "connect_timeout=300"  # so that nothing but the fork ends the waiting


@contextmanager
def forking(url: str, how: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FORKS, url, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        patience = threading.Timer(3 * WIDE, process.kill)
        patience.start()
        try:
            yield process
        finally:
            patience.cancel()
            process.kill()


def told(process: subprocess.Popen[str], word: str = "") -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    if word:
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
    return process.stdout.readline().split()


def test_a_fork_does_not_wait_for_a_server_that_accepts_and_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql+psycopg://somebody@127.0.0.1:{server.getsockname()[1]}/shop?sslmode=disable&{PATIENT}"
        with forking(url, "silent") as process:
            assert told(process) == ["ready"]
            connections = [server.accept()[0] for _ in range(2)]  # the user's, and the listener's
            took, status = told(process, "fork")
            for connection in connections:
                connection.close()
    assert float(took) < WIDE
    assert status == "0"


def test_a_fork_does_not_wait_for_a_server_that_falls_silent(cluster: PostgreSQL) -> None:
    url = cluster.database()
    with forking(f"{url}{'&' if '?' in url else '?'}{PATIENT}", "reached") as process:
        assert told(process) == ["ready"]
        with cluster.silent():
            took, status = told(process, "fork")
        assert float(took) < WIDE
        assert status == "0"
        assert told(process, "go on") == ["1", "True"]
