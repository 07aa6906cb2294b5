"""A column that names a local file, and those that tell other replicas of what the file holds."""

from __future__ import annotations

from typing import Literal

import msgspec

from backhaul.errors import TableUnfit
from backhaul.wire import Table

Visible = Literal["at-once", "with-media"]
Format = Literal["jpeg", "webp"]
Original = Literal["never", "later"]
OnFailure = Literal["original", "wait"]
NUMBERS = ("size", "orientation")
TOLD = ("sha256", "size", "type", "name", "orientation", "original_sha256")
TYPES = {True: ("INT", "SERIAL", "NUM", "DEC"), False: ("CHAR", "CLOB", "TEXT", "STRING")}


class MediaColumn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the settings say of a table's files.

    column: of the path. folder: the one that its files are in; a relative path is looked for there, and nothing
    outside of it is ever read. sha256, size (bytes), type, name, orientation (EXIF, 1 to 8): the columns that are told
    of the content; empty: none. visible: whether others see the record before its file is on the server.

    transform: what is made of the file and sent in its place: "image", or MODULE:FUNCTION; empty: nothing. largest:
    pixels of a picture's longer side. format, quality: as pictures are written. original: whether the file itself
    follows; original_sha256: the column that tells its hash. on_failure: what happens where nothing can be made.
    """

    column: str
    folder: str = "."
    sha256: str = ""
    size: str = ""
    type: str = ""
    name: str = ""
    orientation: str = ""
    visible: Visible = "at-once"
    transform: str = ""
    largest: int = 2048
    format: Format = "jpeg"
    quality: int = 85
    original: Original = "never"
    original_sha256: str = ""
    on_failure: OnFailure = "original"

    @property
    def told(self) -> dict[str, str]:
        """What is told of a content, and the column of each."""
        return {what: column for what in TOLD if (column := getattr(self, what))}


def check(table: Table, said: MediaColumn) -> None:
    """Raises TableUnfit, with `where`, for a column that cannot be what the settings take it for."""
    types = {column.name: column.type for column in table.columns}
    named: set[str] = set()
    for setting, name in {"column": said.column, **said.told}.items():
        if name not in types:
            why, hint = f"{table.name} has no column {name!r}", f"its columns are: {', '.join(types)}"
        elif name in table.key:
            why, hint = f"{table.name}.{name} is part of the primary key, and a key never changes", "name another one"
        elif name in named:
            why, hint = f"{table.name}.{name} is named twice", "each needs a column of its own"
        elif types[name] and not _is_of(types[name], number=setting in NUMBERS):
            why = f"{table.name}.{name} cannot hold the {setting}: its type is {types[name]}"
            hint = "use an INTEGER column" if setting in NUMBERS else "use a TEXT column"
        elif table.merge.get(name, "lww") not in ("lww", "server_wins"):
            why = f"{table.name}.{name} is merged as {table.merge[name]}"
            hint = f"what is told of a file is written whole: merge.{name} = 'lww'"
        else:
            named.add(name)
            continue
        error = TableUnfit(why, hint=hint)
        error.where = ("tables", table.name, "media", setting)
        raise error


def _is_of(declared: str, *, number: bool) -> bool:
    return any(kind in declared.upper() for kind in TYPES[number])
