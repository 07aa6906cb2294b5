"""What an operator decides about a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DAY_MS = 86_400_000
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """data: the folder of everything the server keeps. database_url: SQLAlchemy; default: SQLite in the folder.

    port: 0 takes a free one. most_upload: bytes of one file. upload_lifetime_ms: an unfinished upload is kept this
    long after its last byte. tls_certificate, tls_key: PEM files, both or none. merge_modules: what may be imported
    for the functions of `custom` columns. media: None is the disk, in `data`; or a bucket (contents/opening.py).
    media_quota: bytes of files that a scope may have. media_types: as media_types.py says; none: all.
    """

    data: Path
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    most_upload: int = 16 * GIB
    upload_lifetime_ms: int = 7 * DAY_MS
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    merge_modules: tuple[str, ...] = ()
    media: str | None = None
    media_quota: int | None = None
    media_types: tuple[str, ...] = ()
    horizon_ms: int = 90 * DAY_MS  # deletions are remembered so long for replicas that do not pull

    @property
    def url(self) -> str:
        return self.database_url or f"sqlite:///{self.data / 'server.sqlite'}"
