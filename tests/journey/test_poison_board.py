"""The poison board (docs/poison.md): what one bad record does to a queue. The eight cases that were measured with other
sync engines, against our own: a real server, a real connection, and between them whatever the case needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backhaul import merge as merging
from backhaul.errors import TryLater
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.http import HttpRemote
from backhaul.replica.why import why_record
from backhaul.server import apply, trial
from backhaul.wire import Op, Push, Pushed, encode, inflate
from tests.conftest import ROOT
from tests.faults.proxy import Answer, PassOn, Proxy, Request, first, lost, proxy, says
from tests.journey.test_answers import AheadClock, drain, problem
from tests.replicas import Replica, make_replica
from tests.services import SyncServer, sync_server

BAD = "poison"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyncServer]:
    with sync_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def between(server: SyncServer) -> Iterator[Proxy]:
    with proxy(server.url) as made:
        yield made


@pytest.fixture
def pair(server: SyncServer, between: Proxy, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas; the first has five new records, of which the second is bad."""
    made = []
    for name in ("a", "b"):
        remote = HttpRemote(between.url)
        replica = make_replica(tmp_path / f"{name}.sqlite", remote, code=server.enrol())
        replica.clock = AheadClock()
        remote._connection._endpoint = Endpoint(replica.database, replica.clock)
        made.append(replica)
    for key in range(1, 6):
        made[0].write("INSERT INTO customer (id, name) VALUES (?, ?)", key, BAD if key == 2 else f"good {key}")
    yield made[0], made[1]
    for replica in made:
        replica.remote.close()
        replica.close()


def ops_of(request: Request) -> list[Op]:
    return msgspec.json.decode(inflate(request.body, request.headers.get("Content-Encoding")), type=Push).ops


def is_bad(op: Op) -> bool:
    return op.fields.get("name") == BAD


def refusing(name: str, sent: list[int]) -> Any:
    """A server that takes every op but the bad one, whose result is this problem."""

    def rule(request: Request, pass_on: PassOn) -> Answer:
        if request.path != "/v1/push":
            return pass_on()
        ops = ops_of(request)
        sent.append(sum(map(is_bad, ops)))
        body = json.loads(inflate(request.body, request.headers.get("Content-Encoding")))
        for op in body["ops"]:
            if op.get("fields", {}).get("name") == BAD:
                op["table"] = "a table that there is not"  # our server refuses it; the name is put in below
        headers = {key: value for key, value in request.headers.items() if key.lower() != "content-encoding"}
        told = Request(number=0, method="POST", path=request.path, headers=headers, body=json.dumps(body).encode())
        answer = between_of(request).pass_on(told)
        pushed = msgspec.json.decode(inflate(answer.body, answer.header("Content-Encoding")), type=Pushed)
        for result in pushed.results:
            if result.problem is not None:
                result.problem.type = f"https://backhaul.invalid/problems/{name}"
        kept = [pair for pair in answer.headers if pair[0].lower() != "content-encoding"]
        return Answer(status=answer.status, headers=kept, body=encode(pushed))

    between_of: Any = None

    def bound(proxy_between: Proxy) -> Any:
        nonlocal between_of
        between_of = lambda _request: proxy_between  # noqa: E731
        return rule

    return bound


def assert_only_the_bad_one_is_parked(a: Replica, b: Replica, reason: str, good: int = 4) -> None:
    """The good ones are on the other replica, the bad one is where a person finds it, and nothing waits."""
    a.pull()
    b.pull()
    assert [row[1] for row in b.rows("customer") if row[1] != BAD] == [
        row[1] for row in a.rows("customer") if row[1] != BAD
    ]
    assert len(b.rows("customer")) == good
    assert a.states() == {"parked": 1}
    assert [row["reason"] for row in a.parked()] == [reason]
    with a.database.reading() as connection:
        assert why_record(connection, "customer", [2], now=a.clock.now()).startswith(f"parked: {reason}")


@pytest.mark.parametrize("name", ["forbidden", "some-error-that-nobody-knows"])
def test_a_record_that_is_refused_for_good_by_any_name_is_parked_and_stops_nothing(
    pair: tuple[Replica, Replica], between: Proxy, name: str
) -> None:
    """Cases 1 and 2: one record of a batch is refused, with a known error's name and with an unknown one."""
    a, b = pair
    sent: list[int] = []
    between.rule = refusing(name, sent)(between)
    a.push(batch=2)
    a.write("INSERT INTO customer (id, name) VALUES (6, 'later')")
    a.push(batch=2)
    assert sum(sent) == 1
    assert_only_the_bad_one_is_parked(a, b, name, good=5)


def test_a_server_that_fails_on_one_record_refuses_that_one_and_takes_the_rest(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 3: the server answers 500 because of one record. Ours tells which one it is."""
    a, b = pair

    def failing(state: Any, change: Any, version: int, strategies: Any) -> Any:
        if change.fields.get("name") == BAD:
            raise ZeroDivisionError("a bug that one record meets")
        return merging.merge(state, change, version, strategies)

    monkeypatch.setattr(apply, "merge", failing)
    monkeypatch.setattr(trial, "merge", failing)
    a.push(batch=2)
    assert_only_the_bad_one_is_parked(a, b, "op-failed")


def test_a_commit_whose_answer_is_dropped_doubles_nothing(pair: tuple[Replica, Replica], between: Proxy) -> None:
    """Case 4: commit, then drop the connection."""
    a, b = pair
    between.rule = first(3, lost, path="/v1/push")
    assert len(drain(a)) == 3
    a.pull()
    b.pull()
    assert a.states() == {}
    assert len(b.rows("customer")) == 5


def test_batches_of_one_do_not_stop_at_the_bad_record_nor_what_is_written_later(
    pair: tuple[Replica, Replica], between: Proxy
) -> None:
    """Case 5: the handler of the push throws for one record, one record a batch."""
    a, b = pair

    def throwing(request: Request, pass_on: PassOn) -> Answer:
        if request.path == "/v1/push" and any(map(is_bad, ops_of(request))):
            answer = problem("malformed", 400)(request, pass_on)
            assert answer is not None
            return answer
        return pass_on()

    between.rule = throwing
    a.push(batch=1)
    a.write("INSERT INTO customer (id, name) VALUES (6, 'later')")
    a.push(batch=1)
    assert_only_the_bad_one_is_parked(a, b, "malformed", good=5)


def test_changes_of_others_arrive_while_nothing_can_be_sent(pair: tuple[Replica, Replica], between: Proxy) -> None:
    """Case 6: every upload throws; what others wrote must arrive all the same."""
    a, b = pair
    b.write("INSERT INTO customer (id, name) VALUES (9, 'of another')")
    b.push()

    def throwing(request: Request, pass_on: PassOn) -> Answer | None:
        return says(502)(request, pass_on) if request.path == "/v1/push" else pass_on()

    between.rule = throwing
    for _ in range(3):
        with pytest.raises(TryLater):
            a.push()
        a.clock.ahead += 600_000
    a.pull()
    assert (9, "of another", None, None, None) in a.rows("customer")
    assert a.states() == {"sent": 5}
    between.rule = lambda _, pass_on: pass_on()
    drain(a)
    b.pull()
    assert len(b.rows("customer")) == 6


def test_a_message_that_is_refused_whole_costs_its_good_records_one_more_try(
    pair: tuple[Replica, Replica], between: Proxy
) -> None:
    """Case 7: the push as a whole throws. The good ones are not sent again and again with the bad one."""
    a, b = pair
    seen: list[list[int]] = []

    def throwing(request: Request, pass_on: PassOn) -> Answer:
        if request.path != "/v1/push":
            return pass_on()
        ops = ops_of(request)
        seen.append([op.seq for op in ops])
        if any(map(is_bad, ops)):
            answer = problem("malformed", 422)(request, pass_on)
            assert answer is not None
            return answer
        return pass_on()

    between.rule = throwing
    a.push()
    assert_only_the_bad_one_is_parked(a, b, "malformed")
    count = len(seen)
    assert count <= 8
    a.push()
    assert len(seen) == count  # nothing is left to send


def test_a_list_of_rejected_records_settles_the_good_ones_and_the_bad_one_is_not_sent_again(
    pair: tuple[Replica, Replica], between: Proxy
) -> None:
    """Case 8: the answer names the rejected record."""
    a, b = pair
    sent: list[int] = []
    between.rule = refusing("forbidden", sent)(between)
    a.push()
    for _ in range(3):
        a.clock.ahead += 600_000
        a.push()
    assert sent == [1]
    assert_only_the_bad_one_is_parked(a, b, "forbidden")


def test_the_page_has_a_row_for_each_case_and_a_test_for_each_row() -> None:
    page = (ROOT / "docs" / "poison.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [str(number) for number in range(1, 9)]
    assert all(any(f"`{name}`" in row for name in globals() if name.startswith("test_")) for row in rows)
