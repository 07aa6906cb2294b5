"""Aggregates of which news come while changes of ours touch them: each is withheld for itself, and as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import TryLater
from backhaul.replica import pull
from tests.disputes import RULES, SCHEMA, all_equal, entries, open_numbers, populate, resolve
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    a, b = populate(make(schema=SCHEMA, rules=RULES), make("b", schema=SCHEMA, rules=RULES))
    a.write_together("INSERT INTO invoice VALUES ('k', 1, NULL)", "INSERT INTO line VALUES ('k1', 'k', 1)")
    a.sync()
    b.sync()
    return a, b


def set_line(replica: Replica, line: str, invoice: str, amount: int) -> None:
    replica.write_together(
        f"INSERT INTO line VALUES ('{line}', '{invoice}', {amount}) ON CONFLICT DO UPDATE SET amount = excluded.amount",
        "UPDATE invoice SET total = (SELECT sum(amount) FROM line WHERE invoice_id = invoice.id)"
        f" WHERE id = '{invoice}'",
    )


def wrong(replica: Replica) -> list[tuple[Any, ...]]:
    """The invoices that disagree with their lines."""
    return replica.asked(
        "SELECT id, total, (SELECT sum(amount) FROM line WHERE invoice_id = invoice.id) AS lines FROM invoice"
        " WHERE total <> lines"
    )


def test_what_is_withheld_of_one_aggregate_is_no_part_of_a_conflict_about_another(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    set_line(b, "l1", "i", 10)
    set_line(a, "l1", "i", 20)
    a.sync()
    b.sync()
    (number,) = open_numbers(b)
    set_line(b, "k1", "k", 5)
    set_line(a, "k2", "k", 7)
    a.sync()
    b.pull()
    assert {entry.key for entry in entries(b, number)} == {'["i"]', '["l1"]'}
    resolve(b, "theirs", number)
    assert wrong(b) == []
    assert b.asked("SELECT total FROM invoice WHERE id = 'k'") == [(5,)]
    b.sync()
    resolve(b, "mine")
    assert all_equal(a, b)
    assert wrong(a) == []


def test_two_conflicts_about_two_aggregates_stay_two_when_more_is_heard_of_them(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    for line, invoice in (("l1", "i"), ("k1", "k")):
        set_line(a, line, invoice, 20)
        set_line(b, line, invoice, 10)
    a.sync()
    b.sync()
    first, second = open_numbers(b)
    for line, invoice in (("l2", "i"), ("k2", "k")):
        set_line(a, line, invoice, 21)
    a.sync()
    b.pull()
    assert open_numbers(b) == [first, second]
    resolve(b, "theirs", first)
    assert wrong(b) == []
    resolve(b, "mine", second)
    assert all_equal(a, b)
    assert b.asked("SELECT id, total FROM invoice ORDER BY id") == [("i", 41), ("k", 10)]


def test_what_was_overtaken_of_an_aggregate_is_withheld_while_another_change_touches_it(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    set_line(b, "l1", "i", 10)
    push, sent = b.remote.push, list[Any]()

    def unsteady(ops: Any) -> Any:
        """The first answer is lost, and from the third on nothing goes out."""
        sent.append(ops)
        reply = push(ops) if len(sent) < 3 else None
        if len(sent) != 2:
            raise TryLater("no answer")
        return reply

    b.remote.push = unsteady  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        b.push()
    a.sync()
    set_line(a, "l1", "i", 11)
    set_line(a, "l3", "i", 5)
    a.sync()
    b.pull()
    set_line(b, "l2", "i", 9)
    b.write("UPDATE backhaul_outbox SET next_at = 0")
    with pytest.raises(TryLater):
        b.push(alone=True)
    assert [row["state"] for row in b.outbox()] == ["acked", "acked", "sent", "sent"]
    b.remote.push = push  # type: ignore[method-assign]
    b.pull()
    assert wrong(b) == []
    assert b.asked("SELECT total FROM invoice WHERE id = 'i'") == [(19,)]
    b.write("UPDATE backhaul_outbox SET next_at = 0")
    b.push(alone=True)
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert wrong(b) == []


def test_what_was_overtaken_and_is_newer_than_a_piece_of_a_round_waits_for_a_later_piece(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr(pull, "MOST_TOGETHER", 1)
    push, ask, asked = b.remote.push, b.remote.pull, list[str]()

    def passed_meanwhile(ops: Any) -> Any:
        reply = push(ops)
        a.sync()
        set_line(a, "l1", "i", 11)
        a.sync()
        b.pull()
        return reply

    def one_piece(since: str, *args: Any, **options: Any) -> Any:
        asked.append(since)
        if len(asked) > 1:
            raise TryLater("no answer")
        return ask(since, *args, **options)

    b.write("UPDATE invoice SET remark = 'of b' WHERE id = 'i'")
    b.remote.push = passed_meanwhile  # type: ignore[method-assign]
    b.push()
    assert [(row["state"], row["version"]) for row in b.outbox()] == [("acked", None)]
    for number in range(3):
        a.write(f"INSERT INTO note VALUES ('before {number}', '', '')")
        a.sync()
    set_line(a, "l9", "i", 5)
    a.sync()
    b.remote.pull = one_piece  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        b.pull(limit=1, most_held=1)
    assert b.asked("SELECT count(*) FROM note WHERE id LIKE 'before%'") == [(1,)]
    assert wrong(b) == []
    b.remote.pull = ask  # type: ignore[method-assign]
    b.pull(limit=1, most_held=1)
    assert wrong(b) == []
    assert b.asked("SELECT total, remark FROM invoice WHERE id = 'i'") == [(20, "of b")]
    assert all_equal(a, b)


def test_a_part_that_was_set_aside_is_withheld_when_it_is_tried_again(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("CREATE TRIGGER strict BEFORE UPDATE ON line WHEN NEW.amount = 13 BEGIN SELECT raise(ABORT, 'no'); END")
    set_line(a, "l1", "i", 13)
    a.sync()
    b.pull()
    assert b.asked("SELECT key FROM backhaul_aside") == [('["l1"]',)]
    set_line(a, "l1", "i", 14)
    a.sync()
    b.write("UPDATE invoice SET total = 7 WHERE id = 'i'")
    b.pull()
    assert wrong(b) == []
    assert b.asked("SELECT key FROM backhaul_aside") == []


STRICT = "CREATE TRIGGER strict BEFORE INSERT ON invoice WHEN NEW.total = 13 BEGIN SELECT raise(ABORT, 'no'); END"


def new_invoice(replica: Replica) -> None:
    replica.write_together("INSERT INTO invoice VALUES ('z', 13, NULL)", "INSERT INTO line VALUES ('z1', 'z', 13)")


def test_a_root_that_was_set_aside_comes_with_the_page_that_brings_its_parts(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write(STRICT)
    new_invoice(a)
    a.sync()
    b.pull()
    assert b.asked("SELECT key FROM backhaul_aside") == [('["z"]',)]
    set_line(a, "z2", "z", 7)
    a.sync()
    ask = b.remote.pull

    def cut_off(*_args: Any, **_options: Any) -> Any:
        raise TryLater("no answer")

    b.remote.pull = cut_off  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        b.pull()
    assert b.asked("SELECT * FROM invoice WHERE id = 'z'") == []
    assert wrong(b) == []
    b.remote.pull = ask  # type: ignore[method-assign]
    b.pull()
    assert wrong(b) == []
    assert b.asked("SELECT * FROM backhaul_aside") == []
    assert all_equal(a, b)


def test_a_root_that_is_newer_than_the_page_after_which_it_is_tried_again_waits_for_the_next(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    b.write(STRICT)
    new_invoice(a)
    a.sync()
    ask, asked = b.remote.records, list[Any]()

    def meanwhile(keys: Any) -> Any:
        if not asked:
            set_line(a, "z2", "z", 7)
            a.sync()
        asked.append(keys)
        return ask(keys)

    b.remote.records = meanwhile  # type: ignore[method-assign]
    b.pull()
    assert asked
    assert wrong(b) == []
    b.pull()
    assert b.asked("SELECT total FROM invoice WHERE id = 'z'") == [(20,)]
    assert wrong(b) == []
    assert b.asked("SELECT * FROM backhaul_aside") == []
