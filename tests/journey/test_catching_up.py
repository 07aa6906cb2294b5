"""What travels after a column was added: that column, and not the table again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backhaul.remotes.http import HttpRemote
from backhaul.replica import checkpoint, enrol
from tests.faults.proxy import Answer, PassOn, Request, proxy
from tests.replicas import make_replica
from tests.services import sync_server

ROWS = 2_000


def test_a_new_column_costs_the_bytes_of_that_column(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    chance = random.Random(7)
    with sync_server(tmp_path / "server") as server, proxy(server.url) as between:
        arrived = {"bytes": 0}

        def counted(request: Request, pass_on: PassOn) -> Answer:
            answer = pass_on()
            arrived["bytes"] += len(answer.body) if request.path.startswith("/v1/pull") else 0
            return answer

        between.rule = counted
        a, b = (make_replica(tmp_path / name, HttpRemote(between.url), code=server.enrol()) for name in ("a", "b"))
        rows = [(key, chance.randbytes(60).hex(), chance.randbytes(120)) for key in range(ROWS)]
        with a.app:
            a.app.executemany("INSERT INTO customer (id, name, photo) VALUES (?, ?, ?)", rows)
        a.write("ALTER TABLE customer ADD COLUMN grade TEXT")
        enrol.renew(a.database, a.remote)
        with a.app:
            a.app.executemany("UPDATE customer SET grade = ? WHERE id = ?", [(f"g{k % 9}", k) for k in range(ROWS)])
        a.sync()
        b.sync()
        b.write("ALTER TABLE customer ADD COLUMN grade TEXT")
        enrol.renew(b.database, b.remote)
        arrived["bytes"] = 0
        b.pull()
        new = arrived["bytes"]
        assert a.rows("customer") == b.rows("customer")
        with b.database.writing() as connection:
            checkpoint.pull_from_the_beginning(connection)
        arrived["bytes"] = 0
        b.pull()
        all_of_it = arrived["bytes"]
        record_property("bytes", f"{new} of {all_of_it}")
        print(f"a new column: {new} bytes; everything: {all_of_it} bytes")
        assert new < all_of_it / 10
        for replica in (a, b):
            replica.remote.close()
            replica.close()
