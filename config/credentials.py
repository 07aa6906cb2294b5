"""The replica's token, in a file that only its owner can read: .backhaul/token, and whose it is, on the second line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from backhaul.errors import SignInRequired
from backhaul.wire import Registered

SIGN_IN = "sign in again: backhaul init --code CODE (from `backhaul enroll` on the server); what waits is kept"


class Identity(NamedTuple):
    """replica: None in a file of old."""

    token: str
    replica: str | None


def read_token(state: Path) -> str:
    """The token of the replica whose `.backhaul` folder this is. Raises SignInRequired when there is none."""
    return read_identity(state).token


def read_identity(state: Path) -> Identity:
    """The token, and whose it is. Raises SignInRequired when there is none."""
    try:
        lines = _file(state).read_text("ascii").split()
    except FileNotFoundError:
        lines = []
    if not lines:
        raise SignInRequired(f"there is no token in {_file(state)}", hint=SIGN_IN)
    return Identity(lines[0], lines[1] if len(lines) > 1 else None)


def keeper(state: Path) -> Callable[[Registered], None]:
    """Stores the identity that a remote was given."""
    return lambda registered: write_token(state, registered.token, registered.replica)


def write_token(state: Path, token: str, replica: str = "") -> None:
    """The old token or the new one is there at any instant, whole."""
    handle, temporary = tempfile.mkstemp(dir=state, prefix="token-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{token}\n{replica}\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(_file(state))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def nonce_of(state: Path, code: str) -> str:
    """What goes along with this code, the same each time: should the answer be lost, it is given again."""
    file = state / "enrolling"
    spelt = sha256(code.encode()).hexdigest()
    with suppress(FileNotFoundError):
        known, _, nonce = file.read_text("ascii").partition(" ")
        if known == spelt:
            return nonce
    nonce = token_hex(16)
    file.touch(mode=0o600)
    file.write_text(f"{spelt} {nonce}", "ascii")
    return nonce


def forget_nonce(state: Path) -> None:
    (state / "enrolling").unlink(missing_ok=True)


def _file(state: Path) -> Path:
    return state / "token"
