"""The functions that a host gives for `custom` columns, found by their dotted path: `custom:shop.merges:longer_note`.

A path comes from whoever registers a table, so only modules that the operator has listed are imported, and only
functions that such a module has made itself: `shop.merges:os` is not one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import isfunction
from math import isfinite
from typing import Any

from backhaul.errors import Misused

Function = Callable[[Any, Any, Any], Any]  # base, mine, theirs -> the value

SETTING = "[server] merge_modules"


class MergeFailed(Exception):
    """A function of the host's did not say what is to be."""


class Functions:
    """modules: those that may be imported for it."""

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._modules = frozenset(modules)
        self._found: dict[str, Function] = {}

    def find(self, said: str) -> Function:
        """The function of a strategy as a table says it. Raises Misused when it cannot be had here."""
        found = self._found.get(said)
        if found is None:
            found = self._found[said] = self._import(said)
        return found

    def decide(self, said: str, base: Any, mine: Any, theirs: Any) -> Any:
        """What the function makes of the three values, as JSON decodes it. Raises MergeFailed when it raises, cannot be
        had, or returns what is no value."""
        try:
            made = self.find(said)(*map(_plain, (base, mine, theirs)))
        except Exception as error:  # whatever a host's function may do
            raise MergeFailed(f"{said} failed: {type(error).__name__}") from error
        if isinstance(made, bytes | bytearray | memoryview):
            return {"hex": bytes(made).hex()}
        whole = type(made) is int and -(2**63) <= made < 2**63
        if made is None or type(made) in (bool, str) or whole or (type(made) is float and isfinite(made)):
            return made
        raise MergeFailed(f"{said} returned what is no value: {type(made).__name__}")

    def _import(self, said: str) -> Function:
        _, _, path = said.partition(":")
        module, _, name = path.partition(":")
        if not module or not name:
            raise Misused(
                f"{said!r} names no function",
                hint="write custom:MODULE:FUNCTION, for example custom:shop.merges:longer",
            )
        if module not in self._modules:
            raise Misused(
                f"the server may not import {module!r}",
                hint=f'list it at the server, in backhaul.toml: {SETTING} = ["{module}"]',
            )
        try:
            found = getattr(import_module(module), name, None)
        except Exception as error:  # a module of the host's may fail with anything when it is imported
            raise Misused(
                f"{module!r} cannot be imported: {error!r:.200}", hint="mend it, or put it on PYTHONPATH"
            ) from error
        if not isfunction(found) or found.__module__ != module:
            raise Misused(f"{module!r} has no function {name!r} of its own", hint=f"define {name} in {module}")
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else float(value["real"])
    return value
