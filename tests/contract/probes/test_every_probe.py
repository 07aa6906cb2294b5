"""What holds for every probe, whatever its source."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest

from backhaul.work.reading import Answer
from config.settings import PROBED
from tests.contract.probes.cases import Case
from tests.probed import FrozenClock
from tests.waiting import eventually

POLL_MS = 16_000  # longer than any probe leaves between two looks


def answers(case: Case, clock: FrozenClock) -> Mapping[str, Answer]:
    return {said.name: said.answer for said in case.probe.said(clock.now())}


def becomes(case: Case, clock: FrozenClock, wanted: Mapping[str, Answer]) -> None:
    """As its owner does, it is let look whenever something may be due."""

    def there() -> bool:
        if not case.signalled:
            clock.advance(POLL_MS)
        case.probe.look(clock.now())
        return wanted.items() <= answers(case, clock).items()

    eventually(there, 10, f"the answers are {wanted}")


def test_its_names_are_of_conditions(case: Case) -> None:
    assert case.probe.names
    assert set(case.probe.names) <= set(PROBED)


def test_what_was_never_asked_is_unknown(case: Case, clock: FrozenClock) -> None:
    if not case.signalled:  # what signals is asked in the bus's own time
        assert set(answers(case, clock).values()) == {"unknown"}


def test_it_answers_once_for_each_of_its_names(case: Case, clock: FrozenClock) -> None:
    case.probe.look(clock.now())
    eventually(case.probe.settled, what="it has looked")
    said = case.probe.said(clock.now())
    assert [one.name for one in said] == list(case.probe.names)
    assert answers(case, clock) == case.says
    assert all(one.source and one.detail and one.read_at == clock.now() for one in said)


def test_what_flips_is_heard(case: Case, clock: FrozenClock, heard: threading.Event) -> None:
    becomes(case, clock, case.says)
    heard.clear()
    case.flips()
    becomes(case, clock, case.flipped)
    assert heard.wait(60)


def test_what_its_source_does_not_tell_any_more_is_not_believed(case: Case, clock: FrozenClock) -> None:
    becomes(case, clock, case.says)
    case.hangs()
    becomes(case, clock, case.hanging)


def test_a_source_that_tells_again_is_believed_again(case: Case, clock: FrozenClock) -> None:
    becomes(case, clock, case.says)
    case.hangs()
    becomes(case, clock, case.hanging)
    case.recovers()
    becomes(case, clock, case.says)


def test_a_source_that_hangs_holds_nobody_up(case: Case, clock: FrozenClock) -> None:
    slowest = 0.0

    def unknown() -> bool:
        nonlocal slowest
        clock.advance(POLL_MS)
        begun = time.monotonic()
        case.probe.look(clock.now())
        said = answers(case, clock)
        slowest = max(slowest, time.monotonic() - begun)
        return case.hanging.items() <= said.items()

    case.hangs()
    eventually(unknown, what="the source is given up")
    assert slowest < 5  # what hangs here hangs for 20


def test_looks_that_hang_do_not_pile_up(case: Case, clock: FrozenClock) -> None:
    before = threading.active_count()
    case.hangs()
    for _ in range(20):
        clock.advance(POLL_MS)
        case.probe.look(clock.now())
    assert threading.active_count() <= before + 1


@pytest.mark.parametrize("by_ms", [-86_400_000, 86_400_000])
def test_a_clock_that_was_set_anew_stops_nothing(case: Case, clock: FrozenClock, by_ms: int) -> None:
    becomes(case, clock, case.says)
    clock.advance(by_ms)
    case.flips()
    becomes(case, clock, case.flipped)
