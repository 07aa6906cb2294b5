"""Reading the settings of a folder, and saying where something in them stands that cannot be used.

The broker's URL may also be said as BACKHAUL_BROKER_URL, and the folder as BACKHAUL_HOME.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError

from backhaul.database import sqlite_file
from backhaul.errors import ConfigurationInvalid, NotInitialised
from backhaul.work.conditions import from_environment
from config.settings import Settings
from config.toml_lines import line_of

FILE = "backhaul.toml"
INIT = "backhaul init --database URL --remote URL --code CODE"


def load(home: Path | None = None, *, initialised: bool = True) -> Settings:
    """The settings of the replica in this folder (else BACKHAUL_HOME, else the current folder).

    initialised: False allows a folder in which there is no replica (yet).

    Raises NotInitialised when the folder holds no replica, and ConfigurationInvalid, with the file, the line and the
    field, when something in it cannot be used; or with the variable, when it is in the environment.
    """
    home = (home or Path(os.environ.get("BACKHAUL_HOME") or ".")).resolve()
    text = _text(home / FILE)
    settings = _settings(home, text)
    if settings.sync.push_lanes > 1 and settings.replica.database and sqlite_file(settings.replica.database):
        sentence = "a SQLite database has one writer, and so one lane"
        raise ConfigurationInvalid(_problem(home, text, ("sync", "push_lanes"), sentence), hint="leave it at 1")
    _check_said_conditions()
    if initialised:
        _hold_a_replica(settings, text)
    return settings


def place_of(home: Path, path: tuple[str, ...]) -> str:
    """Where backhaul.toml says this: the file, and the line if it is written down there."""
    return _place(home, line_of(_text(home / FILE), path))


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{file}: it cannot be read: {error}") from error


def _settings(home: Path, text: str) -> Settings:
    try:
        return Settings(home=home, **_with_broker_variable(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid(
            f"{home / FILE}: {error}", hint="see https://toml.io for how TOML is written"
        ) from error
    except ValidationError as error:
        raise ConfigurationInvalid(_said(home, text, error)) from error
    except SettingsError as error:
        raise ConfigurationInvalid(f"environment: {error}", hint='lists are JSON here: ["connected"]') from error


def _with_broker_variable(written: dict[str, Any]) -> dict[str, Any]:
    url = os.environ.get("BACKHAUL_BROKER_URL")
    return written | {"broker": {"url": url}} if url else written


def _check_said_conditions() -> None:
    """What the environment says of conditions is no setting of its own, but is told as early as if it were."""
    try:
        from_environment(os.environ)
    except ConfigurationInvalid as error:
        raise ConfigurationInvalid(f"environment, {error}", hint=error.hint) from error


def _hold_a_replica(settings: Settings, text: str) -> None:
    for field in ("database", "remote"):
        if getattr(settings.replica, field):
            continue
        if not text and not settings.replica.database:
            raise NotInitialised(f"{settings.home} holds no replica", hint=INIT)
        line = line_of(text, ("replica",))
        raise ConfigurationInvalid(f"{_place(settings.home, line)}: replica.{field}: it is missing", hint=INIT)


def _said(home: Path, text: str, error: ValidationError) -> str:
    """One line for each problem: where it stands, which field, and what is wrong."""
    return "\n".join(_problem(home, text, problem["loc"], _sentence(problem)) for problem in error.errors())


def _problem(home: Path, text: str, path: tuple[str | int, ...], sentence: str) -> str:
    path = tuple(part for part in path if part != "[key]")
    field = ".".join(str(part) for part in path)
    variable = "BACKHAUL_" + "__".join(str(part).upper() for part in path if isinstance(part, str))
    if variable in os.environ:
        return f"environment, {variable}: {field}: {sentence}"
    return f"{_place(home, line_of(text, path))}: {field}: {sentence}"


def _place(home: Path, line: int | None) -> str:
    return f"{home / FILE}, line {line}" if line else str(home / FILE)


def _sentence(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such setting"
    if problem["type"] == "tuple_type":
        return "it should be a list"
    return str(problem["msg"]).removeprefix("Value error, ")
