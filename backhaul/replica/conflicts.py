"""Ledger of backhaul_conflict: what two replicas wrote at the same time and a person is to choose from.

Each row is one record of a conflict: what our changes found (was), what they wrote (mine), and what stands on the
server (theirs), which is brought up to date whenever the feed tells of the record. Conflicts that share a transaction,
a record or an aggregate are one, with one number, and are resolved together (resolution.py).

Of an aggregate that a change of ours touches nothing of the others is laid into the app's tables: it would be half
theirs and half ours. What the feed says of it is withheld here, and let go when our changes are done with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, func, insert, or_, select, update

from backhaul.merge.aggregate import Place
from backhaul.replica.contested import Entry, entry_of, places_of, row_of
from backhaul.schema import conflict as ledger
from backhaul.schema import outbox as ours
from backhaul.wire import Record, Value, canonical_key, encode

AT_ONCE = 500  # records that one statement asks for
KEPT_MS = 30 * 86_400_000  # what became of a conflict is kept so long
LIVE = or_(ledger.c.state == "withheld", ledger.c.state == "open")
ANY_LIVE = select(exists().where(LIVE))


# ------------------------------------------------------------------------------------------------ asking


def count(connection: Connection) -> int:
    """How many conflicts wait for a person."""
    statement = select(func.count(ledger.c.number.distinct())).where(ledger.c.state == "open")
    return int(connection.execute(statement).scalar_one())


def any_live(connection: Connection) -> bool:
    return bool(connection.execute(ANY_LIVE).scalar_one())


def numbers(connection: Connection, *, open_only: bool = True) -> list[int]:
    """Of the conflicts, the newest last."""
    wanted = ledger.c.state == "open" if open_only else ledger.c.state != "withheld"
    statement = select(ledger.c.number).where(wanted).distinct().order_by(ledger.c.number)
    return [int(number) for (number,) in connection.execute(statement)]


def of_number(connection: Connection, number: int) -> list[Entry]:
    """The records of a conflict, whatever its state; none if there is no such conflict."""
    statement = select(ledger).where(ledger.c.number == number).order_by(ledger.c.id)
    return [entry_of(row) for row in connection.execute(statement).mappings()]


def of_record(connection: Connection, table: str, key: str) -> Entry | None:
    """The conflict that the record is in now, or what is withheld of it. key: canonical JSON."""
    statement = select(ledger).where(LIVE, ledger.c.table_name == table, ledger.c.key == key)
    row = connection.execute(statement).mappings().first()
    return None if row is None else entry_of(row)


def live(connection: Connection, places: Iterable[Place]) -> dict[Place, Entry]:
    """What is open or withheld of these records."""
    by_table: dict[str, list[str]] = {}
    for table, key in places:
        by_table.setdefault(table, []).append(key)
    found: dict[Place, Entry] = {}
    for table, keys in by_table.items():
        for at in range(0, len(keys), AT_ONCE):
            of_these = (LIVE, ledger.c.table_name == table, ledger.c.key.in_(keys[at : at + AT_ONCE]))
            for row in connection.execute(select(ledger).where(*of_these)).mappings():
                found[row["table_name"], row["key"]] = entry_of(row)
    return found


def rooted(connection: Connection) -> list[Entry]:
    """What is open or withheld of aggregates."""
    statement = select(ledger).where(LIVE, ledger.c.roots != "[]").order_by(ledger.c.version, ledger.c.id)
    return [entry_of(row) for row in connection.execute(statement).mappings()]


def open_roots(connection: Connection) -> dict[Place, str]:
    """The aggregates that are in conflicts, each with the op id of a change of ours, as far as there is one."""
    found: dict[Place, str] = {}
    for entry in rooted(connection):
        if entry.state == "open":
            found |= {root: found.get(root) or (entry.ops[0] if entry.ops else "") for root in entry.roots}
    return found


def unseen(connection: Connection) -> dict[Place, int]:
    """The aggregates of which something is withheld, each with the feed position that the app has seen of it."""
    found: dict[Place, int] = {}
    for entry in rooted(connection):
        if entry.state == "withheld" and entry.base is not None:
            found |= {root: min(entry.base, found.get(root, entry.base)) for root in entry.roots}
    return found


def to_ask_for(connection: Connection) -> list[Place]:
    """The records of which it is not known what stands there, or not all that giving in would need; AT_ONCE of them."""
    unknown = or_(ledger.c.there.is_(None), ledger.c.there == "unknown")
    statement = select(ledger.c.table_name, ledger.c.key).where(ledger.c.state == "open", unknown).limit(AT_ONCE)
    return [(row.table_name, row.key) for row in connection.execute(statement)]


# ------------------------------------------------------------------------------------------------ open, withheld


def keep(connection: Connection, entries: Sequence[Entry]) -> None:
    """New rows, and old ones as they are now."""
    rows = [row_of(entry) for entry in entries]
    new = [row for entry, row in zip(entries, rows, strict=True) if entry.id is None]
    old = [row | {"row": entry.id} for entry, row in zip(entries, rows, strict=True) if entry.id is not None]
    if new:
        connection.execute(insert(ledger), new)
    if old:
        connection.execute(update(ledger).where(ledger.c.id == bindparam("row"), LIVE), old)


def begin(connection: Connection, entry: Entry) -> int:
    """A new conflict, with this record; returns its number."""
    if entry.id is None:
        statement = insert(ledger).values(row_of(entry)).returning(ledger.c.id)
        entry.id = int(connection.execute(statement).scalar_one())
    entry.number, entry.state = entry.id, "open"
    keep(connection, [entry])
    return entry.number


def join(connection: Connection, number: int, others: Iterable[int]) -> None:
    """Conflicts that turned out to be one."""
    statement = update(ledger).where(ledger.c.number.in_(list(others)), ledger.c.state == "open")
    connection.execute(statement.values(number=number))


def hear(connection: Connection, records: Sequence[Record]) -> int:
    """The feed tells of these records: the conflicts that they are in show it. Returns how many those are."""
    if not any_live(connection):
        return 0
    told = {(record.table, canonical_key(record.key)): record for record in records}
    entries = [entry for entry in live(connection, told).values() if entry.state == "open"]
    for entry in entries:
        entry.hear(told[entry.place])
    keep(connection, entries)
    return len(entries)


def withhold(
    connection: Connection, records: Sequence[tuple[Record, tuple[Place, ...], int | None]], *, position: int, now: int
) -> None:
    """Keep what the feed says of these records. records: each with its aggregates, and the number of the conflict that
    they are in. position: what the app has seen of them."""
    entries = live(connection, [(one.table, canonical_key(one.key)) for one, _, _ in records])
    for record, roots, number in records:
        place = (record.table, canonical_key(record.key))
        entry = entries.setdefault(place, Entry(table=place[0], key=place[1], base=position, opened_at=now))
        entry.roots = tuple(dict.fromkeys((*entry.roots, *roots)))
        if number is not None:
            entry.number, entry.state = number, "open"
        entry.hear(record)
    keep(connection, list(entries.values()))


def release(connection: Connection, entries: Sequence[Entry]) -> list[Record]:
    """What was withheld of aggregates to which no change of ours is on its way any more: the caller applies it."""
    _forget(connection, [entry.id for entry in entries])
    return [entry.theirs_as_record() for entry in entries]


def passed(connection: Connection, position: int) -> None:
    """The feed has passed changes of ours that the server has taken, up to this position, and does not tell them to us:
    of a record in a conflict that was last heard of before that, it is to be asked what stands there."""
    newer = exists().where(
        ours.c.table_name == ledger.c.table_name,
        ours.c.key == ledger.c.key,
        ours.c.state == "acked",
        ours.c.version <= position,
        ours.c.version > ledger.c.version,
    )
    connection.execute(update(ledger).where(ledger.c.state == "open", newer).values(there="unknown"))


def forget_there(connection: Connection) -> None:
    """The server was put back: what it told of these records it may have lost. What stands there is asked for anew, or
    comes with the recovery."""
    nothing = {"there": "unknown", "theirs": "{}", "version": 0, "since": 0, "base": 0}
    connection.execute(update(ledger).where(LIVE).values(**nothing))


def forget_withheld(connection: Connection, records: Sequence[Record]) -> None:
    """These records were fetched, and are newer than what was withheld of them."""
    if any_live(connection):
        places = [(record.table, canonical_key(record.key)) for record in records]
        _forget(connection, [entry.id for entry in live(connection, places).values() if entry.state == "withheld"])


def _forget(connection: Connection, ids: Sequence[int | None]) -> None:
    for at in range(0, len(ids), AT_ONCE):
        gone = (ledger.c.id.in_(ids[at : at + AT_ONCE]), ledger.c.state == "withheld")
        connection.execute(delete(ledger).where(*gone))


# ------------------------------------------------------------------------------------------------ open -> resolved


def resolved(
    connection: Connection,
    number: int,
    choice: str,
    before: Mapping[Place, dict[str, Value] | None],
    after: Mapping[Place, dict[str, Value]],
    *,
    now: int,
) -> None:
    """A person chose. before, after: what that did away with and what it left, by record."""
    statement = (
        update(ledger)
        .where(
            ledger.c.number == number,
            ledger.c.state == "open",
            ledger.c.table_name == bindparam("table"),
            ledger.c.key == bindparam("of_key"),
        )
        .values(state="resolved", choice=choice, resolved_at=now, before=bindparam("fields"), after=bindparam("left"))
    )
    rows = [
        {
            "table": place[0],
            "of_key": place[1],
            "fields": encode(fields).decode(),
            "left": encode(after.get(place)).decode(),
        }
        for place, fields in before.items()
    ]
    connection.execute(statement, rows)


def forget_decided(connection: Connection, now: int) -> None:
    """What a person has decided, and could take back, is forgotten after a while."""
    over = ledger.c.state.in_(("resolved", "undone")), ledger.c.resolved_at < now - KEPT_MS
    connection.execute(delete(ledger).where(*over))


def undone(connection: Connection, number: int) -> None:
    """resolved -> undone."""
    statement = update(ledger).where(ledger.c.number == number, ledger.c.state == "resolved")
    connection.execute(statement.values(state="undone"))


def rename(connection: Connection, table: str, names: Mapping[str, str]) -> None:
    """The table's columns have other names, in all that is told of its records. names: old -> new."""
    said = (ledger.c.was, ledger.c.mine, ledger.c.theirs, ledger.c.before, ledger.c.after)
    statement = select(ledger.c.id.label("row"), *said).where(ledger.c.table_name == table)
    changed = []
    for row in connection.execute(statement).mappings().all():
        told = {one.name: _under(row[one.name], names) for one in said}
        if any(told[name] != row[name] for name in told):
            changed.append({"row": row["row"]} | told)
    if changed:
        connection.execute(update(ledger).where(ledger.c.id == bindparam("row")), changed)


def retable(connection: Connection, old: str, new: str) -> None:
    """A table has another name, as that of records and of the roots of aggregates."""
    connection.execute(update(ledger).where(ledger.c.table_name == old).values(table_name=new))
    rooted = select(ledger.c.id.label("row"), ledger.c.roots).where(ledger.c.roots != "[]")
    changed = []
    for row in connection.execute(rooted).mappings().all():
        roots = [(new if table == old else table, key) for table, key in places_of(row["roots"])]
        changed.append({"row": row["row"], "roots": encode(roots).decode()})
    if changed:
        connection.execute(update(ledger).where(ledger.c.id == bindparam("row")), changed)


def _under(said: str | None, names: Mapping[str, str]) -> str | None:
    fields = msgspec.json.decode(said, type=dict[str, msgspec.Raw] | None) if said else None
    if fields is None or names.keys().isdisjoint(fields):
        return said
    return encode({names.get(name, name): value for name, value in fields.items()}).decode()
