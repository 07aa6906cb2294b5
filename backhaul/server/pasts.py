"""Whether a cursor is of the past that this server has, and remembers: it may have been put back to a backup since the
cursor was written, and it forgets deletions. Nothing here writes.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from backhaul.errors import Refused
from backhaul.server import cursors, leaps, scopes
from backhaul.server.cursors import Place
from backhaul.server.leaps import Leap
from backhaul.server.problems import refusal
from backhaul.server.scopes import Head


class ServerRestored(Refused):
    """seen: the position that the replica has been at, and the server is not any more. common: the last one of which
    both pasts are sure to be. position: up to where the replica has everything that is still so. cursor: from there; ""
    where it cannot go on from there."""

    def __init__(self, seen: int, common: int, position: int = 0, cursor: str = "") -> None:
        told = refusal("server-restored", f"the server was put back to a backup: it knows nothing of position {seen}")
        super().__init__(str(told), problem=told.problem, status=told.status, cursor=cursor, position=position)
        self.seen = seen
        self.common = common


def check_is_young(place: Place, head: Head) -> None:
    """Whoever has not heard of a tombstone that is forgotten by now would keep the record for ever."""
    if place.heard < max(head.horizon, head.collected):
        raise refusal("cursor-expired", "the cursor is older than what the server remembers of deletions")


def check_is_of_this_past(
    connection: Connection, secret: bytes, scope: str, place: Place, head: Head, leapt: tuple[Leap, ...], now: int
) -> None:
    """Raises ServerRestored with the cursor of the last position that the server and the replica have in common. Where
    deletions are forgotten that the replica has not heard of, or it has not come to the end of its first round, there
    is no place from which it could go on: it begins anew, as one that has seen nothing."""
    forgotten = place.seen < head.horizon  # its nonce is
    lost_from = leaps.lost_from(leapt, place.seen, place.at) if forgotten else None
    if lost_from is None and (forgotten or _is_known(connection, scope, place, head)):
        return
    # What was committed before the cursor was written, and is still here, was there before the backup was taken.
    position, nonce = scopes.common(connection, scope, before=place.seen, until=place.at)
    position = max(position, lost_from or 0)
    floor = max(0, min(position, place.floor))  # after the floor of a round, not all is sure to have come
    if place.floor == cursors.BEGINNING or floor < max(head.horizon, head.collected):
        raise ServerRestored(place.seen, position, floor)
    common = Place(floor=floor, start=(floor + 1, "", ""), began=floor, seen=position, nonce=nonce, at=now)
    raise ServerRestored(place.seen, position, floor, cursors.seal(secret, scope, head.feed, common))


def _is_known(connection: Connection, scope: str, place: Place, head: Head) -> bool:
    return place.seen <= head.position and scopes.nonce_at(connection, scope, place.seen) == place.nonce


def of_another_past(connection: Connection, secret: bytes, scope: str, cursor: str, due: int) -> Refused:
    """For raising: the cursor is of what both have in common, and still the replica knows outcomes from number `due` on
    that were never given here. The server was put back, and others have brought it further since."""
    feed = scopes.head(connection, scope).feed
    place, common = cursors.unseal(secret, scope, feed, cursor), ""
    floor = max(place.floor, 0)
    if place.floor != cursors.BEGINNING:
        # Of a round that is under way, nothing after its floor is sure to have come.
        begin = msgspec.structs.replace(place, start=(floor + 1, "", ""), began=floor)
        common = cursors.seal(secret, scope, feed, begin)
    told = refusal(
        "server-restored", f"the server was put back to a backup: it has no outcome of number {due}", due=due
    )
    told.cursor, told.position = common, floor
    return told
