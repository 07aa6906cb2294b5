"""`custom` and `manual`: two writers changed one field, neither knowing of the other, to different values. A function
of the host's makes one value of the two; or a person does, and until then it is a conflict.

Everything that is not concurrent is the last write's, or that of who found what stands there: also where another
replica has written the same value since, as it may when both make a record, and by the clock comes later.
"""

from __future__ import annotations

from typing import Any

from backhaul.merge.custom import Functions, MergeFailed
from backhaul.merge.plain import LastWrite
from backhaul.merge.register import ECHO, Change, Register, lost, plain_unusable, same
from backhaul.wire import Kind

LAST_WRITE = LastWrite()


class Manual:
    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        if held is not None and _found(held, said) and not same(_now(said), held.value):
            # Whoever wrote the same value meanwhile, later by the clock, has said nothing against it.
            return Register((max(held.stamp[0], change.hlc), change.writer, version), _now(said))
        return LAST_WRITE.write(held, change, _now(said), version)

    def unusable(self, kind: Kind, said: Any) -> str | None:
        if kind != "update" or not _is_delta(said):
            return plain_unusable(said)
        if said.keys() != {"was", "now"}:
            return 'a change says {"was": ..., "now": ...}, or the value alone'
        return plain_unusable(said["was"]) or plain_unusable(said["now"])

    def contested(self, held: Register, change: Change, said: Any) -> tuple[str, str] | None:
        """The problem's name and detail, when the change cannot be merged without a person."""
        return ("conflict", "it was changed elsewhere meanwhile") if is_concurrent(held, change, said) else None


class Custom(Manual):
    """said: as a table says it. The function is looked for when it is needed: a module that has gone since is a reason
    for a conflict, and none for a push to fail."""

    def __init__(self, said: str, functions: Functions) -> None:
        self._said = said
        self._functions = functions

    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        if held is None or not is_concurrent(held, change, said):
            return super().write(held, change, said, version)
        try:
            value = self._decided(held, said)
        except MergeFailed:  # it was looked at before (contested); whoever comes here all the same leaves what stands
            return lost(held, change, version)
        hlc, writer = max(held.stamp[:2], (change.hlc, change.writer))
        return Register((hlc, writer, version), value, ECHO)

    def contested(self, held: Register, change: Change, said: Any) -> tuple[str, str] | None:
        if not is_concurrent(held, change, said):
            return None
        try:
            self._decided(held, said)
        except MergeFailed as error:
            return "merge-failed", str(error)
        return None

    def _decided(self, held: Register, said: Any) -> Any:
        base = said["was"] if _is_delta(said) else None
        return self._functions.decide(self._said, base, _now(said), held.value)


def is_concurrent(held: Register, change: Change, said: Any) -> bool:
    """Whether the field holds what another writer has made of it, unseen by this one, and something else than this one
    had before or has now. A backfill is older than everything, and never concurrent."""
    if change.kind == "backfill" or held.stamp[2] <= change.base:
        return False
    if change.is_by(*held.stamp[1:]) and held.kept is None:
        return False
    return not _found(held, said) and not same(_now(said), held.value)


def _found(held: Register, said: Any) -> bool:
    """Whether the writer had before what stands there now."""
    return _is_delta(said) and same(said["was"], held.value)


def _is_delta(said: Any) -> bool:
    return type(said) is dict and "now" in said


def _now(said: Any) -> Any:
    return said["now"] if _is_delta(said) else said
