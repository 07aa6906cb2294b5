"""What `init` refuses before anything is written or asked: what `[tables]` says and cannot be, each with its line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from backhaul.clock import SystemClock
from backhaul.errors import ConfigurationInvalid, TableUnfit, TableUnknown
from workers.joining import Wanted, join

SCHEMA = """
    CREATE TABLE article (id INTEGER PRIMARY KEY, stock INTEGER, price NUMERIC(10, 2), tags TEXT);
    CREATE TABLE plain (id INTEGER PRIMARY KEY);
"""


def refused(folder: Path, toml: str, kind: type[Exception]) -> str:
    sqlite3.connect(folder / "shop.db").executescript(SCHEMA)
    (folder / "backhaul.toml").write_text(toml)
    wanted = Wanted(database="sqlite:///shop.db", remote="https://127.0.0.1:9", code="NONE", name="till")
    with pytest.raises(kind) as raised:
        join(folder, wanted, SystemClock())
    assert (folder / "backhaul.toml").read_text() == toml
    tables = sqlite3.connect(folder / "shop.db").execute("SELECT name FROM sqlite_master WHERE name LIKE 'backhaul%'")
    assert tables.fetchall() == []
    return f"{raised.value} {getattr(raised.value, 'hint', '')}"


@pytest.mark.parametrize(
    ("toml", "kind", "line", "why"),
    [
        ('[tables.article.merge]\nstock = "counter"\nprice = "counter"\n', TableUnfit, 3, "count in cents"),
        ('[tables.article]\nmerge = { stock = "set" }\n', TableUnfit, 2, "a JSON array in a TEXT column"),
        ('[tables.article]\nmerge = "text"\n', TableUnfit, 2, "cannot be merged as text"),
        ('[tables.article]\naggregate = "plain"\n', TableUnfit, 2, "no foreign key"),
        ('[tables.artikel]\nmerge = "max"\n', TableUnknown, 1, "no table 'artikel'"),
        ('[tables.article.media]\nfolder = "p"\ncolumn = "paht"\n', TableUnfit, 3, "has no column 'paht'"),
        ('[tables.article.media]\ncolumn = "tags"\nsha256 = "stock"\n', TableUnfit, 3, "cannot hold the sha256"),
        ('[tables.article.media]\ncolumn = "tags"\nsize = "tags"\n', TableUnfit, 3, "named twice"),
        ('[tables.article.media]\ncolumn = "id"\n', TableUnfit, 2, "part of the primary key"),
        ('[tables.article]\nmedia.column = "tags"\nmerge = "set"\n', TableUnfit, 3, "cannot be a set"),
        ('[tables.article]\nmedia.column = "tags"\nmerge.tags = "set"\n', TableUnfit, 2, "is merged as set"),
        ('[tables.article]\nmerge = { stock = "sum" }\n', ConfigurationInvalid, 2, "no strategy 'sum'"),
        ('[tables.article]\ndeletes = "never"\n', ConfigurationInvalid, 2, "delete_wins"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused_with_its_line(tmp_path, toml, kind, line, why):
    said = refused(tmp_path, toml, kind)
    assert f"backhaul.toml, line {line}: " in said
    assert why in said
