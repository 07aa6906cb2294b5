"""The strategies of one table, as its definition names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backhaul.merge.contest import Custom, Manual
from backhaul.merge.counter import Counter
from backhaul.merge.custom import Functions
from backhaul.merge.documents import Documents
from backhaul.merge.elements import Elements
from backhaul.merge.plain import Extreme, Immutable, ServerWins
from backhaul.merge.register import Strategy
from backhaul.wire import Table, strategy_name

DECIMAL = ("NUMERIC", "DECIMAL")


@dataclass(frozen=True, kw_only=True)
class Strategies:
    """columns: those that are not `lww`. edit_wins: an edit that the deleter had not seen keeps the record."""

    columns: Mapping[str, Strategy] = field(default_factory=dict)
    edit_wins: bool = False


LAST_WRITE_WINS = Strategies()  # every column, and deletes win


def strategies_of(table: Table, functions: Functions) -> Strategies:
    types = {column.name: column.type.upper() for column in table.columns}
    columns = {
        column: _strategy(said, types.get(column, ""), functions)
        for column, said in table.merge.items()
        if said != "lww" and column not in table.key
    }
    return Strategies(columns=columns, edit_wins=table.deletes == "edit_wins")


def _strategy(said: str, declared: str, functions: Functions) -> Strategy:
    match strategy_name(said):
        case "counter":
            return Counter()
        case "set":
            return Elements()
        case "text":
            return Documents()
        case "max" | "min" as end:
            return Extreme(end, decimal=any(name in declared for name in DECIMAL))
        case "server_wins":
            return ServerWins()
        case "immutable":
            return Immutable()
        case "custom":
            return Custom(said, functions)
        case _:
            return Manual()
