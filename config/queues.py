"""The declared queues, for the library and for Celery."""

from __future__ import annotations

from kombu.entity import Exchange, Queue

from backhaul import bell
from config.settings import QueueSection, Settings

# The broker's default exchange: it has no bindings that a FLUSHALL could take away.
DIRECT = Exchange("", type="direct")  # type: ignore[no-untyped-call]


UPLOAD = "backhaul.upload"
DOWNLOAD = "backhaul.download"
ATTACH = "backhaul.attach"
TRANSFORM = "backhaul.transform"
MEDIA_KINDS = frozenset({UPLOAD, DOWNLOAD})
MEDIA = "media"
BUDGET = frozenset({"budget"})


def declared(settings: Settings) -> list[bell.Queue]:
    kinds = _kinds(settings)
    return [
        bell.Queue(
            name=name,
            tags=_tags(queue) | (BUDGET if settings.budget.limits and kinds[name] & MEDIA_KINDS else frozenset()),
            expedited=queue.expedited,
            kinds=kinds[name],
        )
        for name, queue in settings.queues.items()
    ]


def upload_requires(settings: Settings) -> frozenset[str]:
    """What every upload demands: where a budget is set, also that it is not used up."""
    return frozenset(settings.media.requires) | _budget(settings, UPLOAD)


def download_requires(settings: Settings) -> frozenset[str]:
    """The same of every download, which may have conditions of its own."""
    return _download_requires(settings) | _budget(settings, DOWNLOAD)


def _budget(settings: Settings, kind: str) -> frozenset[str]:
    demands = settings.budget.limits and any(kind in kinds for kinds in _kinds(settings).values())
    return BUDGET if demands else frozenset()


def _download_requires(settings: Settings) -> frozenset[str]:
    said = settings.media.download_requires
    return frozenset(settings.media.requires if said is None else said)


def _kinds(settings: Settings) -> dict[str, frozenset[str]]:
    """Uploads, downloads and the reading of files are the media queue's, unless another one names them, it says that it
    has no kinds, or it has not all the tags that they demand."""
    kinds = {name: frozenset(queue.kinds or ()) for name, queue in settings.queues.items()}
    media = settings.queues[MEDIA]
    if media.kinds is None and not media.expedited:
        demands = {UPLOAD: frozenset(settings.media.requires), DOWNLOAD: _download_requires(settings)}
        demands |= {ATTACH: frozenset(), TRANSFORM: frozenset(settings.media.transform_requires)}
        named = frozenset[str]().union(*kinds.values())
        fitting = (kind for kind, tags in demands.items() if _tags(media) >= tags)
        kinds[MEDIA] = frozenset(kind for kind in fitting if kind not in named)
    return kinds


def _tags(queue: QueueSection) -> frozenset[str]:
    return frozenset(queue.tags) | frozenset(queue.labels)


def celery_queues(settings: Settings) -> list[Queue]:
    return [Queue(name, exchange=DIRECT, routing_key=name) for name in settings.queues]  # type: ignore[no-untyped-call]
