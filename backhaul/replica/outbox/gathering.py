"""pending, sent -> pending, at the end and in another group: what is to go with something else (see joining.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Connection, Row, text

from backhaul.replica.outbox.claiming import op_ids
from backhaul.statements import as_bytes, members, run_together

Waiting = Row[tuple[int, str | None, str, bytes, str, bytes | None, str, int]]


@contextmanager
def in_groups(connection: Connection) -> Iterator[Iterator[Waiting]]:
    """What the server has not taken, each group together, in the order of their last changes: id, group_id, table_name,
    key, kind, fields, state, attempts."""
    statement = text(f"""
        SELECT id, group_id, table_name, {as_bytes(connection, "key")} AS key, kind,
               {as_bytes(connection, "fields")} AS fields, state, attempts
        FROM (SELECT *, max(id) OVER (PARTITION BY group_id IS NULL, coalesce(group_id, CAST(id AS text))) AS place
              FROM backhaul_outbox WHERE state <> 'acked' AND kind <> 'void') AS waiting
        ORDER BY place, id
    """).execution_options(stream_results=True)  # noqa: S608 - the parts are constants
    with connection.execute(statement) as rows:
        yield iter(rows)


def first_number(connection: Connection, ids: Mapping[int, str]) -> int | None:
    """The lowest under which one of these was to be sent."""
    statement = f"""
        SELECT min(send_seq) FROM backhaul_outbox
        WHERE state = 'sent' AND id IN ({members(connection, "ids", "bigint")})
    """  # noqa: S608 - the parts are constants
    return connection.execute(text(statement), {"ids": json.dumps(list(ids))}).scalar()


def gather(connection: Connection, groups: Mapping[int, str]) -> None:
    """Put these changes before what is in their new groups already, all at the end. They are the ops that they were.
    What is refused stays, and gets the group if it has none. groups: by outbox id."""
    last = connection.execute(text("SELECT max(id) FROM backhaul_outbox")).scalar_one()
    former = """
        CASE WHEN state = 'sent' OR backhaul_outbox.id <= (SELECT former_id FROM backhaul_replica) THEN 1 ELSE again END
    """
    regroup = f"""
        UPDATE backhaul_outbox SET group_id = ?, op_id = ?, again = {former}, state = 'pending', send_seq = NULL
        WHERE id = ? AND (state = 'pending' OR state = 'sent')
    """  # noqa: S608 - a constant
    together = f"""
        UPDATE backhaul_outbox
        SET group_id = given.name, op_id = given.op, again = {former}, state = 'pending', send_seq = NULL
        FROM unnest(CAST(? AS text[]), CAST(? AS text[]), CAST(? AS bigint[])) AS given (name, op, id)
        WHERE backhaul_outbox.id = given.id AND (state = 'pending' OR state = 'sent')
    """  # noqa: S608 - the same
    known_as = op_ids(connection, list(groups))
    rows = [(name, known_as[number], number) for number, name in groups.items() if number in known_as]
    run_together(connection, regroup, rows, together=together)
    alone = "UPDATE backhaul_outbox SET group_id = :name WHERE id = :id AND group_id IS NULL"
    connection.execute(text(alone), [{"id": number, "name": name} for number, name in groups.items()])
    named = f"group_id IN ({members(connection, 'names')}) AND state = 'pending' AND id <= :last"
    moved = f"""
        INSERT INTO backhaul_outbox (op_id, group_id, table_name, key, kind, fields, captured_at, seen_hlc, base, hlc,
                                     captured, again)
        SELECT op_id, group_id, table_name, key, kind, fields, captured_at, seen_hlc, base, hlc, captured, again
        FROM backhaul_outbox WHERE {named} ORDER BY group_id, id
    """  # noqa: S608 - the parts are constants
    values = {"names": json.dumps(sorted(set(groups.values()))), "last": last}
    connection.execute(text(moved), values)
    connection.execute(text(f"DELETE FROM backhaul_outbox WHERE {named}"), values)  # noqa: S608 - the same
