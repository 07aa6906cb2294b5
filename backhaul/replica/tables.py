"""Ledger of backhaul_table: the tracked tables as they were when their triggers were made, and their backfill."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from backhaul.errors import TableAltered
from backhaul.replica import capture
from backhaul.replica.media_columns import MediaColumn
from backhaul.statements import quoted, run, text
from backhaul.wire import Table, Value

_names = msgspec.json.Decoder(list[str]).decode
_media = msgspec.json.Decoder(MediaColumn).decode
_keys = msgspec.json.Decoder(list[Value]).decode


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """backfill_after: the key of the last row that the backfill sent to the outbox; None at its beginning. fresh: its
    first backfill is this one: rows that it has not reached are from before the table was tracked, and are nowhere
    else. media: of the files that its rows name."""

    table: Table
    shape: str
    backfill: str
    backfill_after: list[Value] | None
    backfill_rows: int
    fresh: bool
    media: MediaColumn | None = None


@dataclass(frozen=True, kw_only=True)
class Behind:
    """What the server has and this replica has not asked for yet. columns: none means the whole table."""

    table: str
    columns: tuple[str, ...]
    cursor: str


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A table that was without triggers for a while. after: the key of the last row that was looked at. base: the feed
    position up to which its rows had heard of deletions when it was doubted."""

    table: str
    columns: tuple[str, ...]
    after: list[Value] | None
    base: int


def track(
    connection: Connection, table: Table, shape: str, *, media: MediaColumn | None = None, again: bool = True
) -> None:
    """Track the table from now on; the rows that it has are the backfill's. again: also if they have been before."""
    statement = """
        INSERT INTO backhaul_table (name, definition, shape, backfill, media)
        VALUES (:name, :definition, :shape, :backfill, :media)
        ON CONFLICT (name) DO UPDATE
        SET definition = excluded.definition, shape = excluded.shape, media = excluded.media,
            fresh = CASE WHEN backhaul_table.backfill = 'pending' THEN backhaul_table.fresh ELSE 0 END,
            backfill = CASE WHEN :again = 1 THEN excluded.backfill ELSE backhaul_table.backfill END,
            backfill_after = CASE WHEN :again = 1 THEN NULL ELSE backhaul_table.backfill_after END,
            backfill_rows = CASE WHEN :again = 1 THEN 0 ELSE backhaul_table.backfill_rows END
    """
    rows = f"SELECT EXISTS (SELECT 1 FROM {quoted(table.name)})"  # noqa: S608 - the catalogue's own name, quoted
    values = {
        "name": table.name,
        "definition": msgspec.json.encode(table).decode(),
        "shape": shape,
        "media": None if media is None else msgspec.json.encode(media).decode(),
        "again": int(again),
        "backfill": "pending" if run(connection, rows).scalar_one() else "done",
    }
    connection.execute(text(statement), values)


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name; how far it has got stays."""
    statement = "UPDATE backhaul_table SET name = :new WHERE name = :old"
    connection.execute(text(statement), {"old": old, "new": new})


def untrack(connection: Connection, name: str) -> None:
    """The table is gone; what of it waits goes out all the same."""
    connection.execute(text("DELETE FROM backhaul_table WHERE name = :name"), {"name": name})


def doubt(connection: Connection, name: str, columns: Sequence[str]) -> None:
    """Rows may have been edited unseen, in these columns; they are looked at from the beginning."""
    statement = """
        UPDATE backhaul_table
        SET suspect = :columns, suspect_after = NULL,
            suspect_base = CASE WHEN suspect IS NULL THEN (SELECT position FROM backhaul_replica) ELSE suspect_base END
        WHERE name = :name
    """
    connection.execute(text(statement), {"name": name, "columns": msgspec.json.encode(list(columns)).decode()})


def suspect(connection: Connection) -> Suspect | None:
    """What is to be looked at next."""
    statement = """
        SELECT name, suspect, suspect_after, suspect_base FROM backhaul_table
        WHERE suspect IS NOT NULL ORDER BY name LIMIT 1
    """
    row = connection.execute(text(statement)).first()
    if row is None:
        return None
    after = None if row.suspect_after is None else _keys(row.suspect_after)
    return Suspect(table=row.name, columns=tuple(_names(row.suspect)), after=after, base=row.suspect_base)


def under_suspicion(connection: Connection) -> set[str]:
    """The tables in which rows may be that no trigger saw, and that nobody has looked for yet."""
    return set(connection.execute(text("SELECT name FROM backhaul_table WHERE suspect IS NOT NULL")).scalars())


def cleared_to(connection: Connection, suspect: Suspect, key: str) -> None:
    """key: JSON."""
    statement = "UPDATE backhaul_table SET suspect_after = :key WHERE name = :name AND suspect IS NOT NULL"
    connection.execute(text(statement), {"name": suspect.table, "key": key})


def cleared(connection: Connection, suspect: Suspect) -> None:
    statement = "UPDATE backhaul_table SET suspect = NULL, suspect_after = NULL WHERE name = :name"
    connection.execute(text(statement), {"name": suspect.table})


def fall_behind(connection: Connection, name: str, columns: Sequence[str]) -> None:
    """These columns (none: the whole table) are new here; what was to be fetched before stays to be fetched."""
    known = connection.execute(text("SELECT behind FROM backhaul_table WHERE name = :name"), {"name": name}).scalar()
    before = None if known is None else _names(known)
    wanted = [] if before == [] or not columns else sorted({*(before or []), *columns})
    statement = "UPDATE backhaul_table SET behind = :behind, behind_cursor = '' WHERE name = :name"
    connection.execute(text(statement), {"name": name, "behind": msgspec.json.encode(wanted).decode()})


def behind(connection: Connection) -> Behind | None:
    """What is to be fetched next."""
    statement = """
        SELECT name, behind, behind_cursor FROM backhaul_table WHERE behind IS NOT NULL ORDER BY name LIMIT 1
    """
    row = connection.execute(text(statement)).first()
    if row is None:
        return None
    return Behind(table=row.name, columns=tuple(_names(row.behind)), cursor=row.behind_cursor)


def caught_up_to(connection: Connection, behind: Behind, cursor: str) -> None:
    statement = "UPDATE backhaul_table SET behind_cursor = :to WHERE name = :name AND behind_cursor = :since"
    connection.execute(text(statement), {"name": behind.table, "since": behind.cursor, "to": cursor})


def caught_up(connection: Connection, behind: Behind) -> None:
    statement = """
        UPDATE backhaul_table SET behind = NULL, behind_cursor = '' WHERE name = :name AND behind_cursor = :since
    """
    connection.execute(text(statement), {"name": behind.table, "since": behind.cursor})


def all_tracked(connection: Connection) -> list[Tracked]:
    statement = (
        "SELECT definition, shape, backfill, backfill_after, backfill_rows, fresh, media FROM backhaul_table"
        " ORDER BY name"
    )
    return [
        Tracked(
            table=msgspec.json.decode(row.definition, type=Table),
            shape=row.shape,
            backfill=row.backfill,
            backfill_after=None if row.backfill_after is None else _keys(row.backfill_after),
            backfill_rows=row.backfill_rows,
            fresh=bool(row.fresh),
            media=None if row.media is None else _media(row.media),
        )
        for row in connection.execute(text(statement))
    ]


def not_backfilled(connection: Connection) -> list[str]:
    """The names of the tables whose rows are not all in the outbox yet."""
    statement = "SELECT name FROM backhaul_table WHERE backfill = 'pending' ORDER BY name"
    return list(connection.execute(text(statement)).scalars())


def not_fetched(connection: Connection) -> dict[str, tuple[str, ...]]:
    """What is still to be fetched of each table that is behind: columns, or none for all of it."""
    rows = connection.execute(text("SELECT name, behind FROM backhaul_table WHERE behind IS NOT NULL"))
    return {row.name: tuple(_names(row.behind)) for row in rows}


def altered(connection: Connection, tracked: Iterable[Tracked]) -> list[str]:
    """The tables whose definition or triggers are not what they were."""
    expected = {one.table.name: one.shape for one in tracked}
    present = capture.shapes(connection, list(expected))
    return [name for name, shape in expected.items() if present.get(name) != shape]


def checked(connection: Connection) -> list[Tracked]:
    """The tracked tables. Raises TableAltered when one of them is not what its triggers were made for."""
    tracked = all_tracked(connection)
    names = altered(connection, tracked)
    if names:
        raise TableAltered(
            f"altered since `backhaul init`: {', '.join(names)}; nothing was sent or applied",
            hint="run: backhaul init   (it makes the triggers anew, and sends what the server does not have)",
        )
    return tracked


def backfilled(connection: Connection, name: str, *, after: str, rows: int) -> None:
    """Rows up to this key (JSON) went to the outbox."""
    statement = """
        UPDATE backhaul_table SET backfill_after = :after, backfill_rows = backfill_rows + :rows
        WHERE name = :name AND backfill = 'pending'
    """
    connection.execute(text(statement), {"name": name, "after": after, "rows": rows})


def backfill_again(connection: Connection) -> None:
    """Every row is to go to the outbox, as for the first time: the server has none of them."""
    statement = """
        UPDATE backhaul_table
        SET backfill = 'pending', backfill_after = NULL, backfill_rows = 0, fresh = 1, suspect_base = 0
    """
    connection.execute(text(statement))


def backfill_done(connection: Connection, name: str) -> None:
    connection.execute(text("UPDATE backhaul_table SET backfill = 'done' WHERE name = :name"), {"name": name})
