"""pending -> sent: what goes next, and with which number, stamp and bytes.

A claim freezes what it takes: from then on an op's number, stamp and bytes never change, so that sending it again is
harmless whatever became of the first try. Ops that were sent and have no outcome go again before anything new, in the
order of their numbers; a group goes whole.

The stamp of a change (see clock.py) is given at the freeze, from the time it was captured, corrected by the clock
offset as it is known then, after everything the app had seen and everything of this replica that the server took.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from hashlib import blake2b
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from backhaul.clock import BACKFILL_STAMP, stamp
from backhaul.remotes import endpoint
from backhaul.replica import checkpoint, lanes, window
from backhaul.replica.footprint import Footprint, Free
from backhaul.statements import as_bytes, members, on_postgresql, run_together, text
from backhaul.wire import MOST_BODY, MOST_OPS

MOST_BYTES = endpoint.MOST_BYTES  # of the ops that are claimed together, unless one group alone is larger
MEMBERS = 260  # bytes that an op has beside its key, its fields and its names, at most
FURTHER = 8  # times the limit: how far a lane looks for what no other has in hand
AT_ONCE = 1_000  # changes that one statement asks for
READ_AT_ONCE = 16  # rows that are held beyond those that are wanted, at most
LONGEST_WAIT_MS = 10 * 60_000  # our own waits are shorter: one that ends later was set while the clock was wrong


class Change(NamedTuple):
    """A frozen change. key, fields: JSON as the trigger wrote it, as bytes: an app can store text that is no UTF-8."""

    id: int
    op_id: str
    group_id: str | None
    table_name: str
    key: bytes
    kind: str
    fields: bytes | None
    base: int
    send_seq: int
    hlc: int
    attempts: int
    fence: int
    again: int | None = None


# What decides about a group, of a row of `_change`. Asked by name, it would cost more than the decision.
BY_PLACE = itemgetter(*map(Change._fields.index, ("group_id", "table_name", "key", "fields")))


class GroupTooLarge(Exception):
    """The next changes to send are one group that no server takes. first: the first of them."""

    def __init__(self, first: int, because: str) -> None:
        super().__init__(because)
        self.first = first


def claim(
    connection: Connection,
    *,
    now: int,
    limit: int,
    lease_ms: int,
    most_bytes: int = MOST_BYTES,
    freeze: Callable[[list[Change]], list[Change]] | None = None,
    lane: int = 0,
    free: Free | None = None,
    again_only: bool = False,
) -> list[Change]:
    """The next changes to send in a lane, frozen and leased; none while others of the lane are on their way or wait for
    their next try.

    freeze: makes of what was captured what travels (deltas.py). free: what the lane may take, where there are others.
    again_only: nothing that was not sent before. Raises GroupTooLarge.
    """
    again = _again(connection, limit, most_bytes, lane)
    if any(_lies_ahead(row.lease_until, now) or _lies_ahead(row.next_at, now) for row in again):
        return []
    changes = [Change(*row[: len(Change._fields)]) for row in again]
    if not changes and not again_only:
        rows = next_pending(connection, limit, most_bytes, free=free)
        changes = _freeze(
            connection, rows, now=now, lane=lane, footprint=free.footprint(rows) if free is not None else None
        )
        changes = freeze(changes) if freeze is not None else changes
    if changes:
        _lease(connection, changes, until=now + lease_ms)
    return changes


def _lies_ahead(moment: int, now: int) -> bool:
    return now < moment <= now + LONGEST_WAIT_MS


def _again(connection: Connection, limit: int, most_bytes: int, lane: int) -> Sequence[Row[Any]]:
    """What was sent in the lane and has no outcome. Half as many after each second try without one: the link may be too
    slow for so much at once."""
    statement = f"SELECT attempts FROM backhaul_outbox WHERE {lanes.SENT_IN} ORDER BY send_seq LIMIT 1"  # noqa: S608 - a constant
    tries = connection.execute(text(statement), lanes.sent_in(lane)).scalar()
    return [] if tries is None else _sent(connection, max(1, limit >> max(0, tries - 1)), most_bytes, lane)


def size_of(change: Change | Row[Any]) -> int:
    """Bytes of the op as it travels, a little more rather than less."""
    return len(change.key) + len(change.fields or b"") + 6 * len(change.table_name) + MEMBERS


def next_pending(
    connection: Connection, limit: int, most_bytes: int = MOST_BYTES, *, free: Free | None = None
) -> Sequence[Row[Any]]:
    """The pending changes that the next claim takes: as many as both limits allow, and groups whole.

    free: what the lane may take, where there are others. Raises GroupTooLarge.
    """
    if on_postgresql(connection):
        return _next_on_postgresql(connection, limit, most_bytes, free)
    (after,) = connection.execute(text("SELECT frozen_id FROM backhaul_replica")).one()
    statement = f"{_change(connection)} WHERE state = 'pending' AND id > :after ORDER BY id LIMIT :limit"
    return whole_groups(_rows_after(connection, statement, "id", after, limit), limit, most_bytes)


def _next_on_postgresql(connection: Connection, limit: int, most_bytes: int, free: Free | None) -> Sequence[Row[Any]]:
    changes = _change(connection)
    if free is None:
        return whole_groups(window.whole_groups(connection, changes, limit), limit, most_bytes)
    rows = whole_groups(free.among(window.whole_groups(connection, changes, limit)), limit, most_bytes)
    if rows or not free.left_out:
        return rows
    further = window.whole_groups(connection, changes, limit * FURTHER)  # past what is another lane's
    return whole_groups(free.among(further), limit, most_bytes)


def _sent(connection: Connection, limit: int, most_bytes: int, lane: int) -> Sequence[Row[Any]]:
    statement = f"{_change(connection)} WHERE {lanes.SENT_IN} ORDER BY send_seq LIMIT :limit"
    values = lanes.sent_in(lane)
    rows = _rows_after(connection, statement, "send_seq", values.pop("after"), limit, **values)
    return whole_groups(rows, limit, most_bytes)


def _change(connection: Connection) -> str:
    return f"""
        SELECT id, op_id, group_id, table_name, {as_bytes(connection, "key")} AS key, kind,
               {as_bytes(connection, "fields")} AS fields, base, send_seq, hlc, attempts, fence, again, captured_at,
               seen_hlc, lease_until, next_at
        FROM backhaul_outbox
    """  # noqa: S608 - the parts are constants


def _rows_after(
    connection: Connection, statement: str, number: str, after: int, limit: int, **others: int
) -> Generator[Row[Any], None, None]:
    """The rows in their order, each read when it is wanted: together they may be more than we hold."""
    in_pieces = not on_postgresql(connection)  # whose driver reads ahead, and where each piece is a journey
    while True:
        count, values = 0, {"after": after, "limit": limit + 1, **others}
        with connection.execute(text(statement), values, execution_options={"stream_results": True}) as result:
            rows = chain.from_iterable(result.partitions(READ_AT_ONCE)) if in_pieces else iter(result)
            for count, row in enumerate(rows, start=1):  # noqa: B007 - how many there were
                yield row
        if count <= limit:
            return
        after = getattr(row, number)


def whole_groups(rows: Generator[Row[Any], None, None], limit: int, most_bytes: int) -> list[Row[Any]]:
    """As many of the first rows as both limits allow, but one group at least, and whole: a transaction's rows stand
    together. Raises GroupTooLarge when the first group is more than a server must take."""
    taken: list[Row[Any]] = []
    begun = size = count = 0  # where the last group begins; bytes of all, and how many
    most_bytes, last = min(most_bytes, MOST_BODY), None
    with closing(rows):
        for row in rows:
            group, table, key, fields = BY_PLACE(row)
            if not count or group is None or group != last:
                if count >= limit:
                    break
                begun, last = count, group
            size += len(key) + len(fields or b"") + 6 * len(table) + MEMBERS  # size_of
            taken.append(row)
            count += 1
            if begun and (count > MOST_OPS or size > most_bytes or count - begun > limit):
                del taken[begun:]
                break
            if count > MOST_OPS:
                raise GroupTooLarge(taken[0].id, f"one transaction of more than {MOST_OPS} changes")
            if size > MOST_BODY:
                raise GroupTooLarge(taken[0].id, f"one transaction of more than {MOST_BODY} bytes")
    return taken


def _freeze(
    connection: Connection, rows: Sequence[Row[Any]], *, now: int, lane: int, footprint: Footprint | None
) -> list[Change]:
    if not rows:
        return []
    known = checkpoint.read(connection)
    seq, last, offset = lanes.last(connection, lane), known.last_hlc, known.clock_offset_ms
    origin = known.origin
    changes: list[Change] = []
    for row in map(tuple, rows):
        number, known_as, group, table, key, kind, fields, base, _, said, attempts, fence, again, at, seen, _, _ = row
        seq += 1
        if kind == "backfill":
            hlc = BACKFILL_STAMP
        elif said is not None:  # what is offered anew has the stamp that it is offered with
            hlc = said
        else:
            hlc = last = stamp_of(at, seen, last, now=now, offset=offset)
        op_id = known_as or _op_id(origin, number, at, table, kind, key, fields)
        changes.append(Change(number, op_id, group, table, key, kind, fields, base, seq, hlc, attempts, fence, again))
    lanes.numbered(connection, lane, seq, footprint)
    if not on_postgresql(connection):  # where a lower id may be committed later, and may be pending yet
        checkpoint.frozen(connection, rows[-1].id)
    return changes


def _op_id(origin: str, number: int, captured_at: int, table: str, kind: str, key: bytes, fields: bytes | None) -> str:
    """Made of what was captured, where and when: a database that is put back to a backup, and sends again what it had
    sent meanwhile, gives it the same id again. Two copies of a database that go on apart capture different things."""
    where = f"{origin} {number} {captured_at} {kind} {table!r} ".encode()
    return blake2b(b"%b%b%b" % (where, key, fields or b""), digest_size=16).hexdigest()  # JSON says where it ends


def made_of(word: str, *said: object) -> str:
    """The id of an op that is made of another one: said again, or edited."""
    return blake2b(f"{word} {said}".encode(), digest_size=16).hexdigest()


def op_ids(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """The op ids that these changes have, or would be sent with, by outbox id."""
    origin = checkpoint.read(connection).origin
    statement = text(f"""
        SELECT id, op_id, captured_at, table_name, kind, {as_bytes(connection, "key")}, {as_bytes(connection, "fields")}
        FROM backhaul_outbox WHERE id IN ({members(connection, "ids", "bigint")})
    """).execution_options(stream_results=True)  # noqa: S608 - the parts are constants
    found: dict[int, str] = {}
    for at in range(0, len(ids), AT_ONCE):
        with connection.execute(statement, {"ids": json.dumps(list(ids[at : at + AT_ONCE]))}) as rows:
            found |= {number: op_id or _op_id(origin, number, *said) for number, op_id, *said in rows}
    return found


def stamp_of(captured_at: int, seen_hlc: int, last: int, *, now: int, offset: int) -> int:
    made = stamp((captured_at if captured_at < now else now) + offset)
    before = seen_hlc if seen_hlc > last else last
    return made if made > before else before + 1


def freeze_fields(connection: Connection, rows: Sequence[tuple[bytes, bytes | None, int]]) -> None:
    """What these changes say from now on, as they are frozen. rows: fields, what was captured of texts, id."""
    statement = """
        UPDATE backhaul_outbox SET fields = ?, captured = coalesce(?, captured) WHERE id = ? AND state = 'pending'
    """
    together = """
        UPDATE backhaul_outbox AS outbox
        SET fields = frozen.fields, captured = coalesce(frozen.captured, outbox.captured)
        FROM unnest(?::text[], ?::text[], ?::bigint[]) AS frozen (fields, captured, id)
        WHERE outbox.id = frozen.id AND outbox.state = 'pending'
    """
    said = [(fields.decode(), None if texts is None else texts.decode(), number) for fields, texts, number in rows]
    run_together(connection, statement, said, together=together)


def _lease(connection: Connection, changes: Sequence[Change], *, until: int) -> None:
    statement = """
        UPDATE backhaul_outbox
        SET state = 'sent', op_id = ?, send_seq = ?, hlc = ?, lease_until = ?, fence = fence + 1,
            attempts = attempts + 1
        WHERE id = ? AND fence = ? AND (state = 'pending' OR state = 'sent')
    """
    together = """
        UPDATE backhaul_outbox AS outbox
        SET state = 'sent', op_id = taken.op_id, send_seq = taken.send_seq, hlc = taken.hlc, lease_until = taken.until,
            fence = outbox.fence + 1, attempts = attempts + 1
        FROM unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[])
             AS taken (op_id, send_seq, hlc, until, id, fence)
        WHERE outbox.id = taken.id AND outbox.fence = taken.fence AND (state = 'pending' OR state = 'sent')
    """
    rows = [(one.op_id, one.send_seq, one.hlc, until, one.id, one.fence) for one in changes]
    run_together(connection, statement, rows, together=together)
