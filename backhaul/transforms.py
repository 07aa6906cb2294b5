"""What is made of a file before it is sent: a smaller picture, or whatever a function of the host's makes of it.

A function is named MODULE:FUNCTION, and called with two paths, of the file and of what it is to write; it returns the
name of what it has made, or None for the name that the file has.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from backhaul.errors import Misused
from backhaul.media import images
from backhaul.replica.media_columns import MediaColumn

IMAGE = "image"
SUFFIXES = {"jpeg": ".jpg", "webp": ".webp"}


class TransformFailed(Exception):
    """Nothing could be made of the file; the message says why."""


def transform(media: MediaColumn, source: Path, target: Path) -> str:
    """Write it; returns what it is called. Raises TransformFailed."""
    try:
        if media.transform == IMAGE:
            images.reduce(source, target, largest=media.largest, format=media.format, quality=media.quality)
            return source.stem + SUFFIXES[media.format]
        named = _function(media.transform)(source, target)
    except Exception as error:  # whatever the host's function raises, or a broken picture
        raise TransformFailed(f"{media.transform} has failed: {type(error).__name__}: {error}"[:500]) from error
    if not target.is_file():
        raise TransformFailed(f"{media.transform} has written nothing")
    return Path(str(named or source.name)).name


def _function(name: str):  # type: ignore[no-untyped-def] # the host's own
    module, _, function = name.partition(":")
    found = getattr(import_module(module), function, None)
    if not callable(found):
        raise Misused(f"there is no function {function!r} in {module}", hint="transform = 'MODULE:FUNCTION'")
    return found
