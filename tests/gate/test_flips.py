"""Conditions flip at random, while work comes and messages come twice: nothing ever begins while its queue is closed.

A run may begin only when its queue was open at the moment of its claim. That moment is the transaction which makes the
row RUNNING: a trigger notes there, in the same transaction, whether the queue's condition holds, and no pause. A claim
that finds its queue closed is taken back before it is committed, so what counts is the last note of each try that has
begun.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tests.crew import FUNCTIONS
from tests.gate.conftest import PAIRS
from tests.gate.line import Line
from tests.gate.stage import Stage, staged
from tests.waiting import eventually

CONDITIONS = ("unmetered", "charging", "device_idle", "not_paused")
OPTIONS = {  # a pool that grows and shrinks, and more that is fetched than can begin
    "prefork": ("--autoscale", "3,1"),
    "threads": ("-c", "2", "--prefetch-multiplier", "3"),
    "gevent": ("-c", "2", "--prefetch-multiplier", "3"),
    "solo": (),
}
SHORT = 60
LONG = 125  # for each of the eight pairs
LONGEST_PAUSE = 0.5
NOTED = """
CREATE TABLE noted (work TEXT, attempt INTEGER, closed INTEGER);
CREATE TRIGGER note_claims AFTER UPDATE OF state ON backhaul_work WHEN NEW.state = 'RUNNING' AND OLD.state = 'ENQUEUED'
BEGIN
    INSERT INTO noted SELECT NEW.id, NEW.attempt, EXISTS (
        SELECT 1 FROM backhaul_condition WHERE value = 0 AND (NEW.queue LIKE '%-' || name OR name = 'not_paused')
    );
END;
"""
WRITING = (
    FUNCTIONS
    + """
@worker("brief")
def brief(context):
    write(f"{context.id} {context.work.attempt}")
    context.wait(context.input["seconds"])
"""
)


@pytest.mark.slow
def test_sixty_flips() -> None:
    flip_at_random("prefork", None, flips=SHORT, seed=5)


@pytest.mark.chaos
@pytest.mark.parametrize(("pool", "broker"), PAIRS)
def test_a_thousand_flips(request: pytest.FixtureRequest, pool: str, broker: str) -> None:
    line: Line | None = request.getfixturevalue("rabbit") if broker == "rabbitmq" else None
    flip_at_random(pool, line, flips=LONG, seed=PAIRS.index((pool, broker)))


def flip_at_random(pool: str, line: Line | None, *, flips: int, seed: int) -> None:
    name = f"flips-{pool}-{'rabbitmq' if line else 'redis'}"
    with staged(name, pool, line, *OPTIONS[pool], functions=WRITING) as stage:
        with stage.crew.database.writing() as connection:
            connection.connection.driver_connection.executescript(NOTED)  # type: ignore[union-attr]
        works = _play(stage, random.Random(seed), flips)
        claims, postponed = _judged(stage)
        print(f"{name}: {flips} flips, {works} works, {claims} claims, {postponed} of them taken back")


def _play(stage: Stage, chance: random.Random, flips: int) -> int:
    crew, works = stage.crew, []
    holds = dict.fromkeys(CONDITIONS, True)
    for _ in range(flips):
        flipped = chance.choice(CONDITIONS)
        holds[flipped] = not holds[flipped]
        crew.set(**{flipped: holds[flipped]})
        for condition in chance.choices(CONDITIONS, k=chance.randint(0, 2)):
            seconds = round(chance.uniform(0, 0.6), 2)
            work = stage.enqueue("brief", condition, asks=chance.random() < 0.5, seconds=seconds)
            works.append(work)
            if chance.random() < 0.3:
                crew.ring(work.ring)
        time.sleep(chance.uniform(0, LONGEST_PAUSE))
    crew.set(**dict.fromkeys(CONDITIONS, True))
    crew.beat()
    for work in works:
        eventually(lambda one=work: crew.work(one).state == "SUCCEEDED", 120, f"{work.id} has run", pause=0.1)  # type: ignore[misc]
    return len(works)


def _judged(stage: Stage) -> tuple[int, int]:
    """Every run that has begun, by its own word, was claimed while its queue was open."""
    begun = Counter(" ".join(note.split()[:2]) for note in stage.crew.notes())
    with stage.crew.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT work, attempt, closed FROM noted ORDER BY rowid").all()
    noted = {f"{work} {attempt}": bool(closed) for work, attempt, closed in rows}
    assert [run for run, times in begun.items() if times > 1] == [], "a try begins once"
    assert begun.keys() <= noted.keys()
    assert [run for run in begun if noted[run]] == [], "what began while its queue was closed"
    return len(rows), sum(bool(closed) for _, _, closed in rows)
