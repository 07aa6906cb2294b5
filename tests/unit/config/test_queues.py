"""What the settings make of the declared queues: which kinds are whose, and which demand a budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from backhaul.errors import ConfigurationInvalid
from backhaul.remotes.traffic import Limits
from config.loading import load
from config.queues import ATTACH, DOWNLOAD, TRANSFORM, UPLOAD, declared, upload_requires
from config.settings import Settings
from workers.crew import workers_of

ALL = [ATTACH, DOWNLOAD, TRANSFORM, UPLOAD]
REPLICA = '[replica]\ndatabase = "sqlite:///shop.db"\nremote = "https://a.example"\n'


def settings(home: Path, written: str) -> Settings:
    (home / "backhaul.toml").write_text(REPLICA + written)
    return load(home)


def kinds(made: Settings) -> dict[str, list[str]]:
    return {queue.name: sorted(queue.kinds) for queue in declared(made) if queue.kinds}


@pytest.mark.parametrize(
    ("written", "whose"),
    [
        ("", {"media": ALL}),
        (
            '[queues.media]\ntags = ["connected"]\n[media]\nrequires = ["connected"]\ntransform_requires = []\n',
            {"media": ALL},
        ),
        ('[queues.films]\nkinds = ["shop.film"]\n', {"media": ALL, "films": ["shop.film"]}),
        (
            f'[queues.films]\nkinds = ["{UPLOAD}", "shop.film"]\n',
            {"media": [ATTACH, DOWNLOAD, TRANSFORM], "films": [UPLOAD, "shop.film"]},
        ),
        ('[media]\ndownload_requires = ["connected", "device_idle"]\n', {"media": [ATTACH, TRANSFORM, UPLOAD]}),
        (f'[queues.disk]\nkinds = ["{ATTACH}"]\n', {"media": [DOWNLOAD, TRANSFORM, UPLOAD], "disk": [ATTACH]}),
        ("[queues.media]\nkinds = []\n", {}),
        ('[queues.media]\ntags = ["connected"]\n', {"media": [ATTACH]}),  # it has not all that an upload demands
    ],
    ids=["default", "looser", "beside", "another's", "own", "disk", "nobody's", "unfit"],
)
def test_uploads_are_the_media_queues_unless_another_word_is_said(
    tmp_path: Path, written: str, whose: dict[str, list[str]]
) -> None:
    made = settings(tmp_path, written)
    assert kinds(made) == whose


def test_where_a_budget_is_set_uploads_and_their_queue_demand_it_and_nothing_else_does(tmp_path: Path) -> None:
    made = settings(tmp_path, '[budget]\nday = "200MB"\nmonth = "2GB"\n')
    assert {queue.name for queue in declared(made) if "budget" in queue.tags} == {"media"}
    assert "budget" in upload_requires(made)
    assert (made.budget.day, made.budget.month) == (200_000_000, 2_000_000_000)
    roaming = settings(tmp_path, '[budget.roaming]\nday = "20MB"\n')
    assert {queue.name for queue in declared(roaming) if "budget" in queue.tags} == {"media"}
    assert roaming.budget.limits.networks == {"metered": Limits(), "roaming": Limits(day=20_000_000)}
    without = settings(tmp_path, "")
    assert not any("budget" in queue.tags for queue in declared(without))
    assert "budget" not in upload_requires(without)
    assert [worker.name for worker in workers_of(made)] == ["sync", "media"]


def test_what_is_no_name_of_a_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="no name of a work function"):
        settings(tmp_path, '[queues.media]\nkinds = ["a b"]\n')
