"""How a file or a folder looks, in a word: two looks that differ are a change."""

from __future__ import annotations

import os
from hashlib import blake2b

from backhaul.work.constraints import FileTrigger

ABSENT = "absent"


def look(trigger: FileTrigger) -> str:
    """Of a file its time, size and place on the disk; of a folder the names in it, and with `descendants` all that is
    under it, with times and sizes. Never empty; what cannot be read looks like that."""
    path = str(trigger.path)
    try:
        found = os.stat(path)  # noqa: PTH116 - a path of the host's, as it was said
        if not os.path.isdir(path):  # noqa: PTH112
            return f"file {_word(found)}"
        return f"folder {_tree(path) if trigger.descendants else _names(path)}"
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        return f"unreadable {error.errno}"


def _names(path: str) -> str:
    digest = blake2b(digest_size=16)
    for name in sorted(os.listdir(path)):  # noqa: PTH208
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()


def _tree(path: str) -> str:
    digest = blake2b(digest_size=16)
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted((*folders, *files)):
            one = os.path.join(folder, name)  # noqa: PTH118
            try:
                said = _word(os.lstat(one)) if name in files else ""
            except OSError:
                said = ABSENT
            digest.update(os.fsencode(one) + b"\0" + said.encode() + b"\0")
    return digest.hexdigest()


def _word(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
