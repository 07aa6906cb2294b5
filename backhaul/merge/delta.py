"""What was done to a column, made of what was there before and after: how an edit travels that is not the last write's.

Both ends do this: a replica at the freeze of its changes, the server when it writes itself. Raises ValueError where the
values are none that the strategy can use.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation, localcontext
from difflib import SequenceMatcher
from hashlib import blake2b
from secrets import randbits
from typing import Any

import msgspec
import pycrdt
from msgspec import Raw

from backhaul.merge import counter, documents
from backhaul.merge.counter import LONGEST
from backhaul.merge.elements import MOST, array_of, canonical_of, members

MOST_TOKENS = 2_000  # of a text's changed part, up to which it is compared word by word
TOKEN = re.compile(r"\w+|\W")

Hunk = tuple[int, int, str]  # from, to, what stands there now


def added(was: Any, now: Any) -> int | str:
    """What must be added to a counter."""
    if type(was or 0) is int and type(now or 0) is int:
        difference: int | str = (now or 0) - (was or 0)
    else:
        with localcontext(prec=4 * LONGEST):
            difference = format(_decimal(now) - _decimal(was), "f")
    if not counter.fits(difference):
        raise ValueError("the difference is too large for a counter")
    return difference


def _decimal(value: Any) -> Decimal:
    if value is not None and type(value) not in (int, str):
        raise ValueError(f"a counter is an integer or a decimal, and not {value!r:.50}")
    try:
        number = Decimal(value or 0)
    except InvalidOperation as error:
        raise ValueError(f"a counter is an integer or a decimal, and not {value!r:.50}") from error
    if not number.is_finite() or abs(number.adjusted()) > LONGEST // 2:
        raise ValueError(f"a counter is an integer or a decimal, and not {value!r:.50}")
    return number


def put_and_cut(was: Any, now: Any) -> dict[str, list[Raw]]:
    """What must be put into a set, and cut out of it."""
    before, after = set(members(was)), set(members(now))
    if len(before ^ after) > MOST:
        raise ValueError(f"a set has {MOST} elements at most")
    return {
        "put": [Raw(element.encode()) for element in sorted(after - before)],
        "cut": [Raw(element.encode()) for element in sorted(before - after)],
    }


def edited(state: bytes | None, was: Any, now: Any, *, op: str = "") -> tuple[bytes, bytes]:
    """The Yjs update that makes the edit, and the document with it. state: the document; None: `was` is all of it.

    op: the id of the op that it is for, of which the edit gets its writer's number: each edit has one of its own, and a
    database that is put back to an older state, and makes the same op again, makes the same edit. Without one: random.

    Where the document has another text than `was` (what others wrote has come in between), the edit is made at the
    places that are the same.
    """
    for value in (was, now):
        if value is not None and type(value) is not str:
            raise ValueError(f"a text is text, and not {value!r:.50}")
        if value is not None and len(value.encode()) > documents.MOST_TEXT:
            raise ValueError(f"a text has {documents.MOST_TEXT} bytes at most")
    was, now = was or "", now or ""
    if state is None:
        state = documents.seed(was)
    number = int.from_bytes(blake2b(op.encode(), digest_size=6).digest(), "big") if op else randbits(48)
    made = pycrdt.Doc[Any](client_id=number + 1)
    if state:
        made.apply_update(state)
    before = made.get_state()
    text = made.get(documents.ROOT, type=pycrdt.Text)
    there = str(text)
    for start, end, instead in reversed(_moved(hunks(was, now), was, there)):
        at, size = len(there[:start].encode()), len(there[start:end].encode())
        if size:
            del text[at : at + size]
        if instead:
            text.insert(at, instead)
    return made.get_update(before), made.get_update()


def hunks(was: str, now: str) -> list[Hunk]:
    """Where the two differ, from the left: as few characters as it takes not to undo what others write beside it."""
    start = _common(was, now)
    end = _common(was[start:][::-1], now[start:][::-1])
    before, after = was[start : len(was) - end], now[start : len(now) - end]
    mine, theirs = TOKEN.findall(before), TOKEN.findall(after)
    if not before and not after:
        return []
    if max(len(mine), len(theirs)) > MOST_TOKENS:
        return [(start, start + len(before), after)]
    places = [start]
    for token in mine:
        places.append(places[-1] + len(token))
    return [
        (places[i1], places[i2], "".join(theirs[j1:j2]))
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
        if tag != "equal"
    ]


def _moved(found: list[Hunk], was: str, there: str) -> list[Hunk]:
    """The hunks of an edit of `was`, as an edit of what is there: of what is not there any more, nothing is deleted."""
    if was == there:
        return found
    start = _common(was, there)
    tail = _common(was[start:][::-1], there[start:][::-1])
    end, shift = len(was) - tail, len(there) - len(was)
    moved: list[Hunk] = []
    for left, right, instead in found:
        if left < start:
            moved.append((left, min(right, start), instead))
        elif left < end:
            moved.append((end + shift, end + shift, instead))
        else:
            moved.append((left + shift, right + shift, instead))
        if left < end < right:
            moved.append((end + shift, right + shift, ""))
    return moved


def _common(mine: str, theirs: str) -> int:
    """How many characters the two begin with alike."""
    least, most = 0, min(len(mine), len(theirs))
    while least < most:
        middle = (least + most + 1) // 2
        if mine[least:middle] == theirs[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


# ------------------------------------------------------------------------------------------------ laying over


def counted(value: Any, add: int | str) -> int | str:
    """A counter's value with an addition."""
    return counter.plus(value or 0, add)


def with_elements(value: Any, put: list[Any], cut: list[Any]) -> str:
    """A set's value with elements put and cut."""
    gone = {canonical_of(element) for element in cut}
    kept = [element for element in members(value) if element not in gone]
    return array_of({*kept, *map(canonical_of, put)})


def decoded(raw: bytes) -> Any:
    """A field's value. Raises ValueError."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
