"""The host's own functions that run as work, by name: a row holds the name, the workers import the module.

    from backhaul.work import Context, Result, worker

    @worker
    def report(context: Context) -> Result:
        ...
        return Result.success({"pages": 3})

The module stands in backhaul.toml, `[work] modules`, so that every worker process has imported it before it looks. Its
Celery task, and so what Flower shows, has the function's name: the module's and its own, or the one that is given.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from backhaul.errors import Misused, WorkerUnknown
from backhaul.work.result import Result

if TYPE_CHECKING:
    from backhaul.work.context import Context

Returned = Result | Mapping[str, Any] | None
Function = Callable[["Context"], Returned]
Given = TypeVar("Given", bound=Function)

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
OURS = "backhaul."


@dataclass(frozen=True, kw_only=True)
class Registered:
    """formerly: names that rows may still hold, from before it was renamed."""

    name: str
    function: Function
    formerly: frozenset[str]


_by_name: dict[str, Registered] = {}


@overload
def worker(given: Given, /) -> Given: ...
@overload
def worker(name: str | None = None, /, *, formerly: Iterable[str] = ()) -> Callable[[Given], Given]: ...
def worker(given: Given | str | None = None, /, *, formerly: Iterable[str] = ()) -> Given | Callable[[Given], Given]:
    """Register a function(context) -> Result, dict or None; the function stays what it is.

    Raises Misused for a name that is none, that is ours, or that belongs to another function.
    """
    if callable(given):
        return _register(given, None, frozenset())
    said, former = given, frozenset(formerly)
    return lambda function: _register(function, said, former)


def registered(name: str) -> Registered:
    """Raises WorkerUnknown, with what to do, when no imported module has registered it."""
    found = _by_name.get(name)
    if found is None:
        nearest = get_close_matches(name, _by_name, n=1)
        said = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise WorkerUnknown(
            f"no worker function {name!r} is registered here",
            hint=f"{said}name its module in backhaul.toml, [work] modules, and start the workers again",
        )
    return found


def present_name(name: str) -> str:
    """What the function of this name is called now, as far as it is known here."""
    found = _by_name.get(name)
    return name if found is None else found.name


def is_registered(name: str) -> bool:
    """Whether a module that is imported here has registered it."""
    return name in _by_name


def all_registered() -> list[Registered]:
    """Each once, by its name of now."""
    return sorted({one.name: one for one in _by_name.values()}.values(), key=lambda one: one.name)


def name_of(given: Function | str) -> str:
    """The name that a row holds. Raises Misused for a function without the decorator, and for what is no name."""
    if isinstance(given, str):
        if not NAME.fullmatch(given):
            raise Misused(f"{given!r} is no name of a worker function", hint="as in shop.reports.daily")
        return given
    for one in _by_name.values():
        if one.function is given or _same(one.function, given):
            return one.name
    raise Misused(f"{getattr(given, '__qualname__', given)!r} is no worker function", hint="decorate it with @worker")


def _register(given: Given, said: str | None, formerly: frozenset[str]) -> Given:
    name = said or f"{_module_of(given)}.{given.__qualname__}"
    for one in (name, *formerly):
        if not NAME.fullmatch(one):
            raise Misused(f"{one!r} is no name of a worker function", hint='@worker("shop.reports.daily")')
        if one.startswith(OURS):
            raise Misused(f"the name {one!r} is Backhaul's own", hint="choose one that does not begin with backhaul.")
        known = _by_name.get(one)
        if known is not None and not _same(known.function, given):
            raise Misused(f"{one!r} is the worker function of {known.function.__module__}", hint="choose another name")
    made = Registered(name=name, function=given, formerly=formerly)
    _by_name.update(dict.fromkeys((name, *formerly), made))
    return given


def _same(one: Function, other: Function) -> bool:
    """A module that is imported anew registers its functions anew; one that is run as a program does, too, when it is
    imported as what it is."""
    return _place_of(one) == _place_of(other)


def _place_of(function: Function) -> tuple[str, str]:
    name = getattr(function, "__qualname__", "")
    return _module_of(function), name or f"{type(function).__qualname__} at {id(function)}"


def _module_of(function: Function) -> str:
    """As a worker would import it: `python reports.py` and `python -m shop.reports` both call it __main__."""
    module = str(getattr(function, "__module__", ""))
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return spec.name if spec is not None else Path(file).stem if file else module
