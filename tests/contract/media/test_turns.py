"""Whose turn it is among the uploads that wait."""

from __future__ import annotations

import pytest

from backhaul.media import turns
from backhaul.media.turns import Order
from backhaul.media.uploads import Upload
from backhaul.work import ledger
from tests.contract.media.conftest import KIB, Camera


def before(camera: Camera, this: Upload, order: Order = "small") -> str | None:
    with camera.desk.database.reading() as connection:
        first = turns.before(connection, this.id, queue="media", now=camera.desk.now, order=order)
    return None if first is None else first[0]


def in_turn(camera: Camera, order: Order) -> list[Upload]:
    with camera.desk.database.reading() as connection:
        return turns.waiting(connection, queue="media", now=camera.desk.now, order=order, most=10)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("small", "urgent new old film clip"), ("new", "urgent new film old clip"), ("old", "urgent clip old film new")],
)
def test_priority_goes_before_the_order_that_is_set(camera: Camera, order: Order, expected: str) -> None:
    for name, size, priority in (("clip", 300, 0), ("old", 1, 0), ("film", 400, 0), ("urgent", 500, 1), ("new", 2, 0)):
        camera.put(b"x" * size * KIB, name=name, priority=priority)
    assert [one.name for one in in_turn(camera, order)] == expected.split()


def test_what_comes_first_is_let_ahead_until_it_is_ones_turn(camera: Camera) -> None:
    film, small, urgent = camera.put(b"x" * 300 * KIB), camera.put(b"small"), camera.put(b"urgent", priority=5)
    assert before(camera, film) == before(camera, small) == urgent.id
    assert before(camera, urgent) is None
    camera.run(urgent)
    assert before(camera, film) is None  # the small one was taken along


def test_only_what_could_be_sent_now_is_let_ahead(camera: Camera) -> None:
    film, small = camera.put(b"x" * 300 * KIB), camera.put(b"small")
    assert before(camera, film) == small.id
    row = camera.desk.claim(small.id)
    assert before(camera, film) is None
    assert before(camera, small) is None  # it does not wait itself
    camera.desk.settle(ledger.retry, row, error="no answer")
    assert before(camera, film) is None
