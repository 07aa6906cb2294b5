"""The error of a value that a column of this database cannot hold as it is."""

from __future__ import annotations

from backhaul.errors import BackhaulError


class Misfit(BackhaulError):
    """The record is set aside with this reason; others are not touched by it."""
