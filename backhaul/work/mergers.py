"""How the outputs of what a work waited for become its input. Its own input comes first, then each parent's output in
the order in which the parents were named. (WorkManager leaves the order of parents beside each other open.)

overwriting      the later value of a name goes before the earlier one, and so a parent's before the work's own
array_creating   every value becomes a list; lists of one name are put together; two kinds of values do not go together
shop.merge.sums  a function of the host's, by its dotted path: it is given the list of objects, and returns one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from backhaul.errors import Misused
from backhaul.work.data import encode_data

Merger = Callable[[list[dict[str, Any]]], dict[str, Any]]
KINDS = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", list: "list", type(None): "str"}


def merged(name: str | None, own: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The input of a run. Raises Misused when the values do not go together, or there is no such merger; whatever a
    merger of the host's raises; and Misused when the whole takes more than 10 KiB."""
    result = _named(name or "overwriting")([dict(own), *map(dict, outputs)])
    if not isinstance(result, dict):
        raise Misused(f"the merger {name!r} returned no dict", hint="it is given a list of dicts, and returns one")
    encode_data("merged input", result)
    return result


def overwriting(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for one in inputs for name, value in one.items()}


def array_creating(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Raises Misused where values of two kinds have one name. None goes with text, as in WorkManager."""
    result: dict[str, list[Any]] = {}
    for one in inputs:
        for name, value in one.items():
            result.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    for name, values in result.items():
        kinds = sorted({KINDS.get(type(value), type(value).__name__) for value in values})
        if len(kinds) > 1:
            raise Misused(
                f"the values of {name!r} that are to be one list are of several kinds: {', '.join(kinds)}",
                hint="give them other names, or the work another merger",
            )
    return result


MERGERS: Mapping[str, Merger] = {"overwriting": overwriting, "array_creating": array_creating}


def _named(name: str) -> Merger:
    found = MERGERS.get(name)
    if found is not None:
        return found
    module, _, function = name.rpartition(".")
    try:
        merger: Merger = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise Misused(
            f"there is no merger {name!r}: {type(error).__name__}",
            hint=f"one of {', '.join(MERGERS)}, or the dotted path of a function",
        ) from error
    return merger
