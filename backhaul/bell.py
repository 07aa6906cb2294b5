"""What the library needs to know of the workers: which queues there are, and how to ring for a piece of work.

A bell is a hint. It may be lost, doubled or late, and it never raises and never blocks: the truth is in the database,
and Beat finds whatever the bell did not say. The library does not know Celery; the bell that does is found by the
entry point `backhaul.bells`, which names a function `open_bell(home: Path) -> Bell`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from backhaul.database import Database
from backhaul.errors import ConfigurationInvalid
from backhaul.remotes.base import Remote
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.traffic import Budget

EXPEDITED_RUNS = 60


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue that workers serve. tags: the constraints that hold wherever it is open. expedited: for the first try of
    expedited work alone. kinds: the works, by function or task, that run nowhere but on it (and on others that name
    them, too)."""

    name: str
    tags: frozenset[str] = field(default_factory=frozenset)
    expedited: bool = False
    kinds: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, kw_only=True)
class Ring:
    """What a message says: run this work, if it still is this generation. task_id: how Flower calls this run; shadow:
    the name that it shows, where that is not the task's."""

    task: str
    work_id: str
    generation: int
    queue: str
    task_id: str
    shadow: str | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """What the settings say of this machine. name: "" where there are none. unknown: what is taken of a condition where
    nothing is known of it. quiet_hours: as in "22:00-06:00". budget: of bytes over metered links."""

    name: str = ""
    labels: frozenset[str] = field(default_factory=frozenset)
    conditions: Mapping[str, bool] = field(default_factory=dict)
    unknown: Mapping[str, bool] = field(default_factory=dict)
    quiet_hours: Sequence[str] = ()
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, kw_only=True)
class MediaRules:
    """What the settings say of files. folder: of the contents that are kept; None where there are no settings. keep:
    whether a file that is put is kept there until it is sent. download_requires: the constraint tags of a download.
    cache: bytes of all that is kept. floor: bytes of the disk that stay free. eager: by table, the column of the hash
    of files that are fetched when a record arrives."""

    folder: Path | None = None
    keep: bool = False
    download_requires: frozenset[str] = frozenset()
    cache: int = 2 * 10**9
    floor: int = 5 * 10**8
    eager: Mapping[str, str] = field(default_factory=dict)


class Bell(Protocol):
    """queues: what is declared, for placing work. upload_requires: the constraint tags of a file's upload.
    expedited_runs: how many works may be expedited in an hour. node: this machine."""

    @property
    def queues(self) -> Sequence[Queue]: ...

    @property
    def upload_requires(self) -> frozenset[str]: ...

    @property
    def expedited_runs(self) -> int: ...

    @property
    def node(self) -> Node: ...

    @property
    def media(self) -> MediaRules: ...

    def workers(self, *, importing: bool) -> frozenset[str] | None:
        """The names of the worker functions that there are; None when that is not known here. importing: the host's
        modules may be imported for it, which takes their time, and does whatever they do."""

    def ring(self, ring: Ring) -> None: ...

    def ring_for(self, name: str, look: Callable[[], Ring | None]) -> None:
        """Ring for whatever `look` says then, on the bell's own thread; notes of one name become one message."""

    def remote(self, endpoint: Endpoint | None = None) -> Remote:
        """The way to this replica's server, signed in; the caller closes it. endpoint: where it is kept that the server
        asks to be left alone, and looked whether it has. Raises ConfigurationInvalid, SignInRequired."""

    def renew(self, database: Database, remote: Remote) -> bool:
        """Track the tables as they are now, if they have only grown, by the rules of the settings. Whether it did."""

    def close(self) -> None: ...


class SilentBell:
    """For programs without workers near: Beat, wherever it runs, finds the work."""

    def __init__(self, queues: Sequence[Queue] = (), upload_requires: frozenset[str] = frozenset()) -> None:
        self.queues: Sequence[Queue] = queues
        self.upload_requires = upload_requires
        self.expedited_runs = EXPEDITED_RUNS
        self.node = Node()
        self.media = MediaRules()

    def workers(self, *, importing: bool) -> frozenset[str] | None:  # noqa: ARG002 - there are no modules
        return None

    def ring(self, ring: Ring) -> None:
        pass

    def ring_for(self, name: str, look: Callable[[], Ring | None]) -> None:
        pass

    def remote(self, endpoint: Endpoint | None = None) -> Remote:  # noqa: ARG002 - there is no way to any server
        raise ConfigurationInvalid("nothing is installed here that knows the server", hint="pip install backhaul")

    def renew(self, database: Database, remote: Remote) -> bool:  # noqa: ARG002 - it knows no rules
        return False

    def close(self) -> None:
        pass


def open_bell(home: Path) -> Bell:
    """The installed bell for the replica in this folder."""
    for entry in entry_points(group="backhaul.bells"):
        bell: Bell = entry.load()(home)
        return bell
    return SilentBell()
