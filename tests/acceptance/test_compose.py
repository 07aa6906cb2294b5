"""docker-compose.yml, held to its word without containers: each of its services is started here as a local process,
with the command, the environment and the health check that the file gives it.

What a container network and volumes would do is done by rewriting: hosts and published ports become free ports of this
machine, the folders of volumes become temporary ones, `${VARIABLES}` are filled in as from a `.env`.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml
from sqlalchemy import make_url, text

from backhaul.database import open_database
from tests.conftest import ROOT
from tests.services import free_port, missing, postgresql
from tests.waiting import eventually

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("server", "worker-sync", "worker-media", "beat", "flower")
SECRETS = {"POSTGRES_PASSWORD": "elephant5", "REDIS_PASSWORD": "hint7", "FLOWER_BASIC_AUTH": "ada:lovelace"}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
SHOP = """
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO customer VALUES (1, 'Grace');
"""


# ------------------------------------------------------------------------------------------------ what the files say


def test_it_has_the_services_that_a_deployment_needs() -> None:
    assert set(SERVICES) == {"redis", "postgres", *OURS}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_no_secret_has_a_default() -> None:
    used = re.findall(r"(?<!\$)\$\{([A-Z_]+)([^}]*)\}", (ROOT / "docker-compose.yml").read_text("utf-8"))
    assert {name for name, _ in used} == set(SECRETS)
    assert all(rest.startswith(":?") for _, rest in used), "without its variable the file must not be usable"
    example = (ROOT / ".env.example").read_text("utf-8")
    assert re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE) == [(name, "") for name in SECRETS]


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_volume_that_is_used_is_declared() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_server_and_postgres_agree_on_user_database_and_password() -> None:
    given = filled(SERVICES["postgres"]["environment"])
    url = make_url(filled(SERVICES["server"]["environment"])["BACKHAUL_SERVER__DATABASE"])
    assert (url.host, url.port) == ("postgres", 5432)
    named = (url.username, url.password, url.database)
    assert named == (given["POSTGRES_USER"], given["POSTGRES_PASSWORD"], given["POSTGRES_DB"])


def test_what_the_image_takes_in_is_there_and_let_through() -> None:
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == set(let_through)
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_is_built_from_hashes_and_runs_as_nobody_special() -> None:
    assert "--require-hashes" in DOCKERFILE
    final = DOCKERFILE.split("\nFROM ")[-1]
    assert "pip install" not in final
    assert re.search(r"^USER backhaul$", final, re.MULTILINE)


# ------------------------------------------------------------------------------------------------ as processes


def filled(environment: Mapping[str, str]) -> dict[str, str]:
    """As docker compose fills in variables; `$$` is a dollar."""
    return {name: compose_text(str(value)) for name, value in environment.items()}


def compose_text(written: str) -> str:
    return re.sub(r"\$\{([A-Z_]+):\?[^}]*\}", lambda match: SECRETS[match[1]], written).replace("$$", "$")


@dataclass(frozen=True)
class Local:
    """The compose file on this machine. ports: by the container's. volumes: folders, by the container's path."""

    folder: Path
    ports: dict[str, int]
    volumes: dict[str, Path]
    database: str

    def here(self, written: str) -> str:
        said = compose_text(written).replace("@redis:6379", f"@127.0.0.1:{self.ports['6379']}")
        if "@postgres:5432" in said:
            said = self.database
        for port, ours in self.ports.items():
            said = re.sub(rf"(?<!\d){port}(?!\d)", str(ours), said)
        for path, folder in self.volumes.items():
            said = re.sub(rf"(?<![\w.]){path}(?![\w.])", str(folder), said)
        where = f"--port {self.ports['6379']} --bind 127.0.0.1 --dir {self.folder}"
        said = said.replace("redis-server ", f"redis-server {where} ")
        return said.replace("redis-cli ", f"redis-cli -p {self.ports['6379']} ")

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self.here(str(value)) for key, value in SERVICES[name].get("environment", {}).items()}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        around = {"PATH": path, "HOSTNAME": socket.gethostname(), "NO_PROXY": "*", "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **around, "C_FORCE_ROOT": "1", **given}  # in a container they are not root

    def working_folder(self, name: str) -> Path:
        if name not in OURS:
            return self.folder
        workdir = re.findall(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
        return self.volumes[SERVICES[name].get("working_dir", workdir)]

    def command(self, words: list[str]) -> list[str]:
        """Of `command` and of `healthcheck.test`."""
        if words[0] == "CMD-SHELL":
            return ["sh", "-c", self.here(words[1])]
        return [self.here(word) for word in (words[1:] if words[0] == "CMD" else words)]

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """From healthy to ended by SIGTERM, as docker stops it."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(SERVICES[name]["command"]),
                cwd=self.working_folder(name),
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            eventually(lambda: self.healthy(name, process), timeout=60, what=f"{name} is healthy", pause=0.3)
            yield
            process.terminate()
            process.wait(60)
        except BaseException:
            print(f"--- {name}\n{(self.folder / f'{name}.log').read_text(errors='replace')[-4000:]}")
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def healthy(self, name: str, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, f"{name} ended with status {process.returncode}"
        return self.run(name, self.command(SERVICES[name]["healthcheck"]["test"])).returncode == 0

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """`docker compose run NAME command`."""
        return subprocess.run(
            command,
            cwd=self.working_folder(name),
            env=self.environment(name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def done(self, name: str, *command: str) -> str:
        done = self.run(name, list(command))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def on_the_server(self, statement: str) -> list[Any]:
        with closing(open_database(self.database)) as database, database.reading() as connection:
            return list(connection.execute(text(statement)).scalars())


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        missing("Redis with redis-cli", "apt-get install redis-server")
    volumes = {"/replica": tmp_path / "replica", "/data": tmp_path / "data"}
    for folder in volumes.values():
        folder.mkdir()
    with postgresql() as cluster:
        ports = {port: free_port() for port in ("6379", "8765", "5555")}
        yield Local(folder=tmp_path, ports=ports, volumes=volumes, database=cluster.database())


@pytest.mark.slow
def test_the_services_start_as_the_file_says_and_work_together(local: Local) -> None:
    with ExitStack() as services:
        services.enter_context(local.running("redis"))
        services.enter_context(local.running("server"))
        app = services.enter_context(closing(sqlite3.connect(local.volumes["/replica"] / "shop.db")))
        app.executescript(SHOP)
        code = local.done("server", "backhaul", "enroll")
        remote = (
            f"http://0.0.0.0:{local.ports['8765']}"  # which counts as another machine: plain http is the file's word
        )
        told = ("--database", "sqlite:///shop.db", "--remote", remote, "--code", code)
        local.done("worker-sync", "backhaul", "init", *told)
        for name in ("worker-sync", "worker-media", "beat", "flower"):
            services.enter_context(local.running(name))

        with app:
            app.execute("INSERT INTO customer VALUES (2, 'Ada')")
        photo = local.volumes["/replica"] / "photo.jpg"
        photo.write_bytes(os.urandom(100_000))
        local.done("worker-sync", "backhaul", "media", "put", str(photo))

        names = "SELECT fields FROM server_record WHERE table_name = 'customer' ORDER BY key"
        eventually(lambda: "Ada" in str(local.on_the_server(names)), 30, "the new customer is on the server", pause=0.2)
        assert "Grace" in str(local.on_the_server(names))
        files = "SELECT size FROM server_media"
        eventually(lambda: local.on_the_server(files) == [100_000], 30, "the photo is on the server", pause=0.2)
        assert flower_says(local, None) == 401
        assert "sync@" in str(flower_says(local, SECRETS["FLOWER_BASIC_AUTH"]))


def flower_says(local: Local, who: str | None) -> str | int:
    """Its page of workers, or the status that stands for it."""
    asking = urllib.request.Request(f"http://127.0.0.1:{local.ports['5555']}/workers")
    if who:
        asking.add_header("Authorization", "Basic " + base64.b64encode(who.encode()).decode())
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asking, timeout=10) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        with error:
            return error.code
