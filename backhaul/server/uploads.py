"""Uploads and the content they become: the only file that writes `server_upload` and `server_media`.

An upload is open (`position` < `length`), full, and then complete: its content was hashed, is what was promised, and
is entered. It is forgotten when it is discarded, terminated or expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text


@dataclass(frozen=True, kw_only=True)
class Upload:
    """length, position: bytes. sha256: promised, in hexadecimal, or None. metadata: Upload-Metadata as it came."""

    id: str
    scope: str
    replica: str
    length: int
    position: int
    sha256: str | None
    metadata: str
    expires_at: int
    completed_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Content:
    sha256: str
    size: int
    name: str
    media_type: str


def create(connection: Connection, upload: Upload, now: int) -> None:
    statement = """
        INSERT INTO server_upload
               (id, scope, replica, length, position, sha256, metadata, created_at, expires_at)
        VALUES (:id, :scope, :replica, :length, 0, :sha256, :metadata, :now, :expires_at)
    """
    values = {
        "id": upload.id,
        "scope": upload.scope,
        "replica": upload.replica,
        "length": upload.length,
        "sha256": upload.sha256,
        "metadata": upload.metadata,
        "expires_at": upload.expires_at,
        "now": now,
    }
    connection.execute(text(statement), values)


def find(connection: Connection, scope: str, upload: str) -> Upload | None:
    statement = """
        SELECT id, scope, replica, length, position, sha256, metadata, expires_at, completed_at
        FROM server_upload
        WHERE scope = :scope AND id = :id
    """
    row = connection.execute(text(statement), {"scope": scope, "id": upload}).one_or_none()
    return Upload(**row._mapping) if row else None


def advance(connection: Connection, upload: str, *, since: int, to: int, expires_at: int) -> bool:
    """The bytes up to `to` are safe on disk. False when the upload is gone or stands elsewhere."""
    statement = """
        UPDATE server_upload
        SET position = :to, expires_at = :expires_at
        WHERE id = :id AND position = :since AND completed_at IS NULL
    """
    values = {"id": upload, "since": since, "to": to, "expires_at": expires_at}
    return connection.execute(text(statement), values).rowcount == 1


def complete(connection: Connection, upload: Upload, content: Content, now: int) -> None:
    """The content is in its place: whoever asks for its hash gets it from now on."""
    enter = """
        INSERT INTO server_media (scope, sha256, size, name, media_type, replica, created_at)
        VALUES (:scope, :sha256, :size, :name, :media_type, :replica, :now)
        ON CONFLICT (scope, sha256) DO NOTHING
    """
    values = {
        "scope": upload.scope,
        "sha256": content.sha256,
        "size": content.size,
        "name": content.name,
        "media_type": content.media_type,
        "replica": upload.replica,
        "now": now,
    }
    connection.execute(text(enter), values)
    finish = "UPDATE server_upload SET completed_at = :now WHERE id = :id AND completed_at IS NULL"
    connection.execute(text(finish), {"id": upload.id, "now": now})


def forget(connection: Connection, upload: str) -> None:
    connection.execute(text("DELETE FROM server_upload WHERE id = :id"), {"id": upload})


def expired(connection: Connection, now: int) -> list[str]:
    statement = "SELECT id FROM server_upload WHERE expires_at <= :now ORDER BY expires_at LIMIT 1000"
    return list(connection.execute(text(statement), {"now": now}).scalars())


def content(connection: Connection, scope: str, sha256: str) -> Content | None:
    statement = """
        SELECT sha256, size, name, media_type
        FROM server_media
        WHERE scope = :scope AND sha256 = :sha256
    """
    row: Row[Any] | None = connection.execute(text(statement), {"scope": scope, "sha256": sha256}).one_or_none()
    return Content(**row._mapping) if row else None
