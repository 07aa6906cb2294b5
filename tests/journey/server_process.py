"""The real server in a process of its own, that can be killed and started again: the same folder, the same port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.server import auth
from backhaul.server.settings import Settings

PROGRAM = """
import sys
from pathlib import Path
from backhaul.server.serve import serve
from backhaul.server.settings import Settings

serve(Settings(data=Path(sys.argv[1]), port=int(sys.argv[2])), on_ready=lambda port: print(port, flush=True))
"""


class ServerProcess:
    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.data), str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise AssertionError(self._process.communicate()[1].decode())
        self.port = int(said)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=10)
            self._process = None

    def enrol(self) -> str:
        """A one-time code."""
        database = open_database(Settings(data=self.data).url)
        with database.writing() as connection:
            code = auth.enrol(connection, "default", SystemClock().now())
        database.close()
        return code

    def content(self, sha256: str, token: str) -> bytes:
        """A content that the server has, as anyone with a token may fetch it."""
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.get(f"{self.url}/v1/media/sha256/{sha256}", headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.content


@contextmanager
def serving(data: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(data)
    try:
        server.start()
        yield server
    finally:
        server.kill()
