"""Three workers on three nodes, each with its own labels and conditions: what each runs, what waits, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backhaul.clock import SystemClock
from backhaul.errors import WorkUnplaceable
from backhaul.telemetry import CATALOGUE
from backhaul.work import conditions, ledger, roster
from backhaul.work.ledger import Work
from backhaul.work.request import WorkRequest
from backhaul.work.roster import Worker
from backhaul.work.why import why
from config.bell import publish
from config.machine import conditions_of
from config.queues import declared
from tests.crew import CONFIGURATION, Crew
from tests.waiting import eventually

QUEUES = """
[queues.film-eu]
tags = ["connected", "unmetered"]
labels = ["region:eu"]
kinds = ["film"]
[queues.film-us]
tags = ["connected", "charging"]
labels = ["region:us"]
kinds = ["film"]
[queues.abroad]
tags = ["connected", "metered"]
labels = ["region:us"]
kinds = ["film"]
[queues.gpu]
tags = ["unmetered"]
labels = ["gpu:yes"]
kinds = ["render"]
[queues.gpu-us]
tags = ["charging"]
labels = ["gpu:yes", "region:us"]
kinds = ["render"]
"""
FUNCTIONS = """
import pathlib

from backhaul.work import worker

NOTES = pathlib.Path(__file__).with_name("notes")

def write(context):
    with NOTES.open("a") as file:
        file.write(f"{context.id} {context.work.worker} {context.work.queue}\\n")

worker("film")(write)
worker("render")(write)
worker("note")(write)
"""
# What each node is, and what it must satisfy; its worker serves what -Q names, and "" is every queue.
NODES = {
    "kiosk": (["region:eu"], {"charging": False}, ""),
    "attic": (["region:eu", "gpu:yes"], {}, ""),
    "van": (["region:us"], {"unmetered": False}, "sync,film-us,abroad"),
}
# function, what it requires, and on which nodes it may run
KINDS: dict[str, tuple[str, str, set[str]]] = {
    "film-eu": ("film", "unmetered region:eu", {"kiosk", "attic"}),
    "film-us": ("film", "charging region:us", {"van"}),
    "gpu": ("render", "unmetered gpu:yes", {"attic"}),
    "abroad": ("film", "metered region:us", set()),
    "gpu-us": ("render", "gpu:yes region:us", set()),
}
WORKS = 200


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path / "home", configuration=CONFIGURATION + QUEUES, functions=FUNCTIONS)
    with crew.database.writing() as connection:
        for node, (_, said, _) in NODES.items():
            for name, value in said.items():
                conditions.set_condition(connection, name, value, node=node, now=SystemClock().now())
    yield crew
    crew.end()


def begin(crew: Crew, node: str) -> None:
    labels, _, queues = NODES[node]
    named = "[" + ", ".join(f'"{label}"' for label in labels) + "]"
    crew.worker(node, queues=queues or None, environment={"BACKHAUL_NODE": node, "BACKHAUL_LABELS": named})


def ran(crew: Crew) -> dict[str, tuple[str, str]]:
    """By work: the node of the worker that ran it, and the queue."""
    lines = [line.split() for line in crew.notes()]
    assert len({work for work, _, _ in lines}) == len(lines)  # nothing ran twice
    return {work: (worker.partition("@")[0], queue) for work, worker, queue in lines}


def states(crew: Crew, works: Sequence[Work]) -> Counter[str]:
    with crew.database.reading() as connection:
        return Counter(work.state for work in ledger.query(connection, ids=[one.id for one in works]))


def alive(crew: Crew) -> list[Worker]:
    with crew.database.reading() as connection:
        return roster.alive(connection, SystemClock().now())


def reason(crew: Crew, work: Work, workers: Sequence[Worker]) -> str:
    now = SystemClock().now()
    with crew.database.reading() as connection:
        held, labels = conditions_of(crew.settings)(connection, now)
        return why(connection, work.id, held, labels, declared(crew.settings), workers, now)


def test_two_hundred_media_works_run_only_where_they_may_and_the_rest_say_what_they_wait_for(crew: Crew) -> None:
    asked: dict[str, list[Work]] = {queue: [] for queue in KINDS}
    for number in range(WORKS):
        queue = list(KINDS)[number % len(KINDS)]
        function, requires, _ = KINDS[queue]
        asked[queue].append(crew.enqueue(function, requires=requires, number=number))
    assert {work.queue for queue, works in asked.items() for work in works if work.queue != queue} == set()
    note = crew.enqueue("note", requires="connected")
    crew.broker.ensure()
    publish(crew.app, [work.ring for works in asked.values() for work in works])
    for node in NODES:
        begin(crew, node)
    crew.ring(note.ring)
    crew.settled(note)  # the films do not delay it
    runnable = sum(len(asked[queue]) for queue, (_, _, nodes) in KINDS.items() if nodes)
    eventually(lambda: len(ran(crew)) == runnable + 1, 90, "all that may run has run", pause=0.2)

    where = ran(crew)
    for queue, (_, _, nodes) in KINDS.items():
        found = {where[work.id] for work in asked[queue] if work.id in where}
        assert {by for by, _ in found} <= nodes, queue
        assert {by for _, by in found} <= {queue}
        number = WORKS // len(KINDS)
        expected = {"SUCCEEDED" if nodes else "ENQUEUED": number}
        eventually(lambda works=asked[queue], end=expected: states(crew, works) == end, 10, f"{queue} is {expected}")
        messages = 0 if nodes else number
        eventually(lambda of=queue, left=messages: crew.waiting(of) == left, 10, f"{messages} messages of {queue}")
    assert {state.name for worker in alive(crew) for state in worker.queues if worker.node == "van"} == {
        "sync",
        "film-us",
        "abroad",
    }

    workers = alive(crew)
    abroad = reason(crew, asked["abroad"][0], workers)
    assert "metered" in abroad
    assert re.search(r"van@crew( on van)? cannot since \S+ \(metered is off", abroad)
    for node in ("attic", "kiosk"):
        assert re.search(rf"{node}@crew( on {node})? cannot since \S+ \([^,]*not labelled region:us", abroad)
    gpu_us = reason(crew, asked["gpu-us"][0], workers)
    assert re.search(r"attic@crew( on attic)? cannot since \S+ \([^,]*not labelled region:us", gpu_us)
    assert re.search(r"kiosk@crew( on kiosk)? cannot since \S+ \([^,]*charging is off", gpu_us)
    assert re.search(r"van@crew( on van)? does not serve gpu-us", gpu_us)


def test_what_comes_by_a_queue_that_is_not_its_own_is_handed_back_and_counted(crew: Crew) -> None:
    begin(crew, "attic")
    film = crew.enqueue("film", requires="unmetered region:eu", number=1)
    crew.ring(replace(film.ring, queue="sync"))
    crew.settled(film)
    assert ran(crew)[film.id] == ("attic", "film-eu")
    assert [worker.misrouted for worker in alive(crew)] == [1]
    assert "came by queue sync, belongs to film-eu" in crew.log("worker-attic")
    assert CATALOGUE["work.handed_back"].metric == "backhaul_work_handed_back_total"

    with crew.database.writing() as connection:  # enqueued before its kind was another queue's
        old = ledger.enqueue(connection, replace_id(film), queue="sync", now=SystemClock().now())
    crew.ring(old.ring)
    crew.settled(old)
    assert ran(crew)[old.id] == ("attic", "film-eu")
    assert [worker.misrouted for worker in alive(crew)] == [2]
    with pytest.raises(WorkUnplaceable, match="film runs on film-eu, film-us, abroad alone"):
        crew.enqueue("film", requires="device_idle")


def replace_id(work: Work) -> WorkRequest:
    return WorkRequest(task=work.task, requires=frozenset(work.requires), input={"number": 2})
