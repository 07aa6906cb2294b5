"""Changes under other numbers than they had: after a fork, another sign-in, or when the server was put back.

Op ids, stamps and bytes stay what they are: by its id the server knows an op that it has taken before, under whichever
number. (The outbox's states are explained in schema.py.)
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from backhaul.replica import checkpoint
from backhaul.wire import Registered


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
    again = """
        UPDATE backhaul_outbox SET state = 'sent', version = NULL, settled_at = NULL, fence = fence + 1, next_at = 0
        WHERE state = 'acked'
    """
    connection.execute(text(again))
    last = _renumber(connection, first=due)
    checkpoint.renumbered(connection, last_send_seq=last, former_id=_last_id(connection))


def forget_base(connection: Connection) -> None:
    """The positions that apps had seen were of a past that the server has lost: nothing was seen of the new one."""
    connection.execute(text("UPDATE backhaul_outbox SET base = 0 WHERE state = 'pending' OR state = 'sent'"))


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
