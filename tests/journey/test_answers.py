"""Push and pull against a real server behind a proxy that answers whatever it likes: the end is always the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backhaul.client import read_status
from backhaul.clock import SystemClock
from backhaul.errors import BackhaulError, Busy, Refused, SignInRequired, TryLater, Unreachable
from backhaul.remotes import endpoint
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.tus import TusRemote
from backhaul.replica import push
from backhaul.replica.outbox import claiming
from backhaul.replica.why import why_record
from backhaul.wire import Push, Pushed, encode, inflate
from tests.faults.proxy import Answer, PassOn, Proxy, Request, Rule, first, halved, lost, proxy, says, truncated, unsent
from tests.replicas import Replica, make_replica
from tests.services import SyncServer, sync_server

PROTOCOL = ("Backhaul-Protocol", "1")
SCOPES = count(1)


class AheadClock(SystemClock):
    """The machine's clock, put forward instead of waiting."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def between(server: SyncServer) -> Iterator[Proxy]:
    with proxy(server.url) as made:
        yield made


@pytest.fixture
def make(server: SyncServer, between: Proxy, tmp_path: Path) -> Iterator[Any]:
    made: list[Replica] = []
    scope = f"scope {next(SCOPES)}"

    def make_one(name: str = "a", clock: AheadClock | None = None) -> Replica:
        replica = make_replica(tmp_path / f"{name}.sqlite", HttpRemote(between.url), code=server.enrol(scope))
        replica.clock = clock or AheadClock()
        token = replica.remote._connection._authorization.removeprefix("Bearer ")  # type: ignore[attr-defined]
        replica.remote.close()
        replica.remote = HttpRemote(between.url, token, endpoint=Endpoint(replica.database, replica.clock))
        made.append(replica)
        return replica

    yield make_one
    for replica in made:
        replica.remote.close()
        replica.close()


def problem(name: str, status: int) -> Rule:
    said = {"type": f"https://backhaul.invalid/problems/{name}", "title": name, "status": status, "detail": "because"}
    return says(status, PROTOCOL, body=json.dumps(said).encode(), media_type="application/problem+json")


def altered(change: Callable[[Pushed], None]) -> Rule:
    """The server's answer to a push, told otherwise."""

    def rule(_request: Request, pass_on: PassOn) -> Answer:
        answer = pass_on()
        pushed = msgspec.json.decode(inflate(answer.body, answer.header("Content-Encoding")), type=Pushed)
        change(pushed)
        headers = [(name, value) for name, value in answer.headers if name.lower() != "content-encoding"]
        return replace(answer, headers=headers, body=encode(pushed))

    return rule


def ops_of(request: Request) -> int:
    body = inflate(request.body, request.headers.get("Content-Encoding"))
    return len(msgspec.json.decode(body, type=Push).ops)


def fill(replica: Replica, number: int = 5) -> None:
    for key in range(1, number + 1):
        replica.write("INSERT INTO customer (id, name) VALUES (?, ?)", key, f"customer {key}")


def drain(replica: Replica, tries: int = 12) -> list[BackhaulError]:
    """Push again when it is time for it, without a new write, as the workers do; what went wrong on the way."""
    failures: list[BackhaulError] = []
    for _ in range(tries):
        try:
            replica.push()
            return failures
        except (TryLater, SignInRequired, Refused) as error:
            failures.append(error)
            replica.clock.ahead += getattr(error, "retry_after_ms", None) or 60_000
    raise AssertionError(f"it does not drain: {failures[-1]}")


def assert_arrived_once(replica: Replica, other: Replica, number: int = 5) -> None:
    replica.pull()
    other.pull()
    assert replica.states() == {}
    assert len(other.rows("customer")) == number
    assert other.rows("customer") == replica.rows("customer")


UNKNOWN: dict[str, Rule] = {
    "the answer is lost": lost,
    "the request is lost": unsent,
    "cut in the middle": truncated,
    "half of the bytes": halved,
    "nothing": says(200, PROTOCOL, media_type="application/json"),
    "no content": says(204, PROTOCOL),
    "a page": says(200, body=b"<html>Welcome to the hotel</html>"),
    "json of another": says(200, body=b'{"ok":true}', media_type="application/json"),
    "json that is no answer": says(200, PROTOCOL, body=b'{"results":7}', media_type="application/json"),
    "plain text": says(200, PROTOCOL, body=b'{"results":[],"now":1}', media_type="text/plain"),
    "an unknown coding": says(200, PROTOCOL, ("Content-Encoding", "br"), body=b"xx", media_type="application/json"),
    "half a frame": says(200, PROTOCOL, ("Content-Encoding", "zstd"), body=b"(\xb5/", media_type="application/json"),
    "moved": says(301, ("Location", "https://elsewhere.example/v1/push")),
    "moved for now": says(307, ("Location", "/v1/other")),
    "moved for good": says(308, ("Location", "//elsewhere.example/")),
    "a page that refuses": says(403, body=b"<html>Forbidden</html>"),
    "a page that is not there": says(404, body=b"<html>Not found</html>"),
    "a proxy's bad request": says(400, body=b"<html>Bad request</html>"),
    "timeout": problem("request-timeout", 408),
    "too early": says(425, PROTOCOL),
    "internal": problem("internal", 500),
    "bad gateway": says(502),
    "unavailable": problem("busy", 503),
    "gateway timeout": says(504),
    "too many requests": says(429, ("Retry-After", "7")),
    "another protocol": problem("protocol-unsupported", 400),
}


@pytest.mark.parametrize("rule", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_answer_that_decides_nothing_keeps_all_and_the_queue_drains_by_itself(
    make: Any, between: Proxy, rule: Rule
) -> None:
    a, b = make("a"), make("b")
    fill(a)
    between.rule = first(3, rule, path="/v1/push")
    failures = drain(a)
    assert len(failures) == 3
    assert all(isinstance(one, TryLater) and one.retry_after_ms for one in failures)
    assert_arrived_once(a, b)


STANDING: dict[str, tuple[Rule, type[BackhaulError]]] = {
    "no token": (problem("token-invalid", 401), SignInRequired),
    "a bare 401": (says(401), SignInRequired),
    "revoked": (problem("replica-revoked", 403), SignInRequired),
    "forbidden": (problem("scope-forbidden", 403), Refused),
    "not found": (problem("not-found", 404), Refused),
    "gone": (problem("gone", 410), Refused),
    "not allowed": (problem("method-not-allowed", 405), Refused),
    "media type": (problem("unsupported-media-type", 415), Refused),
}


@pytest.mark.parametrize(("rule", "kind"), STANDING.values(), ids=STANDING.keys())
def test_an_answer_that_time_does_not_heal_is_asked_for_once_a_run_and_parks_nothing(
    make: Any, between: Proxy, rule: Rule, kind: type[BackhaulError]
) -> None:
    a, b = make("a"), make("b")
    fill(a)
    between.rule = first(2, rule, path="/v1/push")
    before = between.requests
    with pytest.raises(kind) as caught:
        a.push()
    assert between.requests == before + 1
    assert str(caught.value)
    assert a.states() == {"sent": 5}
    with a.database.reading() as connection:
        assert "1 tries, last: http" in why_record(connection, "customer", [1], now=a.clock.now())
    assert len(drain(a)) == 1
    assert_arrived_once(a, b)


# ------------------------------------------------------------------------------------------------ results


def test_of_an_answer_without_some_results_only_those_ops_go_again(make: Any, between: Proxy) -> None:
    a, b = make("a"), make("b")
    fill(a)
    between.rule = first(1, altered(lambda pushed: pushed.results.__delitem__(slice(1, 3))), path="/v1/push")
    with pytest.raises(Busy):
        a.push()
    assert a.states() == {"acked": 3, "sent": 2}
    sent: list[int] = []

    def counted(request: Request, pass_on: PassOn) -> Answer:
        if request.path == "/v1/push":
            sent.append(ops_of(request))
        return pass_on()

    between.rule = counted
    a.clock.ahead += 60_000
    a.push()
    assert sent == [2]
    assert_arrived_once(a, b)


def test_results_of_strangers_and_results_said_twice_count_for_nothing(make: Any, between: Proxy) -> None:
    a, b = make("a"), make("b")
    fill(a)

    def confuse(pushed: Pushed) -> None:
        first_one = pushed.results[0]
        refused = msgspec.structs.replace(first_one, status="rejected", version=0)
        strangers = [msgspec.structs.replace(first_one, op=f"{number:032x}") for number in range(50)]
        pushed.results = [*strangers, *pushed.results, refused]

    between.rule = altered(confuse)
    assert a.push() == push.Sent(acked=5, parked=0)
    between.rule = lambda _, pass_on: pass_on()
    assert_arrived_once(a, b)


# ------------------------------------------------------------------------------------------------ Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_be_left_alone_is_left_alone_by_all_of_this_replica(
    make: Any, between: Proxy, status: int
) -> None:
    a, b = make("a"), make("b")
    fill(a)
    between.rule = first(1, says(status, PROTOCOL, ("Retry-After", "120")), path="/v1/push")
    began = a.clock.now()
    with pytest.raises(Busy):
        a.push()
    asked = between.requests
    media = TusRemote(between.url, "a-token", endpoint=Endpoint(a.database, a.clock, media=True))
    a.write("INSERT INTO customer (id, name) VALUES (6, 'written meanwhile')")
    for journey in (a.push, a.pull, lambda: media.has("0" * 64)):
        with pytest.raises(Busy) as caught:
            journey()
        assert "left alone until" in str(caught.value)
        assert 0 < (caught.value.retry_after_ms or 0) <= 120_000
    media.close()
    assert between.requests == asked
    assert a.states() == {"sent": 5, "pending": 1}
    held_until = read_status(a.database, a.clock.now()).held_until
    assert held_until is not None
    assert began + 120_000 <= held_until <= a.clock.now() + 120_000
    a.clock.ahead += 121_000
    assert read_status(a.database, a.clock.now()).held_until is None
    a.push()
    assert_arrived_once(a, b, number=6)


def test_a_server_that_asks_to_be_left_alone_with_media_still_gets_data(make: Any, between: Proxy) -> None:
    """The bucket behind it is slow."""
    a, b = make("a"), make("b")
    between.rule = first(1, says(503, PROTOCOL, ("Retry-After", "120")), path="/v1/media")
    media = TusRemote(between.url, "a-token", endpoint=Endpoint(a.database, a.clock, media=True))
    with pytest.raises(Busy):
        media.has("0" * 64)
    asked = between.requests
    with pytest.raises(Busy, match="left alone until"):
        media.has("0" * 64)
    assert between.requests == asked
    fill(a)
    a.push()
    assert_arrived_once(a, b)
    assert read_status(a.database, a.clock.now()).held_until is None
    a.clock.ahead += 121_000
    with pytest.raises(SignInRequired):  # it is asked
        media.has("0" * 64)
    media.close()


@pytest.mark.parametrize(
    ("said", "held"),
    [("99999999999", 3_600_000), ("-5", None), ("soon", None), ("0", None), ("", None)],
)
def test_an_absurd_wait_is_an_hour_and_what_is_no_wait_is_the_usual_pause(
    make: Any, between: Proxy, said: str, held: int | None
) -> None:
    a = make("a")
    fill(a)
    between.rule = first(1, says(503, PROTOCOL, ("Retry-After", said)), path="/v1/push")
    with pytest.raises(Busy) as caught:
        a.push()
    with a.database.reading() as connection:
        found = endpoint.held(connection, a.clock.now())
    if held is None:
        assert found is None
        assert (caught.value.retry_after_ms or 0) < 10_000
    else:
        assert found is not None
        assert found.until - a.clock.now() <= held


def test_a_hold_that_was_set_while_the_clock_was_ahead_is_over(make: Any, between: Proxy) -> None:
    a, b = make("a"), make("b")
    fill(a)
    a.clock.ahead = 86_400_000
    between.rule = first(1, says(503, PROTOCOL, ("Retry-After", "600")), path="/v1/push")
    with pytest.raises(Busy):
        a.push()
    a.clock.ahead = 0
    drain(a)
    assert_arrived_once(a, b)


# ------------------------------------------------------------------------------------------------ sizes


def takes(most: int, said: list[tuple[int, int]]) -> Rule:
    """A server, or a proxy before it, that takes messages of so many ops."""

    def rule(request: Request, pass_on: PassOn) -> Answer:
        if request.path != "/v1/push":
            return pass_on()
        ops = ops_of(request)
        answer = pass_on() if ops <= most else says(413, body=b"<html>Too large</html>")(request, pass_on)
        assert answer is not None
        said.append((ops, answer.status))
        return answer

    return rule


def test_what_a_server_takes_is_learned_once_and_remembered(make: Any, between: Proxy) -> None:
    a, b = make("a"), make("b")
    said: list[tuple[int, int]] = []
    between.rule = takes(150, said)
    with a.app:
        a.app.executemany("INSERT INTO customer (id, name) VALUES (?, 'x')", [(key,) for key in range(1, 1001)])
    a.push()
    assert [ops for ops, status in said if status == 413][:2] == [1000, 500]
    assert len([ops for ops, status in said if status == 413]) <= 4
    assert max(ops for ops, status in said if status == 200) <= 150
    said.clear()
    with a.app:
        a.app.executemany("INSERT INTO customer (id, name) VALUES (?, 'x')", [(key,) for key in range(1001, 1101)])
    a.push()  # another run, in another process: it does not begin with a thousand again
    assert [status for _, status in said] == [200]
    between.rule = lambda _, pass_on: pass_on()
    assert_arrived_once(a, b, number=1100)


def test_a_message_is_cut_by_its_bytes_before_it_is_sent(make: Any, between: Proxy) -> None:
    a, b = make("a"), make("b")
    sizes: list[int] = []

    def measured(request: Request, pass_on: PassOn) -> Answer:
        if request.path == "/v1/push":
            sizes.append(len(inflate(request.body, request.headers.get("Content-Encoding"))))
        return pass_on()

    between.rule = measured
    with a.app:
        a.app.executemany("INSERT INTO customer (id, name) VALUES (?, ?)", [(key, "x" * 900_000) for key in range(12)])
    a.push()
    assert len(sizes) == 3
    assert max(sizes) < endpoint.MOST_BYTES
    assert_arrived_once(a, b, number=12)


@pytest.mark.parametrize(("limit", "value"), [("MOST_OPS", 20), ("MOST_BODY", 20_000)])
def test_a_transaction_that_no_server_takes_is_parked_unsent_and_only_what_depends_on_it(
    make: Any, between: Proxy, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(claiming, limit, value)
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'before')")
    a.write("UPDATE backhaul_replica SET group_id = 'one transaction'")
    with a.app:
        a.app.executemany(
            "INSERT INTO customer (id, name) VALUES (?, ?)",
            [(key, "x" * 500) for key in range(100, 160)],
        )
    a.write("UPDATE backhaul_replica SET group_id = NULL")
    a.write("UPDATE customer SET name = 'depends' WHERE id = 159")
    a.write("INSERT INTO customer (id, name) VALUES (2, 'after')")
    assert a.push() == push.Sent(acked=2)
    assert a.states() == {"acked": 2, "parked": 61}
    reasons = {row["reason"] for row in a.parked()}
    assert reasons == {"group-too-large", "depends-on-parked"}
    assert len({row["op_id"] for row in a.parked()}) == 61
    b.pull()
    assert [row[0] for row in b.rows("customer")] == [1, 2]


def test_a_link_that_breaks_off_every_answer_is_unreachable_and_said_so(make: Any, between: Proxy) -> None:
    a = make("a")
    fill(a)
    between.rule = unsent
    with pytest.raises(Unreachable):
        a.push()
    with a.database.reading() as connection:
        assert "1 tries, last:" in why_record(connection, "customer", [1], now=a.clock.now())
