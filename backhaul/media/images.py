"""Pictures, by Pillow, which is an optional part (`pip install 'backhaul[images]'`)."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType

from backhaul.errors import ConfigurationInvalid
from backhaul.media.content import opened

ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4 A: 1 to 8


def orientation(path: Path) -> int | None:
    """How a picture is turned; None where it does not say, or is none. Raises ConfigurationInvalid without Pillow, and
    Unreadable."""
    pillow = _pillow()
    with opened(path) as file:
        try:
            with pillow.open(file) as picture:
                said = picture.getexif().get(ORIENTATION)
        except (OSError, ValueError, SyntaxError, struct.error, pillow.DecompressionBombError):  # no picture, or broken
            return None
    return said if isinstance(said, int) and 1 <= said <= 8 else None


def reduce(source: Path, target: Path, *, largest: int, format: str, quality: int) -> None:  # noqa: A002 - its name
    """Write a picture that is at most so many pixels long and wide, upright, and without what cameras add to it (where
    it was taken, for one). Raises ConfigurationInvalid without Pillow, Unreadable, and what Pillow raises."""
    pillow = _pillow()
    from PIL import ImageOps

    with opened(source) as file, pillow.open(file) as picture:
        picture.draft("RGB", (largest, largest))  # a JPEG is read at a half, a quarter or an eighth of its size
        upright = ImageOps.exif_transpose(picture)
        upright.thumbnail((largest, largest))
        if upright.mode not in ("RGB", "L"):
            clear = upright.convert("RGBA")
            upright = pillow.new("RGB", clear.size, "white")
            upright.paste(clear, mask=clear)
        upright.save(target, format=format, quality=quality)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ConfigurationInvalid("Pillow is not installed", hint="pip install 'backhaul[images]'") from error
    return Image
