"""Whether this worker is ending: a byte that its children see, too, for it is made before they are forked.

The signal's handler writes it, and may do no more: no lock and no database can be relied on there. Each run looks at it
twice a second; what comes out of a queue after it was written is given back.
"""

from __future__ import annotations

import mmap

_byte = mmap.mmap(-1, 1)


def begin() -> None:
    _byte[0] = 1


def begun() -> bool:
    return _byte[0] == 1
