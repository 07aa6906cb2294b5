"""An upload over a metered link, through a real worker and server: it stops when the budget is used up, and goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.bell import SilentBell
from backhaul.clock import SystemClock
from backhaul.files import Media
from backhaul.media import uploads
from backhaul.remotes import traffic
from backhaul.remotes.http import HttpRemote
from backhaul.replica import enrol
from backhaul.work import ledger
from config.credentials import write_token
from config.queues import declared, upload_requires
from tests.crew import CONFIGURATION, Crew, folder
from tests.replicas import SHOP
from tests.services import sync_server
from tests.waiting import eventually

SIZE = 40 * 2**20
BUDGET = """
[budget]
day = "300kB"
"""


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    home = folder("home")
    with sync_server(tmp_path / "server") as server:
        with sqlite3.connect(home / "shop.db") as app:
            app.executescript(SHOP)
        app.close()
        written = CONFIGURATION.replace("http://127.0.0.1:1", server.url)
        written = written.replace('requires = ["unmetered"]', 'requires = ["connected"]\nchunk = "64KiB"')
        crew = Crew(home, configuration=written.replace(', "unmetered"]', "]") + BUDGET)
        remote, clock = HttpRemote(server.url), SystemClock()
        enrolled = enrol.enrol(
            crew.database,
            remote,
            code=server.enrol(),
            url=server.url,
            home=str(home),
            name="home",
            names=[],
            clock=clock,
        )
        remote.close()
        write_token(crew.settings.state, enrolled.registered.token)
        yield crew
        crew.end(now=True)


def test_an_upload_waits_once_the_days_bytes_are_used_up_and_goes_on_when_there_are_more(
    crew: Crew, tmp_path: Path
) -> None:
    film = tmp_path / "film"
    film.write_bytes(b"0123456789abcdef" * (SIZE // 16))
    crew.set(unmetered=False)
    crew.worker(queues="media")
    bell = SilentBell(declared(crew.settings), upload_requires(crew.settings))
    this = Media(crew.database, bell, SystemClock()).put(film)

    def row() -> ledger.Work:
        with crew.database.reading() as connection:
            found = ledger.get(connection, this.id)
        assert found is not None
        return found

    crew.ring(row().ring)
    eventually(lambda: crew.is_open("media") is False, 60, "the budget is used up", pause=0.1)
    stopped = eventually(lambda: work if (work := row()).state == "ENQUEUED" else None, 30, "the upload has stopped")
    assert stopped.stop_reason == "QUOTA"
    state = crew.queue("media")
    assert state is not None
    assert state.reason.startswith("budget is off (the ledger of traffic: ")
    assert "of 300 kB today" in state.reason
    now = SystemClock().now()
    with crew.database.reading() as connection:
        spent = traffic.spent(connection, crew.settings.node, traffic.local_day(now))
        sent = uploads.get(connection, this.id).sent
    assert spent.day >= 300_000
    assert 0 < sent < SIZE

    crew.set(unmetered=True)
    eventually(lambda: crew.is_open("media"), 10, "on a free link there is no budget")
    eventually(lambda: crew_sent(crew, this.id) > sent, 30, "it goes on at the byte")


def crew_sent(crew: Crew, upload_id: str) -> int:
    with crew.database.reading() as connection:
        return uploads.get(connection, upload_id).sent


def test_the_bytes_of_a_short_run_are_written_down_when_it_ends(crew: Crew, tmp_path: Path) -> None:
    photo, size = tmp_path / "photo", 100_000
    photo.write_bytes(b"0123456789" * (size // 10))
    crew.set(unmetered=False)
    crew.worker(queues="media")
    bell = SilentBell(declared(crew.settings), upload_requires(crew.settings))
    this = Media(crew.database, bell, SystemClock()).put(photo)
    with crew.database.reading() as connection:
        work = ledger.get(connection, this.id)
    assert work is not None
    crew.ring(work.ring)

    def spent() -> int:
        now = SystemClock().now()
        with crew.database.reading() as connection:
            return traffic.spent(connection, crew.settings.node, traffic.local_day(now)).day

    eventually(lambda: spent() >= size, 60, "all that the upload has sent is counted", pause=0.1)
