"""Cursors: where a replica stands in the feed, as opaque text that only this server can have written.

A cursor holds two places. `floor` is the position that the replica has seen everything up to; `start` is where its
next page begins. While a replica fetches page after page they differ: a record that changed twice since the floor is
listed once, at its last version, so what a later page leaves out must be reckoned from the floor and not from the
page before. At the head both become the head.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from backhaul.server.problems import refusal

VERSION = 2
SEAL = 16  # bytes of HMAC-SHA-256 (RFC 2104, truncated as its section 5 allows)


BEGINNING = -1


class Place(msgspec.Struct, frozen=True, array_like=True):
    """floor: see above; BEGINNING for a replica that begins, and is sent its own records, too.

    start: (version, table, key); the next page lists what comes after it. began: the head when the round began. seen:
    the head when this was written, with the nonce that it had (see scopes.py) and the time: if the server has another
    nonce there, it was put back meanwhile. renamings: how many names tables had had by then, of a start that names one.
    """

    floor: int = BEGINNING
    start: tuple[int, str, str] = (1, "", "")
    began: int = BEGINNING
    seen: int = 0
    nonce: str = ""
    at: int = 0
    renamings: int = 0

    @property
    def heard(self) -> int:
        """What came after this may not be forgotten before the replica has heard of it."""
        return self.began if self.floor == BEGINNING else self.floor


class _Cursor(msgspec.Struct, array_like=True):
    version: int
    scope: str
    feed: str
    place: Place


def seal(secret: bytes, scope: str, feed: str, place: Place) -> str:
    body = msgspec.json.encode(_Cursor(VERSION, scope, feed, place))
    return urlsafe_b64encode(_mac(secret, body) + body).decode().rstrip("=")


def unseal(secret: bytes, scope: str, feed: str, cursor: str) -> Place:
    """The place that the cursor names; "" is the beginning. Raises Refused `cursor-expired`."""
    if not cursor:
        return Place()
    try:
        plain = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        mac, body = plain[:SEAL], plain[SEAL:]
        if not hmac.compare_digest(mac, _mac(secret, body)):
            raise refusal("cursor-expired", "the cursor was not made by this server")
        found = msgspec.json.decode(body, type=_Cursor)
    except (ValueError, msgspec.MsgspecError) as error:
        raise refusal("cursor-expired", "the cursor cannot be read") from error
    if (found.version, found.scope, found.feed) != (VERSION, scope, feed):
        raise refusal("cursor-expired", "the cursor is of another feed")
    return found.place


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, "sha256")[:SEAL]
