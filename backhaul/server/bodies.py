"""Large bodies past the parser: what lies between a request's head and the last bytes of its body has nothing to parse.

h11 takes each piece into its own buffer, out of it again, and through its states; of a film that is most of what the
server does. So the pieces go to who waits for them, and h11 is told how many there were. Its first and last pieces it
sees itself. Where h11 or uvicorn keep these things elsewhere one day, every piece goes through the parser, as ever.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    from h11._readers import ContentLengthReader as _Reader
except ImportError:
    _Reader: Any = None  # type: ignore[no-redef]


class Protocol(H11Protocol):
    """One connection."""

    def data_received(self, data: bytes) -> None:
        if not self._passed(data):
            super().data_received(data)

    def _passed(self, data: bytes) -> bool:
        """Whether these are bytes of a body, and not its last ones, and were handed on."""
        reader, cycle = getattr(self.conn, "_reader", None), self.cycle
        if (
            _Reader is None
            or not isinstance(reader, _Reader)
            or cycle is None
            or cycle.response_complete
            or self.conn.they_are_waiting_for_100_continue
            or self.conn.trailing_data[0]
            or len(data) >= getattr(reader, "_remaining", 0)
        ):
            return False
        reader._remaining -= len(data)
        cycle.body += data
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()
        return True
