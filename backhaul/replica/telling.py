"""What a row says of the file that it names, written as an ordinary change of the app's table: it is captured, pushed
and merged like any other, and so reaches who has never seen the file."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection

from backhaul.replica.attachments import Attachment
from backhaul.replica.names import column_types
from backhaul.replica.rows import hold, is_the_key, key_values
from backhaul.replica.rows_postgresql import cast_type, text_of
from backhaul.replica.tables import Tracked
from backhaul.statements import on_postgresql, quoted, run
from backhaul.wire import Value, to_plain

Known = Mapping[str, str | int | None]  # of media_columns.TOLD: what is known -> what it is
_key = msgspec.json.Decoder(list[Value]).decode


def tell(connection: Connection, of: Tracked, attachment: Attachment, known: Known) -> bool:
    """Whether the row still names the file; only then it says so. Raises DatabaseBusy where the app is in the middle of
    writing that row, and what the database raises where the app's own schema refuses it."""
    table, media, key = of.table, of.media, _key(attachment.key)
    assert media is not None
    hold(connection, table, [tuple(to_plain(part) for part in key)])
    told = {column: known[what] for what, column in media.told.items() if what in known}
    where = f"{is_the_key(connection, table)} AND {_as_text(connection, media.column)} = ?"
    named = (*key_values(connection, table, key), attachment.path)
    if not told:
        statement = f"SELECT 1 FROM {quoted(table.name)} WHERE {where}"  # noqa: S608 - the catalogue's own names, quoted
        return run(connection, statement, named).first() is not None
    types = column_types(table)
    values: list[str | int | None] = list(told.values())
    places = dict.fromkeys(told, "?")
    if on_postgresql(connection):
        places = {column: f"CAST(CAST(? AS text) AS {cast_type(types[column])})" for column in told}
        values = [text_of(value, types[column]) for column, value in told.items()]
    assign = ", ".join(f"{quoted(column)} = {place}" for column, place in places.items())
    statement = f"UPDATE {quoted(table.name)} SET {assign} WHERE {where}"  # noqa: S608 - the same
    return bool(run(connection, statement, (*values, *named)).rowcount)


def _as_text(connection: Connection, column: str) -> str:
    return f"CAST({quoted(column)} AS text)" if on_postgresql(connection) else quoted(column)
