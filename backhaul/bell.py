"""What the library needs to know of the workers: which queues there are, and how to ring for a piece of work.

A bell is a hint. It may be lost, doubled or late, and it never raises and never blocks: the truth is in the database,
and Beat finds whatever the bell did not say. The library does not know Celery; the bell that does is found by the
entry point `backhaul.bells`, which names a function `open_bell(home: Path) -> Bell`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from backhaul.errors import ConfigurationInvalid
from backhaul.remotes.base import Remote


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue that workers serve. tags: the constraints that hold wherever it is open."""

    name: str
    tags: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, kw_only=True)
class Ring:
    """What a message says: run this work, if it still is this generation. task_id: how Flower calls this run."""

    task: str
    work_id: str
    generation: int
    queue: str
    task_id: str


class Bell(Protocol):
    """queues: what is declared, for placing work. upload_requires: the constraint tags of a file's upload."""

    @property
    def queues(self) -> Sequence[Queue]: ...

    @property
    def upload_requires(self) -> frozenset[str]: ...

    def ring(self, ring: Ring) -> None: ...

    def ring_for(self, name: str, look: Callable[[], Ring | None]) -> None:
        """Ring for whatever `look` says then, on the bell's own thread; notes of one name become one message."""

    def remote(self) -> Remote:
        """The way to this replica's server, signed in; the caller closes it. Raises ConfigurationInvalid."""

    def close(self) -> None: ...


class SilentBell:
    """For programs without workers near: Beat, wherever it runs, finds the work."""

    def __init__(self, queues: Sequence[Queue] = (), upload_requires: frozenset[str] = frozenset()) -> None:
        self.queues: Sequence[Queue] = queues
        self.upload_requires = upload_requires

    def ring(self, ring: Ring) -> None:
        pass

    def ring_for(self, name: str, look: Callable[[], Ring | None]) -> None:
        pass

    def remote(self) -> Remote:
        raise ConfigurationInvalid("nothing is installed here that knows the server", hint="pip install backhaul")

    def close(self) -> None:
        pass


def open_bell(home: Path) -> Bell:
    """The installed bell for the replica in this folder."""
    for entry in entry_points(group="backhaul.bells"):
        bell: Bell = entry.load()(home)
        return bell
    return SilentBell()
