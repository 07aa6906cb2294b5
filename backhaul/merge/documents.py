"""`text`: a Yjs document (pycrdt) in which the edits of all replicas are woven into each other.

A text that was inserted is a document that everyone makes alike: its one writer is named after the text itself. So an
insert or a backfill travels as plain text, and two that say the same are one. What an edit adds is a Yjs update.

An update that says the whole text is from before the column was merged as text: a last write, as long as nobody has
edited the text; else it is woven in, as an insert.

An update is read here, strictly, before the library sees it: of a garbled one it may ask for endless work.

The library is imported where a text is woven: most programs have none, and would pay for it at each start.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from backhaul.merge.plain import LastWrite, of_before
from backhaul.merge.register import Change, Register, lost, written
from backhaul.merge.updates import end_of_state, ends
from backhaul.wire import Kind

if TYPE_CHECKING:
    import pycrdt

LAST_WRITE = LastWrite()

ROOT = "t"  # the name of the text within its document
MOST_UPDATE = 2**20  # bytes
MOST_STATE = 2 * 2**20
MOST_TEXT = 2**20  # bytes of UTF-8


class Documents:
    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        if type(said) is dict:
            update = bytes.fromhex(said["update"])
        elif held is None:
            return written(change, said, version)
        elif of_before(held, change, said):
            return LAST_WRITE.write(held, change, said, version)
        elif said is None or said == held.value:
            return held if said == held.value else lost(held, change, version)
        else:
            update = seed(said)
        before = document_of(held.value, held.kept) if held else b""
        waiting = held is not None and type(held.kept) is dict and "waits" in held.kept
        state, text, waits = woven(before, update, waiting=waiting)
        hlc, writer = (change.hlc, change.writer) if held is None else max(held.stamp[:2], (change.hlc, change.writer))
        kept = {"yjs": state.hex(), "waits": True} if waits else {"yjs": state.hex()}
        return Register((hlc, writer, version), text, kept)

    def unusable(self, kind: Kind, said: Any) -> str | None:  # noqa: ARG002 - the same whatever the op does
        if type(said) is not dict:
            if said is None or (type(said) is str and len(said.encode()) <= MOST_TEXT):
                return None
            return f"a text is text, of {MOST_TEXT} bytes at most"
        if said.keys() != {"update"}:
            return 'a text is changed by {"update": ...}'
        update = bytes.fromhex(said["update"])
        if len(update) > MOST_UPDATE:
            return f"an update of a text has {MOST_UPDATE} bytes at most"
        try:
            ends(update, ROOT)
        except ValueError as error:
            return f"this is no update of a text: {error}"
        return None


def fits(register: Register) -> bool:
    return type(register.kept) is not dict or len(register.kept.get("yjs", "")) <= 2 * MOST_STATE


def seed(text: str) -> bytes:
    """The document of a text that nobody has edited yet, as everyone makes it."""
    import pycrdt

    if not text:
        return b""
    writer = int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") + 1
    made = pycrdt.Doc[Any](client_id=writer)
    made.get(ROOT, type=pycrdt.Text).insert(0, text)
    return made.get_update()


def document_of(value: str | None, kept: Any) -> bytes:
    """The state of a field's document."""
    return bytes.fromhex(kept["yjs"]) if type(kept) is dict else seed(value or "")


def joined(state: bytes, update: bytes) -> bytes:
    """The state with the update."""
    return woven(state, update, waiting=False)[0]


def woven(state: bytes, update: bytes, *, waiting: bool) -> tuple[bytes, str, bool]:
    """The state with the update, its text, and whether something in it waits: what builds on something that is not
    there yet is kept, and shows when that comes. waiting: whether something waits in the state."""
    import pycrdt

    made = _open(state)
    if update:
        made.apply_update(update)
    known = end_of_state(made.get_state())
    both = pycrdt.merge_updates(state, update) if waiting and state and update else update
    waits = bool(both) and any(end > known.get(writer, 0) for writer, end in ends(both, ROOT, skips=True).items())
    text = str(made.get(ROOT, type=pycrdt.Text))
    if not waits:
        return made.get_update() if state or update else b"", text, False
    return (pycrdt.merge_updates(state, update) if state and update else state or update), text, True


def text_of(state: bytes) -> str:
    import pycrdt

    return str(_open(state).get(ROOT, type=pycrdt.Text))


def _open(state: bytes) -> pycrdt.Doc[Any]:
    import pycrdt

    made = pycrdt.Doc[Any]()
    if state:
        made.apply_update(state)
    return made
