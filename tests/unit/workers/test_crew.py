from __future__ import annotations

from pathlib import Path

import pytest

from backhaul.errors import WorkUnplaceable
from config.loading import load
from config.settings import QueueSection, Settings
from workers.crew import worker_child, workers_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(tmp_path, initialised=False)


def groups(settings: Settings) -> dict[str, list[str]]:
    return {worker.name: list(worker.queues) for worker in workers_of(settings)}


def with_queues(settings: Settings, **queues: QueueSection) -> Settings:
    return settings.model_copy(update={"queues": settings.queues | queues})


def test_media_has_a_worker_of_its_own(settings: Settings) -> None:
    assert groups(settings) == {"sync": ["sync", "maintenance", "background"], "media": ["media"]}


def test_queues_that_an_operator_declares_share_a_worker(settings: Settings) -> None:
    declared = with_queues(
        settings, reports=QueueSection(tags=("charging", "metered")), eu=QueueSection(tags=("connected", "region:eu"))
    )
    assert groups(declared)["work"] == ["reports", "eu"]


def test_uploads_that_require_no_more_than_sync_go_with_it_only_where_no_queue_is_designated_for_them(
    settings: Settings,
) -> None:
    media = settings.media.model_copy(update={"requires": ("connected",)})
    loosened = settings.model_copy(update={"media": media})
    assert groups(loosened) == {"sync": ["sync", "maintenance", "background"], "media": ["media"]}
    nobodys = with_queues(loosened, media=settings.queues["media"].model_copy(update={"kinds": ()}))
    assert groups(nobodys) == {"sync": ["sync", "maintenance", "background"], "work": ["media"]}


def test_the_command_line_goes_before_what_is_configured(settings: Settings) -> None:
    declared = with_queues(settings, media=settings.queues["media"].model_copy(update={"concurrency": 5}))
    assert {worker.name: worker.concurrency for worker in workers_of(declared)} == {"sync": 2, "media": 5}
    assert {worker.concurrency for worker in workers_of(declared, 1)} == {1}


def test_a_queue_that_states_its_concurrency_has_a_worker_of_its_own(settings: Settings) -> None:
    sync = settings.queues["sync"].model_copy(update={"concurrency": 4})
    films = QueueSection(tags=("charging", "metered"), concurrency=1)
    declared = with_queues(settings, sync=sync, films=films, reports=QueueSection(tags=("charging", "metered")))
    assert [(one.name, list(one.queues), one.concurrency) for one in workers_of(declared)] == [
        ("sync-others", ["maintenance", "background"], 2),
        ("sync", ["sync"], 4),
        ("media", ["media"], 2),
        ("work", ["reports"], 2),
        ("work-films", ["films"], 1),
    ]


def test_uploads_that_no_queue_can_take_are_told_of_with_the_setting_that_demands_it(settings: Settings) -> None:
    loosened = with_queues(settings, media=settings.queues["media"].model_copy(update={"tags": ("connected",)}))
    with pytest.raises(WorkUnplaceable) as refusal:
        workers_of(loosened)
    assert refusal.value.hint is not None
    assert "[media] requires" in refusal.value.hint


def test_a_worker_stands_in_a_folder_without_modules_of_the_app(settings: Settings) -> None:
    child = worker_child(settings, workers_of(settings)[0])
    assert child.folder == settings.home / ".backhaul"
    assert child.env["BACKHAUL_HOME"] == str(settings.home)
    assert child.log == settings.home / ".backhaul" / "logs" / "sync.log"
