"""What the settings say of files, for the library."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul.bell import MediaRules
from backhaul.media.cache import Limits
from backhaul.media.store import Store
from backhaul.work.budget import network_of
from backhaul.work.conditions import Condition
from config.queues import download_requires
from config.settings import Settings

FOLDER = ".backhaul/media"  # made by the first file that is kept


def media_rules(settings: Settings) -> MediaRules:
    return MediaRules(
        folder=settings.home / FOLDER,
        keep=settings.media.keep,
        download_requires=download_requires(settings),
        cache=settings.media.cache,
        floor=settings.media.floor,
        eager=eager_columns(settings),
    )


def limits_of(settings: Settings) -> Limits:
    return Limits(most=settings.media.cache, floor=settings.media.floor)


def most_bytes(settings: Settings, conditions: Mapping[str, Condition]) -> int | None:
    """Of a file that the link may carry, as it is now; None: any."""
    limits, network = settings.media.max_bytes, network_of(conditions)
    if network == "roaming":
        return limits.get("roaming", limits.get("metered"))
    return limits.get("metered") if network == "metered" else None


def eager_columns(settings: Settings) -> dict[str, str]:
    """By table, the column of the hash of files that are fetched when a record arrives."""
    named = {name: table.media for name, table in settings.tables.items() if table.media and table.media.sha256}
    usual = settings.media.download
    return {name: media.sha256 for name, media in named.items() if (media.download or usual) == "eager"}


def store_of(settings: Settings) -> Store:
    """The contents that this replica keeps."""
    return Store(settings.home / FOLDER)
