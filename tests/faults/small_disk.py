"""A disk that is really full: a small file system of its own, for files, or for the tables of a PostgreSQL database.

It is mounted for the test (a tmpfs), which takes root. A PostgreSQL cluster's own log of writes stays where there is
room: a cluster that cannot write that stops, and is started again by whoever looks after it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests.services import missing

SIZE = "32m"
NAME = "small"


@contextmanager
def full_disk(url: str) -> Iterator[None]:
    """Within it, no table of this database can grow. Skips where nothing can be mounted."""
    with small_disk(_owner(url)) as folder, psycopg.connect(_libpq(url), autocommit=True) as connection:
        said: Any = connection
        said.execute(f"CREATE TABLESPACE {NAME} LOCATION '{folder}'")
        try:
            said.execute(f"ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE {NAME}")
            filler = folder / "filler"
            fill(filler)
            try:
                yield
            finally:
                filler.unlink()
        finally:
            said.execute(f"ALTER TABLE ALL IN TABLESPACE {NAME} SET TABLESPACE pg_default")
            said.execute(f"DROP TABLESPACE {NAME}")


@contextmanager
def small_disk(owner: int = 0) -> Iterator[Path]:
    """A folder that is a file system of SIZE, and `owner`'s. Skips where nothing can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="bh-"))  # where the user that the cluster runs as can go
    folder.chmod(0o755)
    options = f"size={SIZE},uid={owner},mode=700"
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    try:
        if mounting.returncode != 0:
            missing("a small disk", f"run this test as root, who may mount one ({mounting.stderr.strip()})")
        yield folder
    finally:
        if mounting.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def fill(file: Path) -> None:
    """To the last byte."""
    with file.open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(65_536)):
                pass
        except OSError:
            os.fsync(filler.fileno())


def _owner(url: str) -> int:
    return (Path(str(make_url(url).query["host"])) / "data").stat().st_uid


def _libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
