"""Replicas as a store sees them, and short words for what they say and hear."""

from __future__ import annotations

from typing import Any

import msgspec

from backhaul.clock import stamp, stamp_to_text
from backhaul.server import auth
from backhaul.server.store import Store
from backhaul.wire import Column, Op, Page, Reference, Result, Table, encode, problem_name

NOW = 1_800_000_000_000
TABLES = [
    Table(
        name="customer",
        columns=[Column(name="id"), Column(name="name"), Column(name="phone")],
        key=["id"],
        keys="generated",
    ),
    Table(
        name="invoice",
        columns=[Column(name="id"), Column(name="customer_id"), Column(name="total")],
        key=["id"],
        keys="generated",
        references=[Reference(columns=["customer_id"], table="customer", target=["id"])],
    ),
    Table(
        name="line",
        columns=[Column(name="invoice_id"), Column(name="position"), Column(name="what")],
        key=["invoice_id", "position"],
        references=[Reference(columns=["invoice_id"], table="invoice", target=["id"])],
    ),
]


class Device:
    """A replica as the store sees it: numbers its ops, stamps them, keeps its cursor."""

    def __init__(self, store: Store, replica: auth.Replica) -> None:
        self.store = store
        self.replica = replica
        self.seq = 0
        self.cursor = ""

    def op(self, kind: str, table: str, key: list[Any], at: int = 0, **said: Any) -> Op:
        self.seq += 1
        fields = said.pop("fields", {})
        return Op(
            op=said.pop("op", f"{self.seq:032x}"),
            seq=self.seq,
            table=table,
            key=key,
            kind=kind,  # type: ignore[arg-type]
            hlc=stamp_to_text(stamp(NOW + at)),
            fields=fields,
            **said,
        )

    def push(self, *ops: Op, now: int = NOW) -> list[Result]:
        return self.store.push(self.replica, ops, now).results

    def pull(self, limit: int = 100) -> Page:
        """One page; the cursor moves."""
        raw = encode(self.store.pull(self.replica, self.cursor, limit, NOW))
        page = msgspec.json.decode(raw, type=Page)
        self.cursor = page.cursor
        return page


def statuses(results: list[Result]) -> list[str]:
    return [result.status if result.problem is None else problem_name(result.problem) for result in results]


def shown(page: Page) -> list[tuple[str, list[Any], Any]]:
    return [(r.table, r.key, "deleted" if r.deleted else r.fields) for r in page.records]


def customer(device: Device, key: int, at: int = 0, **said: Any) -> Op:
    said.setdefault("fields", {"name": f"customer {key}", "phone": None})
    return device.op("insert", "customer", [key], at, **said)
