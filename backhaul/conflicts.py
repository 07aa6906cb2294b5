"""Conflicts as a host app sees them: `backhaul.conflicts.list()`, and what a person does about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection

from backhaul.bell import Bell
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Unknown
from backhaul.replica import conflicts, resolution
from backhaul.replica.contested import Entry
from backhaul.wire import Value, from_plain, to_plain
from backhaul.work import ledger

Fields = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ContestedRecord:
    """One record of a conflict. change: insert, update or delete, ours; None: ours is its aggregate alone.

    base: what our change found, as far as it is known; mine: what it wrote, None for a delete; theirs: what stands on
    the server, of those fields, None for no record.
    """

    table: str
    key: tuple[Any, ...]
    change: str | None
    base: Fields
    mine: Fields | None
    theirs: Fields | None


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """What two replicas wrote at the same time. Its records are resolved together. Times: milliseconds since 1970.

    state: open, resolved or undone. choice: mine, theirs or values.
    """

    id: int
    state: str
    reason: str
    detail: str
    opened_at: int
    resolved_at: int | None
    choice: str | None
    records: tuple[ContestedRecord, ...]


class Conflicts:
    """The conflicts of a replica."""

    def __init__(self, database: Database, bell: Bell, clock: Clock) -> None:
        self._database = database
        self._bell = bell
        self._clock = clock

    def list(self, *, resolved: bool = False) -> list[Conflict]:
        """Those that wait for a person, the oldest first. resolved: and those that were, in the last 30 days."""
        with self._database.reading() as connection:
            return read_conflicts(connection, resolved=resolved)

    def get(self, number: int) -> Conflict:
        """Raises Unknown."""
        with self._database.reading() as connection:
            return read_conflict(connection, number)

    def resolve(self, number: int, choice: Literal["mine", "theirs"] | Fields) -> Conflict:
        """Stand by this side, give in to the other, or say what the fields are to be. Works offline.

        Raises Unknown, Misused, TryLater: nothing is changed then.
        """
        values = choice if isinstance(choice, str) else {name: from_plain(value) for name, value in choice.items()}
        resolution.resolve(self._database, number, values, now=self._clock.now())
        self._push()
        return self.get(number)

    def undo(self, number: int) -> Conflict:
        """Put back, as a new change, what the choice did away with. Raises Unknown, Misused."""
        resolution.undo(self._database, number)
        self._push()
        return self.get(number)

    def _push(self) -> None:
        with self._database.writing() as connection:
            woken = ledger.wake(connection, "push", self._clock.now(), force=True)
        if woken is not None:
            self._bell.ring(woken.ring)


def read_conflicts(connection: Connection, *, resolved: bool = False) -> list[Conflict]:
    return [read_conflict(connection, number) for number in conflicts.numbers(connection, open_only=not resolved)]


def read_conflict(connection: Connection, number: int) -> Conflict:
    """Raises Unknown."""
    entries = conflicts.of_number(connection, number)
    if not entries:
        raise Unknown(f"no conflict {number}", hint="list them: backhaul conflicts list --all")
    telling = next((entry for entry in entries if entry.reason not in ("", "depends-on-conflict")), entries[0])
    return Conflict(
        id=number,
        state=telling.state,
        reason=telling.reason,
        detail=telling.detail,
        opened_at=min(entry.opened_at for entry in entries),
        resolved_at=telling.resolved_at,
        choice=telling.choice,
        records=tuple(_record(entry) for entry in entries),
    )


def _record(entry: Entry) -> ContestedRecord:
    names = entry.mine.keys() if entry.mine and not entry.roots else entry.theirs.keys()
    gone = entry.theirs_as_record().deleted
    return ContestedRecord(
        table=entry.table,
        key=tuple(to_plain(part) for part in msgspec.json.decode(entry.key, type=list[Value])),
        change=entry.kind,
        base=_plain(entry.was),
        mine=None if entry.kind == "delete" else _plain(entry.mine),
        theirs=None if gone else _plain({name: entry.theirs[name] for name in entry.theirs if name in names}),
    )


def _plain(fields: Mapping[str, Value]) -> Fields:
    return MappingProxyType({name: to_plain(value) for name, value in fields.items()})
