"""A server in memory, and a replica's way to it: the same contract as over HTTP, for tests, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from backhaul.clock import stamp_from_text, stamp_to_text
from backhaul.errors import Refused, SignInRequired
from backhaul.merge import State
from backhaul.remotes.memory_feed import BEGINNING
from backhaul.remotes.memory_ops import Address, Op
from backhaul.remotes.memory_server import MemoryServer
from backhaul.wire import (
    Digest,
    OutgoingOp,
    Page,
    Pushed,
    Record,
    Registered,
    Table,
    canonical_key,
)


class MemoryRemote:
    """A Remote of one replica: of the one that `register` makes, or of a registered one."""

    def __init__(self, server: MemoryServer, replica: str | None = None) -> None:
        self.server = server
        self.replica = replica

    def register(self, code: str, tables: Sequence[Table], name: str) -> Registered:
        self.replica = self.server.register(code, tables, name)
        return Registered(
            replica=self.replica, token=f"token-{self.replica}", scope=self.server.scope, now=self.server.clock.now()
        )

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        self._signed_in()
        self.server.declare(tables)
        return list(self.server.tables.values())

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        try:
            read = [_read(op) for op in ops]
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            raise Refused(f"this is not JSON: {error}", problem="malformed", status=400) from error
        results = self.server.push(self._signed_in(), read)
        return Pushed(results=results, now=self.server.clock.now())

    def pull(self, cursor: str, limit: int) -> Page:
        server, replica, feed = self.server, self._signed_in(), self.server.feed
        place = feed.place(cursor)
        news, reached = feed.page(place, replica, limit)
        return Page(
            records=[_entry(address, state, place.floor) for address, state in news],
            cursor=feed.cursor(reached),
            position=reached.after,
            head=feed.head,
            more=reached.after < feed.head,
            hlc=stamp_to_text(max((_highest(state) for _, state in news), default=0)),
            now=server.clock.now(),
        )

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        self._signed_in()
        found = self.server.found((table, canonical_key(key)) for table, key in keys)
        return [_entry(address, state, BEGINNING) for address, state in found]

    def digest(self) -> Digest:
        self._signed_in()
        server = self.server
        return Digest(tables=server.digest(), position=server.position, now=server.clock.now())

    def close(self) -> None:
        """There is nothing to close."""

    def _signed_in(self) -> str:
        if self.replica not in self.server.replicas:
            raise SignInRequired
        return self.replica or ""


def _read(op: OutgoingOp) -> Op:
    return Op(
        op=op.op,
        seq=op.seq,
        table=op.table,
        key=msgspec.json.decode(op.key),
        kind=op.kind,
        hlc=stamp_from_text(op.hlc),
        base=op.base,
        group=op.group,
        fields={} if op.fields is UNSET else msgspec.json.decode(op.fields),
    )


def _entry(address: Address, state: State, floor: int) -> Record:
    """Through JSON types, as over the wire: the reader gets the values that a client of the real server gets."""
    whole = not state.deleted and state.born > floor
    fields = {name: value for name, value in state.fields.items() if whole or state.stamp(name)[2] > floor}
    return msgspec.convert(
        {
            "table": address[0],
            "key": msgspec.json.decode(address[1]),
            "version": state.version,
            "whole": whole,
            "deleted": state.deleted,
            "fields": fields,
        },
        type=Record,
    )


def _highest(state: State) -> int:
    return max([state.hlc, *(stamp[0] for stamp in state.stamps.values())])
