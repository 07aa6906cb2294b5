"""Every content store, empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

import pytest

from backhaul.server.contents import ContentStore, open_store, s3
from backhaul.server.settings import Settings
from tests.contract.content.test_content_store import PART


@pytest.fixture(params=["disk", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    if request.param == "disk":
        return Settings(data=tmp_path)
    request.getfixturevalue("credentials")
    monkeypatch.setattr(s3, "PART", PART)
    endpoint = request.getfixturevalue("buckets")
    return Settings(data=tmp_path, media=f"s3://photos/{token_hex(8)}?endpoint={endpoint}")


@pytest.fixture
def again(settings: Settings) -> Callable[[], ContentStore]:
    """The store as another process opens it."""
    return lambda: open_store(settings)


@pytest.fixture
def store(again: Callable[[], ContentStore]) -> ContentStore:
    return again()
