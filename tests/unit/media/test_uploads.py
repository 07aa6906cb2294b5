"""The ledger of uploads: every verb from every state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Unknown
from backhaul.media import uploads
from backhaul.media.uploads import STATES, State, Upload
from tests.unit.media.conftest import NOW

URL = "/v1/media/a"

Verb = Callable[[Connection, str], bool]

VERBS: dict[str, tuple[Verb, dict[State, State]]] = {
    "begin": (lambda c, i: uploads.begin(c, i, url="/v1/media/b"), {"pending": "sending"}),
    "advance": (
        lambda c, i: uploads.advance(c, i, url=URL, sent=3, queue="media", worker="w"),
        {"sending": "sending"},
    ),
    "advance of another upload": (
        lambda c, i: uploads.advance(c, i, url="/v1/media/old", sent=3, queue="media", worker="w"),
        {},
    ),
    "take": (uploads.take, {"pending": "pending", "sending": "sending"}),
    "begin by who lost it": (lambda c, i: uploads.begin(c, i, url="/v1/media/b", fence=7), {}),
    "advance by who lost it": (
        lambda c, i: uploads.advance(c, i, url=URL, sent=3, queue="media", worker="w", fence=7),
        {},
    ),
    "restart by who lost it": (lambda c, i: uploads.restart(c, i, url=URL, reason="x", fence=7), {}),
    "park by who lost it": (lambda c, i: uploads.park(c, i, reason="gone", now=NOW, fence=7), {}),
    "restart": (lambda c, i: uploads.restart(c, i, url=URL, reason="forgotten"), {"sending": "pending"}),
    "restart of another upload": (lambda c, i: uploads.restart(c, i, url="/v1/media/old", reason="x"), {}),
    "confirm": (
        lambda c, i: uploads.confirm(c, i, modified_ns=9),
        {"pending": "pending", "sending": "sending"},
    ),
    "finish": (lambda c, i: uploads.finish(c, i, now=NOW), {"pending": "done", "sending": "done"}),
    "park": (
        lambda c, i: uploads.park(c, i, reason="gone", now=NOW),
        {"pending": "parked", "sending": "parked"},
    ),
}


def an_upload(state: State, upload_id: str = "u") -> Upload:
    url = URL if state == "sending" else None
    return Upload(
        id=upload_id,
        path="/photos/1.jpg",
        name="1.jpg",
        media_type="image/jpeg",
        size=10,
        sha256="ab",
        modified_ns=1,
        created_at=NOW,
        state=state,
        url=url,
    )


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_leads_out_of_its_states_and_no_other(database: Database, name: str, state: State) -> None:
    verb, ways = VERBS[name]
    before = an_upload(state)
    with database.writing() as connection:
        uploads.register(connection, before)
        assert verb(connection, "u") is (state in ways)
        after = uploads.get(connection, "u")
    assert after.state == ways.get(state, state)
    if state not in ways:
        assert after == before


def test_a_finished_upload_has_every_byte_and_its_time(database: Database) -> None:
    with database.writing() as connection:
        uploads.register(connection, an_upload("sending"))
        uploads.finish(connection, "u", now=NOW + 5)
        upload = uploads.get(connection, "u")
    assert (upload.sent, upload.finished_at, upload.reason) == (10, NOW + 5, None)


def test_an_upload_that_begins_anew_has_sent_nothing_and_says_why(database: Database) -> None:
    with database.writing() as connection:
        uploads.register(connection, an_upload("sending"))
        uploads.advance(connection, "u", url=URL, sent=7, queue="media", worker="w")
        uploads.restart(connection, "u", url=URL, reason="forgotten")
        upload = uploads.get(connection, "u")
    assert (upload.sent, upload.url, upload.reason) == (0, None, "forgotten")


def test_uploads_are_listed_and_counted_by_state(database: Database) -> None:
    with database.writing() as connection:
        states: list[State] = ["pending", "pending", "done"]
        for number, state in enumerate(states):
            uploads.register(connection, an_upload(state, f"u{number}"))
        assert uploads.counts(connection) == {"pending": 2, "sending": 0, "done": 1, "parked": 0}
        assert [upload.id for upload in uploads.listed(connection)] == ["u2", "u1", "u0"]
        assert [upload.id for upload in uploads.listed(connection, state="pending", most=1)] == ["u1"]


def test_an_unknown_upload_is_named(database: Database) -> None:
    with database.reading() as connection, pytest.raises(Unknown, match="nowhere"):
        uploads.get(connection, "nowhere")
