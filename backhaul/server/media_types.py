"""Which types of files a server takes: an allow-list of what is declared, and, for images, of what the bytes say.

    image/*            every image whose first bytes are known here; not image/svg+xml, which can hold programs
    application/pdf    that type alone

Without a list every type is taken. Whatever is taken is given back as a download, and runs nowhere (delivery.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from backhaul.errors import ConfigurationInvalid
from backhaul.server.problems import refusal

PATTERN = re.compile(r"[a-z0-9!#$&^_.+-]+/(\*|[a-z0-9!#$&^_.+-]+)")
MOST_NEEDED = 32  # of a file's first bytes
MAGIC = {  # each vendor's own specification; HEIF and AVIF: ISO/IEC 14496-12, 4.3
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/bmp": re.compile(rb"BM"),
    "image/tiff": re.compile(rb"II\*\x00|MM\x00\*"),
    "image/heic": re.compile(rb"....ftyp(heic|heix|heim|heis|mif1|msf1)", re.DOTALL),
    "image/heif": re.compile(rb"....ftyp(mif1|msf1|heic|heix)", re.DOTALL),
    "image/avif": re.compile(rb"....ftyp(avif|avis|mif1)", re.DOTALL),
}


class Policy:
    def __init__(self, allowed: Sequence[str]) -> None:
        """Raises ConfigurationInvalid."""
        wrong = [one for one in allowed if not PATTERN.fullmatch(one)]
        if wrong:
            raise ConfigurationInvalid(
                f"{wrong[0]!r} in [server] media_types is no type",
                hint='write for example "image/*", "application/pdf"',
            )
        self._allowed = frozenset(allowed)

    def check_declared(self, media_type: str) -> None:
        """Raises Refused `media-type-forbidden`."""
        declared = media_type.lower()
        wide = declared.partition("/")[0] + "/*" in self._allowed
        if wide and declared.startswith("image/"):
            wide = declared in MAGIC
        if self._allowed and not wide and declared not in self._allowed:
            raise refusal("media-type-forbidden", f"the server takes {', '.join(sorted(self._allowed))}")

    def check_bytes(self, media_type: str, start: bytes) -> None:
        """start: the first bytes of the file. Raises Refused `media-type-mismatch`."""
        magic = MAGIC.get(media_type.lower()) if self._allowed else None
        if magic is not None and not magic.match(start):
            raise refusal("media-type-mismatch", f"the file does not begin like {media_type}")
