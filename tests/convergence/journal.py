"""The book of what a server has taken, in its order: what the laws of a simulated world are held against.

A server that is put back to a backup has lost the end of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from backhaul.merge.plain import SERVER
from backhaul.wire import OutgoingOp, Pushed
from tests.convergence.app import DELTAS, MERGED, RENAMED

Said = tuple[str, str, str, str]  # kind, table, key, fields: one change, however often it is sent
FINAL = ("applied", "rejected", "conflict")


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A change that took effect. op: its id. branch: the number of the replica, whoever it was to the server (writer);
    0 is the server itself.
    base, version: feed positions. hlc: as text; it sorts by time. again: as was said once more, in sight of what became
    of it."""

    op: str
    branch: int
    writer: str
    kind: str
    table: str
    key: str
    fields: dict[str, Any]
    hlc: str
    base: int
    version: int
    again: bool = False

    @property
    def said(self) -> Said:
        return _said(self.kind, self.table, self.key, self.fields)


@dataclass
class Journal:
    """Raises AssertionError when a change takes effect twice. outcomes: by writer and send seq, op id and outcome.
    forgotten: the ops that it has taken, and whose outcomes it knew no more at some time."""

    accepted: list[Accepted] = field(default_factory=list)
    lost: list[Accepted] = field(default_factory=list)  # with the server's last hours
    outcomes: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    purged: bool = False  # whether deletions may have been forgotten

    def enter(self, branch: int, writer: str, ops: Sequence[OutgoingOp], reply: Pushed) -> None:
        for op, result in zip(ops, reply.results, strict=True):
            known = self.outcomes.get((writer, op.seq))
            assert known is None or known[0] == op.op, f"number {op.seq} was given to two ops"
            assert result.status != "applied" or known is None, f"number {op.seq} took effect twice"
            if known is None and result.status in FINAL:
                self.outcomes[writer, op.seq] = (op.op, result.status)
                if result.status == "applied" and op.kind != "void" and not self._is_again(op):
                    again = op.former and any(one.op == op.op and one.version <= op.base for one in self.accepted)
                    self.accepted.append(_accepted(branch, writer, op, result.version, again=again))

    def enter_own(self, table: str, name: str, fields: dict[str, Any], *, hlc: str, version: int) -> None:
        """What the server has written itself, as who has seen everything."""
        one = Accepted(
            op="",
            branch=0,
            writer=SERVER,
            kind="update",
            table=table,
            key=json.dumps([name]),
            fields=fields,
            hlc=hlc,
            base=version - 1,
            version=version,
        )
        self.accepted.append(one)

    def purge(self, remembered: set[str]) -> None:
        """remembered: the ops whose outcomes the server still has."""
        self.purged = True
        self.forgotten |= {one.op for one in self.accepted} - remembered

    def _is_again(self, op: OutgoingOp) -> bool:
        """It was taken before, by a former self, and its outcome is forgotten: with the stamp that it had, it does no
        harm, unless it adds; an insert adds nothing, it says where counting begins."""
        may_be = op.op in self.forgotten and op.former and not _adds(op)
        return may_be and any(one.op == op.op for one in self.accepted)

    def of_branch(self, branch: int) -> Counter[Said]:
        return Counter(one.said for one in self.accepted if one.branch == branch and not one.again)

    def lost_of_branch(self, branch: int) -> Counter[Said]:
        return Counter(one.said for one in self.lost if one.branch == branch)

    def back_up(self) -> tuple[int, dict[tuple[str, int], tuple[str, str]]]:
        return len(self.accepted), dict(self.outcomes)

    def put_back(self, saved: tuple[int, dict[tuple[str, int], tuple[str, str]]]) -> None:
        length, self.outcomes = saved[0], dict(saved[1])
        self.lost += self.accepted[length:]
        del self.accepted[length:]


def said(kind: str, table: str, key: str, fields: str | None) -> Said:
    """A change as it can be told from others: what is sent as it was done by its columns alone, for those values are
    other ones on their way; under the newest names of columns."""
    return _said(kind, table, key, named(table, json.loads(fields or "{}")))


def named(table: str, fields: dict[str, Any]) -> dict[str, Any]:
    names = RENAMED.get(table, {})
    return {names.get(name, name): value for name, value in fields.items()}


def count(rows: Iterable[tuple[str, str, str, str | None]]) -> Counter[Said]:
    return Counter(said(*row) for row in rows)


def _said(kind: str, table: str, key: str, fields: dict[str, Any]) -> Said:
    members: Any = sorted(fields) if table == MERGED else fields
    if table in DELTAS:
        members = {name: value["now"] if _is_delta(value) else value for name, value in fields.items()}
    return kind, table, key, json.dumps(members, sort_keys=True)


def _accepted(branch: int, writer: str, op: OutgoingOp, version: int, *, again: bool) -> Accepted:
    return Accepted(
        op=op.op,
        branch=branch,
        writer=writer,
        kind=op.kind,
        table=op.table,
        key=bytes(op.key).decode(),
        fields=named(op.table, json.loads(bytes(op.fields)) if op.fields else {}),
        hlc=op.hlc if op.kind != "backfill" else "",
        base=op.base,
        version=version,
        again=again,
    )


def _adds(op: OutgoingOp) -> bool:
    said = json.loads(bytes(op.fields)) if op.fields else {}
    return op.kind != "insert" and any(isinstance(value, dict) and "add" in value for value in said.values())


def _is_delta(value: Any) -> bool:
    return isinstance(value, dict) and "now" in value
