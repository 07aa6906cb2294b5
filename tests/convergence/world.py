"""A world of replicas around one server, in which everything happens that one seed says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

from backhaul.backoff import Backoff
from backhaul.replica.pull import OnReset
from backhaul.server.auth import Replica as Identity
from tests.convergence import persons
from tests.convergence.app import ARTICLES, App
from tests.convergence.branch import Branch, SkewedClock, make_replica
from tests.convergence.journal import Journal
from tests.convergence.network import Network, Weather
from tests.convergence.persons import surviving
from tests.convergence.servers import Server
from tests.replicas import MovedClock

BEGINNING = 1_800_000_000_000
MINUTE = 60_000
DAY = 24 * 60 * MINUTE
MOST_SKEW = 10 * MINUTE
ROUNDS = 30
BATCHES = [1, 2, 5, 20, 1_000]
RETRY = Backoff(initial_ms=1_000, most_ms=5 * MINUTE)

# What may happen in a world beside what happens in all of them; each seed draws some.
FEATURES = (
    "conflicts",
    "aggregates",
    "edit_wins",
    "blocks",
    "mending",
    "columns",
    "backups",
    "late",
    "restored",
    "articles",
)


class World:
    """Whatever happens in it is drawn from `random`. features: see above."""

    def __init__(
        self, server: Server, clock: MovedClock, folder: Path, random: Random, features: frozenset[str] = frozenset()
    ) -> None:
        self.random = random
        self.features = features
        self.clock = clock
        self.server = server
        self.journal = Journal()
        self.branches: list[Branch] = []
        self.away: Branch | None = None
        self.was_restored = False
        self._prices = count(1)
        self._saved: tuple[int, dict[tuple[str, int], tuple[str, str]]] | None = None
        for number in range(1, self.random.choice([2, 3, 3, 4]) + 1):
            self.branches.append(self._branch(folder, number))

    def live(self, steps: int) -> None:
        for branch in self.branches:
            branch.network.weather = Weather()
        for _ in range(steps):
            self.clock.moment += self.random.choice([0, 0, 1, 7, 500, 3_000, 40_000, 200_000])
            self._step(self.random.choice([branch for branch in self.branches if branch is not self.away]))
            self.each_step()

    def each_step(self) -> None:
        """What must be true at all times."""
        if "aggregates" in self.features:
            for branch in self.branches:
                wrong = branch.replica.asked(
                    "SELECT name, total, (SELECT coalesce(sum(amount), 0) FROM item WHERE bill = bill.name) AS items"
                    " FROM bill WHERE total <> items"
                )
                assert wrong == [], f"replica {branch.network.number}: {wrong}"

    def heal(self) -> None:
        """The weather clears, and everyone syncs until nothing moves any more."""
        self.away = None
        for branch in self.branches:
            branch.network.weather = Weather.calm()
            branch.network.deliver_late()
            persons.init(branch)
        self._sync_until_quiet()

    def decide_all(self) -> None:
        """Persons decide whatever waits for them."""
        for _ in range(ROUNDS):
            for branch in self.branches:
                persons.resolve(branch, self.random, sides=["theirs", "theirs", "mine"])
                persons.discard(branch, self.random, everything=True)
            self._sync_until_quiet()
            if not any(branch.held() for branch in self.branches):
                return
        raise AssertionError("conflicts without end")

    def close(self) -> None:
        for branch in self.branches:
            branch.replica.close()

    # -------------------------------------------------------------------------------------------- what happens

    def _step(self, branch: Branch) -> None:
        deeds = {
            self._work: 8.0,
            self._push: 4.0,
            self._pull: 4.0,
            self._retry: 0.5,
            self._discard: 0.5,
            self._late: 0.5,
            self._turn_clock: 0.2,
        }
        more: dict[str, dict[Callable[[Branch], None], float]] = {
            "conflicts": {self._resolve: 2.0, self._undo: 0.7},
            "aggregates": {self._resolve: 2.0, self._undo: 0.7},
            "mending": {self._edit: 0.7, self._remap: 1.0},
            "columns": {self._alter: 0.7},
            "backups": {self._back_up: 0.4, self._put_back: 0.4},
            "late": {self._go_away: 0.4, self._come_back: 0.4},
            "restored": {self._back_up_server: 0.3, self._put_back_server: 0.3},
            "articles": {self._write_on_server: 1.0},
        }
        for feature, some in more.items():
            if feature in self.features:
                deeds |= some
        deed = self.random.choices(list(deeds), weights=list(deeds.values()))[0]
        deed(branch)

    def _meanwhile(self, branch: Branch) -> None:
        """Other processes of the same machine, while one of them waits for the network."""
        deed = self.random.choices([self._work, self._push, self._pull, self._discard], weights=[3, 2, 3, 1])[0]
        deed(branch)

    def _work(self, branch: Branch) -> None:
        branch.app.work()

    def _push(self, branch: Branch) -> None:
        with surviving():
            batch = self.random.choice(BATCHES)
            branch.replica.push(batch=batch, retry=RETRY, alone=self.random.random() < 0.2)

    def _pull(self, branch: Branch, *, on_reset: OnReset = "recover") -> None:
        with surviving():
            branch.replica.pull(limit=branch.page, on_reset=on_reset)

    def _late(self, branch: Branch) -> None:
        branch.network.deliver_late()

    def _turn_clock(self, branch: Branch) -> None:
        branch.clock.skew = self.random.randint(-MOST_SKEW, MOST_SKEW)

    def _sync_until_quiet(self) -> None:
        for _ in range(ROUNDS):
            before = [branch.state() for branch in self.branches]
            for branch in self.branches:
                self.clock.moment += 10 * MINUTE  # every lease and every wait is over
                branch.replica.pull(limit=branch.page)
                branch.replica.push(batch=self.random.choice(BATCHES))
                branch.replica.pull(limit=branch.page)
                self.each_step()
            if [branch.state() for branch in self.branches] == before:
                return
        raise AssertionError(f"not quiet after {ROUNDS} rounds: {[one.replica.states() for one in self.branches]}")

    def _write_on_server(self, _branch: Branch) -> None:
        """Its own word about the price of an article that it has."""
        name, price = f"article {self.random.randrange(ARTICLES)}", -next(self._prices)
        written = self.server.write("article", name, {"price": price})
        if written is not None:
            self.journal.enter_own("article", name, {"price": price}, hlc=written[0], version=written[1])

    # -------------------------------------------------------------------------------------------- persons

    def _retry(self, branch: Branch) -> None:
        persons.retry(branch, self.random)

    def _discard(self, branch: Branch) -> None:
        persons.discard(branch, self.random)

    def _edit(self, branch: Branch) -> None:
        persons.edit(branch, self.random)

    def _remap(self, branch: Branch) -> None:
        persons.give_another_key(branch, self.random)

    def _resolve(self, branch: Branch) -> None:
        persons.resolve(branch, self.random)

    def _undo(self, branch: Branch) -> None:
        persons.undo(branch, self.random)

    def _alter(self, branch: Branch) -> None:
        persons.alter(branch, self.random)

    # -------------------------------------------------------------------------------------------- disasters

    def _back_up(self, branch: Branch) -> None:
        branch.back_up()

    def _put_back(self, branch: Branch) -> None:
        if branch.has_backup:
            branch.put_back(token_too=self.random.random() < 0.5 and self._is_known(branch.saved_as))

    def _go_away(self, branch: Branch) -> None:
        if self.away is None and len(self.branches) > 2:
            self.away = branch

    def _come_back(self, _branch: Branch) -> None:
        """After half a year, in which the others have gone on; what was written meanwhile is offered, or given up."""
        late, self.away = self.away, None
        if late is None:
            return
        for _ in range(3):
            self.clock.moment += 60 * DAY
            self._purge()  # as the server would with the next push
            for branch in self.branches:
                if branch is not late:
                    self._work(branch)
                    self._push(branch)
                    self._pull(branch)
        self._purge()
        for _ in range(self.random.randrange(3)):
            self._work(late)
        if self.random.random() < 0.3:
            with late.a_person():
                self._pull(late, on_reset="discard")
        else:
            self._pull(late)

    def _purge(self) -> None:
        self.server.store.purge(self.clock.now())
        self.journal.purge(self.server.remembers())

    def _back_up_server(self, _branch: Branch) -> None:
        self.server.back_up()
        self._saved = self.journal.back_up()

    def _put_back_server(self, _branch: Branch) -> None:
        """Unless it has forgotten a replica by that: a person would have to sign that in, and all of its rows would be
        sent, as to another server."""
        if self._saved is not None and all(self._is_known(one.network.identity, backup=True) for one in self.branches):
            self.server.put_back()
            self.journal.put_back(self._saved)
            self.was_restored = True

    def _is_known(self, identity: Identity | None, *, backup: bool = False) -> bool:
        return identity is not None and self.server.knows(identity.id, backup=backup)

    def _branch(self, folder: Path, number: int) -> Branch:
        clock = SkewedClock(self.clock, self.random.randint(-MOST_SKEW, MOST_SKEW))
        network = Network(
            self.server.connect(),
            self.journal,
            self.random,
            number,
            self.random.choice([8, 20, 1_000]),
            meanwhile=lambda: self._meanwhile(self.branches[number - 1]),
        )
        replica = make_replica(folder / f"branch {number}.sqlite", network, self.server.enrol(), clock)
        poison = self.random.choice([0, 0, 0.03])
        app = App(replica.app, self.random, number, poison=poison, features=self.features)
        return Branch(replica=replica, network=network, app=app, clock=clock, page=self.random.choice([1, 2, 5, 1_000]))
