"""Flower itself, without a browser: the states of the host's work, by its own pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

from backhaul.work import Work
from tests.crew import Crew
from tests.services import free_port
from tests.waiting import eventually


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path / "home")
    yield crew
    crew.end()


class Flower:
    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._address = f"http://127.0.0.1:{free_port()}"
        crew._start("flower", "flower", "--address=127.0.0.1", f"--port={self._address.rpartition(':')[2]}")

    def page(self, path: str) -> str:
        try:
            with build_opener(ProxyHandler({})).open(f"{self._address}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (URLError, OSError):
            return ""

    def shows(self, work: Work, *words: str) -> None:
        eventually(lambda: all(word in self.page(f"/task/{work.id}") for word in words), 15, f"{words}", pause=0.2)

    def hears(self) -> bool:
        """Whether it has heard of a work that was rung for just now."""
        work = self._crew.enqueue()
        self._crew.ring(work.ring)
        self._crew.settled(work)
        return work.id in self.page(f"/task/{work.id}")


def test_flower_shows_each_state_with_the_functions_name(crew: Crew) -> None:
    crew.worker(queues="sync")
    flower = Flower(crew)
    eventually(lambda: "one@crew" in flower.page("/workers"), 30, "Flower knows the worker", pause=0.2)
    eventually(flower.hears, 30, "Flower hears the events", pause=0.5)

    works = {name: crew.enqueue(name) for name in ("note", "again", "fail")}
    works["shop.send"] = crew.plain("shop.send", "hello")
    for work in works.values():
        crew.ring(work.ring)
    flower.shows(works["note"], "note", "SUCCESS")
    flower.shows(works["again"], "again", "RETRY", "the till is not closed; again in ")
    flower.shows(works["fail"], "fail", "FAILURE", "ValueError: a bug")
    flower.shows(works["shop.send"], "shop.send", "SUCCESS")

    running = crew.enqueue("waiting")
    crew.ring(running.ring)
    flower.shows(running, "waiting", "STARTED")
    crew.cancel(running)
    flower.shows(running, "REVOKED")
