"""The records: the only file that writes `server_record`. A record is the state that `merge.py` speaks of."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from backhaul.merge import Stamp, State
from backhaul.server.statements import write_rows
from backhaul.statements import text
from backhaul.wire import encode

Place = tuple[str, str]  # table, canonical key
Rows = Generator[Row[Any], None, None]  # to be closed when it is left early
NOTHING = "{}"  # an empty object, as it is stored
CHUNK = 1_000  # rows held at once while streaming

_stamps = msgspec.json.Decoder(dict[str, Stamp]).decode
_fields = msgspec.json.Decoder(dict[str, Any]).decode


def find(connection: Connection, scope: str, places: Iterable[Place]) -> dict[Place, State]:
    """Those of the records that are there."""
    return {(row.table_name, row.key): _state(row) for row in rows(connection, scope, places)}


def rows(connection: Connection, scope: str, places: Iterable[Place]) -> Iterator[Row[Any]]:
    if connection.dialect.name == "postgresql":
        yield from _rows_postgresql(connection, scope, list(places))
    else:
        yield from _rows_sqlite(connection, scope, list(places))


def forget_tombstones(connection: Connection, scope: str, upto: int) -> tuple[int, int]:
    """Forget those up to this version; returns how many they were, and the last one's version."""
    values = {"scope": scope, "upto": upto}
    which = "scope = :scope AND version <= :upto AND deleted = 1"
    last = connection.execute(text(f"SELECT max(version) FROM server_record WHERE {which}"), values).scalar()  # noqa: S608
    if last is None:
        return 0, 0
    return connection.execute(text(f"DELETE FROM server_record WHERE {which}"), values).rowcount, last  # noqa: S608


def everything(connection: Connection, scope: str) -> dict[Place, State]:
    """Every record of a small scope, tombstones and what is not whole included."""
    statement = """
        SELECT table_name, key, version, born, creator, deleted, hlc, writer, fields, stamps, states
        FROM server_record
        WHERE scope = :scope
        ORDER BY table_name, key
    """
    return {(row.table_name, row.key): _state(row) for row in connection.execute(text(statement), {"scope": scope})}


def since(connection: Connection, scope: str, start: tuple[int, str, str], most: int, table: str = "") -> Rows:
    """The records that a feed lists after (version, table, key), in this order, not more than `most`, streamed.

    table: only those of this one.
    """
    only = "AND table_name = :only" if table else ""
    statement = f"""
        SELECT table_name, key, version, born, creator, deleted, hlc, writer, fields, stamps, states
        FROM server_record
        WHERE scope = :scope
          AND version >= :version
          AND (version, table_name, key) > (:version, :table, :key)
          AND (born > 0 OR deleted = 1)
          {only}
        ORDER BY version, table_name, key
        LIMIT :most
    """  # noqa: S608 - one of two constants
    values = {"scope": scope, "version": start[0], "table": start[1], "key": start[2], "most": most}
    if table:
        values["only"] = table
    with connection.execute(text(statement).execution_options(stream_results=True), values) as result:
        for chunk in result.partitions(CHUNK):
            yield from chunk


def alive(connection: Connection, scope: str) -> Iterator[Row[Any]]:
    """Every whole record that is not deleted: (table_name, key, fields), streamed, in no order."""
    statement = """
        SELECT table_name, key, fields
        FROM server_record
        WHERE scope = :scope AND deleted = 0 AND born > 0
    """
    with connection.execute(text(statement).execution_options(stream_results=True), {"scope": scope}) as result:
        for chunk in result.partitions(CHUNK):
            yield from chunk


def values(connection: Connection, scope: str, table: str) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Key and fields of every record of a table, streamed, in no order; also what a tombstone still has."""
    statement = "SELECT key, fields FROM server_record WHERE scope = :scope AND table_name = :table"
    found = text(statement).execution_options(stream_results=True)
    with connection.execute(found, {"scope": scope, "table": table}) as result:
        for chunk in result.partitions(CHUNK):
            for row in chunk:
                yield row.key, _fields(row.fields)


def keep(connection: Connection, scope: str, states: Mapping[Place, State]) -> None:
    statement = """
        INSERT INTO server_record
               (scope, table_name, key, version, born, creator, deleted, hlc, writer, fields, stamps, states)
        ROWS
        ON CONFLICT (scope, table_name, key) DO UPDATE
        SET version = excluded.version, born = excluded.born, creator = excluded.creator, deleted = excluded.deleted,
            hlc = excluded.hlc, writer = excluded.writer, fields = excluded.fields, stamps = excluded.stamps,
            states = excluded.states
    """
    kinds = "text text text bigint bigint text integer bigint text text text text"
    write_rows(connection, statement, kinds, [_row(scope, place, state) for place, state in states.items()])


def any_of(connection: Connection, scope: str, table: str) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM server_record WHERE scope = :scope AND table_name = :table)"
    return bool(connection.execute(text(statement), {"scope": scope, "table": table}).scalar_one())


def retable(connection: Connection, scope: str, old: str, new: str) -> None:
    """The table has another name, and its records are what they were. There are none under both names."""
    statement = "UPDATE server_record SET table_name = :new WHERE scope = :scope AND table_name = :old"
    connection.execute(text(statement), {"scope": scope, "old": old, "new": new})


def rename(connection: Connection, scope: str, table: str, names: Mapping[str, str]) -> None:
    """Give the fields of a table's records their new names, without telling anybody: the values are what they were.

    names: old -> new. Of a field that is there under both names, the later write stands.
    """
    after: str | None = ""
    while after is not None:
        after = _rename_some(connection, scope, table, names, after)


def _rename_some(connection: Connection, scope: str, table: str, names: Mapping[str, str], after: str) -> str | None:
    """The key of the last record that was looked at; None after the last one."""
    statement = """
        SELECT table_name, key, version, born, creator, deleted, hlc, writer, fields, stamps, states
        FROM server_record
        WHERE scope = :scope AND table_name = :table AND key > :after
        ORDER BY key LIMIT :chunk
    """
    values = {"scope": scope, "table": table, "after": after, "chunk": CHUNK}
    found = connection.execute(text(statement), values).all()
    changed = {}
    for row in found:
        state = _state(row)
        renamed = _renamed(state, names)
        if renamed is not state:
            changed[(table, row.key)] = renamed
    keep(connection, scope, changed)
    return found[-1].key if len(found) == CHUNK else None


def _renamed(state: State, names: Mapping[str, str]) -> State:
    if names.keys().isdisjoint(state.fields) and names.keys().isdisjoint(state.stamps):
        return state
    fields, stamps, states = dict(state.fields), dict(state.stamps), dict(state.states)
    for old, new in names.items():
        there = old in fields
        said, stamp, kept = fields.pop(old, None), stamps.pop(old, None), states.pop(old, None)
        if there and (new not in fields or state.stamp(old)[:2] > state.stamp(new)[:2]):
            fields[new] = said
            stamps.pop(new, None)
            states.pop(new, None)
            if stamp is not None:
                stamps[new] = stamp
            if kept is not None:
                states[new] = kept
    return msgspec.structs.replace(state, fields=fields, stamps=stamps, states=states)


def stamps_of(row: Row[Any]) -> dict[str, Stamp]:
    return {} if row.stamps == "{}" else _stamps(row.stamps)


def states_of(row: Row[Any]) -> dict[str, Any]:
    return {} if row.states == NOTHING else _fields(row.states)


def _row(scope: str, place: Place, state: State) -> tuple[Any, ...]:
    return (
        scope,
        *place,
        state.version,
        state.born,
        state.creator,
        int(state.deleted),
        state.hlc,
        state.writer,
        encode(state.fields).decode(),
        encode(state.stamps).decode() if state.stamps else "{}",
        encode(state.states).decode() if state.states else NOTHING,
    )


def _state(row: Row[Any]) -> State:
    return State(
        version=row.version,
        born=row.born,
        creator=row.creator,
        deleted=bool(row.deleted),
        hlc=row.hlc,
        writer=row.writer,
        fields=_fields(row.fields),
        stamps=stamps_of(row),
        states=states_of(row),
    )


def _rows_sqlite(connection: Connection, scope: str, places: list[Place]) -> Iterator[Row[Any]]:
    statement = """
        SELECT table_name, record.key, version, born, creator, deleted, hlc, writer, fields, stamps, states
        FROM json_each(:places) AS place
        CROSS JOIN server_record AS record
          ON scope = :scope
         AND table_name = json_extract(place.value, '$[0]')
         AND record.key = json_extract(place.value, '$[1]')
    """
    # CROSS JOIN: SQLite then starts from the places, and never reads the table for them.
    yield from connection.execute(text(statement), {"scope": scope, "places": encode(places).decode()})


def _rows_postgresql(connection: Connection, scope: str, places: list[Place]) -> Iterator[Row[Any]]:
    statement = """
        SELECT record.*
        FROM unnest(CAST(:tables AS text[]), CAST(:keys AS text[])) AS place (in_table, by_key)
        CROSS JOIN LATERAL (
            SELECT table_name, key, version, born, creator, deleted, hlc, writer, fields, stamps, states
            FROM server_record WHERE scope = :scope AND table_name = in_table AND key = by_key OFFSET 0
        ) AS record
    """
    # LATERAL and OFFSET 0: PostgreSQL then looks up place by place, and never reads the table for a thousand of them.
    values = {"scope": scope, "tables": [place[0] for place in places], "keys": [place[1] for place in places]}
    yield from connection.execute(text(statement), values)
