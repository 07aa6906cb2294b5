"""Which records of a page may be laid into the app's tables, and which are withheld: those of an aggregate that a
change of ours touches. Half of it would be theirs, half of it ours, and nothing of it right."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.errors import Misused, TryLater
from backhaul.merge.aggregate import Place
from backhaul.replica import checkpoint, conflicts, outbox, rows
from backhaul.replica.contested import Entry
from backhaul.replica.knots import Knots, Node
from backhaul.replica.roots import Roots, decode_key, value_of
from backhaul.replica.tables import Tracked
from backhaul.wire import Record, Value, canonical_key, encode

Touched = tuple[dict[Place, set[Place]], set[Place]]


@dataclass(frozen=True, kw_only=True)
class Apart:
    """released: what was withheld until now, older than the page. records: those of the page that are not withheld."""

    released: list[Record]
    records: list[Record]


class Ours:
    """What our changes touch that the server has not taken, as far as a page asks for it."""

    def __init__(self, connection: Connection, tracked: Sequence[Tracked]) -> None:
        self._tables = [one.table for one in tracked]
        self.roots = Roots(connection, self._tables)
        self._connection = connection

    def hold(self, places: Iterable[Place]) -> None:
        """Let the app end what it is doing to these records, as far as they are of aggregates."""
        rows.hold_all(self._connection, self._tables, (place for place in places if place[0] in self.roots.tables))

    def any(self, *, overtaken: bool = False) -> bool:
        """Whether there is such a change of an aggregate at all. overtaken: or one that the server has taken, and whose
        record is still to be fetched: what is withheld is older than that."""
        tables = sorted(self.roots.tables)
        return bool(tables) and outbox.any_unsettled_of(self._connection, tables, overtaken=overtaken)

    def touched(
        self, places: Collection[Place], wanted: Collection[Place], *, overtaken: bool = False
    ) -> tuple[dict[Place, set[Place]], set[Place]]:
        """Those of these records that we have changed, with the aggregates that this touches; and the aggregates that
        our changes touch, of the wanted ones and of these. One statement for each table of aggregates. overtaken: as in
        `any`."""
        found: dict[Place, set[Place]] = {}
        busy: set[Place] = set()
        for _, place, root in self._of(places, wanted, overtaken=overtaken):
            if place in places:
                found.setdefault(place, set()).add(root)
                busy.add(root)
            elif root in wanted:
                busy.add(root)
        return found, busy

    def waiting(self, wanted: Collection[Place]) -> dict[int, Place]:
        """Our changes of these aggregates, by outbox id."""
        return {number: root for number, _, root in self._of((), wanted) if root in wanted}

    def _of(
        self, places: Collection[Place], wanted: Collection[Place], *, overtaken: bool = False
    ) -> Iterator[tuple[int, Place, Place]]:
        """Our changes of these records, of these aggregates, and some others: id, record and aggregate."""
        for table in sorted(self.roots.tables):
            of, named = self.roots.named_by(table)
            parts = [decode_key(key) for name, key in wanted if name == of]
            said = {one: sorted({text for key in parts for text in _texts(key[at])}) for at, one in enumerate(named)}
            keys = [key for name, key in places if name == table]
            for changes in outbox.unsettled_saying(self._connection, table, keys, said, overtaken=overtaken):
                ours = [(table, key, {name: value_of(it) for name, it in fields.items()}) for _, key, fields in changes]
                for (number, key, _), root in zip(changes, self.roots.of(ours), strict=True):
                    if root is not None:
                        yield number, (table, key), root


def _texts(part: Value) -> list[str]:
    """How either database may spell a part of a key as text."""
    if isinstance(part, bool):
        return [str(int(part)), str(part).lower()]
    return [part if isinstance(part, str) else encode(part).decode()]


def apart(connection: Connection, mine: Ours, records: Sequence[Record], *, now: int) -> Apart:
    """The conflicts that the records are in have heard of them, too."""
    conflicts.hear(connection, records)
    roots = mine.roots
    known = conflicts.rooted(connection) if roots.tables else []
    if not known and all(record.table not in roots.tables for record in records):
        return Apart(released=[], records=list(records))
    places = [(record.table, canonical_key(record.key)) for record in records]
    mine.hold([*places, *(entry.place for entry in known if entry.state == "withheld")])
    of_each: Sequence[tuple[Place, ...]] = [()] * len(records)
    busy: set[Place] = set()
    if mine.any(overtaken=True):
        of_each = _roots_of(roots, records, known)
        wanted = {root for some in of_each for root in some} | {root for entry in known for root in entry.roots}
        ours, busy = mine.touched(set(places), wanted, overtaken=True)
        of_each = [
            (*some, *sorted(ours.get(place, set()) - set(some))) for place, some in zip(places, of_each, strict=True)
        ]
    knots = Knots()
    for entry in known:
        numbered: list[Node] = [("number", entry.number)] if entry.number is not None else []
        knots.tie(*(("root", root) for root in entry.roots), *numbered)
    for some in of_each:
        if some:
            knots.tie(*(("root", root) for root in some))
    _join(connection, knots, known)
    taken = {knots.of(("root", root)) for root in busy}  # each for itself: that we touch two does not make them one
    free, held = list[Record](), list[tuple[Record, tuple[Place, ...], int | None]]()
    for record, some in zip(records, of_each, strict=True):
        if some and knots.of(("root", some[0])) in taken:
            held.append((record, some, _number(knots, known, some[0])))
        else:
            free.append(record)
    withheld = [entry for entry in known if entry.state == "withheld"]
    over = [entry for entry in withheld if knots.of(("root", entry.roots[0])) not in taken]
    released = conflicts.release(connection, over)
    conflicts.withhold(connection, held, position=checkpoint.read(connection).position, now=now)
    return Apart(released=released, records=free)


def check_whole(connection: Connection, mine: Ours, records: Sequence[Record], position: int) -> None:
    """Before these records become what the server has: of an aggregate all of it must be known here, and nobody else's
    change of it be withheld for one of ours that stays. position: of the feed. Raises TryLater, Misused."""
    of_aggregates = [record for record in records if record.table in mine.roots.tables]
    if any(record.version > position for record in of_aggregates):
        raise TryLater(
            "what another replica wrote of the same whole is not all here yet", hint="backhaul pull, and then again"
        )
    if not of_aggregates or not mine.any():
        return
    known = conflicts.rooted(connection)
    told = {root for entry in known for root in entry.roots}
    _, busy = mine.touched((), {root for some in _roots_of(mine.roots, of_aggregates, known) for root in some})
    for table, key in sorted(busy & told):
        raise Misused(
            f"another replica has changed {table} {key}, or a part of it, and other changes of it wait here",
            hint="give up all of them; or have them sent first (backhaul parked retry), and decide the conflict",
        )


def _roots_of(roots: Roots, records: Sequence[Record], known: Sequence[Entry]) -> list[tuple[Place, ...]]:
    """For each record the aggregates that it is of: there, here, and by what was withheld of it before. (And by what we
    did to it.) A part that moved ties two of them together."""
    places = [(record.table, canonical_key(record.key)) for record in records]
    before = {entry.place: entry.roots for entry in known}
    there = roots.of([(*place, record.fields) for place, record in zip(places, records, strict=True)])
    here = roots.of([(*place, {}) for place in places])
    return [
        tuple(dict.fromkeys((*before.get(place, ()), *(root for root in pair if root is not None))))
        for place, *pair in zip(places, there, here, strict=True)
    ]


def _join(connection: Connection, knots: Knots, known: Sequence[Entry]) -> None:
    """Conflicts that what has come ties together are one."""
    numbers = sorted({entry.number for entry in known if entry.number is not None})
    for place, number in enumerate(numbers):
        others = [one for one in numbers[place + 1 :] if knots.together(("number", number), ("number", one))]
        if others:
            conflicts.join(connection, number, others)
            outbox.join_conflicts(connection, number, others)


def _number(knots: Knots, known: Sequence[Entry], root: Place) -> int | None:
    """The conflict that the aggregate is in, through whatever ties it to it."""
    numbers = {entry.number for entry in known if entry.number is not None}
    return next((one for one in sorted(numbers) if knots.together(("root", root), ("number", one))), None)
