"""Ledger of backhaul_lane: the lanes that this replica pushes in, how far each is numbered, and what it has on its way.

One lane is the rule. On PostgreSQL several workers, on as many machines, may drain one outbox, each in a lane of its
own: what the server has of one lane says nothing of the others, so none waits for another. Within a lane the order is
that of one; what must stay in order (changes of one record, a transaction, a record and those that refer to it) is
never on its way in two lanes at once: a claim leaves alone what is entangled with another lane's (footprint.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.errors import Busy
from backhaul.lanes import COUNT_BITS, before_first, last_of
from backhaul.replica.footprint import Footprint
from backhaul.statements import text


@dataclass(frozen=True, kw_only=True)
class Lane:
    """number: from 0. of: how many there are. call: asks for help in the next one, when there is more than a batch."""

    number: int = 0
    of: int = 1
    call: Callable[[], None] | None = None


ONLY = Lane()
REST_MS = 500
BUSY = """
    EXISTS (SELECT 1 FROM backhaul_outbox
            WHERE state = 'sent' AND send_seq > (lane << :bits) AND send_seq < ((lane + 1) << :bits))
"""


SENT_IN = "state = 'sent' AND send_seq > :after AND send_seq <= :last"


def sent_in(lane: int) -> dict[str, int]:
    """The values of SENT_IN: what was sent in a lane, and has no outcome yet."""
    return {"after": before_first(lane), "last": last_of(lane)}


def last(connection: Connection, lane: int) -> int:
    """The number that was given out last in the lane."""
    statement = "SELECT last_send_seq FROM backhaul_lane WHERE lane = :lane"
    found = connection.execute(text(statement), {"lane": lane}).scalar_one_or_none()
    return before_first(lane) if found is None else int(found)


def settled(connection: Connection) -> int | None:
    """The number up to which every outcome is known here. None with more lanes than the first: what was numbered anew
    may have left numbers of the others behind, which never get an outcome."""
    given = connection.execute(text("SELECT lane, last_send_seq FROM backhaul_lane")).all()
    if any(row.lane for row in given):
        return None
    first = connection.execute(text("SELECT min(send_seq) FROM backhaul_outbox WHERE state = 'sent'")).scalar()
    return int(first) - 1 if first is not None else sum(row.last_send_seq for row in given)


def numbered(connection: Connection, lane: int, last: int, footprint: Footprint | None = None) -> None:
    """Numbers up to this were given out in the lane. footprint: of what it has on its way now; None: it may be about
    anything."""
    statement = """
        INSERT INTO backhaul_lane (lane, last_send_seq, changes, needs) VALUES (:lane, :last, :changes, :needs)
        ON CONFLICT (lane) DO UPDATE
        SET last_send_seq = excluded.last_send_seq, changes = excluded.changes, needs = excluded.needs
    """
    values = {
        "lane": lane,
        "last": last,
        "changes": None if footprint is None else b"".join(footprint.changes),
        "needs": None if footprint is None else b"".join(footprint.needs),
    }
    connection.execute(text(statement), values)


def elsewhere(connection: Connection, lane: int) -> Footprint | None:
    """What the other lanes have on their way, together; None when that may be anything."""
    statement = f"SELECT changes, needs FROM backhaul_lane WHERE lane <> :lane AND {BUSY}"  # noqa: S608 - a constant
    together = Footprint(set(), set())
    for changes, needs in connection.execute(text(statement), {"lane": lane, "bits": COUNT_BITS}):
        if changes is None or needs is None:
            return None
        together.changes.update(Footprint.read(changes))
        together.needs.update(Footprint.read(needs))
    return together


def forget_footprints(connection: Connection) -> None:
    """A table has another name, and digests tell of the old one: what is on its way may be about anything."""
    connection.execute(text("UPDATE backhaul_lane SET changes = NULL, needs = NULL"))


def left_behind(connection: Connection, lanes: int) -> list[int]:
    """Lanes that are used no more, for there are fewer now, and have something on its way all the same."""
    statement = f"SELECT lane FROM backhaul_lane WHERE lane >= :lanes AND {BUSY} ORDER BY lane"  # noqa: S608 - the same
    return list(connection.execute(text(statement), {"lanes": lanes, "bits": COUNT_BITS}).scalars())


def begin_anew(connection: Connection) -> None:
    """No number was given out by this replica yet: it is another one than it was."""
    connection.execute(text("DELETE FROM backhaul_lane"))


def several(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT count(*) > 1 FROM backhaul_lane")).scalar_one())


def wait_until_all_rest(connection: Connection) -> None:
    """Before numbers are given out anew: what another lane has on its way under an old one could arrive after it was
    sent under the new one, and be taken twice. Raises Busy while there is such."""
    out = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'sent' AND lease_until > 0)"
    if several(connection) and connection.execute(text(out)).scalar_one():
        raise Busy("another lane of this replica is sending", retry_after_ms=REST_MS)


def wait_until_it_rests(connection: Connection, now: int) -> None:
    """The same for who is no push, and so may meet one in the only lane. What a run that was killed has left does not
    arrive any more once its lease is over."""
    out = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'sent' AND lease_until > :now)"
    if connection.execute(text(out), {"now": now}).scalar_one():
        raise Busy("this replica is sending", retry_after_ms=REST_MS)
