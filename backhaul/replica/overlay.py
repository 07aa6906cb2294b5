"""What a record is here while changes of ours are unsettled: the server's state, with our changes laid over it.

A counter shows the server's value and what we have added since; a set, likewise. Of every other column our own value
stands until the pull has passed the change. A text's document goes the way of its text: while the text is withheld, so
is the document; once it is the server's, the document is, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection

from backhaul import merge
from backhaul.merge import Functions, Register, delta, documents, strategies_of
from backhaul.replica import deltas, texts
from backhaul.wire import Record, Table, Tagged, Value, canonical_key

SHOWN = ("counter", "set")  # what shows the server's value and ours together
ENDS = ("max", "min")  # what shows the greater, or the lesser, of the server's value and ours

WRITE = merge.Change(kind="update", hlc=0, writer="", fields={})  # of ends, only the value counts

Change = tuple[Any, ...]  # kind, fields as bytes

_any = msgspec.json.Decoder(dict[str, Any]).decode


def shown(
    table: Table, record: Record, changes: Sequence[Change], withheld: frozenset[str]
) -> tuple[Record, frozenset[str]]:
    """The record with what its counters and sets are here, and what stays withheld all the same."""
    if record.deleted or any(kind not in ("update", "void") for kind, _ in changes):
        return record, withheld
    strategies = {name: table.strategy(name) for name in withheld}
    columns = {name: how for name, how in strategies.items() if how in SHOWN or how in ENDS}
    fields: dict[str, Value] = {}
    for name, strategy in columns.items():
        if name in record.fields or record.whole:
            try:
                if strategy in SHOWN:
                    fields[name] = _laid(strategy, name, record.fields.get(name), changes)
                else:
                    there = msgspec.to_builtins(record.fields.get(name))
                    fields[name] = msgspec.convert(_end(table, name, [there, *_ours(name, changes)]), type=Value)
            except (
                ValueError,
                KeyError,
                TypeError,
            ):  # a change that cannot be sent: it is ours to show until it is given up
                continue
    if not fields:
        return record, withheld
    return msgspec.structs.replace(record, fields=record.fields | fields), withheld - fields.keys()


def _laid(strategy: str, name: str, there: Any, changes: Sequence[Change]) -> Any:
    for _, said in changes:
        names = _any(said.decode(errors="replace")) if said else {}
        if name in names:
            there = deltas.laid_over(strategy, there, names[name])
    return there


def _end(table: Table, name: str, values: Sequence[Any]) -> Any:
    """The greatest or the least of the values, as JSON decodes them."""
    strategy = strategies_of(table, Functions()).columns[name]
    held: Register | None = None
    for value in values:
        held = strategy.write(held, WRITE, value, 0)
    return held.value if held is not None else None


def _ours(name: str, changes: Sequence[Change]) -> list[Any]:
    """What our changes say of a field."""
    said = [_any(fields.decode(errors="replace")) for _, fields in changes if fields]
    return [fields[name] for fields in said if name in fields]


class Documents:
    """The documents of one record while changes are laid over it. kept: with what of ours was frozen. seen: with all of
    ours."""

    def __init__(self, record: Record) -> None:
        self.kept = {
            name: bytes.fromhex(value.state)
            for name, value in record.fields.items()
            if type(value) is Tagged and value.state is not UNSET
        }
        self.seen = dict(self.kept)

    def lay(self, name: str, said: Any, there: Any) -> Any:
        """The text with a change of ours. there: the text before."""
        if type(said) is not dict:
            self.kept.pop(name, None)
            self.seen.pop(name, None)
            return said
        self.kept.setdefault(name, documents.seed(_told(there) or ""))
        before = self.seen.setdefault(name, self.kept[name])
        try:
            if "update" in said:
                self.kept[name] = documents.joined(self.kept[name], bytes.fromhex(said["update"]))
                self.seen[name] = documents.joined(before, bytes.fromhex(said["update"]))
            else:
                self.seen[name] = delta.edited(before, deltas.plain(said["was"]), deltas.plain(said["now"]))[1]
        except (ValueError, KeyError):  # it cannot be sent, and is ours to show until it is given up
            return said.get("now", there)
        return documents.text_of(self.seen[name])


def plain(table: Table, kind: str, names: dict[str, Any], fields: dict[str, Any], held: Documents) -> dict[str, Value]:
    """The values that a change of ours gives to the record. names: as JSON decodes them. fields: of the record before.
    held: its documents, which this moves on."""
    found: dict[str, Any] = {}
    for name, said in names.items():
        strategy = table.strategy(name)
        if strategy in ENDS and kind == "update":
            found[name] = _end(table, name, [msgspec.to_builtins(fields.get(name)), said])
        elif strategy == "text":
            found[name] = held.lay(name, said, fields.get(name))
        elif strategy in SHOWN and kind == "update" and type(said) is dict:
            try:
                found[name] = deltas.laid_over(strategy, fields.get(name), said)
            except (ValueError, KeyError, TypeError):
                found[name] = said.get("now", fields.get(name))
        else:
            found[name] = said["now"] if type(said) is dict and "now" in said else said
    return msgspec.convert(found, type=dict[str, Value])


def _told(value: Any) -> Any:
    return value.text if type(value) is Tagged and value.text is not UNSET else value


def keep_documents(connection: Connection, table: Table, records: Sequence[tuple[Record, frozenset[str]]]) -> None:
    """Keep the documents of what the server says, but for what is withheld."""
    columns = [name for name, strategy in table.deltas().items() if strategy == "text"]
    if not columns:
        return
    told: dict[texts.Place, bytes] = {}
    unedited: list[texts.Place] = []
    gone: list[str] = []
    for record, withheld in records:
        key = canonical_key(record.key)
        if record.deleted and not withheld:
            gone.append(key)
        if record.deleted or "*" in withheld:
            continue
        known = Documents(record).kept
        for name in columns:
            if name in known and name not in withheld:
                told[(table.name, key, name)] = known[name]
            elif name not in withheld and (name in record.fields or record.whole):
                unedited.append((table.name, key, name))
    texts.forget(connection, table.name, gone)
    texts.forget_texts(connection, unedited)
    texts.keep(connection, told)
