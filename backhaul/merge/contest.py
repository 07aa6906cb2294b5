"""`custom` and `manual`: two writers changed one field, neither knowing of the other, to different values. A function
of the host's makes one value of the two; or a person does, and until then it is a conflict.

Everything that is not concurrent is the last write's.
"""

from __future__ import annotations

import math
from typing import Any

from backhaul.merge.custom import Function
from backhaul.merge.plain import LastWrite
from backhaul.merge.register import ECHO, Change, Register, lost, plain_unusable, same
from backhaul.wire import Kind

LAST_WRITE = LastWrite()


class Manual:
    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
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
    def __init__(self, function: Function) -> None:
        self._function = function

    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        if held is None or not is_concurrent(held, change, said):
            return super().write(held, change, said, version)
        try:
            value = self._merged(held, said)
        except ValueError:  # it was looked at before (contested); whoever comes here all the same leaves what stands
            return lost(held, change, version)
        hlc, writer = max(held.stamp[:2], (change.hlc, change.writer))
        return Register((hlc, writer, version), value, ECHO)

    def contested(self, held: Register, change: Change, said: Any) -> tuple[str, str] | None:
        if not is_concurrent(held, change, said):
            return None
        try:
            self._merged(held, said)
        except ValueError as error:
            return "merge-failed", str(error)
        return None

    def _merged(self, held: Register, said: Any) -> Any:
        """Raises ValueError when the function fails, or returns what is no value."""
        base = said["was"] if _is_delta(said) else None
        try:
            return _wire_value(
                self._function(_python_value(base), _python_value(_now(said)), _python_value(held.value))
            )
        except Exception as error:  # the host's own function
            raise ValueError(f"{type(error).__name__}: {error}"[:500]) from error


def is_concurrent(held: Register, change: Change, said: Any) -> bool:
    """Whether the field holds what another writer has made of it, unseen by this one, and something else than this one
    had before or has now. A backfill is older than everything, and never concurrent."""
    if change.kind == "backfill" or held.stamp[2] <= change.base:
        return False
    if held.stamp[1] == change.writer and held.kept is None:
        return False
    known = _is_delta(said) and same(said["was"], held.value)
    return not known and not same(_now(said), held.value)


def _is_delta(said: Any) -> bool:
    return type(said) is dict and "now" in said


def _now(said: Any) -> Any:
    return said["now"] if _is_delta(said) else said


def _python_value(value: Any) -> Any:
    if type(value) is dict:
        return bytes.fromhex(value["hex"]) if "hex" in value else float(value["real"])
    return value


def _wire_value(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"hex": bytes(value).hex()}
    if type(value) is float:
        if math.isnan(value):
            raise ValueError("NaN is no value")
        return {"real": "Infinity" if value > 0 else "-Infinity"} if math.isinf(value) else value
    if type(value) is str:
        value.encode()  # raises UnicodeEncodeError, a ValueError, for half a surrogate pair
        return value
    if value is None or type(value) is bool or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    raise ValueError(f"it returned {type(value).__name__}, which is no value")
