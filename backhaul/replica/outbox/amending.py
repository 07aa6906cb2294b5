"""What no claim has taken: changes that no trigger wrote, and what is put right in changes before they go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from backhaul.replica.outbox.claiming import op_ids
from backhaul.statements import as_bytes, run, run_together


class Found(NamedTuple):
    """A change of the app's that no trigger has seen. fields: JSON. base: the feed position that the app had seen."""

    key: str
    kind: str
    fields: str
    base: int


def found(connection: Connection, table: str, changes: Sequence[Found], *, now: int) -> None:
    """From now on they are like any other."""
    statement = """
        INSERT INTO backhaul_outbox (table_name, key, kind, fields, base, captured_at, seen_hlc)
        SELECT ?, ?, ?, ?, ?, ?, seen_hlc FROM backhaul_replica
    """
    if changes:
        run(connection, statement, [(table, *change, now) for change in changes])


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


# ------------------------------------------------------------------------------------------------ as they wait


NOT_OUT = "(state = 'pending' OR state = 'parked' OR state = 'conflict' OR state = 'held')"


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


def identify(connection: Connection, table: str) -> None:
    """pending: what waits of a table gets the id that it would be sent with, which is made of what it says. In other
    words it is the same change from now on: a backup, in which it waits in the old ones, may be put back."""
    _identify(connection, "table_name = :table", {"table": table})


def _identify(connection: Connection, which: str, values: Mapping[str, object], chunk: int = 500) -> None:
    statement = f"""
        SELECT id FROM backhaul_outbox
        WHERE state = 'pending' AND op_id IS NULL AND id > :seen AND {which} ORDER BY id LIMIT :chunk
    """  # noqa: S608 - constants
    given = "UPDATE backhaul_outbox SET op_id = ? WHERE id = ? AND state = 'pending' AND op_id IS NULL"
    together = """
        UPDATE backhaul_outbox SET op_id = given.op_id
        FROM unnest(CAST(? AS text[]), CAST(? AS bigint[])) AS given (op_id, id)
        WHERE backhaul_outbox.id = given.id AND state = 'pending' AND backhaul_outbox.op_id IS NULL
    """
    seen = 0
    while ids := list(connection.execute(text(statement), {**values, "seen": seen, "chunk": chunk}).scalars()):
        rows = [(op_id, number) for number, op_id in op_ids(connection, ids).items()]
        run_together(connection, given, rows, together=together)
        seen = ids[-1]


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name, in whatever state its changes are. What was sent goes again under the new name: its
    id and number say which it is, and the server, which was told of the name before, reads both."""
    statement = "UPDATE backhaul_outbox SET table_name = :new WHERE table_name = :old"
    connection.execute(text(statement), {"old": old, "new": new})


def reword(connection: Connection, changes: Sequence[tuple[int, bytes]]) -> None:
    """pending, held, parked, conflict: they say the same of columns that have other names now. changes: id, fields."""
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


def lower_base(connection: Connection, bases: Mapping[int, int]) -> None:
    """Less was seen than the triggers could know. bases: id -> feed position."""
    statement = "UPDATE backhaul_outbox SET base = :base WHERE id = :id AND state = 'pending' AND base > :base"
    if bases:
        connection.execute(text(statement), [{"id": one, "base": base} for one, base in bases.items()])


def mend_captured(connection: Connection, *, before: int, after: int, began: int, now: int) -> None:
    """The clock was set, by the difference of the offsets: changes whose time makes sense only with the offset that the
    clock had `before` get the time that it would have been by the clock of now. began: by the server's clock. They are
    the ops that they were."""
    mistimed = """
        (captured_at > :now OR captured_at + :after < :began)
        AND captured_at + :before BETWEEN :began AND :now + :after
    """
    statement = f"""
        UPDATE backhaul_outbox SET captured_at = captured_at + :before - :after WHERE state = 'pending' AND {mistimed}
    """  # noqa: S608 - a constant
    values = {"before": before, "after": after, "began": began, "now": now}
    _identify(connection, mistimed, values)
    connection.execute(text(statement), values)


def give_up(connection: Connection) -> None:
    """pending, held, parked -> gone: an operator wants the server's state after a long absence, whatever waits. What
    was sent may have arrived, and is settled as always; what is a conflict is a person's. What was done to their
    records after that stays with them, its groups whole: the rows are what comes of all of it."""
    held = "SELECT table_name, key FROM backhaul_outbox WHERE state = 'sent' OR state = 'conflict'"
    waits = "(state = 'pending' OR state = 'held' OR state = 'parked')"
    statement = f"""
        DELETE FROM backhaul_outbox
        WHERE {waits} AND (table_name, key) NOT IN ({held})
          AND (group_id IS NULL OR group_id NOT IN (
            SELECT group_id FROM backhaul_outbox
            WHERE {waits} AND group_id IS NOT NULL AND (table_name, key) IN ({held})))
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement))
