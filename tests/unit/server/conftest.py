"""A real server on a free port, and a replica that speaks plain HTTP to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from backhaul.clock import SystemClock, stamp, stamp_to_text
from tests import services

CUSTOMER = {"name": "customer", "columns": [{"name": "id"}, {"name": "name"}], "key": ["id"], "keys": "generated"}
INVOICE = {
    "name": "invoice",
    "columns": [{"name": "id"}, {"name": "customer_id"}],
    "key": ["id"],
    "references": [{"columns": ["customer_id"], "table": "customer", "target": ["id"]}],
}


class SetClock(SystemClock):
    """The machine's clock, put forward by `ahead` milliseconds."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


class Caller:
    """A registered replica; every call is one request, the answer comes as it is."""

    def __init__(self, server: services.SyncServer, scope: str = "shop", *, trusting: Path | None = None) -> None:
        """trusting: the certificate of a server that speaks TLS."""
        self.server = server
        self.session = requests.Session()
        self.session.trust_env = False
        if trusting is not None:
            self.session.verify = str(trusting)
        registration = {"code": server.enrol(scope), "tables": [CUSTOMER, INVOICE], "name": "till"}
        answer = self.call("POST", "/v1/replicas", registration)
        assert answer.status_code == 201, answer.text
        self.registered = answer.json()
        self.session.headers["Authorization"] = f"Bearer {self.registered['token']}"
        self.seq = 0

    def call(self, method: str, path: str, said: Any = None, **options: Any) -> requests.Response:
        if said is not None:
            options["data"] = json.dumps(said)
            options["headers"] = {"Content-Type": "application/json"} | options.get("headers", {})
        return self.session.request(method, self.server.url + path, timeout=20, **options)

    def op(self, kind: str, table: str, key: list[Any], **said: Any) -> dict[str, Any]:
        self.seq += 1
        now = self.server.clock.now()
        return {
            "op": f"{self.seq:032x}", "seq": self.seq, "table": table, "key": key, "kind": kind,
            "hlc": stamp_to_text(stamp(now, self.seq % 1000)), **said,
        }  # fmt: skip

    def push(self, *ops: dict[str, Any]) -> requests.Response:
        return self.call("POST", "/v1/push", {"ops": ops})


@pytest.fixture(scope="module")
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(scope="module")
def server(tmp_path_factory, clock) -> Iterator[services.SyncServer]:
    with services.sync_server(tmp_path_factory.mktemp("server"), clock=clock, most_upload=64 * 2**20) as running:
        yield running


@pytest.fixture
def till(server, request) -> Iterator[Caller]:
    """A replica in a scope of the test's own."""
    caller = Caller(server, scope=request.node.name[:100])
    yield caller
    caller.session.close()


@pytest.fixture
def other_till(server, request) -> Iterator[Caller]:
    """Another replica of the same scope."""
    caller = Caller(server, scope=request.node.name[:100])
    yield caller
    caller.session.close()


def problem(answer: requests.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Backhaul-Protocol"] == "1"
    said = answer.json()
    assert said["status"] == answer.status_code
    return answer.status_code, said["type"].removeprefix("https://backhaul.invalid/problems/")
