"""Uploads and the content they become: the only file that writes `server_upload` and `server_media`.

An upload is open (`position` < `length`), full, and then complete: its content was hashed, is what was promised, and
is entered. It is forgotten when it is discarded, terminated or expired. Of the bytes that are here, some may not be on
disk yet (`synced` < `position`); they are here as long as the machine runs (`boot`), whatever becomes of the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from backhaul.statements import members
from backhaul.wire import encode

AT_ONCE = 1000  # of those that have expired
COLUMNS = "id, scope, replica, length, position, synced, boot, sha256, metadata, concat, expires_at, completed_at"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """length, position, synced: bytes. boot: since which start of the machine the position is good; "": all is synced.
    sha256: promised, or found, in hexadecimal, or None. metadata, concat: Upload-Metadata and Upload-Concat as they
    came; "" without."""

    id: str
    scope: str
    replica: str
    length: int
    position: int
    sha256: str | None
    metadata: str
    expires_at: int
    completed_at: int | None = None
    concat: str = ""
    synced: int = 0
    boot: str = ""

    @property
    def partial(self) -> bool:
        """A part of others: it never becomes content itself."""
        return self.concat == "partial"


@dataclass(frozen=True, kw_only=True)
class Content:
    sha256: str
    size: int
    name: str
    media_type: str


def create(connection: Connection, upload: Upload, now: int) -> None:
    create_all(connection, [upload], now)


def create_all(connection: Connection, made: Sequence[Upload], now: int) -> None:
    if not made:
        return
    statement = """
        INSERT INTO server_upload
               (id, scope, replica, length, position, synced, boot, sha256, metadata, concat, created_at, expires_at)
        VALUES (:id, :scope, :replica, :length, 0, 0, '', :sha256, :metadata, :concat, :now, :expires_at)
    """
    rows = [
        {
            "id": upload.id,
            "scope": upload.scope,
            "replica": upload.replica,
            "length": upload.length,
            "sha256": upload.sha256,
            "metadata": upload.metadata,
            "concat": upload.concat,
            "expires_at": upload.expires_at,
            "now": now,
        }
        for upload in made
    ]
    connection.execute(text(statement), rows)


def find(connection: Connection, scope: str, upload: str) -> Upload | None:
    return find_all(connection, scope, [upload]).get(upload)


def find_all(connection: Connection, scope: str, named: Sequence[str]) -> dict[str, Upload]:
    """By id; those that the scope does not have are left out."""
    statement = f"""
        SELECT {COLUMNS}
        FROM server_upload
        WHERE scope = :scope AND id IN ({members(connection, "ids")})
    """  # noqa: S608 - our own text
    rows = connection.execute(text(statement), {"scope": scope, "ids": encode(list(named)).decode()})
    return {row.id: Upload(**row._mapping) for row in rows}


def advance(connection: Connection, upload: str, *, since: int, to: int, expires_at: int, boot: str = "") -> bool:
    """The bytes up to `to` are here, as long as the machine runs; without a boot, they are safe on disk. False when the
    upload is gone or stands elsewhere."""
    statement = """
        UPDATE server_upload
        SET position = :to, synced = CASE WHEN :boot = '' THEN :to ELSE synced END, boot = :boot,
            expires_at = :expires_at
        WHERE id = :id AND position = :since AND completed_at IS NULL
    """
    values = {"id": upload, "since": since, "to": to, "expires_at": expires_at, "boot": boot}
    return connection.execute(text(statement), values).rowcount == 1


def sync(connection: Connection, upload: str, *, to: int) -> None:
    """Of the bytes that are here, those up to `to` are safe on disk."""
    statement = """
        UPDATE server_upload SET synced = :to WHERE id = :id AND synced < :to AND position >= :to
    """
    connection.execute(text(statement), {"id": upload, "to": to})


def fall_back(connection: Connection, upload: str, *, boot: str = "") -> None:
    """What is safe on disk is all that is here: the machine has started anew since the position was good. boot: of the
    start that it is still good for."""
    statement = """
        UPDATE server_upload
        SET position = synced, boot = ''
        WHERE id = :id AND boot NOT IN ('', :boot) AND completed_at IS NULL
    """
    connection.execute(text(statement), {"id": upload, "boot": boot})


def name(connection: Connection, upload: str, *, sha256: str) -> None:
    """Nothing was promised, and this is what all its bytes are."""
    statement = "UPDATE server_upload SET sha256 = :sha256 WHERE id = :id AND sha256 IS NULL"
    connection.execute(text(statement), {"id": upload, "sha256": sha256})


def complete(connection: Connection, upload: Upload, content: Content, now: int) -> None:
    """The content is in its place: whoever asks for its hash gets it from now on."""
    enter_all(connection, upload.scope, upload.replica, [content], now)
    finish = "UPDATE server_upload SET completed_at = :now WHERE id = :id AND completed_at IS NULL"
    connection.execute(text(finish), {"id": upload.id, "now": now})


def enter_all(connection: Connection, scope: str, replica: str, contents: Sequence[Content], now: int) -> None:
    """They are in their places. Those that the scope has already stay as they are."""
    if not contents:
        return
    enter = """
        INSERT INTO server_media (scope, sha256, size, name, media_type, replica, created_at)
        VALUES (:scope, :sha256, :size, :name, :media_type, :replica, :now)
        ON CONFLICT (scope, sha256) DO NOTHING
    """
    rows = [
        {
            "scope": scope,
            "sha256": content.sha256,
            "size": content.size,
            "name": content.name,
            "media_type": content.media_type,
            "replica": replica,
            "now": now,
        }
        for content in contents
    ]
    connection.execute(text(enter), rows)


def taken(connection: Connection, scope: str, now: int) -> int:
    """Bytes of the scope: of what it has, and of what was announced and may still come."""
    statement = """
        SELECT (SELECT coalesce(sum(size), 0) FROM server_media WHERE scope = :scope)
             + (SELECT coalesce(sum(length), 0) FROM server_upload
                WHERE scope = :scope AND completed_at IS NULL AND expires_at > :now)
    """
    return int(connection.execute(text(statement), {"scope": scope, "now": now}).scalar_one())


def forget(connection: Connection, *named: str) -> None:
    statement = f"DELETE FROM server_upload WHERE id IN ({members(connection, 'ids')})"  # noqa: S608 - our own text
    connection.execute(text(statement), {"ids": encode(list(named)).decode()})


def forget_expired(connection: Connection, named: Sequence[str], now: int) -> None:
    """Of these, those that still are."""
    statement = f"DELETE FROM server_upload WHERE expires_at <= :now AND id IN ({members(connection, 'ids')})"  # noqa: S608 - our own text
    connection.execute(text(statement), {"now": now, "ids": encode(list(named)).decode()})


def expired(connection: Connection, now: int) -> list[Upload]:
    """The oldest of them, a thousand at most."""
    statement = f"SELECT {COLUMNS} FROM server_upload WHERE expires_at <= :now ORDER BY expires_at LIMIT :most"  # noqa: S608 - our own text
    rows = connection.execute(text(statement), {"now": now, "most": AT_ONCE})
    return [Upload(**row._mapping) for row in rows]


def content(connection: Connection, scope: str, sha256: str) -> Content | None:
    statement = """
        SELECT sha256, size, name, media_type
        FROM server_media
        WHERE scope = :scope AND sha256 = :sha256
    """
    row: Row[Any] | None = connection.execute(text(statement), {"scope": scope, "sha256": sha256}).one_or_none()
    return Content(**row._mapping) if row else None


def known(connection: Connection, scope: str, hashes: Sequence[str]) -> list[str]:
    """Those of the hashes whose content the scope has, each once."""
    statement = f"""
        SELECT sha256
        FROM server_media
        WHERE scope = :scope AND sha256 IN ({members(connection, "hashes")})
    """  # noqa: S608 - our own text
    values = {"scope": scope, "hashes": encode(list(hashes)).decode()}
    return list(connection.execute(text(statement), values).scalars())


def known_of(connection: Connection, asked: Sequence[Upload]) -> set[str]:
    """The ids of those whose content their scope has."""
    statement = f"""
        SELECT server_upload.id
        FROM server_upload
        JOIN server_media ON server_media.scope = server_upload.scope AND server_media.sha256 = server_upload.sha256
        WHERE server_upload.id IN ({members(connection, "ids")})
    """  # noqa: S608 - our own text
    ids = encode([upload.id for upload in asked]).decode()
    return set(connection.execute(text(statement), {"ids": ids}).scalars())
