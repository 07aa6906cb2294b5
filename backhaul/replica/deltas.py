"""What a change does to columns that are merged by what was done to them (wire.DELTAS): made at the freeze of what the
triggers have captured, and stored in the change, whose bytes never change from then on.

An insert or a backfill says values, and travels as it is; but a text that has a document here travels with it, so that
nothing of it comes twice. A change whose values its strategy cannot use is parked, and never sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Connection

from backhaul.merge import delta, documents, elements
from backhaul.merge.elements import Elements
from backhaul.replica import outbox, texts
from backhaul.replica.outbox import Change
from backhaul.wire import Table, encode, newest_names

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_elements = Elements()


class Texts:
    """The documents of one record, as the freeze of its changes moves them on."""

    def __init__(self, known: Mapping[str, bytes]) -> None:
        self.known = dict(known)
        self.op = ""  # the change that moves them
        self.moved: dict[str, bytes] = {}

    def get(self, column: str) -> bytes | None:
        return self.moved.get(column, self.known.get(column))


def tables_with_deltas(tables: Iterable[Table]) -> dict[str, Table]:
    return {table.name: table for table in tables if table.deltas()}


def unusable(table: Table, fields: bytes | None) -> str | None:
    """Why the change cannot travel; None when it can. (What is no JSON at all is refused by the server as such.)"""
    try:
        said = _members(fields) if fields else {}
    except msgspec.MsgspecError:
        return None
    for column, strategy in table.deltas().items():
        if column in said:
            try:
                _hold(strategy, delta.decoded(bytes(said[column])))
            except ValueError as error:
                return f"{column}: {error}"
    return None


def wire_fields(table: Table, kind: str, fields: bytes, known: Texts) -> bytes:
    """The fields as they travel. Raises ValueError where `unusable` says why."""
    try:
        said = _members(fields)
    except msgspec.MsgspecError:
        return fields
    changed = False
    for column, strategy in table.deltas().items():
        if column not in said or strategy in ("custom", "manual"):
            continue
        value = delta.decoded(bytes(said[column]))
        if strategy == "text":
            told: Any = _text(kind, value, column, known)
        elif _is_captured(value):
            told = _travelling(strategy, value)
        else:
            told = None
        if told is not None:
            said[column] = Raw(encode(told))
            changed = True
    return encode(said) if changed else fields


def freeze(connection: Connection, tables: Mapping[str, Table], changes: Sequence[Change]) -> list[Change]:
    """The changes as they travel, their new fields and the documents stored. tables: those with such columns."""
    frozen: list[Change] = []
    rewritten: list[tuple[bytes, bytes | None, int]] = []
    known = _documents(connection, tables, changes)
    for change in changes:
        table = tables.get(change.table_name)
        if table is not None:
            captured, change = change, _frozen(connection, table, change, known)
            if change.fields is not None and change.fields is not captured.fields:
                rewritten.append((change.fields, _texts(table, captured.fields), change.id))
        frozen.append(change)
    outbox.freeze_fields(connection, rewritten)
    states = {(*place, column): state for place, held in known.items() for column, state in held.moved.items()}
    texts.keep(connection, states)
    return frozen


def _texts(table: Table, fields: bytes | None) -> bytes | None:
    """What was captured of texts, as JSON; None for nothing."""
    said = _members(fields) if fields else {}
    columns = [column for column, strategy in table.deltas().items() if strategy == "text" and column in said]
    edited = {column: said[column] for column in columns if _is_captured(delta.decoded(bytes(said[column])))}
    return encode(edited) if edited else None


def thaw(connection: Connection, tables: Iterable[Table], places: Collection[tuple[str, str]]) -> None:
    """Of these records (table and key) something was given up, on which later edits of texts may build: what is parked
    of them is made anew when it is sent again, against the text that stands then. The server has none of it."""
    names = {table.name: newest_names(table.renamed) for table in tables}
    told: list[tuple[int, str]] = []
    for row in outbox.thawable(connection):
        if (row.table_name, row.key) in places:
            of_table = names.get(row.table_name, {})
            edited = {of_table.get(name, name): said for name, said in _members(row.captured).items()}
            told.append((row.id, encode(_members(row.fields) | edited).decode()))
    outbox.thaw(connection, told)


def _documents(
    connection: Connection, tables: Mapping[str, Table], changes: Sequence[Change]
) -> dict[tuple[str, str], Texts]:
    """Those of all records that the changes are of."""
    known: dict[tuple[str, str], Texts] = {}
    for name, table in tables.items():
        if "text" in table.deltas().values():
            keys = list({one.key.decode(errors="replace"): None for one in changes if one.table_name == name})
            found = texts.of_records(connection, name, keys) if keys else {}
            known |= {(name, key): Texts(found.get(key, {})) for key in keys}
    return known


def park_unusable(connection: Connection, tables: Mapping[str, Table], rows: Sequence[Any], *, now: int) -> bool:
    """Park what cannot travel of what a claim would take; whether there was any."""
    found = {
        row.id: why
        for row in rows
        if row.table_name in tables and (why := unusable(tables[row.table_name], row.fields)) is not None
    }
    outbox.park_pending(connection, found, reason="value-invalid", now=now)
    return bool(found)


def _frozen(connection: Connection, table: Table, change: Change, known: dict[tuple[str, str], Texts]) -> Change:
    if "text" not in table.deltas().values():
        held = Texts({})
    else:
        place = table.name, change.key.decode(errors="replace")
        if change.kind == "delete":
            texts.forget(connection, table.name, [place[1]])
            known[place] = Texts({})
        held = known[place]
        held.op = change.op_id
    if change.fields is None:
        return change
    return change._replace(fields=wire_fields(table, change.kind, change.fields, held))


def _hold(strategy: str, value: Any) -> None:
    """Raises ValueError for what the strategy cannot use."""
    if strategy in ("custom", "manual") or (type(value) is dict and not _is_captured(value) and "hex" not in value):
        return  # as it is, or frozen before
    was, now = (plain(value["was"]), plain(value["now"])) if _is_captured(value) else (None, value)
    if strategy == "counter":
        delta.added(was, now)
    elif strategy == "set":
        delta.put_and_cut(was, now)
        wrong = _elements.unusable("insert", now)
        if wrong:
            raise ValueError(wrong)
    else:
        for text in (was, now):
            if text is not None and type(text) is not str:
                raise ValueError("a text is text")
            if text is not None and len(text.encode()) > documents.MOST_TEXT:
                raise ValueError(f"a text has {documents.MOST_TEXT} bytes at most")


def _is_captured(value: Any) -> bool:
    return type(value) is dict and value.keys() == {"was", "now"}


def plain(value: Any) -> Any:
    """A text may come as the server has told it, with its document."""
    return value["text"] if type(value) is dict and "text" in value else value


def _travelling(strategy: str, value: dict[str, Any]) -> Any:
    if strategy == "counter":
        return {"add": delta.added(value["was"], value["now"])}
    return delta.put_and_cut(value["was"], value["now"])


def _text(kind: str, value: Any, column: str, known: Texts) -> Any:
    """None: it travels as it is."""
    state = known.get(column)
    if _is_captured(value):
        update, known.moved[column] = delta.edited(
            state, plain(value["was"]), plain(value["now"]), op=f"{known.op} {column}"
        )
        return {"update": update.hex()}
    if kind == "update" or state is None or type(value) is not str:
        return None
    _, known.moved[column] = delta.edited(state, documents.text_of(state), value, op=f"{known.op} {column}")
    return {"update": known.moved[column].hex()}


# ------------------------------------------------------------------------------------------------ laying over


def laid_over(strategy: str, there: Any, said: Any) -> Any:
    """What a counter or a set is here: the server's value with an unsettled change of ours. Raises ValueError when that
    cannot be told. said: as it was captured, or as it travels."""
    if type(said) is not dict:
        raise ValueError("a whole value, from before the column was merged so")
    if strategy == "counter":
        add = delta.added(said["was"], said["now"]) if _is_captured(said) else said["add"]
        return delta.counted(there, add)
    done = put_and_cut(said)
    return delta.with_elements(there, done["put"], done["cut"])


def put_and_cut(said: dict[str, Any]) -> dict[str, list[Any]]:
    if not _is_captured(said):
        return {"put": said.get("put", []), "cut": said.get("cut", [])}
    before, after = set(elements.members(said["was"])), set(elements.members(said["now"]))
    decode = msgspec.json.decode
    return {"put": [decode(one) for one in after - before], "cut": [decode(one) for one in before - after]}
