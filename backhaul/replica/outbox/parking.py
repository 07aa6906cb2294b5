"""-> parked -> ...: what no server takes as it is. It waits for a person, who has it sent anew, or drops it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from backhaul.replica.outbox.claiming import AT_ONCE, Change, made_of, op_ids
from backhaul.statements import members, on_postgresql, run

# Of a JSON array of [outbox id, op id] (by whether it is PostgreSQL).
KNOWN_AS = {
    False: "SELECT value ->> 0 AS id, value ->> 1 AS op_id FROM json_each(:known)",
    True: "SELECT CAST(value ->> 0 AS bigint) AS id, value ->> 1 AS op_id"
    " FROM json_array_elements(CAST(:known AS json))",
}


# ------------------------------------------------------------------------------------------------ pending -> parked


def park_group(connection: Connection, first: int, *, reason: str, detail: str, now: int) -> None:
    """pending -> parked, for this change and the others of its group, however many, before any was sent."""
    statement = text("""
        SELECT id FROM backhaul_outbox
        WHERE state = 'pending' AND id > :after
          AND (id = :first OR id > :first AND group_id = (SELECT group_id FROM backhaul_outbox WHERE id = :first))
        ORDER BY id LIMIT :limit
    """)
    after = first - 1
    while True:
        values = {"first": first, "after": after, "limit": AT_ONCE}
        ids = [number for (number,) in connection.execute(statement, values)]
        park_pending(connection, dict.fromkeys(ids, detail), reason=reason, now=now)
        if len(ids) < AT_ONCE:
            return
        after = ids[-1]


def park_pending(connection: Connection, found: Mapping[int, str], *, reason: str, now: int) -> None:
    """pending or held -> parked, for what cannot be sent. found: id -> detail."""
    statement = """
        UPDATE backhaul_outbox
        SET state = 'parked', op_id = :op_id, reason = :reason, detail = :detail, settled_at = :now
        WHERE id = :id AND (state = 'pending' OR state = 'held')
    """
    known_as = op_ids(connection, list(found))
    rows = [
        {"id": one, "op_id": op_id, "reason": reason, "detail": found[one][:500], "now": now}
        for one, op_id in known_as.items()
    ]
    if rows:
        connection.execute(text(statement), rows)


def park_dependents(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """pending or held -> parked, because of a parked change. causes: id of the dependent -> op id of what it depends
    on."""
    details = {one: f"depends on the parked change {cause}" for one, cause in causes.items()}
    park_pending(connection, details, reason="depends-on-parked", now=now)


# ------------------------------------------------------------------------------------------------ sent -> parked


def park_unsendable(connection: Connection, changes: Sequence[Change], *, reason: str, detail: str, now: int) -> None:
    """The server refuses the whole message that holds just these: a refused message has no effect."""
    rows = [(one.id, one.fence + 1, reason, detail[:500]) for one in changes]
    park_and_fill(connection, rows, now=now)


def park_sent_dependents(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """sent -> parked, because of a parked change. causes: as for `park_dependents`.

    Only for what the server has not accepted: it was sent beside its cause, in a message that was refused or lost.
    """
    rows = [(one, None, "depends-on-parked", f"depends on the parked change {cause}") for one, cause in causes.items()]
    park_and_fill(connection, rows, now=now)


def park_and_fill(
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
            hlc = NULL, version = NULL, attempts = CASE WHEN attempts = 0 THEN 1 ELSE attempts END
        WHERE id = :id AND fence = coalesce(:fence, fence) AND state = 'sent'
    """
    values = [
        {"id": number, "fence": fence, "reason": reason, "detail": detail, "now": now}
        for number, fence, reason, detail in rows
    ]
    connection.execute(text(fill), values)
    connection.execute(text(park), [{**one, "state": state} for one in values])


# ------------------------------------------------------------------------------------------------ parked -> ...


def said_again(connection: Connection, ids: Sequence[int]) -> str:
    """The op ids under which these changes are sent again, as JSON: [[outbox id, op id], ...]. Made of the old ones: a
    person who is asked once more, by a database that was put back to a backup, says the same op once more.

    What was not sent yet is sent under the id that it has.
    """
    statement = text(f"""
        SELECT id FROM backhaul_outbox WHERE attempts > 0 AND id IN ({members(connection, "ids", "bigint")})
    """)  # noqa: S608 - the parts are constants
    sent = {number for (number,) in connection.execute(statement, {"ids": json.dumps(list(ids))})}
    known_as = op_ids(connection, ids)
    return json.dumps([[one, made_of("again", op) if one in sent else op] for one, op in known_as.items()])


def requeue(connection: Connection, ids: Sequence[int], *, now: int) -> int:
    """parked -> pending, as a new op at the end of the queue, decided now: the old number has its outcome for good.

    What the app had seen when it wrote it (`base`) stays: a person who says "again" has not merged anything. A row that
    was offered, and may have been deleted elsewhere (`record-gone`), is made anew: that is what "again" means of it.
    """
    statement = f"""
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base, captured,
                                     op_id, again)
        SELECT parked.group_id, parked.table_name, parked.key,
               CASE WHEN parked.kind = 'backfill' AND parked.reason = 'record-gone' THEN 'insert' ELSE parked.kind END,
               parked.fields, :now, replica.seen_hlc, parked.base, parked.captured, known.op_id, 1
        FROM backhaul_outbox AS parked JOIN ({KNOWN_AS[on_postgresql(connection)]}) AS known ON known.id = parked.id,
             backhaul_replica AS replica
        WHERE parked.state = 'parked'
        ORDER BY min(parked.id) OVER (PARTITION BY coalesce(parked.group_id, parked.op_id)), parked.id
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"known": said_again(connection, ids), "now": now})
    return discard(connection, ids)


def resume(connection: Connection, ids: Sequence[int], *, state: Literal["parked", "held"] = "parked") -> int:
    """parked or held -> pending, as a new op with the stamp that it had: it was refused for what the server did not
    know yet, or was not sent, and says what it said when it said it."""
    statement = f"""
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base, hlc,
                                     captured, op_id, again)
        SELECT parked.group_id, parked.table_name, parked.key, parked.kind, parked.fields, parked.captured_at,
               parked.seen_hlc, parked.base, parked.hlc, parked.captured, known.op_id, 1
        FROM backhaul_outbox AS parked JOIN ({KNOWN_AS[on_postgresql(connection)]}) AS known ON known.id = parked.id
        WHERE parked.state = :state
        ORDER BY min(parked.id) OVER (PARTITION BY coalesce(parked.group_id, parked.op_id)), parked.id
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"known": said_again(connection, ids), "state": state})
    return discard(connection, ids, state=state)


def rewrite(connection: Connection, changes: Sequence[tuple[str, bytes | None, int]]) -> None:
    """Parked changes say something else: the server has refused what they said. They are other ops from now on.
    changes: key, fields, id."""
    decoded = "convert_from(CAST(? AS bytea), 'UTF8')" if on_postgresql(connection) else "CAST(? AS TEXT)"
    statement = f"""
        UPDATE backhaul_outbox SET key = ?, fields = {decoded}, op_id = ? WHERE id = ? AND state = 'parked'
    """  # noqa: S608 - the same
    known_as = op_ids(connection, [number for _, _, number in changes])
    rows = [
        (key, fields, made_of("edited", known_as[number], key, fields), number)
        for key, fields, number in changes
        if number in known_as
    ]
    if rows:
        run(connection, statement, rows)


def thawable(connection: Connection) -> list[Row[Any]]:
    """The parked changes with edits of texts that were frozen: id, table_name, key, fields, captured, as text."""
    statement = """
        SELECT id, table_name, key, fields, captured FROM backhaul_outbox
        WHERE state = 'parked' AND captured IS NOT NULL ORDER BY id
    """
    return list(connection.execute(text(statement)))


def thaw(connection: Connection, changes: Sequence[tuple[int, str]]) -> None:
    """Parked changes say of texts what was captured once more, and nothing is made of it yet. changes: id, fields."""
    statement = "UPDATE backhaul_outbox SET fields = ?, captured = NULL WHERE id = ? AND state = 'parked'"
    if changes:
        run(connection, statement, [(fields, number) for number, fields in changes])


def retell(connection: Connection, changes: Sequence[tuple[int, str, str | None]]) -> None:
    """Parked changes say what became of their rows: it was not known what they say, or what they changed is gone. They
    stay the ops that they are. changes: id, kind, fields."""
    statement = "UPDATE backhaul_outbox SET kind = :kind, fields = :fields WHERE id = :id AND state = 'parked'"
    if changes:
        rows = [{"id": number, "kind": kind, "fields": fields} for number, kind, fields in changes]
        connection.execute(text(statement), rows)


def discard(connection: Connection, ids: Sequence[int], *, state: Literal["parked", "held"] = "parked") -> int:
    """parked -> gone."""
    statement = "DELETE FROM backhaul_outbox WHERE id = :id AND state = :state"
    return connection.execute(text(statement), [{"id": one, "state": state} for one in ids]).rowcount if ids else 0
