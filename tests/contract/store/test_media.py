"""The ledger of uploads and contents, on both databases."""

from __future__ import annotations

from sqlalchemy import Connection

from backhaul.server import uploads
from backhaul.server.store import ServerDatabase
from backhaul.server.uploads import Content, Upload
from tests.contract.store.devices import NOW


def entered(connection: Connection, name: str, *, scope: str = "shop", sha256: str = "", size: int = 10) -> Upload:
    """An upload, complete when it has a hash."""
    made = Upload(
        id=name, scope=scope, replica="r", length=size, position=0, sha256=None, metadata="", expires_at=NOW + 1_000
    )
    uploads.create(connection, made, NOW)
    if sha256:
        assert uploads.advance(connection, name, since=0, to=size, expires_at=NOW + 1_000)
        content = Content(sha256=sha256, size=size, name="a.jpg", media_type="image/jpeg")
        uploads.complete(connection, made, content, NOW)
    return made


def test_a_scope_has_taken_what_it_has_and_what_it_may_still_get(database: ServerDatabase) -> None:
    with database.writing() as connection:
        assert uploads.taken(connection, "shop", NOW) == 0
        entered(connection, "whole", sha256="a" * 64, size=100)
        entered(connection, "again", sha256="a" * 64, size=100)
        entered(connection, "open", size=7)
        entered(connection, "of another", scope="other", size=50)
        assert uploads.taken(connection, "shop", NOW) == 107
        assert uploads.taken(connection, "shop", NOW + 1_000) == 100
        assert uploads.expired(connection, NOW + 999) == []
        assert len(uploads.expired(connection, NOW + 1_000)) == 4


def test_of_many_hashes_those_of_the_scope_are_known(database: ServerDatabase) -> None:
    with database.writing() as connection:
        entered(connection, "first", sha256="a" * 64)
        entered(connection, "second", sha256="b" * 64, scope="other")
        asked = ["a" * 64, "b" * 64, "c" * 64, "a" * 64, "'", "\\"]
        assert uploads.known(connection, "shop", asked) == ["a" * 64]
        assert uploads.known(connection, "other", asked) == ["b" * 64]
        assert uploads.known(connection, "shop", []) == []


def test_of_what_has_expired_only_what_still_has_is_forgotten(database: ServerDatabase) -> None:
    with database.writing() as connection:
        for name in ("a", "b", "c"):
            entered(connection, name)
        assert uploads.advance(connection, "b", since=0, to=5, expires_at=NOW + 9_000)
        uploads.forget_expired(connection, ["a", "b"], NOW + 1_000)
        assert uploads.find_all(connection, "shop", ["a", "b", "c"]).keys() == {"b", "c"}
        uploads.forget_expired(connection, [], NOW + 99_000)
        assert sorted(upload.id for upload in uploads.expired(connection, NOW + 99_000)) == ["b", "c"]
