"""Replicas as a server sees them: they number and stamp their ops, and follow the feed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count
from typing import Any

from msgspec import UNSET, Raw

from backhaul.clock import stamp, stamp_to_text
from backhaul.digest import fingerprint, row_hash
from backhaul.remotes.base import Remote
from backhaul.wire import (
    Column,
    OutgoingOp,
    Page,
    Pushed,
    Record,
    Reference,
    Result,
    Table,
    canonical_key,
    problem_name,
)

CUSTOMER = Table(
    name="customer",
    columns=[Column(name="id"), Column(name="name"), Column(name="phone")],
    key=["id"],
    keys="generated",
)
INVOICE = Table(
    name="invoice",
    columns=[Column(name="id"), Column(name="customer_id"), Column(name="total")],
    key=["id"],
    keys="generated",
    references=[Reference(columns=["customer_id"], table="customer", target=["id"])],
)
LINE = Table(
    name="line",
    columns=[Column(name="invoice_id"), Column(name="position"), Column(name="what")],
    key=["invoice_id", "position"],
    references=[Reference(columns=["invoice_id"], table="invoice", target=["id"])],
)
PLAYLIST = Table(
    name="playlist",
    columns=[Column(name="a"), Column(name="b"), Column(name="note"), Column(name="title")],
    key=["a", "b"],
)
TABLES = [CUSTOMER, INVOICE, LINE, PLAYLIST]


class Replica:
    """A registered replica."""

    numbers = count(1)

    def __init__(self, remote: Remote, code: str, name: str, tables: list[Table]) -> None:
        self.remote = remote
        self.registered = remote.register(code, tables, name)
        self.cursor = ""
        self.seen = 0
        self._sequence = count(1)
        self._tick = count(1)

    def op(
        self,
        kind: str,
        table: str,
        key: list[Any],
        *,
        group: str | None = None,
        ahead_ms: int = 0,
        hlc: int | None = None,
        **fields: Any,
    ) -> OutgoingOp:
        milliseconds = self.registered.now + next(self._tick) + ahead_ms
        return OutgoingOp(
            op=f"{next(self.numbers):032x}",
            seq=next(self._sequence),
            table=table,
            key=Raw(json.dumps(key).encode()),
            kind=kind,
            hlc=stamp_to_text(stamp(milliseconds) if hlc is None else hlc),
            base=self.seen,
            group=group,
            fields=UNSET if kind in ("delete", "void") else Raw(json.dumps(fields).encode()),
        )

    def push(self, *ops: OutgoingOp) -> list[Result]:
        pushed: Pushed = self.remote.push(ops)
        assert [result.op for result in pushed.results] == [op.op for op in ops]
        return pushed.results

    def do(self, kind: str, table: str, key: list[Any], **rest: Any) -> Result:
        return self.push(self.op(kind, table, key, **rest))[0]

    def page(self, limit: int) -> Page:
        page = self.remote.pull(self.cursor, limit)
        self.cursor, self.seen = page.cursor, page.position
        assert page.more or page.position == page.head
        return page

    def pull(self, limit: int = 1_000) -> list[Record]:
        """Everything new, page by page."""
        records: list[Record] = []
        more = True
        while more:
            page = self.page(limit)
            records += page.records
            more = page.more
        return records


class Copy:
    """What a replica that does as the feed says has of one table: {canonical key: (key, fields)}."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.held: dict[str, tuple[list[Any], dict[str, Any]]] = {}

    def take(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.deleted:
                self.delete(record.key)
            elif record.whole:
                self.put(record.key, record.fields)
            else:
                self.change(record.key, record.fields)

    def put(self, key: list[Any], fields: dict[str, Any]) -> None:
        self.held[canonical_key(key)] = key, dict(fields)

    def change(self, key: list[Any], fields: dict[str, Any]) -> None:
        self.held[canonical_key(key)][1].update(fields)  # what is not whole must be here already

    def delete(self, key: list[Any]) -> None:
        self.held.pop(canonical_key(key), None)

    def __contains__(self, key: list[Any]) -> bool:
        return canonical_key(key) in self.held

    def digest(self) -> tuple[int, str]:
        return len(self.held), fingerprint(row_hash(self.table, key, fields) for key, fields in self.held.values())


def digest_there(remote: Remote, table: str) -> tuple[int, str]:
    (one,) = (one for one in remote.digest().tables if one.table == table)
    return one.count, one.fingerprint


def outcome(result: Result) -> str:
    """The name of the problem, or nothing."""
    return problem_name(result.problem) if result.problem else ""
