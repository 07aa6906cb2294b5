"""Contents that a server does not give itself: it names an address in its bucket, good for a short time (307).

What is asked for there has no token: the address is the permission. Only a Backhaul server's word leads there, and the
same rules hold as for the server itself: https, or this machine, unless plain http was asked for. What comes is held
against its hash as anything else.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from backhaul.errors import Refused, Unreachable
from backhaul.remotes.answers import BUSY, OUT_OF_TIME, Answer, failure
from backhaul.remotes.connection import Connection
from backhaul.remotes.endpoint import Endpoint

MOVED = 307
OUT_OF_RANGE = 416


class Elsewhere:
    """The connection to the place that was named last."""

    def __init__(self, *, allow_plain: bool, timeout: tuple[float, float], endpoint: Endpoint | None) -> None:
        self._allow_plain = allow_plain
        self._timeout = timeout
        self._endpoint = endpoint
        self._connection: Connection | None = None

    def fetch(self, told: Answer, at: int, most: int) -> Answer:
        """The answer to a Range of what a 307 points to.

        Raises Refused (416), Busy, Unreachable; RemoteInsecure, ConfigurationInvalid for an address that is none.
        """
        place = urlsplit(told.headers.get("Location", ""))
        origin = f"{place.scheme}://{place.netloc}"
        connection = self._to(origin)
        path = f"{place.path}?{place.query}" if place.query else place.path
        headers = {"Range": f"bytes={at}-{at + most - 1}", "Accept": "*/*", "Accept-Encoding": "identity"}
        answer = connection.exchange("GET", path, headers=headers)
        if answer.status == OUT_OF_RANGE:
            raise Refused(f"{origin} has no such bytes of it", problem="range-unsatisfiable", status=OUT_OF_RANGE)
        if answer.status in (*BUSY, *OUT_OF_TIME) or answer.status >= 500:
            raise failure(answer)
        if not answer.good:
            raise Unreachable(
                f"{origin}, to which {told.origin} points, does not give it (HTTP {answer.status})",
                hint="look at the clock of the server, and at what its bucket allows",
            )
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _to(self, origin: str) -> Connection:
        if self._connection is None or self._connection.origin != origin:
            self.close()
            self._connection = Connection(
                origin, allow_plain=self._allow_plain, timeout=self._timeout, endpoint=self._endpoint
            )
        return self._connection
