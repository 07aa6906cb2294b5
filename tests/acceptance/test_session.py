"""A session as a program has it: from the engine alone, with what `init` has kept."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from backhaul import Backhaul
from backhaul.errors import Busy, SignInRequired, TableAltered
from tests.acceptance.conftest import execute, rows
from tests.unit.remotes.stub import reply, stub


def test_a_server_that_asks_a_session_to_leave_it_alone_is_left_alone_by_all(replica: Path) -> None:
    with stub(reply(429, b"", retry_after="60")) as busy:
        settings = replica / "backhaul.toml"
        settings.write_text(re.sub(r'(?m)^remote = ".*"$', f'remote = "{busy.url}"', settings.read_text()))
        client = Backhaul(create_engine(f"sqlite:///{replica}/shop.db"))
        with closing(client), pytest.raises(Busy):
            client.session().download_all_server_changes(timeout=10)
        status = client.status()
        assert status.held_until is not None
        asked = len(busy.requests)
        with pytest.raises(Busy, match="asked to be left alone"):
            client.session().upload_all_local_changes(timeout=10)
        assert len(busy.requests) == asked


def test_a_session_without_credentials_asks_to_sign_in(replica: Path) -> None:
    (replica / ".backhaul" / "token").unlink()
    client = Backhaul(create_engine(f"sqlite:///{replica}/shop.db"))
    with closing(client), pytest.raises(SignInRequired) as caught, client.session():
        pass
    assert caught.value.hint


def test_a_table_that_has_grown_goes_on_and_one_that_lost_a_trigger_asks_for_a_person(replica: Path) -> None:
    execute(replica, "ALTER TABLE customer ADD COLUMN nick TEXT")
    execute(replica, "UPDATE customer SET nick = 'a' WHERE id = 1")
    client = Backhaul(create_engine(f"sqlite:///{replica}/shop.db"))
    with closing(client), client.session() as session:
        assert session.upload_all_local_changes(timeout=60).parked == 0
        session.download_all_server_changes(timeout=60)
        assert client.status().pending == 0
        assert rows(replica, "SELECT nick FROM customer WHERE id = 1") == [("a",)]
        execute(replica, "DROP TRIGGER backhaul_insert_customer; ALTER TABLE customer ADD COLUMN more TEXT")
        with pytest.raises(TableAltered):
            session.download_all_server_changes(timeout=60)
