"""What tus 1.0.0 writes in headers: https://tus.io/protocols/resumable-upload. Reading and writing them, no more."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from email.utils import formatdate

from starlette.datastructures import Headers

from backhaul.server.problems import refusal

VERSION = "1.0.0"
COLLECTION = "/v1/media"  # where uploads are made; each has its address below it
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination,concatenation"
ALGORITHMS = ("sha1", "sha256")
CHUNK_TYPE = "application/offset+octet-stream"
MOST_METADATA = 8192
MOST_PARTS = 1000
LONGEST_NAME = 255

SHA256 = re.compile(r"[0-9a-f]{64}")
MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")  # RFC 6838, 4.2
PART = re.compile(r"(?:https?://[^/\s]*)?(?:/[^\s]*)?" + COLLECTION + r"/([0-9A-Za-z_-]{1,100})")
UPLOAD = re.compile(r"[0-9A-Za-z_-]{1,100}")
INTEGER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What Upload-Metadata says of a file. sha256: of the whole content, or None."""

    sha256: str | None
    name: str
    media_type: str


@dataclass(frozen=True, kw_only=True)
class Checksum:
    algorithm: str
    value: str


def check_version(headers: Headers) -> None:
    if headers.get("Tus-Resumable") != VERSION:
        raise refusal("tus-unsupported", f"send Tus-Resumable: {VERSION}")


def is_chunk(headers: Headers) -> bool:
    return headers.get("Content-Type", "").strip().lower() == CHUNK_TYPE


def integer(headers: Headers, name: str) -> int:
    text = headers.get(name, "")
    if not INTEGER.fullmatch(text):
        raise refusal("malformed", f"{name} must be there and be a number that is not negative")
    return int(text)


def length(headers: Headers, most: int) -> int:
    """Of a new upload. A length that is told later (Upload-Defer-Length) is not offered here."""
    if "Upload-Defer-Length" in headers:
        raise refusal("malformed", "the length cannot be deferred: send Upload-Length")
    found = integer(headers, "Upload-Length")
    if found > most:
        raise refusal("upload-too-large", f"an upload may have {most} bytes")
    return found


def is_partial(headers: Headers) -> bool:
    return headers.get("Upload-Concat", "").strip() == "partial"


def parts(headers: Headers) -> list[str] | None:
    """The ids of the uploads that a final one is made of, in their order; None when it is none."""
    said = headers.get("Upload-Concat", "").strip()
    if said in ("", "partial"):
        return None
    kind, _, listed = said.partition(";")
    found = [PART.fullmatch(one) for one in listed.split()]
    if kind != "final" or not found or len(found) > MOST_PARTS:
        raise refusal("malformed", f"Upload-Concat is partial, or final; and the paths of 1 to {MOST_PARTS} uploads")
    named = [one[1] for one in found if one]
    if len(named) < len(found):
        raise refusal("malformed", "a part in Upload-Concat is no path of an upload")
    return named


def checksum(headers: Headers) -> Checksum | None:
    text = headers.get("Upload-Checksum")
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise refusal("checksum-unsupported", f"the algorithms are {', '.join(ALGORITHMS)}")
    return Checksum(algorithm=algorithm, value=value.strip())


def metadata(text: str) -> Metadata:
    """Raises Refused `metadata-invalid`."""
    if len(text) > MOST_METADATA or not text.isascii() or not text.isprintable():
        raise refusal("metadata-invalid", f"Upload-Metadata is up to {MOST_METADATA} printable ASCII characters")
    values: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        name, _, coded = pair.strip().partition(" ")
        if not name or name in values:
            raise refusal("metadata-invalid", "a key is empty or comes twice")
        values[name] = _decoded(name, coded)
    return described(_promised(values), values.get("filename", ""), values.get("filetype", ""))


def described(sha256: str | None, name: str, media_type: str) -> Metadata:
    """A type that could be taken for a header of its own becomes plain bytes."""
    known = MEDIA_TYPE.fullmatch(media_type)
    return Metadata(
        sha256=sha256,
        name=_name(name),
        media_type=media_type if known else "application/octet-stream",
    )


def coded(told: Metadata) -> str:
    """What `metadata` reads, but for the hash."""
    said = {"filename": told.name, "filetype": told.media_type}
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in said.items())


def expires(at: int) -> str:
    """IMF-fixdate (RFC 9110, 5.6.7)."""
    return formatdate(at / 1000, usegmt=True)


def _decoded(name: str, coded: str) -> str:
    try:
        return b64decode(coded.strip(), validate=True).decode().replace("\0", "")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise refusal("metadata-invalid", f"the value of {name:.50} is not UTF-8 in base64") from error


def _name(said: str) -> str:
    """What it says of folders is left out: whoever saves the file chooses where."""
    return said.replace("\0", "").replace("\\", "/").rpartition("/")[2][:LONGEST_NAME]


def _promised(values: dict[str, str]) -> str | None:
    promised = values.get("sha256")
    if promised is not None and not SHA256.fullmatch(promised.lower()):
        raise refusal("metadata-invalid", "sha256 is 64 hexadecimal digits")
    return promised.lower() if promised else None
