"""-> conflict -> ...: what was refused because of what others wrote meanwhile, and what is held with it.

The conflicts themselves are in the ledger of conflicts (conflicts.py); here are the changes that they are made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from backhaul.replica.outbox.claiming import op_ids
from backhaul.replica.outbox.parking import KNOWN_AS, park_and_fill, said_again
from backhaul.statements import as_bytes, member, member_as_json, members, on_postgresql, run

CHUNK = 500  # changes held at once


class Conflicting(NamedTuple):
    """A change that is a conflict, or may become one. key: JSON; fields: JSON, as bytes. told: up to where the feed has
    told of its record while it was on its way."""

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
    told: int | None


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
               detail, conflict_id, version
        FROM backhaul_outbox WHERE state = 'conflict' AND {where} ORDER BY id
    """  # noqa: S608 - the parts are constants
    return [Conflicting(*row) for row in connection.execute(text(statement), values)]


UNSETTLED = ("pending", "sent", "parked", "conflict", "held")
OVERTAKEN = "OR state = 'acked' AND version IS NULL"


def unsettled_of(
    connection: Connection, table: str, states: Sequence[str] = UNSETTLED, *, first: int = 0, last: int = 2**63 - 1
) -> list[Conflicting]:
    """The changes of a table that the server has not taken, between two outbox ids, but for the backfill."""
    statement = f"""
        SELECT id, op_id, group_id, table_name, key, kind, {as_bytes(connection, "fields")} AS fields, base, reason,
               detail, conflict_id, version
        FROM backhaul_outbox
        WHERE table_name = :table AND kind NOT IN ('backfill', 'void') AND state IN ({members(connection, "states")})
          AND id BETWEEN :first AND :last
        ORDER BY id
    """  # noqa: S608 - the parts are constants
    values = {"table": table, "states": json.dumps(list(states)), "first": first, "last": last}
    return [Conflicting(*row) for row in connection.execute(text(statement), values)]


def any_unsettled_of(connection: Connection, tables: Sequence[str], *, overtaken: bool = False) -> bool:
    """Whether there is a change of these tables that the server has not taken, but for the backfill. overtaken: or that
    it has taken, and whose record is still to be fetched."""
    statement = f"""
        SELECT EXISTS (SELECT 1 FROM backhaul_outbox
                       WHERE kind NOT IN ('backfill', 'void') AND table_name IN ({members(connection, "tables")})
                         AND (state IN ({members(connection, "states")}) {OVERTAKEN if overtaken else ""}))
    """  # noqa: S608 - the same
    values = {"tables": json.dumps(list(tables)), "states": json.dumps(UNSETTLED)}
    return bool(connection.execute(text(statement), values).scalar_one())


def unsettled_saying(
    connection: Connection,
    table: str,
    keys: Sequence[str],
    said: Mapping[int | str, Sequence[str]],
    *,
    overtaken: bool = False,
) -> Iterator[list[tuple[int, str, dict[str, bytes]]]]:
    """Of the changes of a table that the server has not taken, but for the backfill: those with one of these keys, and
    those that do not say anything else than this. A chunk at a time, each change as its id, its key and what it says of
    the named fields (JSON).

    said: what a part of the key (by its number) or a field may be, as text. Who does not name it is not left out.
    overtaken: as in `any_unsettled_of`.
    """
    parts = [
        (member(connection, "key" if isinstance(name, int) else "fields", name), f"said{number}")
        for number, name in enumerate(said)
    ]
    same = " AND ".join(
        f"({part} IS NULL OR CAST({part} AS TEXT) IN ({members(connection, name)}))" for part, name in parts
    )
    fields = [name for name in said if isinstance(name, str)]
    told = "".join(f", {member_as_json(connection, 'fields', name)}" for name in fields)
    statement = f"""
        SELECT id, key{told} FROM backhaul_outbox
        WHERE table_name = :table AND kind NOT IN ('backfill', 'void')
          AND (state IN ({members(connection, "states")}) {OVERTAKEN if overtaken else ""})
          AND (key IN ({members(connection, "keys")}) OR {same})
    """  # noqa: S608 - the catalogue's own names, quoted
    values = {"table": table, "states": json.dumps(UNSETTLED), "keys": json.dumps(list(keys))}
    values |= {name: json.dumps(list(texts)) for (_, name), texts in zip(parts, said.values(), strict=True)}
    rows = connection.execute(text(statement).execution_options(stream_results=True), values)
    for chunk in rows.partitions(CHUNK):
        yield [
            (number, key, {name: bytes(it) for name, it in zip(fields, its, strict=True) if it})
            for number, key, *its in chunk
        ]


# ------------------------------------------------------------------------------------------------ -> conflict


def hold(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """pending -> conflict, because of a conflict. causes: id of the dependent -> op id of what it is held with."""
    statement = """
        UPDATE backhaul_outbox
        SET state = 'conflict', op_id = :op_id, reason = 'depends-on-conflict', detail = :detail, settled_at = :now
        WHERE id = :id AND state = 'pending'
    """
    known_as = op_ids(connection, list(causes))
    rows = [
        {"id": one, "op_id": op_id, "detail": f"is held with the conflict of {causes[one]}", "now": now}
        for one, op_id in known_as.items()
    ]
    if rows:
        connection.execute(text(statement), rows)


def hold_sent(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """sent -> conflict, as `park_sent_dependents`: the server has put it back, or never had it."""
    details = {one: f"is held with the conflict of {cause}" for one, cause in causes.items()}
    rows = [(one, None, "depends-on-conflict", detail) for one, detail in details.items()]
    park_and_fill(connection, rows, now=now, state="conflict")


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


# ------------------------------------------------------------------------------------------------ conflict -> ...


def insist(connection: Connection, ids: Sequence[int], group: str, *, now: int) -> int:
    """conflict -> pending, as new ops of one group, decided now: a person has seen what stands there."""
    statement = f"""
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base, captured,
                                     op_id, again)
        SELECT :group, mine.table_name, mine.key, mine.kind, mine.fields, :now, replica.seen_hlc, replica.position,
               mine.captured, known.op_id, 1
        FROM backhaul_outbox AS mine JOIN ({KNOWN_AS[on_postgresql(connection)]}) AS known ON known.id = mine.id,
             backhaul_replica AS replica
        WHERE mine.state = 'conflict'
        ORDER BY mine.id
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"known": said_again(connection, ids), "group": group, "now": now})
    return give_in(connection, ids)


def restate(connection: Connection, changes: Sequence[tuple[int, str, str]]) -> None:
    """Changes in a conflict say something else: nothing is there any more that they could change. changes: id, kind,
    fields."""
    statement = "UPDATE backhaul_outbox SET kind = ?, fields = ? WHERE id = ? AND state = 'conflict'"
    if changes:
        run(connection, statement, [(kind, fields, number) for number, kind, fields in changes])


def give_in(connection: Connection, ids: Sequence[int]) -> int:
    """conflict -> gone."""
    statement = "DELETE FROM backhaul_outbox WHERE id = :id AND state = 'conflict'"
    return connection.execute(text(statement), [{"id": one} for one in ids]).rowcount if ids else 0
