"""Keys that are drawn from blocks: two replicas apart never make one key twice, however they meet in between."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import msgspec
import pytest

from backhaul.database import open_database
from backhaul.errors import TableUnfit, Unreachable
from backhaul.replica import blocks, numbering, refill, tables
from backhaul.replica.reconcile import compare
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Table, Wanted
from tests.replicas import MovedClock, Replica, make_replica
from tests.unit.replica.conftest import MakeReplica

COUNTED = "CREATE TABLE ticket (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);"
HIGHEST = "CREATE TABLE ticket (id INTEGER PRIMARY KEY /* no AUTOINCREMENT */, what TEXT DEFAULT 'AUTOINCREMENT');"


def tracked(replica: Replica) -> list[Table]:
    with replica.database.reading() as connection:
        return [one.table for one in tables.all_tracked(connection)]


def in_hand(replica: Replica) -> int:
    with replica.database.reading() as connection:
        return blocks.left(connection, tracked(replica))["ticket"]


def insert(replica: Replica, what: str = "") -> int:
    with replica.app:
        number = replica.app.execute("INSERT INTO ticket (what) VALUES (?) RETURNING id", (what,)).fetchone()[0]
    return int(number)


def insert_many(replica: Replica, count: int) -> list[int]:
    with replica.app:
        drawn = [replica.app.execute("INSERT INTO ticket DEFAULT VALUES RETURNING id").fetchone() for _ in range(count)]
    return [number for (number,) in drawn]


def taken(replica: Replica) -> list[str]:
    return [row["reason"] for row in replica.parked()]


@pytest.mark.parametrize(("schema", "keys"), [(COUNTED, "blocks"), (HIGHEST, "generated")])
def test_only_a_table_that_counts_takes_its_keys_from_blocks(make: MakeReplica, schema: str, keys: str) -> None:
    assert [table.keys for table in tracked(make("a", schema=schema))] == [keys]


def test_the_settings_can_choose_another_way_where_it_is_possible(make: MakeReplica) -> None:
    a = make(
        "a", schema=COUNTED + "CREATE TABLE plain (id INTEGER PRIMARY KEY); CREATE TABLE name (id TEXT PRIMARY KEY);"
    )
    with a.database.reading() as connection:
        found = {table.name: table for table in tracked(a)}
        assert numbering.overruled(connection, found["ticket"], "generated").keys == "generated"
        assert numbering.overruled(connection, found["plain"], "natural").keys == "natural"
        for name, said in [("plain", "blocks"), ("name", "blocks"), ("name", "generated")]:
            with pytest.raises(TableUnfit, match=f'{name}.* cannot have keys = "{said}"') as refused:
                numbering.overruled(connection, found[name], said)  # type: ignore[arg-type]
            assert refused.value.where == ("tables", name, "keys")
        assert "AUTOINCREMENT" in numbering.why(connection, found["ticket"])
        assert "said in the settings" in numbering.why(
            connection, msgspec.structs.replace(found["plain"], keys="natural")
        )


def test_two_replicas_draw_from_blocks_of_their_own_from_the_first_row_on(make: MakeReplica) -> None:
    a, b = make("a", schema=COUNTED), make("b", schema=COUNTED)
    drawn = [insert(one) for one in (a, b) for _ in range(10)]
    assert len(set(drawn)) == 20
    for one in (a, b, a):
        one.sync()
    assert a.rows("ticket") == b.rows("ticket")
    assert taken(a) == taken(b) == []


def test_rows_that_were_there_lie_below_the_first_block(make: MakeReplica) -> None:
    a = make("a", schema=COUNTED, before="INSERT INTO ticket VALUES (5000, 'old');")
    assert insert(a) > 5000


def test_rows_of_others_that_come_in_are_passed_by_before_the_next_row(make: MakeReplica) -> None:
    a, b = make("a", schema=COUNTED), make("b", schema=COUNTED)
    insert(a)
    theirs = insert(b)
    b.sync()
    a.pull()
    mine = insert(a)
    assert mine > theirs + blocks.SIZE  # not in what b still has in hand
    assert in_hand(a) >= blocks.SIZE


def test_without_a_server_the_spare_block_is_begun_before_the_open_one_runs_out(make: MakeReplica) -> None:
    a, b = make("a", schema=COUNTED), make("b", schema=COUNTED)
    a.sync()
    b.sync()
    a.remote = Away(a.remote)
    theirs = {insert(b) for _ in range(5)}
    drawn: set[int] = set()
    for _ in range(blocks.SIZE // 100 + blocks.SIZE // 200):
        drawn |= set(insert_many(a, 100))
        refill.turn(a.database, now=a.clock.now())
    assert len(drawn) == blocks.SIZE + blocks.SIZE // 2
    assert not drawn & theirs


def test_a_block_that_was_used_up_within_a_day_is_followed_by_a_larger_one(make: MakeReplica) -> None:
    a = make("a", schema=COUNTED)
    for _ in range(6):
        insert_many(a, blocks.SIZE)
        a.push()
    assert in_hand(a) > 2 * blocks.SIZE


def test_what_the_app_numbers_itself_is_passed_by(make: MakeReplica) -> None:
    a, b = make("a", schema=COUNTED), make("b", schema=COUNTED)
    a.write("INSERT INTO ticket VALUES (1000000, 'by hand')")
    a.sync()
    assert insert(a) > 1000000
    b.sync()
    assert insert(b) > 1000000
    for one in (a, b, a):
        one.sync()
    assert a.rows("ticket") == b.rows("ticket")
    assert taken(a) == taken(b) == []


def test_an_abandoned_block_is_never_drawn_from_again(make: MakeReplica) -> None:
    a = make("a", schema=COUNTED)
    before = insert(a)
    with a.database.writing() as connection:
        blocks.abandon(connection)
    a.sync()
    assert insert(a) > before + blocks.SIZE - 1


def test_numbers_that_got_lost_on_the_way_are_not_handed_out_again(make: MakeReplica) -> None:
    a = make("a", schema=COUNTED)
    given = [a.remote.blocks({"ticket": Wanted(count=10), "nothing": Wanted(count=10)}) for _ in range(3)]
    (one,), (two,), (three,) = given
    assert (two.first, three.first) == (one.last + 1, two.last + 1)


class Away(MemoryRemote):
    """A server that cannot be reached."""

    def __init__(self, remote: object) -> None:
        assert isinstance(remote, MemoryRemote)
        super().__init__(remote.server, remote.replica)

    def blocks(self, wanted: object) -> list[object]:  # type: ignore[override]
        raise Unreachable

    push = pull = records = digest = blocks  # type: ignore[assignment]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.chaos)])
def test_replicas_that_draw_apart_and_meet_now_and_then_never_draw_one_key_twice(tmp_path: Path, seed: int) -> None:
    """Three replicas, mostly away; what each draws while away is less than what it has in hand."""
    dice = random.Random(seed)
    clock = MovedClock()
    server = MemoryServer(clock)
    replicas = [
        make_replica(tmp_path / f"{name}.sqlite", MemoryRemote(server), schema=COUNTED, code=server.enrol())
        for name in "abc"
    ]
    drawn: list[int] = []
    for _ in range(80):
        one = dice.choice(replicas)
        clock.moment += dice.randrange(3_600_000)
        match dice.randrange(5):
            case 0:
                one.push()
            case 1:
                one.pull(limit=dice.choice([1, 50, 2000]))
            case 2 if drawn:
                one.write("DELETE FROM ticket WHERE id = ?", dice.choice(drawn))
            case _:
                drawn += insert_many(one, dice.randrange(min(200, in_hand(one))))
                refill.turn(one.database, now=one.clock.now())
    for one in replicas * 2:
        one.sync()
    assert len(set(drawn)) == len(drawn) > 500
    assert all(taken(one) == [] for one in replicas)
    assert all(compare(one.database, one.remote, context=one.context).equal for one in replicas)
    for one in replicas:
        one.close()


def test_a_row_from_before_init_does_not_give_way_to_one_that_was_inserted_elsewhere(make: MakeReplica) -> None:
    a = make("a", schema=HIGHEST)
    insert(a, "made by a")
    a.sync()
    b = make("b", schema=HIGHEST, before="INSERT INTO ticket VALUES (1, 'older'), (2, 'of b');")
    b.sync()
    assert b.rows("ticket") == [(1, "older"), (2, "of b")]
    assert taken(b) == ["key-taken"]
    a.sync()
    assert a.rows("ticket") == [(1, "made by a"), (2, "of b")]


def test_a_copy_of_a_database_draws_from_blocks_of_its_own_once_it_is_told_apart(
    server: MemoryServer, make: MakeReplica, tmp_path: Path
) -> None:
    a, b = make("a", schema=COUNTED), make("b", schema=COUNTED)
    insert(a)
    a.sync()
    path = tmp_path / "copy.sqlite"
    with sqlite3.connect(path) as target:
        a.app.backup(target)
    target.close()
    copy = Replica(
        database=open_database(f"sqlite:///{path}"),
        remote=MemoryRemote(server, a.remote.replica),
        path=path,
        app=sqlite3.connect(path),
    )
    try:
        for each in (a, copy):
            each.write("UPDATE ticket SET what = ?", each.path.name)
            each.sync()
        who = "SELECT replica FROM backhaul_replica"
        assert a.app.execute(who).fetchone() != copy.app.execute(who).fetchone()
        ours, theirs = ({insert(each) for _ in range(blocks.SIZE)} for each in (a, copy))
        assert not ours & theirs
        for each in (a, copy, a, b):
            each.sync()
        assert (taken(a), taken(copy)) == ([], [])
        assert a.rows("ticket") == copy.rows("ticket") == b.rows("ticket")
        assert len(b.rows("ticket")) == 1 + 2 * blocks.SIZE
    finally:
        copy.close()
