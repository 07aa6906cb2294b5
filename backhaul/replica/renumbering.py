"""Changes under other numbers than they had: after a fork, another sign-in, or when the server was put back.

Op ids, stamps and bytes stay what they are: by its id the server knows an op that it has taken before, under whichever
number. (The outbox's states are explained in schema.py.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, text

from backhaul.lanes import before_first, lane_of
from backhaul.replica import checkpoint, lanes, outbox, unseen
from backhaul.statements import members, on_postgresql
from backhaul.wire import MOST_BODY, MOST_OPS, Registered, encode

MEMBERS = 600  # bytes that an op has beside its key and its fields, at most
MOST_GROUP = MOST_BODY // 2  # bytes of what is offered as one


class Offer(NamedTuple):
    """A change that is offered anew. key: canonical JSON. fields: wire values; None for a delete. base: the position
    that it was made in sight of."""

    table: str
    key: str
    kind: str
    fields: dict[str, Any] | None
    base: int = 0


def sign_in(connection: Connection, registered: Registered) -> None:
    """This database is another replica from now on: what it is not done with goes under that one's numbers, and
    everything is pulled from the beginning."""
    lanes.begin_anew(connection)
    _renumber(connection, after=before_first(0))
    checkpoint.signed_in(connection, registered, former_id=_last_id(connection))


def start_over(connection: Connection, registered: Registered) -> None:
    """The same with a server that does not know the replica that this one was: it has nothing of what that one sent."""
    take_back(connection)
    sign_in(connection, registered)


def go_on_from(connection: Connection, due: int) -> None:
    """The server has no outcomes from this number on, though it gave some: what is still here goes again from there, in
    that number's lane. (Another lane hears of its own gap when it sends its next change.)"""
    take_back(connection, due=due)
    _renumber(connection, after=due - 1)
    checkpoint.renumbered(connection, former_id=_last_id(connection))


def into_one_lane(connection: Connection) -> None:
    """What was sent in several lanes goes again in the first, in its order: what kept the lanes apart was that the
    server had taken the one before the other was sent, and it may have lost that one."""
    if lanes.several(connection):
        _renumber(connection, after=lanes.last(connection, 0))
        checkpoint.renumbered(connection, former_id=_last_id(connection))


def never_taken(connection: Connection, due: int, *, now: int) -> None:
    """What was sent under this number and later ones the server has not got, under any: it may be given another."""
    statement = """
        UPDATE backhaul_outbox SET attempts = 0 WHERE state = 'sent' AND send_seq >= :due AND lease_until <= :now
    """
    connection.execute(text(statement), {"due": due, "now": now})


def take_back(connection: Connection, *, due: int = 1) -> None:
    """What the server had taken, and no pull has passed, it may have lost: it is sent once more. Not so what has a
    number before the one that is due in that number's lane: the server has its outcome, and may have forgotten it by
    the time that it would be asked again.

    The positions that apps had seen were of a past that the server has lost: nothing was seen of the new one."""
    again = """
        UPDATE backhaul_outbox SET state = 'sent', version = NULL, settled_at = NULL, fence = fence + 1, next_at = 0
        WHERE state = 'acked' AND (send_seq >= :due OR send_seq <= :others)
    """
    connection.execute(text(again), {"due": due, "others": before_first(lane_of(due))})
    connection.execute(text("UPDATE backhaul_outbox SET version = NULL WHERE state = 'sent'"))
    connection.execute(text("UPDATE backhaul_outbox SET base = 0 WHERE base > 0"))
    unseen.forget_base(connection)
    checkpoint.forget_position(connection)


def forget_another_past(connection: Connection) -> None:
    """What an app is said to have seen after all that there is to pull, it saw before the server was put back."""
    beyond = "UPDATE backhaul_outbox SET base = 0 WHERE base > (SELECT position FROM backhaul_replica)"
    connection.execute(text(beyond))


def offer(connection: Connection, groups: Sequence[tuple[Sequence[Offer], str | None]], *, hlc: int, now: int) -> int:
    """Put these changes into the outbox, each group as one, with this stamp, but for what waits of their records
    already: an app's own change goes before. groups: each with its name, where it has one already. One that no server
    takes is cut. Returns how many changes."""
    waiting = _waiting(connection, [one for group, _ in groups for one in group])
    statement = """
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base, hlc)
        VALUES (:group, :table, :key, :kind, :fields, :now, 0, :base, :hlc)
    """
    rows = []
    for group, known_as in groups:
        told = [one for offered in group if (one := _beside(offered, waiting.get((offered.table, offered.key))))]
        for some in _that_travel([(one, None if one.fields is None else encode(one.fields).decode()) for one in told]):
            name = known_as or (token_hex(16) if len(some) > 1 else None)
            for one, said in some:
                row = {"group": name, "table": one.table, "key": one.key, "kind": one.kind, "fields": said}
                rows.append(row | {"base": one.base, "now": now, "hlc": hlc})
    if rows:
        connection.execute(text(statement), rows)
    return len(rows)


def size_of(one: Offer) -> int:
    """Bytes of it as it travels, a little more rather than less."""
    return MEMBERS + len(one.key.encode()) + (0 if one.fields is None else len(encode(one.fields)))


def gather(connection: Connection, groups: Mapping[int, str]) -> None:
    """Changes of ours, some of which may have a number that none was sent under yet, go to the end, with the groups
    that they are of from now on. groups: by outbox id."""
    if not groups:
        return
    first = outbox.first_number(connection, groups)
    outbox.gather(connection, groups)
    if first is not None:
        _renumber(connection, after=first - 1, beyond=first - 1)


def _beside(one: Offer, waiting: tuple[set[str], set[str]] | None) -> Offer | None:
    """What is left of it beside what waits of its record."""
    kinds, names = waiting or (set(), set())
    if one.kind == "update":
        fields = {name: value for name, value in (one.fields or {}).items() if name not in names}
        return None if kinds - {"update", "backfill"} or not fields else one._replace(fields=fields)
    return None if kinds - {"update"} or (one.kind == "delete" and kinds) else one


def _that_travel(told: Sequence[tuple[Offer, str | None]]) -> Iterator[list[tuple[Offer, str | None]]]:
    some, size = list[tuple[Offer, str | None]](), 0
    for one, said in told:
        more = MEMBERS + len(one.key.encode()) + len((said or "").encode())
        if some and (len(some) >= MOST_OPS or size + more > MOST_GROUP):
            yield some
            some, size = [], 0
        some.append((one, said))
        size += more
    if some:
        yield some


def _renumber(connection: Connection, *, after: int, beyond: int = 0) -> None:
    """Number what was sent beyond a number and has no outcome, in its order, in the lane of the number `after`. A run
    that has sent it meanwhile settles nothing of it: its fence is old. Nothing has to fill old numbers any more."""
    filled = "DELETE FROM backhaul_outbox WHERE kind = 'void' AND state = 'sent' AND send_seq > :beyond"
    connection.execute(text(filled), {"beyond": beyond})
    place = "send_seq"
    if on_postgresql(connection):  # as in window.py, by which they were numbered first, in whichever lane
        place = "max(id) OVER (PARTITION BY group_id IS NULL, coalesce(group_id, CAST(id AS text)))"
    statement = f"""
        UPDATE backhaul_outbox
        SET send_seq = again.number, lease_until = 0, next_at = 0, attempts = 0, fence = fence + 1
        FROM (SELECT row_id, :after + row_number() OVER (ORDER BY place, row_id) AS number
              FROM (SELECT id AS row_id, {place} AS place FROM backhaul_outbox
                    WHERE state = 'sent' AND send_seq > :beyond) AS placed) AS again
        WHERE backhaul_outbox.id = again.row_id
    """  # noqa: S608 - one of two constants
    count = connection.execute(text(statement), {"after": after, "beyond": beyond}).rowcount
    lanes.numbered(connection, lane_of(after + 1), after + count)


def _last_id(connection: Connection) -> int:
    return connection.execute(text("SELECT max(id) FROM backhaul_outbox")).scalar() or 0


def _waiting(connection: Connection, offers: Sequence[Offer]) -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """For each of the records of which something waits: the kinds of its changes, and the fields that they name. (Not
    those of a backfill: it takes nothing from what another replica offers.)"""
    statement = f"""
        SELECT key, kind, fields FROM backhaul_outbox
        WHERE table_name = :table AND key IN ({members(connection, "keys")})
    """  # noqa: S608 - the parts are constants
    keys: dict[str, list[str]] = {}
    for one in offers:
        keys.setdefault(one.table, []).append(one.key)
    found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for table, some in keys.items():
        for row in connection.execute(text(statement), {"table": table, "keys": encode(some).decode()}):
            kinds, names = found.setdefault((table, row.key), (set(), set()))
            kinds.add(row.kind)
            names |= set(msgspec.json.decode(row.fields)) if row.fields and row.kind != "backfill" else set()
    return found
