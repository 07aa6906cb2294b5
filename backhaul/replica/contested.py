"""A record that two replicas wrote at the same time: what ours found and wrote, and what stands on the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import UNSET
from sqlalchemy import RowMapping

from backhaul.merge.aggregate import Place
from backhaul.wire import Problem, Record, Tagged, Value, encode

_fields = msgspec.json.Decoder(dict[str, Value]).decode
_maybe = msgspec.json.Decoder(dict[str, Value] | None).decode
places_of = msgspec.json.Decoder(tuple[Place, ...]).decode
_names = msgspec.json.Decoder(list[str]).decode

There = Literal["whole", "changed", "deleted", "absent", "unknown"]


@dataclass(kw_only=True)
class Entry:
    """A row of backhaul_conflict. key: JSON. roots: the aggregates that it is of, here or there, or was. kind: of our
    changes together, None where none is of this record.

    there: what `theirs` is; unknown: not all that giving in would need, so it is to be asked for. before: what the
    choice did away with, after: what it left here; None for no record.
    """

    table: str
    key: str
    opened_at: int
    id: int | None = None
    number: int | None = None
    state: str = "withheld"
    roots: tuple[Place, ...] = ()
    ops: list[str] = field(default_factory=list)
    kind: str | None = None
    base: int | None = None
    was: dict[str, Value] = field(default_factory=dict)
    mine: dict[str, Value] = field(default_factory=dict)
    there: There | None = None
    theirs: dict[str, Value] = field(default_factory=dict)
    version: int = 0
    since: int = 0
    reason: str = ""
    detail: str = ""
    choice: str | None = None
    resolved_at: int | None = None
    before: dict[str, Value] | None = None
    after: dict[str, Value] | None = None

    @property
    def place(self) -> Place:
        return self.table, self.key

    def hear(self, record: Record) -> None:
        """What the feed says of the record, unless more is known already."""
        if 0 < record.version < self.version:
            return
        self.version, self.since = record.version, max(self.since, record.version)
        if record.deleted:
            self.there, self.theirs = ("deleted" if record.version else "absent"), {}
        elif record.whole:
            self.there, self.theirs = "whole", dict(record.fields)
        else:
            self.there = self.there if self.there in ("whole", "unknown") else "changed"
            self.theirs |= record.fields

    def told(self, problem: Problem) -> None:
        """What the answer to one of our ops says of its record."""
        self.since = max(self.since, problem.since, problem.version)
        if problem.version < self.version:
            return
        self.version = problem.version
        if problem.deleted:
            self.there, self.theirs = "deleted", {}
        elif not problem.version:
            self.there = "absent"
        elif problem.theirs is not None:
            self.there = "whole" if self.there == "whole" or self.kind == "delete" else "changed"
            self.theirs |= problem.theirs
        else:
            self.there = "unknown"

    def wrote(self, kind: str, fields: dict[str, Value]) -> None:
        """One more change of ours to the record."""
        if kind == "delete":
            self.kind, self.mine = "delete", {}
        else:
            again = self.kind == "insert" or (self.kind == "delete" and kind == "insert")
            self.kind = "insert" if again else kind
            for name, value in fields.items():
                if type(value) is Tagged and value.now is not UNSET:
                    self.was.setdefault(name, None if value.was is UNSET else value.was)
                    value = value.now
                self.mine[name] = value
        if self.there == "changed" and (kind == "delete" or fields.keys() - self.theirs.keys()):
            self.there = "unknown"

    @property
    def must_be_made_anew(self) -> bool:
        """Whether an update of ours would be without effect there. What our own insert begins is made by that."""
        return self.there == "deleted" or (self.there == "absent" and self.kind != "insert")

    def theirs_as_record(self) -> Record:
        gone = self.there in ("deleted", "absent")
        return Record(
            table=self.table,
            key=msgspec.json.decode(self.key, type=list[Value]),
            version=self.version,
            deleted=gone,
            whole=self.there == "whole",
            fields={} if gone else dict(self.theirs),
        )


def entry_of(row: RowMapping) -> Entry:
    before, after = (_maybe(row[name]) if row[name] else None for name in ("before", "after"))
    plain = (
        "id",
        "number",
        "state",
        "key",
        "kind",
        "base",
        "there",
        "version",
        "since",
        "reason",
        "detail",
        "opened_at",
    )
    return Entry(
        **{name: row[name] for name in (*plain, "choice", "resolved_at")},
        table=row["table_name"],
        roots=places_of(row["roots"]),
        ops=_names(row["ops"]),
        was=_fields(row["was"]),
        mine=_fields(row["mine"]),
        theirs=_fields(row["theirs"]),
        before=before,
        after=after,
    )


def row_of(entry: Entry) -> dict[str, Any]:
    plain = ("number", "state", "key", "kind", "base", "there", "version", "since", "reason", "detail", "opened_at")
    return {name: getattr(entry, name) for name in plain} | {
        "table_name": entry.table,
        "roots": encode(entry.roots).decode(),
        "ops": encode(entry.ops).decode(),
        "was": encode(entry.was).decode(),
        "mine": encode(entry.mine).decode(),
        "theirs": encode(entry.theirs).decode(),
    }
