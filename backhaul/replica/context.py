"""What a journey needs of its run."""

from __future__ import annotations

from typing import Any, Protocol


class Context(Protocol):
    """A place to stop, and somewhere to say how far it is."""

    def check(self) -> None: ...

    def progress(self, said: dict[str, Any]) -> None: ...
