"""The replica's token, in a file that only its owner can read: .backhaul/token."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from backhaul.errors import SignInRequired


def read_token(state: Path) -> str:
    """The token of the replica whose `.backhaul` folder this is. Raises SignInRequired when there is none."""
    try:
        return _file(state).read_text("ascii").strip()
    except FileNotFoundError as error:
        raise SignInRequired(
            f"there is no token in {_file(state)}",
            hint="put it back from the backup; what waits is kept, but only this token speaks for this replica",
        ) from error


def write_token(state: Path, token: str) -> None:
    """The old token or the new one is there at any instant, whole."""
    handle, temporary = tempfile.mkstemp(dir=state, prefix="token-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(_file(state))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _file(state: Path) -> Path:
    return state / "token"
