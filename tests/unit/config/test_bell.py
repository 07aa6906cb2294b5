"""The bell: a hint that never raises and never makes its caller wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.bell import Bell, Queue, Ring
from backhaul.bell import open_bell as open_installed_bell
from backhaul.work import Constraints, functions
from backhaul.work.placing import place
from config.bell import CeleryBell
from config.broker import EmbeddedBroker
from config.celery import make_app
from config.fresh import write_fresh
from config.loading import load
from config.settings import DEFAULT_QUEUES, Settings
from tests.waiting import eventually
from workers.ringing import waiting_messages


@pytest.fixture(autouse=True)
def _a_crowded_machine_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits when a bell is closed is said all the same."""
    monkeypatch.setattr("config.bell.CLOSE_SECONDS", 60)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("BACKHAUL_BROKER_URL", raising=False)
    write_fresh(tmp_path, database="sqlite:///shop.db", remote="https://sync.example")
    return load(tmp_path)


@pytest.fixture
def broker(settings: Settings) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(settings.state)
    broker.ensure()
    yield broker
    broker.stop()


def ring(number: int = 1) -> Ring:
    return Ring(task="backhaul.work", work_id=f"w{number}", generation=0, queue="sync", task_id=f"w{number}")


def waiting(settings: Settings) -> int:
    return waiting_messages(make_app(settings, current=False), "sync")


def test_the_bell_is_found_by_its_entry_point(settings: Settings) -> None:
    bell: Bell = open_installed_bell(settings.home)
    assert isinstance(bell, CeleryBell)
    assert {queue.name for queue in bell.queues} == {"sync", "media", "maintenance", "background"}
    bell.close()


@pytest.mark.parametrize(
    ("wanted", "queue"),
    [
        (Constraints(network="unmetered", battery_not_low=True), "background"),  # a nightly sync
        (Constraints(battery_not_low=True), "background"),
        (Constraints(network="unmetered", charging=True), "media"),  # an hourly content sync
        (Constraints(network="connected"), "sync"),
        (Constraints(), "sync"),
    ],
)
def test_the_work_that_most_programs_want_has_a_queue_where_none_is_declared(wanted: Constraints, queue: str) -> None:
    declared = [Queue(name=name, tags=frozenset(one.tags)) for name, one in DEFAULT_QUEUES.items()]
    assert place(declared, wanted.tags).name == queue


def test_rings_of_one_run_become_one_message(settings: Settings, broker: EmbeddedBroker) -> None:
    bell = CeleryBell(settings)
    for number in [1] * 500 + [2]:
        bell.ring(ring(number))
    bell.close()
    assert 2 <= waiting(settings) <= 10
    assert bell.failures == 0


def test_a_broker_that_hangs_does_not_hold_the_caller(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Event(), threading.Event()

    def hang(*_: object) -> int:
        asked.set()
        assert answers.wait(60)
        raise OSError("no broker after all")

    monkeypatch.setattr("config.bell._publish", hang)
    monkeypatch.setattr(CeleryBell, "_opened", lambda _: (None, None))
    bell = CeleryBell(settings)
    bell.ring(ring())
    assert asked.wait(60)
    for number in range(300):
        bell.ring(ring(number))  # were it to wait for the one that hangs, nobody would let that one go
    assert bell.failures == 0
    answers.set()
    eventually(lambda: bell.failures, 10, "the broker is found dead")
    bell.close()


def test_a_broker_that_comes_back_is_rung_again(settings: Settings) -> None:
    bell = CeleryBell(settings)
    bell.ring(ring())
    eventually(lambda: bell.failures, 10, "the broker is found dead")
    broker = EmbeddedBroker(settings.state)
    broker.ensure()
    try:
        eventually(lambda: bell.ring(ring(2)) or waiting(settings), 5, "a message arrives", pause=0.2)
    finally:
        bell.close()
        broker.stop()


def test_a_forked_child_rings_by_itself(settings: Settings, broker: EmbeddedBroker) -> None:
    bell = CeleryBell(settings)
    bell.ring(ring(1))
    eventually(lambda: waiting(settings) == 1, 10, "the parent has rung")
    child = os.fork()
    if child == 0:
        bell.ring(ring(2))
        bell.close()
        os._exit(0)
    os.waitpid(child, 0)
    eventually(lambda: waiting(settings) == 2, 5, "the child has rung")
    bell.close()


def test_a_note_whose_look_fails_is_dropped_and_the_others_are_rung(settings: Settings, broker: EmbeddedBroker) -> None:
    bell = CeleryBell(settings)
    bell.ring_for("broken", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    bell.ring_for("nothing", lambda: None)
    bell.ring_for("push", lambda: ring(7))
    bell.close()
    assert waiting(settings) == 1


def say_of_work(home: Path, line: str, *, more: str = "") -> None:
    file = home / "backhaul.toml"
    file.write_text(file.read_text().replace("[work]\n", f"[work]\n{line}\n") + more)


def test_the_workers_that_there_are_are_those_of_the_named_modules(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_reports.py").write_text(
        "from backhaul.work import worker\n\n\n"
        "@worker('shop.daily', formerly=['shop.nightly'])\ndef daily(context):\n    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(functions, "_by_name", {})
    say_of_work(tmp_path, 'modules = ["shop_reports"]')
    bell = CeleryBell(load(tmp_path))
    assert bell.workers(importing=False) is None  # and nothing is imported
    assert bell.workers(importing=True) == {"shop.daily", "shop.nightly"}
    assert bell.workers(importing=False) == {"shop.daily", "shop.nightly"}


def test_of_modules_that_cannot_be_imported_here_nothing_is_known(settings: Settings, tmp_path: Path) -> None:
    say_of_work(tmp_path, 'modules = ["nowhere.at_all"]')
    assert CeleryBell(load(tmp_path)).workers(importing=True) is None


def test_what_the_settings_say_of_expedited_work_reaches_the_library(settings: Settings, tmp_path: Path) -> None:
    say_of_work(tmp_path, "expedited_runs = 7", more='[queues.first]\ntags = ["connected"]\nexpedited = true\n')
    bell = CeleryBell(load(tmp_path))
    assert bell.expedited_runs == 7
    assert [queue.name for queue in bell.queues if queue.expedited] == ["first"]
