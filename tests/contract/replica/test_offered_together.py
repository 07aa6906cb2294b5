"""What waits of an aggregate when the server was put back, and what of it is offered, are judged, and seen, as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backhaul.errors import TryLater
from backhaul.replica import joining, outbox, parked
from tests.disputes import RULES, SCHEMA, add_line, entries, only, resolve
from tests.put_back import Server, done, seen_between_pushes, served
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

INVOICE = ("INSERT INTO invoice VALUES ('i', 3, NULL)", "INSERT INTO line VALUES ('l1', 'i', 3)")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with served(tmp_path) as server:
        yield server


@pytest.fixture
def pair(server: Server, kind: str, request: pytest.FixtureRequest) -> list[Replica]:
    """Two of which the first one's database is of the kind; they have one invoice of one line."""
    postgresql = request.getfixturevalue("cluster") if kind == "postgresql" else None
    (a,) = server.replicas("a", postgresql=postgresql, schema=SCHEMA, rules=RULES)
    (b,) = server.replicas("b", schema=SCHEMA, rules=RULES)
    a.write_together(*INVOICE)
    server.settle(a, b)
    return [a, b]


def cut_off(replica: Replica) -> None:
    """Send what waits, and hear nothing of it."""
    push = replica.remote.push

    def nobody(ops: Any) -> Any:
        raise TryLater("nobody is there")

    replica.remote.push = nobody  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        replica.push()
    replica.remote.push = push  # type: ignore[method-assign]


def lose_a_line(server: Server, replica: Replica, *before: str) -> None:
    """The server loses the second of three lines; the third one waits. before: what waits, too."""
    saved = server.back_up()
    add_line(replica, "l2", 4)
    server.settle(replica)
    for statement in before:
        replica.write(statement)
    add_line(replica, "l3", 5)
    server.put_back(saved)


def groups_of(replica: Replica, *tables: str) -> set[str | None]:
    return {row["group_id"] for row in replica.outbox() if row["table_name"] in tables}


@pytest.mark.parametrize("heard", ["by a pull", "by a push"])
@pytest.mark.parametrize("sent", [False, True], ids=["waits", "was sent in vain"])
def test_what_waits_goes_together_with_what_is_offered(
    server: Server, pair: list[Replica], heard: str, sent: bool
) -> None:
    a, b = pair
    saved = server.back_up()
    add_line(a, "l2", 4)
    server.settle(a)
    add_line(a, "l3", 5)
    if sent:
        cut_off(a)
    server.put_back(saved)
    server.clock.moment += 3_600_000
    if heard == "by a pull":
        a.pull()
    seen = seen_between_pushes(a, b)
    assert seen[-1] == (12, 12)
    assert [each for each in seen if each[0] != each[1]] == []
    server.settle(a, b)
    assert a.rows("line") == b.rows("line")
    assert all(done(one) for one in (a, b))


def test_what_was_sent_in_vain_beside_it_keeps_its_order_and_its_numbers_have_no_gap(
    server: Server, pair: list[Replica]
) -> None:
    a, b = pair
    lose_a_line(server, a, "INSERT INTO note VALUES ('n', 'first', 'red')")
    a.write("UPDATE note SET body = 'second'")
    cut_off(a)
    server.clock.moment += 3_600_000
    a.pull()
    states = [(row["state"], row["table_name"]) for row in a.outbox()]
    assert states[:2] == [("sent", "note")] * 2
    assert {state for state, _ in states[2:]} == {"pending"}
    numbers = [row["send_seq"] for row in a.outbox()[:2]]
    assert numbers[1] == numbers[0] + 1
    ids = [row["op_id"] for row in a.outbox() if row["op_id"]]
    server.settle(a, b)
    assert len(set(ids)) == len(ids)
    assert ("n", "second", "red") in b.rows("note")
    assert a.rows("line") == b.rows("line")
    assert done(a)


def test_what_depends_on_it_goes_after_it(server: Server, pair: list[Replica]) -> None:
    a, b = pair
    saved = server.back_up()
    add_line(a, "l2", 4)
    server.settle(a)
    a.write("INSERT INTO note VALUES ('other', '', NULL)")
    a.write_together(
        "UPDATE invoice SET total = 8",
        "UPDATE line SET amount = 5 WHERE id = 'l2'",
        "INSERT INTO note VALUES ('n', 'a', NULL)",
    )
    a.write("UPDATE note SET body = 'b' WHERE id = 'n'")
    server.put_back(saved)
    a.pull()
    places = [(row["table_name"], row["key"]) for row in a.outbox()]
    assert places[0] == ("note", '["other"]')
    of_the_note = [row for row in a.outbox() if row["key"] == '["n"]']
    assert [row["kind"] for row in of_the_note] == ["insert", "update"]
    assert len(groups_of(a, "invoice", "line") | {row["group_id"] for row in of_the_note}) == 1
    server.settle(a, b)
    assert a.rows("note") == b.rows("note")
    assert a.rows("line") == b.rows("line")


def test_what_another_has_written_since_makes_one_conflict_of_all_of_it(server: Server, pair: list[Replica]) -> None:
    a, b = pair
    lose_a_line(server, a)
    b.write_together("INSERT INTO line VALUES ('of b', 'i', 1)", "UPDATE invoice SET total = 4")
    b.sync()
    a.pull()
    a.push(batch=1)
    assert {row["state"] for row in a.outbox()} == {"conflict"}
    assert {entry.key for entry in entries(a, only(a))} >= {'["i"]', '["l2"]', '["l3"]'}
    b.pull()
    assert b.rows("invoice") == [("i", 4, None)]
    assert b.rows("line") == [("l1", "i", 3), ("of b", "i", 1)]
    resolve(a, "mine")
    server.settle(a, b)
    assert b.rows("invoice") == a.rows("invoice") == [("i", 12, None)]


def test_what_is_parked_of_it_parks_what_is_offered_until_a_person_sends_it_again(
    server: Server, pair: list[Replica]
) -> None:
    a, b = pair
    saved = server.back_up()
    add_line(a, "l2", 4)
    server.settle(a)
    add_line(a, "l3", 5)
    with a.database.writing() as connection:
        outbox.park_pending(connection, {row["id"]: "" for row in a.outbox()}, reason="record-invalid", now=0)
    server.put_back(saved)
    a.pull()
    seen = seen_between_pushes(a, b)
    assert [each for each in seen if each[0] != each[1]] == []
    assert a.states() == {"parked": len(a.outbox())}
    assert {row["table_name"] for row in a.outbox()} == {"invoice", "line"}
    parked.retry(a.database, [row["op_id"] for row in a.parked()], now=server.clock.now())
    server.settle(a, b)
    assert b.rows("invoice") == [("i", 12, None)]
    assert a.rows("line") == b.rows("line")


def test_what_is_too_much_for_one_group_goes_before_as_it_is(
    server: Server, pair: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "MOST_OPS", 2)
    a, b = pair
    lose_a_line(server, a)
    before = [row["id"] for row in a.outbox()]
    a.pull()
    assert [row["id"] for row in a.outbox()][: len(before)] == before
    server.settle(a, b)
    assert a.rows("line") == b.rows("line")
    assert done(a)


def test_nothing_is_sent_until_it_is_known_what_goes_with_it(server: Server, pair: list[Replica]) -> None:
    """Another process is finding that out, and is cut in the middle."""
    a, b = pair
    lose_a_line(server, a)
    pull, asked = a.remote.pull, list[str]()

    def once(*said: Any, **named: Any) -> Any:
        asked.append(said[0])
        if len(asked) > 1:
            raise TryLater("not now")
        return pull(*said, **named)

    a.remote.pull = once  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        a.pull()
    with pytest.raises(TryLater):
        a.push()
    assert a.states() == {"pending": 2}
    a.remote.pull = pull  # type: ignore[method-assign]
    seen = seen_between_pushes(a, b)
    assert [each for each in seen if each[0] != each[1]] == []
    assert seen[-1] == (12, 12)


def test_who_has_only_pulled_hears_it_before_the_push_is_taken(server: Server, pair: list[Replica]) -> None:
    """Its numbers have no gap; only what it has seen is gone."""
    b, a = pair
    (c,) = server.replicas("c", schema=SCHEMA, rules=RULES)
    c.pull()
    saved = server.back_up()
    add_line(a, "l2", 4)
    server.settle(a, b)
    add_line(b, "l3", 5)
    server.put_back(saved)
    seen = seen_between_pushes(b, c)
    assert seen[-1] == (12, 12)
    assert [each for each in seen if each[0] != each[1]] == []
    a.sync()  # who has lost the same, and less than b had seen of it
    resolve(a, "theirs")
    server.settle(b, a, c)
    assert a.rows("line") == b.rows("line") == c.rows("line")
    assert all(done(one) for one in (a, b, c))
