"""The host's own functions that run as work, by name: a row holds the name, the workers import the module.

    from backhaul.work.functions import function

    @function("report")
    def report(work_input, context):
        ...
        return {"pages": 3}

The module stands in backhaul.toml, `[work] modules`, so that every worker has imported it before it looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from backhaul.errors import Misused, Unknown
from backhaul.work.run import Context

Function = Callable[[dict[str, Any], Context], dict[str, Any] | None]
Given = TypeVar("Given", bound=Function)

_functions: dict[str, Function] = {}


def function(name: str) -> Callable[[Given], Given]:
    """Register a function(input, context) -> output or None. It should call `context.check()` now and then, and let
    Stopped pass. Raises Misused when the name belongs to another function."""

    def register(given: Given) -> Given:
        known = _functions.setdefault(name, given)
        if (known.__module__, known.__qualname__) != (given.__module__, given.__qualname__):
            raise Misused(f"there is a function {name!r} already, in {known.__module__}", hint="choose another name")
        _functions[name] = given
        return given

    return register


def registered(name: str) -> Function:
    """Raises Unknown, with what to do, when no imported module has registered it."""
    try:
        return _functions[name]
    except KeyError:
        raise Unknown(
            f"no function {name!r} is registered here",
            hint="name its module in backhaul.toml, [work] modules, and start the workers again",
        ) from None
