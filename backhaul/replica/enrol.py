"""Enrol: make a database a replica (`init`), and renew its capture after its tables were altered.

Nothing is changed before everything that can be refused was asked: the tables are inspected and the server has spent
the code before the first table of ours is made. Triggers, tracked tables and the checkpoint come in one transaction,
so that a database is a replica or is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, inspect

from backhaul import migrations
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import AlreadyInitialised, TableUnfit, TableUnknown
from backhaul.remotes.base import Remote
from backhaul.replica import (
    attachments,
    capture,
    capture_files,
    checkpoint,
    clock_guard,
    muting,
    numbering,
    refill,
    strategies,
    tables,
    upgrades,
)
from backhaul.replica.inspection import find_tables
from backhaul.replica.media_columns import MediaColumn
from backhaul.replica.names import field_names
from backhaul.replica.strategies import Rules
from backhaul.telemetry import emit
from backhaul.wire import Registered, Table


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """left_out: the tables that cannot be synced, each with its reason and hint. why: for each table, why its keys are
    taken to be what they are."""

    registered: Registered
    tables: list[Table]
    left_out: list[TableUnfit]
    why: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Renewed:
    """tables: those whose triggers were made anew. gone: those that are in the database no more. renamed: tables, and
    columns as TABLE.COLUMN. new: columns. uncertain: columns that are merged by what is done to them, of tables that
    were without triggers: what was done meanwhile is only known where no other replica has done something, too."""

    tables: list[str]
    gone: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)


def enrol(
    database: Database,
    remote: Remote,
    *,
    code: str,
    url: str,
    home: str,
    name: str,
    names: Sequence[str],
    clock: Clock,
    rules: Mapping[str, Rules] | None = None,
) -> Enrolled:
    """Raises AlreadyInitialised, TableUnknown, TableUnfit, Refused (the code), Unreachable: nothing is changed then."""
    with database.reading() as connection:
        if checkpoint.exists(connection):
            known = checkpoint.read(connection)
            raise AlreadyInitialised(
                f"this database is replica {known.replica} of {known.remote} already; nothing was changed",
                hint="after altering tables run `backhaul init` without --remote and --code",
            )
        found, left_out = wanted_tables(connection, names, rules or {})
    if not found:
        raise TableUnknown("there is no table to sync", hint="create the tables first; each needs a primary key")
    asked_at = clock.now()
    registered = remote.register(code, found, name)
    answered_at = clock.now()
    found = strategies.agreed(found, registered.tables, database.engine.dialect.name)
    migrations.upgrade_replica(database)
    with database.writing() as connection:
        checkpoint.begin(connection, registered, remote=url, home=home, now=registered.now)
        clock_guard.measure(connection, server_now=registered.now, asked_at=asked_at, answered_at=answered_at)
        _track(connection, found, rules or {})
        _say_to_triggers(connection, [table.name for table in found], rules or {})
        why = {table.name: numbering.why(connection, table) for table in found}
    refill.refill(database, remote, now=answered_at)
    return Enrolled(registered=registered, tables=found, left_out=left_out, why=why)


def renew(
    database: Database, remote: Remote, *, names: Sequence[str] = (), rules: Mapping[str, Rules] | None = None
) -> Renewed:
    """Bring capture up to date with the tables as they are now and as the scope has agreed on them, and track the named
    ones too.

    Tells the server first. What waits is brought to the new shape; for columns and tables that are new here, the next
    pull fetches what the server has of them, and the backfill sends what is here (older than anything there).
    """
    migrations.upgrade_replica(database)
    with database.reading() as connection:
        checkpoint.read(connection)
        tracked = tables.all_tracked(connection)
        known = {one.table.name: one.table for one in tracked}
        present = set(inspect(connection).get_table_names())
        moved = _moved(known, present, rules or {})
        gone = known.keys() - present - moved.keys()
        stale = set(tables.altered(connection, tracked)) - moved.keys()
        stale |= {*names, *moved.values()} - known.keys()
        wanted = (known.keys() & present) | {*names, *moved.values()}
        found, _ = wanted_tables(connection, sorted(wanted), rules or {})
    found = strategies.agreed(found, remote.declare(found), database.engine.dialect.name)
    known |= {new: known[old] for old, new in moved.items()}
    stale |= {table.name for table in found if known.get(table.name) != table}
    media = {one.table.name: one.media for one in tracked}
    media |= {new: media[old] for old, new in moved.items()}
    wanted_media = {table.name: _media(rules or {}, table.name) for table in found}
    stale |= {name for name, said in wanted_media.items() if media.get(name) != said}
    with database.writing() as connection:
        _say_to_triggers(connection, [table.name for table in found], rules or {})
    if not stale and not gone:
        return Renewed(tables=[])
    renewed = Renewed(tables=sorted(stale - gone), gone=sorted(gone))
    with database.writing() as connection:
        checkpoint.hold(connection)
        for name in gone:
            tables.untrack(connection, name)
            attachments.forget_table(connection, name)
        for old, new in moved.items():
            attachments.retable(connection, old, new)
        for table in found:
            if table.name in stale:
                said = wanted_media[table.name]
                _renew(connection, known.get(table.name), table, said, renewed)
                _redeclare(connection, table, media.get(table.name), said)
    emit("capture.renewed", tables=len(stale))
    return renewed


def renew_if_harmless(database: Database, remote: Remote, *, rules: Mapping[str, Rules] | None = None) -> bool:
    """The same without a person, where tables have only grown and none has lost its triggers: a column was added.

    Whatever else was done to a table, `init` is to be run by somebody who knows why. So it is where the settings have
    strategies for a table and none for the new column: to be declared without one may be for good. Raises what `renew`
    raises.
    """
    with database.reading() as connection:
        tracked = {one.table.name: one.table for one in tables.all_tracked(connection)}
        altered = tables.altered(connection, tables.all_tracked(connection))
        present = set(inspect(connection).get_table_names())
        if not altered or not present.issuperset(altered):
            return False
        if not all(capture.is_installed(connection, name) for name in altered):
            return False
        found, _ = find_tables(connection, altered)
    for table in found:
        before = tracked[table.name]
        said = rules.get(table.name, Rules()) if rules else Rules()
        if not (upgrades.is_harmless(before, table) and said.decides(upgrades.new_columns(before, table))):
            return False
    renew(database, remote, rules=rules)
    return True


def _renew(
    connection: Connection, before: Table | None, table: Table, media: MediaColumn | None, renewed: Renewed
) -> None:
    """Track the table as it is now; before: as it was tracked."""
    lost = not capture.is_installed(connection, table.name)
    shape = capture_files.install(connection, table, media)  # from here on nobody writes under the old names
    if before is None:
        tables.track(connection, table, shape, media=media)
        tables.fall_behind(connection, table.name, [])
        return
    new = upgrades.new_columns(before, table)
    upgrades.upgrade(connection, before, table)
    if before.name != table.name:
        capture_files.forget(connection, before.name)
        renewed.renamed.append(f"{table.name} (was {before.name})")
    tables.track(connection, table, shape, media=media, again=bool(new))
    if lost:  # somebody may have written meanwhile, and nobody has seen it
        tables.doubt(connection, table.name, [name for name in field_names(table) if name not in new])
        renewed.uncertain.extend(f"{table.name}.{name}" for name in sorted(table.deltas().keys() - set(new)))
    if new or lost:
        tables.fall_behind(connection, table.name, [] if lost else new)
    old = {column.name for column in before.columns}
    renewed.renamed.extend(f"{table.name}.{name}" for was, name in table.renamed.items() if was in old)
    renewed.new.extend(f"{table.name}.{name}" for name in new)


def _moved(known: Mapping[str, Table], present: Collection[str], rules: Mapping[str, Rules]) -> dict[str, str]:
    """The tables that are here under another name than they are tracked by: old -> new."""
    return {
        old: name
        for name, said in rules.items()
        if name in present and name not in known
        for old in said.formerly
        if old in known and old not in present
    }


def wanted_tables(
    connection: Connection, names: Sequence[str], rules: Mapping[str, Rules]
) -> tuple[list[Table], list[TableUnfit]]:
    """The tables to sync, with what the settings say of them, and those that cannot be synced. Raises TableUnknown and
    TableUnfit: for a named table, and for a setting that cannot be."""
    found, left_out = find_tables(connection, names)
    if rules:
        present = inspect(connection).get_table_names()
        found = strategies.ruled(found, rules, connection.dialect.name, present)
        for at, table in enumerate(found):
            said = rules[table.name].keys if table.name in rules else None
            found[at] = numbering.overruled(connection, table, said) if said else table
    return found, left_out


def _say_to_triggers(connection: Connection, names: Iterable[str], rules: Mapping[str, Rules]) -> None:
    """The app's own triggers are kept still, or let go, as the settings say; untouched where they say nothing."""
    for name in names:
        said = rules[name].triggers if name in rules else None
        if said is not None:
            (muting.keep_still if said == "mute" else muting.let_go)(connection, name)


def _track(connection: Connection, found: Sequence[Table], rules: Mapping[str, Rules]) -> None:
    for table in found:
        media = _media(rules, table.name)
        tables.track(connection, table, capture_files.install(connection, table, media), media=media)
        if media is not None:
            capture_files.name_all(connection, table, media, ours=True)


def _redeclare(connection: Connection, table: Table, before: MediaColumn | None, media: MediaColumn | None) -> None:
    """What the settings say of the files that its rows name, where they say something else than before."""
    if before is not None and (media is None or before.column != media.column):
        attachments.forget_table(connection, table.name)
    elif before is not None and media is not None:
        attachments.redeclare(connection, table.name, together=media.visible == "with-media")
    if media is not None and (before is None or before.column != media.column):
        capture_files.name_all(connection, table, media, ours=False)


def _media(rules: Mapping[str, Rules], name: str) -> MediaColumn | None:
    return rules[name].media if name in rules else None
