"""Three replicas change the lines of two invoices, at the same time and in every way, lose answers, decide about
conflicts and take it back: no invoice ever disagrees with its lines, anywhere, and in the end all are equal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from backhaul.backoff import Backoff
from backhaul.errors import Misused, TryLater, Unreachable
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Pushed
from tests.disputes import RULES, SCHEMA, all_equal, open_numbers, resolve, undo
from tests.replicas import Replica, make_replica

STEPS = 90
AT_ONCE = Backoff(initial_ms=0, most_ms=0)
INVOICES = ("i1", "i2")


class Unsteady(MemoryRemote):
    """A way to the server that loses answers."""

    random: Random | None = None  # None: steady

    def push(self, ops: Any) -> Pushed:
        reply = super().push(ops)
        if self.random is not None and self.random.random() < 0.15:
            raise Unreachable("the answer is lost")
        return reply


class Company:
    def __init__(self, folder: Path, random: Random) -> None:
        self.random = random
        self.decided: list[tuple[Replica, int]] = []
        self.met = self.undone = 0
        self.made = 0
        server = MemoryServer()
        self.replicas = [self._replica(server, folder / f"{number}.sqlite") for number in range(3)]
        self.replicas[0].write_together(*(f"INSERT INTO invoice VALUES ('{invoice}', 0, NULL)" for invoice in INVOICES))
        for replica in self.replicas:
            self.sync(replica)

    def _replica(self, server: MemoryServer, path: Path) -> Replica:
        remote = Unsteady(server)
        replica = make_replica(path, remote, schema=SCHEMA, code=server.enrol(), rules=RULES)
        remote.random = self.random
        return replica

    def step(self) -> None:
        replica = self.random.choice(self.replicas)
        self.random.choices([self.edit, self.sync, self.pull, self.decide, self.take_back], [6, 5, 2, 2, 1])[0](replica)
        self.check()

    def check(self) -> None:
        for replica in self.replicas:
            wrong = replica.app.execute(
                """
                SELECT id, total, (SELECT coalesce(sum(amount), 0) FROM line WHERE invoice_id = invoice.id) AS lines
                FROM invoice WHERE total <> lines
                """
            ).fetchall()
            orphans = replica.app.execute("SELECT id FROM line WHERE invoice_id NOT IN (SELECT id FROM invoice)")
            assert (wrong, orphans.fetchall()) == ([], [])

    def edit(self, replica: Replica) -> None:
        """One transaction of the app: a deed, and what the totals are then."""
        totals = "UPDATE invoice SET total = (SELECT coalesce(sum(amount), 0) FROM line WHERE invoice_id = invoice.id)"
        touched = f"{totals} WHERE total <> (SELECT coalesce(sum(amount), 0) FROM line WHERE invoice_id = invoice.id)"
        replica.write_together(*self._deed(replica), touched)

    def _deed(self, replica: Replica) -> list[str]:
        lines = [row[0] for row in replica.rows("line")]
        invoices = [row[0] for row in replica.rows("invoice")]
        self.made += 1
        kind = self.random.choices(["add", "change", "drop", "move", "remark", "scrap"], [5, 5, 2, 2, 1, 0.7])[0]
        if kind == "scrap" and invoices:
            gone = self.random.choice(invoices)
            return [f"DELETE FROM line WHERE invoice_id = '{gone}'", f"DELETE FROM invoice WHERE id = '{gone}'"]
        if not invoices:
            return [f"INSERT INTO invoice VALUES ('n{self.made}', 0, NULL)"]
        invoice = self.random.choice(invoices)
        if kind == "remark":
            return [f"UPDATE invoice SET remark = 'r{self.made}' WHERE id = '{invoice}'"]
        if kind == "add" or not lines:
            return [f"INSERT INTO line VALUES ('l{self.made}', '{invoice}', {self.made})"]
        line = self.random.choice(lines)
        if kind == "change":
            return [f"UPDATE line SET amount = {self.made} WHERE id = '{line}'"]
        if kind == "drop":
            return [f"DELETE FROM line WHERE id = '{line}'"]
        return [f"UPDATE line SET invoice_id = '{invoice}' WHERE id = '{line}'"]

    def sync(self, replica: Replica) -> None:
        with suppress(TryLater):
            replica.pull(limit=self.random.choice([1, 3, 1_000]))
            replica.push(batch=self.random.choice([1, 4, 1_000]), retry=AT_ONCE)
            replica.pull()
        self.met += len(open_numbers(replica))

    def pull(self, replica: Replica) -> None:
        replica.pull()

    def decide(self, replica: Replica) -> None:
        for number in open_numbers(replica)[:1]:
            with suppress(TryLater):
                resolve(replica, self.random.choice(["mine", "theirs"]), number)
                self.decided.append((replica, number))

    def take_back(self, _replica: Replica) -> None:
        if self.decided:
            replica, number = self.decided.pop()
            with suppress(Misused):
                undo(replica, number)
                self.undone += 1

    def settle(self) -> None:
        for _ in range(30):
            for replica in self.replicas:
                replica.remote.random = None  # type: ignore[attr-defined]
                self.sync(replica)
                for number in open_numbers(replica):
                    with suppress(TryLater):
                        resolve(replica, "theirs", number)
                self.check()
            if not any(replica.outbox() for replica in self.replicas):
                return
        raise AssertionError("conflicts without end")


@pytest.fixture
def company(tmp_path: Path, seed: int) -> Iterator[Company]:
    made = Company(tmp_path, Random(seed))
    yield made
    for replica in made.replicas:
        replica.close()


@pytest.mark.parametrize("seed", range(4))
def test_no_invoice_ever_disagrees_with_its_lines(company: Company) -> None:
    for _ in range(STEPS):
        company.step()
    company.settle()
    assert all_equal(*company.replicas)
    company.check()
    assert company.met > 3
