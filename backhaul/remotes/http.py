"""A server over HTTP: the messages of `docs/protocol.md`, encoded, sent, and read back.

Requests are compressed (zstd) until the server says that it cannot read that. Every answer is what `answers.py` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backhaul.remotes.answers import Answer, Message, message
from backhaul.remotes.connection import CONNECT_AND_READ, Connection
from backhaul.remotes.endpoint import Endpoint
from backhaul.wire import (
    Block,
    Blocks,
    BlocksWanted,
    Digest,
    Keys,
    Oneself,
    OutgoingOp,
    OutgoingPush,
    Page,
    Pushed,
    Record,
    Registered,
    Registration,
    Succession,
    Table,
    Tables,
    Versions,
    Wanted,
    compress,
    encode,
)

UNSUPPORTED_CODING = 415


class HttpRemote:
    """A Remote. url: of the server, https, or http to this machine; token: of this replica, once it has one.

    Raises, at construction: ConfigurationInvalid, RemoteInsecure, Misused. Later: what `remotes/base.py` says.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        allow_plain: bool = False,
        timeout: tuple[float, float] = CONNECT_AND_READ,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._owner: str | None = None
        self._replica: str | None = None
        self._keep: Callable[[Registered], None] | None = None
        self._connection = Connection(url, token, allow_plain=allow_plain, timeout=timeout, endpoint=endpoint)
        self._coding: str | None = "zstd"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.origin!r})"

    @property
    def signed_in_as(self) -> str | None:
        return self._replica

    def belong(self, replica: str | None, keep: Callable[[Registered], None]) -> None:
        """replica: whose token this is. keep: stores another identity, before it is used."""
        self._owner, self._keep = replica, keep
        self._speak_for(replica)

    def register(
        self, code: str, tables: Sequence[Table], name: str, *, was: str = "", nonce: str = "", knows: Versions = ()
    ) -> Registered:
        request = Registration(code=code, tables=list(tables), name=name, was=was, nonce=nonce, knows=knows)
        registered = self._ask("POST", "/v1/replicas", request, Registered)
        self.become(registered)
        return registered

    def succeed(self, was: str, knows: Versions = ()) -> Registered:
        request = Succession(was=was, knows=knows)
        registered = self._ask("POST", "/v1/replicas/successor", request, Registered)
        self._speak_for(registered.replica)
        return registered

    def become(self, registered: Registered) -> None:
        if self._keep is not None:
            self._keep(registered)
        self._connection.sign_in(registered.token)
        self._owner = registered.replica
        self._speak_for(registered.replica)

    def speak_for(self, replica: str) -> None:
        before = self._replica
        self._speak_for(replica)
        try:
            message(self._connection.exchange("GET", "/v1/replicas/self"), Oneself)
        except BaseException:
            self._speak_for(before)
            raise

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        return self._ask("PUT", "/v1/tables", Tables(tables=list(tables)), Tables).tables

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        return self._ask("POST", "/v1/push", OutgoingPush(ops=list(ops)), Pushed)

    def pull(self, cursor: str, limit: int, *, sent: int | None = None, settled: int | None = None) -> Page:
        said = {"sent": sent, "settled": settled}
        numbers = {name: str(number) for name, number in said.items() if number is not None}
        return self._page({"cursor": cursor, **numbers}, limit)

    def catch_up(self, cursor: str, limit: int, table: str, columns: Sequence[str]) -> Page:
        return self._page({"cursor": cursor, "table": table, "column": list(columns)}, limit)

    def _page(self, wanted: Mapping[str, str | list[str]], limit: int) -> Page:
        return message(self._connection.exchange("GET", "/v1/pull", query={**wanted, "limit": str(limit)}), Page)

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        return self._ask("POST", "/v1/records", Keys(keys=list(keys)), list[Record])

    def blocks(self, wanted: Mapping[str, Wanted]) -> list[Block]:
        return self._ask("POST", "/v1/blocks", BlocksWanted(tables=dict(wanted)), Blocks).blocks

    def digest(self) -> Digest:
        return message(self._connection.exchange("GET", "/v1/digest"), Digest)

    def close(self) -> None:
        self._connection.close()

    def _speak_for(self, replica: str | None) -> None:
        self._replica = replica
        self._connection.speak_for(None if replica == self._owner else replica)

    def _ask(self, method: str, path: str, request: Any, kind: type[Message]) -> Message:
        return message(self._send(method, path, encode(request)), kind)

    def _send(self, method: str, path: str, body: bytes) -> Answer:
        """Compressed while the server can read that: it says 415 when it cannot, and is not asked again."""
        packed, coding = compress(body, self._coding)
        answer = self._connection.exchange(method, path, headers=_describing(coding), body=packed)
        if answer.status != UNSUPPORTED_CODING or coding is None:
            return answer
        self._coding = None
        return self._connection.exchange(method, path, headers=_describing(None), body=body)


def _describing(coding: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    return headers if coding is None else headers | {"Content-Encoding": coding}
