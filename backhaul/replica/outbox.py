"""Ledger of backhaul_outbox: the changes on their way out. The states are explained in schema.py.

A claim freezes what it takes: from then on an op's number, stamp and bytes never change, so that sending it again is
harmless whatever became of the first try. Ops that were sent and have no outcome go again before anything new, in the
order of their numbers; a group goes whole.

The stamp of a change (see clock.py) is given at the freeze, from the time it was captured, corrected by the clock
offset as it is known then, after everything the app had seen and everything of this replica that the server took.
Only an op that the server has put back for its stamp is stamped anew.

Where the pull passes a change's version while its answer is still out, what the feed said of the record was withheld
and does not come again. Such a change is `overtaken` once it is settled: acked, without a version, until its record
was fetched (see pull.py). While it is `sent`, its version is how far the feed has told of its record meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, RowMapping, text

from backhaul.backoff import Backoff
from backhaul.clock import BACKFILL_STAMP, stamp
from backhaul.remotes import endpoint
from backhaul.replica import checkpoint, window
from backhaul.statements import as_bytes, members, on_postgresql, run, run_together
from backhaul.wire import MOST_BODY, MOST_OPS, Result, problem_name

MOST_BYTES = endpoint.MOST_BYTES  # of the ops that are claimed together, unless one group alone is larger
MEMBERS = 260  # bytes that an op has beside its key, its fields and its names, at most
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


class GroupTooLarge(Exception):
    """The next changes to send are one group that no server takes. first: the first of them."""

    def __init__(self, first: int, because: str) -> None:
        super().__init__(because)
        self.first = first


class Conflicting(NamedTuple):
    """A change that is a conflict, or may become one. key: JSON; fields: JSON, as bytes."""

    id: int
    op_id: str | None
    group_id: str | None
    table: str
    key: str
    kind: str
    fields: bytes | None
    base: int
    reason: str | None
    detail: str | None
    number: int | None


@dataclass(frozen=True, kw_only=True)
class Counts:
    pending: int
    parked: int
    oldest_pending_at: int | None


# ------------------------------------------------------------------------------------------------ asking


PENDING = "id > (SELECT frozen_id FROM backhaul_replica) AND state = 'pending'"
NOT_OUT = "(state = 'pending' OR state = 'parked' OR state = 'conflict')"


def pending(connection: Connection, now: int) -> bool:
    """Whether something could be sent now."""
    statement = f"""
        SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE {PENDING})
            OR EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'sent'
                       AND (next_at <= :now OR next_at > :longest) AND (lease_until <= :now OR lease_until > :longest))
    """  # noqa: S608 - the parts are constants of this file
    return bool(connection.execute(text(statement), {"now": now, "longest": now + LONGEST_WAIT_MS}).scalar_one())


def waiting(connection: Connection) -> int:
    """How many changes have no outcome yet."""
    statement = f"""
        SELECT (SELECT count(*) FROM backhaul_outbox WHERE {PENDING})
             + (SELECT count(*) FROM backhaul_outbox WHERE state = 'sent')
    """  # noqa: S608 - the same
    return int(connection.execute(text(statement)).scalar_one())


def any_parked(connection: Connection) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'parked')"
    return bool(connection.execute(text(statement)).scalar_one())


def counts(connection: Connection) -> Counts:
    statement = f"""
        SELECT (SELECT count(*) FROM backhaul_outbox WHERE state = 'parked') AS parked,
               (SELECT min(captured_at) FROM (
                   SELECT captured_at FROM (
                       SELECT captured_at FROM backhaul_outbox WHERE {PENDING} ORDER BY id LIMIT 1) AS unsent
                   UNION ALL
                   SELECT captured_at FROM (
                       SELECT captured_at FROM backhaul_outbox WHERE state = 'sent' ORDER BY send_seq LIMIT 1) AS sent
               ) AS first) AS oldest_pending_at
    """  # noqa: S608 - the same
    return Counts(pending=waiting(connection), **connection.execute(text(statement)).one()._mapping)


def of_record(connection: Connection, table: str, key: str) -> list[RowMapping]:
    """Every change of one record that is still here, oldest first. key: canonical JSON."""
    statement = """
        SELECT id, op_id, kind, state, captured_at, attempts, next_at, lease_until, version, reason, detail, settled_at,
               conflict_id
        FROM backhaul_outbox WHERE table_name = :table AND key = :key ORDER BY id
    """
    return list(connection.execute(text(statement), {"table": table, "key": key}).mappings())


def parked(connection: Connection) -> list[Mapping[str, Any]]:
    """Every parked change, oldest first. key, fields: as text, with a mark for each byte that is no UTF-8."""
    statement = f"""
        SELECT id, op_id, group_id, table_name, {as_bytes(connection, "key")} AS key, kind,
               {as_bytes(connection, "fields")} AS fields, captured_at, reason, detail, settled_at
        FROM backhaul_outbox WHERE state = 'parked' ORDER BY id
    """  # noqa: S608 - the parts are constants
    rows = connection.execute(text(statement)).mappings()
    return [{**row, "key": _legible(row["key"]), "fields": _legible(row["fields"])} for row in rows]


def parked_as_they_are(connection: Connection) -> list[Row[Any]]:
    """The same, with key and fields as bytes."""
    statement = f"""
        SELECT id, table_name, {as_bytes(connection, "key")} AS key, kind, {as_bytes(connection, "fields")} AS fields
        FROM backhaul_outbox WHERE state = 'parked' ORDER BY id
    """  # noqa: S608 - the parts are constants
    return list(connection.execute(text(statement)))


def _legible(said: bytes | None) -> str | None:
    return None if said is None else said.decode(errors="replace")


# ------------------------------------------------------------------------------------------------ pending -> sent


def _change(connection: Connection) -> str:
    return f"""
        SELECT id, op_id, group_id, table_name, {as_bytes(connection, "key")} AS key, kind,
               {as_bytes(connection, "fields")} AS fields, base, send_seq, hlc, attempts, fence, captured_at, seen_hlc,
               lease_until, next_at
        FROM backhaul_outbox
    """  # noqa: S608 - the parts are constants


def claim(
    connection: Connection,
    *,
    now: int,
    limit: int,
    lease_ms: int,
    most_bytes: int = MOST_BYTES,
    freeze: Callable[[list[Change]], list[Change]] | None = None,
) -> list[Change]:
    """The next changes to send, frozen and leased; none while others are on their way or wait for their next try.

    freeze: makes of what was captured what travels (deltas.py). Raises GroupTooLarge.
    """
    again = _sent(connection, _narrowed(connection, limit), most_bytes)
    if any(_lies_ahead(row.lease_until, now) or _lies_ahead(row.next_at, now) for row in again):
        return []
    changes = [Change(*row[: len(Change._fields)]) for row in again]
    if not changes:
        changes = _freeze(connection, next_pending(connection, limit, most_bytes), now=now)
        changes = freeze(changes) if freeze is not None else changes
    if changes:
        _lease(connection, changes, until=now + lease_ms)
    return changes


def _lies_ahead(moment: int, now: int) -> bool:
    return now < moment <= now + LONGEST_WAIT_MS


def _narrowed(connection: Connection, limit: int) -> int:
    """Half as many after each second try without an outcome: the link may be too slow for so much at once."""
    statement = "SELECT attempts FROM backhaul_outbox WHERE state = 'sent' ORDER BY send_seq LIMIT 1"
    tries = connection.execute(text(statement)).scalar() or 0
    return max(1, limit >> max(0, tries - 1))


def size_of(change: Change | Row[Any]) -> int:
    """Bytes of the op as it travels, a little more rather than less."""
    return len(change.key) + len(change.fields or b"") + 6 * len(change.table_name) + MEMBERS


def next_pending(connection: Connection, limit: int, most_bytes: int = MOST_BYTES) -> Sequence[Row[Any]]:
    """The pending changes that the next claim takes: as many as both limits allow, and groups whole.

    Raises GroupTooLarge.
    """
    if on_postgresql(connection):
        return _whole_groups(window.whole_groups(connection, _change(connection), limit), limit, most_bytes)
    (after,) = connection.execute(text("SELECT frozen_id FROM backhaul_replica")).one()
    statement = f"{_change(connection)} WHERE state = 'pending' AND id > :after ORDER BY id LIMIT :limit"
    return _whole_groups(_rows_after(connection, statement, "id", after=after, limit=limit), limit, most_bytes)


def _sent(connection: Connection, limit: int, most_bytes: int) -> Sequence[Row[Any]]:
    statement = f"{_change(connection)} WHERE state = 'sent' AND send_seq > :after ORDER BY send_seq LIMIT :limit"
    return _whole_groups(_rows_after(connection, statement, "send_seq", after=0, limit=limit), limit, most_bytes)


def _rows_after(
    connection: Connection, statement: str, number: str, *, after: int, limit: int
) -> Generator[Row[Any], None, None]:
    """The rows in their order, each read when it is wanted: together they may be more than we hold."""
    streamed = text(statement).execution_options(stream_results=True)
    while True:
        count = 0
        with connection.execute(streamed, {"after": after, "limit": limit + 1}) as result:
            for row in result:
                yield row
                count, after = count + 1, getattr(row, number)
        if count <= limit:
            return


def _whole_groups(rows: Generator[Row[Any], None, None], limit: int, most_bytes: int) -> list[Row[Any]]:
    """As many of the first rows as both limits allow, but one group at least, and whole: a transaction's rows stand
    together. Raises GroupTooLarge when the first group is more than a server must take."""
    taken: list[Row[Any]] = []
    begun = size = 0  # where the last group begins; bytes of all
    with closing(rows):
        for row in rows:
            if not taken or row.group_id is None or row.group_id != taken[-1].group_id:
                if len(taken) >= limit:
                    break
                begun = len(taken)
            size += size_of(row)
            taken.append(row)
            too_many = len(taken) > MOST_OPS
            if begun and (too_many or size > min(most_bytes, MOST_BODY) or len(taken) - begun > limit):
                del taken[begun:]
                break
            if too_many:
                raise GroupTooLarge(taken[0].id, f"one transaction of more than {MOST_OPS} changes")
            if size > MOST_BODY:
                raise GroupTooLarge(taken[0].id, f"one transaction of more than {MOST_BODY} bytes")
    return taken


def _freeze(connection: Connection, rows: Sequence[Row[Any]], *, now: int) -> list[Change]:
    if not rows:
        return []
    known = checkpoint.read(connection)
    seq, last, offset = known.last_send_seq, known.last_hlc, known.clock_offset_ms
    changes: list[Change] = []
    for taken in map(tuple, rows):
        number, _, group, table, key, kind, fields, base, _, said, attempts, fence, captured_at, seen_hlc, *_ = taken
        seq += 1
        if kind == "backfill":
            hlc = BACKFILL_STAMP
        elif said is not None:  # what is offered anew has the stamp that it is offered with
            hlc = said
        else:
            hlc = last = _stamp(captured_at, seen_hlc, last, now=now, offset=offset)
        op_id = _op_id(known.origin, number, captured_at, table, kind, key, fields)
        changes.append(Change(number, op_id, group, table, key, kind, fields, base, seq, hlc, attempts, fence))
    # On PostgreSQL a lower id may be committed later: there is none up to which nothing is pending.
    frozen_id = 0 if on_postgresql(connection) else rows[-1].id
    checkpoint.numbered(connection, send_seq=seq, frozen_id=frozen_id)
    return changes


def _op_id(origin: str, *said: object) -> str:
    """Made of what was captured, where and when: a database that is put back to a backup, and sends again what it had
    sent meanwhile, gives it the same id again. Two copies of a database that go on apart capture different things."""
    return blake2b(f"{origin} {said}".encode(), digest_size=16).hexdigest()


def _stamp(captured_at: int, seen_hlc: int, last: int, *, now: int, offset: int) -> int:
    return max(stamp(min(captured_at, now) + offset), seen_hlc + 1, last + 1)


def freeze_fields(connection: Connection, rows: Sequence[tuple[bytes, int]]) -> None:
    """What these changes say from now on, as they are frozen. rows: fields, id."""
    statement = "UPDATE backhaul_outbox SET fields = ? WHERE id = ? AND state = 'pending'"
    together = """
        UPDATE backhaul_outbox AS outbox SET fields = frozen.fields
        FROM unnest(?::text[], ?::bigint[]) AS frozen (fields, id)
        WHERE outbox.id = frozen.id AND outbox.state = 'pending'
    """
    run_together(connection, statement, [(fields.decode(), number) for fields, number in rows], together=together)


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


# ------------------------------------------------------------------------------------------------ sent -> settled


def settle(connection: Connection, changes: Sequence[Change], results: dict[str, Result], *, now: int) -> list[Change]:
    """Each change by its own result; returns those that have none yet, as they are."""
    accepted: list[tuple[int, int, int, int, int]] = []
    position = checkpoint.read(connection).position
    last_hlc = 0
    refused: list[dict[str, object]] = []
    again: list[Change] = []
    for change in changes:
        result = results.get(change.op_id)
        if result is None or result.status == "retry":
            again.append(change)
        elif change.kind == "void":
            accepted.append((max(1, result.version), result.version, now, change.id, change.fence + 1))
        elif result.status in ("applied", "duplicate"):
            # Taken before what we have pulled: by the one that we were before a backup. The pull withheld what it said.
            passed = 0 if result.version <= position else result.version
            accepted.append((passed, result.version, now, change.id, change.fence + 1))
            last_hlc = change.hlc
        else:
            refused.append(_refusal(change, result, now))
    _accept(connection, accepted)
    _park(connection, refused)
    checkpoint.stamped(connection, last_hlc)
    return again


def _accept(connection: Connection, values: list[tuple[int, int, int, int, int]]) -> None:
    statement = """
        UPDATE backhaul_outbox
        SET state = 'acked', version = CASE WHEN coalesce(version, 0) >= ? THEN NULL ELSE ? END, settled_at = ?,
            lease_until = 0, reason = NULL, detail = NULL
        WHERE id = ? AND fence = ? AND state = 'sent'
    """
    together = """
        UPDATE backhaul_outbox AS outbox
        SET state = 'acked',
            version = CASE WHEN coalesce(outbox.version, 0) >= told.passed THEN NULL ELSE told.version END,
            settled_at = told.settled_at, lease_until = 0, reason = NULL, detail = NULL
        FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[])
             AS told (passed, version, settled_at, id, fence)
        WHERE outbox.id = told.id AND outbox.fence = told.fence AND state = 'sent'
    """
    run_together(connection, statement, values, together=together)


def _refusal(change: Change, result: Result, now: int) -> dict[str, object]:
    problem = result.problem
    return {
        "id": change.id,
        "fence": change.fence + 1,
        "state": "conflict" if result.status == "conflict" else "parked",
        "reason": problem_name(problem) if problem else "refused",
        "detail": (problem.detail or problem.title) if problem else "",
        "now": now,
    }


def _park(connection: Connection, values: list[dict[str, object]]) -> None:
    statement = """
        UPDATE backhaul_outbox
        SET state = :state, reason = :reason, detail = :detail, settled_at = :now, lease_until = 0
        WHERE id = :id AND fence = :fence AND state = 'sent'
    """
    if values:
        connection.execute(text(statement), values)


def release(connection: Connection, changes: Sequence[Change], *, next_at: int, error: str) -> None:
    """The outcome is unknown, or the other side asked to wait: the same bytes again, not before `next_at`."""
    statement = """
        UPDATE backhaul_outbox SET lease_until = 0, next_at = :next_at, reason = :error
        WHERE id = :id AND fence = :fence AND state = 'sent'
    """
    error = error[:500]
    connection.execute(
        text(statement),
        [{"id": one.id, "fence": one.fence + 1, "next_at": next_at, "error": error} for one in changes],
    )


def next_try(changes: Sequence[Change], policy: Backoff, now: int) -> int:
    return now + policy.delay_ms(max(one.attempts for one in changes) + 1)


def take_over(connection: Connection) -> None:
    """Whoever held what was sent is gone: the run that asks is the only push. (If not: the server tells doubles.)"""
    connection.execute(text("UPDATE backhaul_outbox SET lease_until = 0 WHERE state = 'sent' AND lease_until > 0"))


def hasten(connection: Connection) -> None:
    """What waits for its next try may go now: a person asked, or the network is back."""
    connection.execute(text("UPDATE backhaul_outbox SET next_at = 0 WHERE state = 'sent' AND next_at > 0"))


def restamp(connection: Connection, *, now: int) -> bool:
    """The server has put back what was sent, as stamped too far ahead, and so has none of it: stamp it anew, by what
    is known of the clocks now. Returns whether the first of it has an earlier stamp, and may go again at once."""
    sent = """
        SELECT id, hlc, captured_at, seen_hlc FROM backhaul_outbox
        WHERE state = 'sent' AND (kind = 'insert' OR kind = 'update' OR kind = 'delete') ORDER BY send_seq
    """
    rows = connection.execute(text(sent)).all()
    known = checkpoint.read(connection)
    last = known.last_hlc
    stamps: list[tuple[int, int]] = []
    for row in rows:
        last = _stamp(row.captured_at, row.seen_hlc, last, now=now, offset=known.clock_offset_ms)
        stamps.append((last, row.id))
    if stamps:
        run(connection, "UPDATE backhaul_outbox SET hlc = ? WHERE id = ? AND state = 'sent'", stamps)
    return bool(stamps) and stamps[0][0] < rows[0].hlc


def mend_captured(connection: Connection, *, before: int, after: int, began: int, now: int) -> None:
    """The clock was set, by the difference of the offsets: changes whose time makes sense only with the offset that the
    clock had `before` get the time that it would have been by the clock of now. began: by the server's clock."""
    statement = """
        UPDATE backhaul_outbox SET captured_at = captured_at + :before - :after
        WHERE state = 'pending' AND (captured_at > :now OR captured_at + :after < :began)
          AND captured_at + :before BETWEEN :began AND :now + :after
    """
    values = {"before": before, "after": after, "began": began, "now": now}
    connection.execute(text(statement), values)


def told(connection: Connection, table: str, keys: Sequence[str], position: int) -> None:
    """The feed has told of these records, up to this position, and what was sent of them was laid over it."""
    statement = f"""
        UPDATE backhaul_outbox SET version = :position
        WHERE state = 'sent' AND table_name = :table AND key IN ({members(connection, "keys")})
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"table": table, "keys": json.dumps(list(keys)), "position": position})


def park_unsendable(connection: Connection, changes: Sequence[Change], *, reason: str, detail: str, now: int) -> None:
    """The server refuses the whole message that holds just these: a refused message has no effect."""
    rows = [(one.id, one.fence + 1, reason, detail[:500]) for one in changes]
    _park_and_fill(connection, rows, now=now)


def park_sent_dependents(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """sent -> parked, because of a parked change. causes: as for `park_dependents`.

    Only for what the server has not accepted: it was sent beside its cause, in a message that was refused or lost.
    """
    rows = [(one, None, "depends-on-parked", f"depends on the parked change {cause}") for one, cause in causes.items()]
    _park_and_fill(connection, rows, now=now)


def _park_and_fill(
    connection: Connection, rows: Sequence[tuple[int, int | None, str, str]], *, now: int, state: str = "parked"
) -> None:
    """sent -> parked (or conflict), for what the server has not accepted; their numbers are filled with nothing, for
    later numbers are accepted only after them. rows: id, fence (None: whichever), reason, detail.

    What fills a number has the id of the op whose number it is: should the server have refused that op in a message
    whose answer was lost, this is that op to it, and no other one under the same number.
    """
    fill = """
        INSERT INTO backhaul_outbox (op_id, table_name, key, kind, captured_at, seen_hlc, base, state, send_seq, hlc)
        SELECT op_id, table_name, '[]', 'void', :now, 0, 0, 'sent', send_seq, hlc
        FROM backhaul_outbox WHERE id = :id AND fence = coalesce(:fence, fence) AND state = 'sent'
    """
    park = """
        UPDATE backhaul_outbox
        SET state = :state, reason = :reason, detail = :detail, settled_at = :now, lease_until = 0, send_seq = NULL,
            hlc = NULL, version = NULL
        WHERE id = :id AND fence = coalesce(:fence, fence) AND state = 'sent'
    """
    values = [
        {"id": number, "fence": fence, "reason": reason, "detail": detail, "now": now}
        for number, fence, reason, detail in rows
    ]
    connection.execute(text(fill), values)
    connection.execute(text(park), [{**one, "state": state} for one in values])


def park_group(connection: Connection, first: int, *, reason: str, detail: str, now: int) -> None:
    """pending -> parked, for this change and the others of its group, however many, before any was sent."""
    random = "lower(hex(randomblob(16)))"
    if connection.dialect.name == "postgresql":
        random = "replace(CAST(gen_random_uuid() AS text), '-', '')"
    statement = f"""
        UPDATE backhaul_outbox
        SET state = 'parked', op_id = {random}, reason = :reason, detail = :detail, settled_at = :now
        WHERE state = 'pending'
          AND (id = :first OR id > :first AND group_id = (SELECT group_id FROM backhaul_outbox WHERE id = :first))
    """  # noqa: S608 - one of two constants
    connection.execute(text(statement), {"first": first, "reason": reason, "detail": detail, "now": now})


def found(connection: Connection, table: str, changes: Sequence[tuple[str, str, str]], *, now: int) -> None:
    """The app's changes that no trigger has seen; from now on they are like any other. changes: key, kind, fields."""
    statement = """
        INSERT INTO backhaul_outbox (table_name, key, kind, fields, captured_at, seen_hlc, base)
        SELECT ?, ?, ?, ?, ?, seen_hlc, position FROM backhaul_replica
    """
    if changes:
        run(connection, statement, [(table, *change, now) for change in changes])


def unsent(connection: Connection, table: str, chunk: int = 2_000) -> Iterator[list[tuple[int, bytes]]]:
    """Id and fields of the changes of a table that were not sent, are parked or in a conflict, in chunks."""
    statement = f"""
        SELECT id, {as_bytes(connection, "fields")} AS fields FROM backhaul_outbox
        WHERE table_name = :table AND {NOT_OUT} AND fields IS NOT NULL AND id > :after
        ORDER BY id LIMIT :chunk
    """  # noqa: S608 - the parts are constants
    after = 0
    while rows := connection.execute(text(statement), {"table": table, "after": after, "chunk": chunk}).all():
        yield [(row.id, bytes(row.fields)) for row in rows]
        after = rows[-1].id


def reword(connection: Connection, changes: Sequence[tuple[int, bytes]]) -> None:
    """pending, parked, conflict: they say the same of columns that have other names now. changes: id, fields."""
    statement = f"UPDATE backhaul_outbox SET fields = ? WHERE id = ? AND {NOT_OUT}"  # noqa: S608 - a constant
    together = f"""
        UPDATE backhaul_outbox SET fields = given.fields
        FROM unnest(CAST(? AS text[]), CAST(? AS bigint[])) AS given (fields, id)
        WHERE backhaul_outbox.id = given.id AND {NOT_OUT}
    """  # noqa: S608 - the same
    rows = [(fields.decode(), one) for one, fields in changes if fields.isascii() or _is_utf8(fields)]
    run_together(connection, statement, rows, together=together)


def _is_utf8(said: bytes) -> bool:
    try:
        said.decode()
    except UnicodeDecodeError:
        return False
    return True


def park_pending(connection: Connection, found: Mapping[int, str], *, reason: str, now: int) -> None:
    """pending -> parked, for what cannot be sent. found: id -> detail."""
    statement = """
        UPDATE backhaul_outbox
        SET state = 'parked', op_id = :op_id, reason = :reason, detail = :detail, settled_at = :now
        WHERE id = :id AND state = 'pending'
    """
    rows = [
        {"id": one, "op_id": token_hex(16), "reason": reason, "detail": detail[:500], "now": now}
        for one, detail in found.items()
    ]
    if rows:
        connection.execute(text(statement), rows)


def park_dependents(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """pending -> parked, because of a parked change. causes: id of the dependent -> op id of what it depends on."""
    statement = """
        UPDATE backhaul_outbox
        SET state = 'parked', op_id = :op_id, reason = 'depends-on-parked', detail = :detail, settled_at = :now
        WHERE id = :id AND state = 'pending'
    """
    rows = [
        {"id": one, "op_id": token_hex(16), "detail": f"depends on the parked change {cause}", "now": now}
        for one, cause in causes.items()
    ]
    connection.execute(text(statement), rows)


# ------------------------------------------------------------------------------------------------ settled -> gone


def forget_passed(connection: Connection, position: int) -> None:
    """The pull has passed these: what the feed says of the records includes them."""
    statement = "DELETE FROM backhaul_outbox WHERE state = 'acked' AND version <= :position"
    connection.execute(text(statement), {"position": position})


def overtaken(connection: Connection, limit: int) -> list[RowMapping]:
    """The first changes whose records are to be fetched: id, table_name, key."""
    statement = """
        SELECT id, table_name, key FROM backhaul_outbox
        WHERE state = 'acked' AND version IS NULL ORDER BY id LIMIT :limit
    """
    return list(connection.execute(text(statement), {"limit": limit}).mappings())


def forget_overtaken(connection: Connection, ids: Sequence[int]) -> None:
    """Their records were fetched, in this same transaction."""
    statement = "DELETE FROM backhaul_outbox WHERE id = :id AND state = 'acked' AND version IS NULL"
    connection.execute(text(statement), [{"id": one} for one in ids])


def give_up(connection: Connection) -> None:
    """pending, parked -> gone: an operator wants the server's state after a long absence, whatever waits. What was sent
    may have arrived, and is settled as always."""
    connection.execute(text("DELETE FROM backhaul_outbox WHERE state = 'pending' OR state = 'parked'"))


# ------------------------------------------------------------------------------------------------ parked -> ...


def requeue(connection: Connection, ids: Sequence[int], *, now: int) -> int:
    """parked -> pending, as a new op at the end of the queue, decided now: the old number has its outcome for good.

    What the app had seen when it wrote it (`base`) stays: a person who says "again" has not merged anything.
    """
    statement = f"""
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base)
        SELECT parked.group_id, parked.table_name, parked.key, parked.kind, parked.fields, :now, replica.seen_hlc,
               parked.base
        FROM backhaul_outbox AS parked, backhaul_replica AS replica
        WHERE parked.state = 'parked' AND parked.id IN ({members(connection, "ids", "bigint")})
        ORDER BY min(parked.id) OVER (PARTITION BY coalesce(parked.group_id, parked.op_id)), parked.id
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"ids": json.dumps(list(ids)), "now": now})
    return discard(connection, ids)


def rewrite(connection: Connection, changes: Sequence[tuple[str, bytes | None, int]]) -> None:
    """Parked changes say something else: the server has refused what they said. changes: key, fields, id."""
    decoded = "convert_from(CAST(? AS bytea), 'UTF8')" if on_postgresql(connection) else "CAST(? AS TEXT)"
    statement = f"UPDATE backhaul_outbox SET key = ?, fields = {decoded} WHERE id = ? AND state = 'parked'"  # noqa: S608 - the same
    if changes:
        run(connection, statement, list(changes))


def retell(connection: Connection, changes: Sequence[tuple[int, str, str | None]]) -> None:
    """Parked changes of which it was not known what they say. changes: id, kind, fields."""
    statement = """
        UPDATE backhaul_outbox SET kind = :kind, fields = :fields
        WHERE id = :id AND state = 'parked' AND reason = 'not-captured'
    """
    if changes:
        rows = [{"id": number, "kind": kind, "fields": fields} for number, kind, fields in changes]
        connection.execute(text(statement), rows)


def discard(connection: Connection, ids: Sequence[int]) -> int:
    """parked -> gone."""
    statement = "DELETE FROM backhaul_outbox WHERE id = :id AND state = 'parked'"
    return connection.execute(text(statement), [{"id": one} for one in ids]).rowcount if ids else 0


# ------------------------------------------------------------------------------------------------ -> conflict -> ...


def any_conflict(connection: Connection) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'conflict')"
    return bool(connection.execute(text(statement)).scalar_one())


def unnumbered(connection: Connection) -> list[Conflicting]:
    """The changes that became conflicts, or are held with one, and are not entered in the ledger of conflicts yet."""
    return _conflicting(connection, "conflict_id IS NULL", {})


def conflicting(connection: Connection, numbers: Sequence[int]) -> list[Conflicting]:
    """The changes that are in these conflicts."""
    return _conflicting(
        connection,
        f"conflict_id IN ({members(connection, 'numbers', 'bigint')})",
        {"numbers": json.dumps(list(numbers))},
    )


def conflicting_near(connection: Connection, op_ids: Sequence[str], groups: Sequence[str]) -> list[Conflicting]:
    """The changes that are in a conflict, and are one of these ops or of one of these groups."""
    where = f"op_id IN ({members(connection, 'ops')}) OR group_id IN ({members(connection, 'groups')})"
    values = {"ops": json.dumps(list(op_ids)), "groups": json.dumps(list(groups))}
    return _conflicting(connection, f"conflict_id IS NOT NULL AND ({where})", values)


def _conflicting(connection: Connection, where: str, values: dict[str, str]) -> list[Conflicting]:
    statement = f"""
        SELECT id, op_id, group_id, table_name, key, kind, {as_bytes(connection, "fields")} AS fields, base, reason,
               detail, conflict_id
        FROM backhaul_outbox WHERE state = 'conflict' AND {where} ORDER BY id
    """  # noqa: S608 - the parts are constants
    return [Conflicting(*row) for row in connection.execute(text(statement), values)]


UNSETTLED = ("pending", "sent", "parked", "conflict")


def unsettled_of(
    connection: Connection, table: str, states: Sequence[str] = UNSETTLED, *, first: int = 0, last: int = 2**63 - 1
) -> list[Conflicting]:
    """The changes of a table that the server has not taken, between two outbox ids, but for the backfill."""
    statement = f"""
        SELECT id, op_id, group_id, table_name, key, kind, {as_bytes(connection, "fields")} AS fields, base, reason,
               detail, conflict_id
        FROM backhaul_outbox
        WHERE table_name = :table AND kind NOT IN ('backfill', 'void') AND state IN ({members(connection, "states")})
          AND id BETWEEN :first AND :last
        ORDER BY id
    """  # noqa: S608 - the parts are constants
    values = {"table": table, "states": json.dumps(list(states)), "first": first, "last": last}
    return [Conflicting(*row) for row in connection.execute(text(statement), values)]


def lower_base(connection: Connection, bases: Mapping[int, int]) -> None:
    """Less was seen than the triggers could know. bases: id -> feed position."""
    statement = "UPDATE backhaul_outbox SET base = :base WHERE id = :id AND state = 'pending' AND base > :base"
    if bases:
        connection.execute(text(statement), [{"id": one, "base": base} for one, base in bases.items()])


def hold(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """pending -> conflict, because of a conflict. causes: id of the dependent -> op id of what it is held with."""
    statement = """
        UPDATE backhaul_outbox
        SET state = 'conflict', op_id = :op_id, reason = 'depends-on-conflict', detail = :detail, settled_at = :now
        WHERE id = :id AND state = 'pending'
    """
    rows = [
        {"id": one, "op_id": token_hex(16), "detail": f"is held with the conflict of {cause}", "now": now}
        for one, cause in causes.items()
    ]
    connection.execute(text(statement), rows)


def hold_sent(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """sent -> conflict, as `park_sent_dependents`: the server has put it back, or never had it."""
    details = {one: f"is held with the conflict of {cause}" for one, cause in causes.items()}
    rows = [(one, None, "depends-on-conflict", detail) for one, detail in details.items()]
    _park_and_fill(connection, rows, now=now, state="conflict")


def number(connection: Connection, numbers: Mapping[int, int]) -> None:
    """Say which conflict these changes are in. numbers: id -> number of the conflict."""
    statement = "UPDATE backhaul_outbox SET conflict_id = :number WHERE id = :id AND state = 'conflict'"
    connection.execute(text(statement), [{"id": one, "number": to} for one, to in numbers.items()])


def join_conflicts(connection: Connection, number: int, others: Sequence[int]) -> None:
    """Conflicts that turned out to be one."""
    statement = f"""
        UPDATE backhaul_outbox SET conflict_id = :number
        WHERE state = 'conflict' AND conflict_id IN ({members(connection, "others", "bigint")})
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"number": number, "others": json.dumps(list(others))})


def insist(connection: Connection, ids: Sequence[int], group: str, *, now: int) -> int:
    """conflict -> pending, as new ops of one group, decided now: a person has seen what stands there."""
    statement = f"""
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base)
        SELECT :group, mine.table_name, mine.key, mine.kind, mine.fields, :now, replica.seen_hlc, replica.position
        FROM backhaul_outbox AS mine, backhaul_replica AS replica
        WHERE mine.state = 'conflict' AND mine.id IN ({members(connection, "ids", "bigint")})
        ORDER BY mine.id
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"ids": json.dumps(list(ids)), "group": group, "now": now})
    return give_in(connection, ids)


def give_in(connection: Connection, ids: Sequence[int]) -> int:
    """conflict -> gone."""
    statement = "DELETE FROM backhaul_outbox WHERE id = :id AND state = 'conflict'"
    return connection.execute(text(statement), [{"id": one} for one in ids]).rowcount if ids else 0


def write(connection: Connection, changes: Sequence[tuple[str, str, str, str | None]], group: str, *, now: int) -> None:
    """New changes of our own making. changes: table, key, kind and fields, as JSON."""
    statement = """
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base)
        SELECT :group, :table, :key, :kind, :fields, :now, seen_hlc, position FROM backhaul_replica
    """
    rows = [
        {"group": group, "table": table, "key": key, "kind": kind, "fields": fields, "now": now}
        for table, key, kind, fields in changes
    ]
    if rows:
        connection.execute(text(statement), rows)
