"""The program `backhaul`: finds the file of the command that was typed, runs it, and turns errors into exit statuses.

Only that one file is imported: a command that shows three numbers should not load what makes servers run.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module

import typer
from typer.exceptions import Abort, TyperException

from backhaul.errors import BackhaulError, Misused
from workers.cli.output import complain

FILES = {
    "init": "init",
    "up": "up",
    "push": "sync",
    "pull": "sync",
    "sync": "sync",
    "reconcile": "sync",
    "status": "status",
    "why": "why",
    "work": "work",
    "parked": "parked",
    "aside": "aside",
    "conflicts": "conflicts",
    "condition": "condition",
    "pause": "pause",
    "resume": "pause",
    "media": "media",
    "verify": "verify",
    "doctor": "doctor",
    "serve": "server",
    "enroll": "server",
    "replicas": "replicas",
    "revoke": "replicas",
    "demo": "demo",
    "version": "version",
}
INTERRUPTED = 130


def run() -> int:
    """Runs the command in sys.argv; returns its exit status (`exit_status` of the error, if there is one)."""
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    logging.getLogger("backhaul").addHandler(logging.NullHandler())  # what a command has to say, it says itself
    try:
        program = _program(arguments)
        status = program(arguments or ["--help"], prog_name="backhaul", standalone_mode=False)
        sys.stdout.flush()
    except BackhaulError as error:
        return complain(error, as_json=as_json)
    except TyperException as error:
        return complain(_usage(error, arguments), as_json=as_json)
    except (Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return complain(BackhaulError(str(error)), as_json=as_json)
    except Exception as error:
        return complain(_of_the_database(error), as_json=as_json)
    return status if isinstance(status, int) else 0


def _program(arguments: list[str]) -> typer.Typer:
    program = typer.Typer(
        help="Background data sync for Python, on Celery. Commands act on the replica in the current folder.",
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
    )
    program.callback()(_nothing)
    typed = FILES.get(next((word for word in arguments if not word.startswith("-")), ""))
    for file in [typed] if typed else dict.fromkeys(FILES.values()):
        import_module(f"workers.cli.{file}").add_to(program)
    return program


def _nothing() -> None:
    """Without a callback, Typer takes a program of one command for that command."""


def _usage(error: TyperException, arguments: list[str]) -> Misused:
    command = next((word for word in arguments if word in FILES), "")
    return Misused(error.format_message(), hint=f"backhaul {command} --help".replace("  ", " "))


def _of_the_database(error: Exception) -> BackhaulError:
    """What the driver says, once and in a line; anything else is a bug of ours, and shows where."""
    said = getattr(error, "orig", None)
    if said is None:
        raise error
    return BackhaulError(f"the database: {said}", hint="backhaul doctor looks what is wrong")
