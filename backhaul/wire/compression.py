"""A message's body, compressed (zstd, RFC 8878; gzip, RFC 1952) and inflated.

Every decompression is bounded: a body may inflate to `limit` bytes and no further, whatever it claims.
"""

from __future__ import annotations

import zlib

import zstandard

from backhaul.errors import Refused
from backhaul.wire.messages import MOST_BODY

SMALLEST_COMPRESSED = 1024  # bytes below which a body is not worth compressing
ZSTD_LEVEL = 1
ZSTD_WINDOW = 8 * 2**20  # RFC 9659


def compress(body: bytes, coding: str | None) -> tuple[bytes, str | None]:
    """The body in the coding ("zstd", "gzip" or None), and the coding that was used: small bodies stay as they are."""
    if coding is None or len(body) < SMALLEST_COMPRESSED:
        return body, None
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body), "zstd"
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush(), "gzip"


def inflate(body: bytes, coding: str | None, limit: int = MOST_BODY) -> bytes:
    """The body without its coding. Raises Refused: `unsupported-coding`, `malformed`, `inflated-too-large`."""
    coding = (coding or "identity").strip().lower()
    if coding == "identity":
        plain = body
    elif coding == "zstd":
        plain = _inflate_zstd(body, limit)
    elif coding == "gzip":
        plain = _inflate_gzip(body, limit)
    else:
        raise Refused(f"the coding {coding!r} is not supported", problem="unsupported-coding", status=415)
    if len(plain) > limit:
        raise _too_large(limit)
    return plain


def _inflate_zstd(body: bytes, limit: int) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(body, read_across_frames=False)
    try:
        declared = zstandard.frame_content_size(body)
        plain = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise Refused(f"not a zstd frame: {error}", problem="malformed", status=400) from error
    # A truncated frame reads short without an error, so the size in its head must be there and hold.
    if declared < 0 or (len(plain) <= limit and len(plain) != declared):
        raise Refused("the zstd frame is cut short or does not say its size", problem="malformed", status=400)
    return plain


def _inflate_gzip(body: bytes, limit: int) -> bytes:
    reader = zlib.decompressobj(31)
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(f"not a gzip stream: {error}", problem="malformed", status=400) from error
    if len(plain) <= limit and (not reader.eof or reader.unused_data):
        raise Refused("the gzip stream is cut short or has a tail", problem="malformed", status=400)
    return plain


def _too_large(limit: int) -> Refused:
    return Refused(f"the body inflates to more than {limit} bytes", problem="inflated-too-large", status=413)
