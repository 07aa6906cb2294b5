from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from backhaul.work.reading import Answer
from tests.probed import FrozenClock
from tests.waiting import eventually
from workers.probes.probe import Said
from workers.probes.server import Server


class SetLink:
    """The network as the test says it is."""

    def __init__(self) -> None:
        self.answer: Answer = "yes"
        self.portal = False

    def link(self, now: int) -> Said:
        return Said(name="connected", answer=self.answer, read_at=now, source="NetworkManager", detail="so it says")

    def captive(self) -> bool:
        return self.portal

    def settled(self) -> bool:
        return True


class Door:
    """What is connected to: a listener that comes and goes on one port, and counts who came."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self.port = 0
        self.tries = 0
        self.open()

    def open(self) -> None:
        self.shut()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self.port = self._listener.getsockname()[1]

    def shut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def found(self, host: str, port: int) -> list[tuple[int, object]]:
        """Whatever the name, it is this door."""
        self.tries += 1
        return [(socket.AF_INET, ("127.0.0.1", self.port))]


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.shut()


@pytest.fixture
def link() -> SetLink:
    return SetLink()


Make = Callable[..., Server]


@pytest.fixture
def make(door: Door, link: SetLink, clock: FrozenClock) -> Make:
    def make(remote: str = "https://sync.example.org", **given: object) -> Server:
        return Server(
            remote,
            allow_plain=False,
            link=link,
            clock=clock,
            heard=lambda: None,
            **{"resolve": door.found, "every_ms": 15_000} | given,  # type: ignore[arg-type]
        )

    return make


def looked(server: Server, clock: FrozenClock) -> Answer:
    """A look, if one is due, and what is said after it."""
    server.look(clock.now())
    eventually(lambda: not server._aside.running)
    return server.said(clock.now())[0].answer


def test_two_misses_in_a_row_are_a_no_and_one_success_is_a_yes(make: Make, door: Door, clock: FrozenClock) -> None:
    server = make()
    assert looked(server, clock) == "yes"
    door.shut()
    clock.advance(15_000)
    assert looked(server, clock) == "yes"
    clock.advance(5_000)
    assert looked(server, clock) == "no"
    door.open()
    clock.advance(5_000)
    assert looked(server, clock) == "yes"


def test_a_success_between_two_misses_makes_the_first_forgotten(make: Make, door: Door, clock: FrozenClock) -> None:
    server = make()
    for change in (door.open, door.shut, door.open, door.shut):
        change()
        clock.advance(15_000)
        assert looked(server, clock) == "yes"


def test_before_it_was_tried_twice_it_is_unknown(make: Make, door: Door, clock: FrozenClock) -> None:
    server = make()
    door.shut()
    assert server.said(clock.now())[0].answer == "unknown"
    assert looked(server, clock) == "unknown"
    clock.advance(5_000)
    assert looked(server, clock) == "no"


def test_it_is_tried_no_more_often_than_was_set(make: Make, door: Door, clock: FrozenClock) -> None:
    server = make()
    for _ in range(60):
        looked(server, clock)
        clock.advance(1_000)
    assert door.tries == 4
    door.shut()
    looked(server, clock)
    tries = door.tries
    for _ in range(60):
        clock.advance(1_000)
        looked(server, clock)
    assert door.tries == tries + 12


def test_what_was_read_is_as_old_as_the_last_look(make: Make, clock: FrozenClock) -> None:
    server = make(every_ms=60_000)
    assert looked(server, clock) == "yes"
    looked_at = clock.now()
    clock.advance(59_000)
    assert looked(server, clock) == "yes"
    said = server.said(clock.now())[0]
    assert (said.read_at, said.good_for) == (looked_at, 120_000)


def test_where_no_look_can_be_made_a_yes_grows_old(
    make: Make, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make()
    assert looked(server, clock) == "yes"
    looked_at = clock.now()
    monkeypatch.setattr(server._aside, "begin", lambda now: False)
    for _ in range(10):
        clock.advance(15_000)
        looked(server, clock)
    said = server.said(clock.now())[0]
    assert (said.answer, said.read_at, said.good_for) == ("yes", looked_at, 60_000)


def test_a_network_that_is_gone_is_a_no_at_once(make: Make, link: SetLink, clock: FrozenClock) -> None:
    server = make()
    assert looked(server, clock) == "yes"
    link.answer = "no"
    said = server.said(clock.now())[0]
    assert (said.answer, said.source) == ("no", "NetworkManager")


def test_a_network_that_is_back_is_a_yes_once_the_server_is_reached(
    make: Make, link: SetLink, clock: FrozenClock
) -> None:
    server = make()
    looked(server, clock)
    link.answer = "no"
    server.said(clock.now())
    link.answer = "yes"
    assert server.said(clock.now())[0].answer == "no"
    assert looked(server, clock) == "yes"  # at once: no time has gone by


def test_a_network_that_is_back_and_leads_nowhere_stays_a_no(
    make: Make, door: Door, link: SetLink, clock: FrozenClock
) -> None:
    server = make()
    looked(server, clock)
    link.answer = "no"
    server.said(clock.now())
    door.shut()
    link.answer = "yes"
    assert looked(server, clock) == "no"


def test_a_server_that_is_reached_over_a_link_that_nobody_manages_is_reached(
    make: Make, link: SetLink, clock: FrozenClock
) -> None:
    server = make()
    link.answer = "no"
    assert looked(server, clock) == "no"
    clock.advance(5_000)
    assert looked(server, clock) == "yes"


def test_a_network_that_is_told_of_late_makes_no_second_miss(
    make: Make, door: Door, link: SetLink, clock: FrozenClock
) -> None:
    door.shut()
    link.answer = "unknown"
    server = make()
    looked(server, clock)
    link.answer = "yes"
    assert looked(server, clock) == "unknown"
    assert door.tries == 1


def test_what_a_portal_answers_is_not_the_server(make: Make, door: Door, link: SetLink, clock: FrozenClock) -> None:
    server = make()
    link.answer, link.portal = "no", True
    for _ in range(5):
        assert looked(server, clock) == "no"
        clock.advance(5_000)
    assert door.tries == 0


def test_a_server_on_this_machine_needs_no_network(make: Make, link: SetLink, clock: FrozenClock) -> None:
    server = make("http://127.0.0.1:1")
    link.answer, link.portal = "no", True
    assert looked(server, clock) == "yes"


def test_a_name_that_hangs_is_a_miss_each_time_that_it_should_have_been_tried(
    make: Make, clock: FrozenClock, link: SetLink
) -> None:
    hanging = threading.Event()
    server = make(resolve=lambda host, port: hanging.wait(20) and [], patience=0.05)
    server.look(clock.now())
    eventually(lambda: server._aside.overdue)
    clock.advance(15_000)
    server.look(clock.now())
    assert server.said(clock.now())[0].answer == "unknown"
    clock.advance(5_000)
    server.look(clock.now())
    assert server.said(clock.now())[0].answer == "no"
    hanging.set()


def test_without_a_remote_it_is_what_networkmanager_says(make: Make, link: SetLink, clock: FrozenClock) -> None:
    server = make("")
    assert looked(server, clock) == "yes"
    link.answer = "no"
    assert looked(server, clock) == "no"


def test_a_remote_that_is_no_servers_url_is_unknown(make: Make, link: SetLink, clock: FrozenClock) -> None:
    server = make("ftp://sync.example.org")
    link.answer = "unknown"
    assert server.settled()
    assert looked(server, clock) == "unknown"


def test_the_proxy_before_the_server_is_what_is_reached(
    make: Make, door: Door, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch, link: SetLink
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{door.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    seen: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[tuple[int, object]]:
        seen.append((host, port))
        return door.found(host, port)

    server = make(resolve=resolve)
    assert looked(server, clock) == "yes"
    assert seen == [("127.0.0.1", door.port)]
    link.answer = "no"  # the server is still beyond the network
    assert server.said(clock.now())[0].answer == "no"
