"""Changes under other numbers than they had: after a fork, another sign-in, or when the server was put back.

Op ids, stamps and bytes stay what they are: by its id the server knows an op that it has taken before, under whichever
number. (The outbox's states are explained in schema.py.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, text

from backhaul.replica import checkpoint
from backhaul.statements import members
from backhaul.wire import Registered, encode


class Offer(NamedTuple):
    """A change that is offered anew. key: canonical JSON. fields: wire values; None for a delete."""

    key: str
    kind: str
    fields: dict[str, Any] | None


def sign_in(connection: Connection, registered: Registered) -> None:
    """This database is another replica from now on: what it is not done with goes under that one's numbers, and
    everything is pulled from the beginning."""
    last = _renumber(connection, first=1)
    checkpoint.signed_in(connection, registered, last_send_seq=last, former_id=_last_id(connection))


def start_over(connection: Connection, registered: Registered) -> None:
    """The same with a server that does not know the replica that this one was: it has nothing of what that one sent."""
    forget_base(connection)
    go_on_from(connection, 1)
    last = checkpoint.read(connection).last_send_seq
    checkpoint.signed_in(connection, registered, last_send_seq=last, former_id=_last_id(connection))


def go_on_from(connection: Connection, due: int) -> None:
    """The server has no outcomes from this number on, though it gave some: what is still here goes again from there."""
    take_back(connection)
    last = _renumber(connection, first=due)
    checkpoint.renumbered(connection, last_send_seq=last, former_id=_last_id(connection))


def forget_base(connection: Connection) -> None:
    """The positions that apps had seen were of a past that the server has lost: nothing was seen of the new one."""
    connection.execute(text("UPDATE backhaul_outbox SET base = 0 WHERE state = 'pending' OR state = 'sent'"))


def take_back(connection: Connection) -> None:
    """What the server had taken, and no pull has passed, it may have lost: it is sent once more."""
    again = """
        UPDATE backhaul_outbox SET state = 'sent', version = NULL, settled_at = NULL, fence = fence + 1, next_at = 0
        WHERE state = 'acked'
    """
    connection.execute(text(again))
    connection.execute(text("UPDATE backhaul_outbox SET version = NULL WHERE state = 'sent'"))


def offer(connection: Connection, table: str, offers: Sequence[Offer], *, hlc: int, now: int) -> int:
    """Put these changes of a table into the outbox, with this stamp, but for what waits of their records already: an
    app's own change goes before. Returns how many."""
    waiting = _waiting(connection, table, [one.key for one in offers])
    statement = """
        INSERT INTO backhaul_outbox (table_name, key, kind, fields, captured_at, seen_hlc, base, hlc)
        VALUES (:table, :key, :kind, :fields, :now, 0, 0, :hlc)
    """
    rows = []
    for one in offers:
        kinds, names = waiting.get(one.key, (set(), set()))
        fields = None if one.fields is None else {n: v for n, v in one.fields.items() if n not in names}
        if kinds - {"update"} or (one.kind == "delete" and kinds) or (one.kind == "update" and not fields):
            continue
        said = None if fields is None else encode(one.fields if one.kind != "update" else fields).decode()
        rows.append({"table": table, "key": one.key, "kind": one.kind, "fields": said, "now": now, "hlc": hlc})
    if rows:
        connection.execute(text(statement), rows)
    return len(rows)


def _renumber(connection: Connection, *, first: int) -> int:
    """Number what was sent and has no outcome, in its order; returns the last number. A run that has sent it meanwhile
    settles nothing of it: its fence is old. Nothing has to fill old numbers any more."""
    connection.execute(text("DELETE FROM backhaul_outbox WHERE kind = 'void' AND state = 'sent'"))
    statement = """
        UPDATE backhaul_outbox
        SET send_seq = again.number, lease_until = 0, next_at = 0, attempts = 0, fence = fence + 1
        FROM (SELECT id AS row_id, :before + row_number() OVER (ORDER BY send_seq) AS number
              FROM backhaul_outbox WHERE state = 'sent') AS again
        WHERE backhaul_outbox.id = again.row_id
    """
    return first - 1 + connection.execute(text(statement), {"before": first - 1}).rowcount


def _last_id(connection: Connection) -> int:
    return connection.execute(text("SELECT max(id) FROM backhaul_outbox")).scalar() or 0


def _waiting(connection: Connection, table: str, keys: Sequence[str]) -> dict[str, tuple[set[str], set[str]]]:
    """For each of the records of which something waits: the kinds of its changes, and the fields that they name."""
    statement = f"""
        SELECT key, kind, fields FROM backhaul_outbox
        WHERE table_name = :table AND key IN ({members(connection, "keys")})
    """  # noqa: S608 - the parts are constants
    found: dict[str, tuple[set[str], set[str]]] = {}
    for row in connection.execute(text(statement), {"table": table, "keys": encode(list(keys)).decode()}):
        kinds, names = found.setdefault(row.key, (set(), set()))
        kinds.add(row.kind)
        names |= set(msgspec.json.decode(row.fields)) if row.fields else set()
    return found
