"""Where the bytes of media lie: one small protocol (base.py), and what keeps it."""

from backhaul.server.contents.base import ContentStore
from backhaul.server.contents.opening import open_store

__all__ = ["ContentStore", "open_store"]
