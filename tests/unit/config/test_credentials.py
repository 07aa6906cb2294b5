"""The token's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from backhaul.errors import SignInRequired
from config.credentials import read_token, write_token


def test_a_token_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    with pytest.raises(SignInRequired):
        read_token(tmp_path)
    write_token(tmp_path, "first")
    write_token(tmp_path, "second")
    assert read_token(tmp_path) == "second"
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [("token", 0o600)]
