"""What a host program says of its machine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from backhaul.bell import Node, SilentBell
from backhaul.database import Database
from backhaul.errors import Misused
from backhaul.work import conditions
from backhaul.work.node_conditions import NodeConditions


class KioskBell(SilentBell):
    def __init__(self) -> None:
        super().__init__()
        self.node = Node(name="kiosk", conditions={"unmetered": False})


@pytest.fixture
def kiosk(database: Database, clock: Any) -> NodeConditions:
    return NodeConditions(database, KioskBell(), clock)


def test_what_is_published_holds_on_this_node_until_it_is_withdrawn(kiosk: NodeConditions, database: Database) -> None:
    kiosk.publish("charging", False)
    kiosk.publish("unmetered", True)
    held = kiosk.in_force()
    assert (held["charging"].value, held["charging"].source, held["charging"].node) == (False, "published", "kiosk")
    assert (held["unmetered"].value, held["connected"].source) == (True, "default")
    with database.reading() as connection:
        assert conditions.overrides(connection, held["charging"].since or 0, "attic") == {}
    assert kiosk.withdraw("charging")
    assert not kiosk.withdraw("charging")
    assert kiosk.in_force()["charging"].source == "default"


def test_what_is_published_for_a_while_is_said_again_in_time_or_over(kiosk: NodeConditions, clock: Any) -> None:
    began = clock.now()
    kiosk.publish("charging", False, for_=timedelta(minutes=5))
    clock.advance(240_000)
    kiosk.publish("charging", False, for_=timedelta(minutes=5))
    clock.advance(240_000)
    held = kiosk.in_force()["charging"]
    assert (held.value, held.since, held.expires_at) == (False, began, began + 540_000)
    clock.advance(60_000)
    assert kiosk.in_force()["charging"].value


def test_a_person_goes_before_the_program(kiosk: NodeConditions, database: Database, clock: Any) -> None:
    kiosk.publish("charging", False)
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", True, now=clock.now(), node="kiosk")
    assert kiosk.in_force()["charging"].source == "override"
    kiosk.withdraw("charging")
    assert kiosk.in_force()["charging"].source == "override"


@pytest.mark.parametrize(
    ("name", "value", "for_"),
    [
        ("chargin", True, None),
        ("region:eu", True, None),
        ("charging", "off", None),
        ("charging", True, timedelta(0)),
        ("charging", True, timedelta(seconds=-1)),
        ("charging", True, 300),
    ],
)
def test_what_makes_no_sense_is_refused(kiosk: NodeConditions, name: str, value: Any, for_: Any) -> None:
    with pytest.raises(Misused) as caught:
        kiosk.publish(name, value, for_=for_)
    assert caught.value.hint
    assert {one.source for one in kiosk.in_force().values()} == {"default", "configured"}
