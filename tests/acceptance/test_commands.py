"""Commands for what needs a person, typed: what is parked or set aside, files that failed, the server's own. For each
what it answers, in words and in JSON, what it changes; and bad input: an exit status, a message, a hint, no change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backhaul.media import uploads
from tests.acceptance.conftest import Server, backhaul, contents, execute, joined, make_home, rows, synced
from workers.cli.here import opened

RULES = '[tables.article]\nmerge = {stock = "counter", price = "server_wins"}\n'
ARTICLE = "CREATE TABLE article (code TEXT PRIMARY KEY, stock INTEGER, price TEXT);"


def state(home: Path) -> dict[str, Any]:
    return dict(backhaul("status", "--json", home=home).json)


def refused(*words: str, home: Path | None, status: int = 2) -> str:
    """What a command says that changes nothing."""
    before = rows(home, "SELECT id, state, key, fields FROM backhaul_outbox ORDER BY id") if home else []
    said = backhaul(*words, home=home)
    assert said.status == status, said
    assert said.err.startswith("error: "), said
    assert "hint: " in said.err, said
    if home:
        assert rows(home, "SELECT id, state, key, fields FROM backhaul_outbox ORDER BY id") == before
    return said.err


# ------------------------------------------------------------------------------------------------ parked


@pytest.fixture
def taken(replica: Path, server: Server, tmp_path: Path) -> tuple[Path, Path, str]:
    """Two replicas that have made a customer 9 each; the second one's is parked under this op."""
    other = joined(make_home(tmp_path / "other"), server, scope=str(replica))
    for one, name in ((replica, "Here"), (other, "There")):
        execute(one, f"INSERT INTO customer VALUES (9, '{name}', NULL)")
        execute(one, "INSERT INTO line VALUES ('A', 9, 'of both')") if one == replica else None
        synced(one)
    (parked,) = backhaul("parked", "--json", home=other).json["parked"]
    return replica, other, str(parked["op"])


def test_parked_without_a_word_lists_them_and_says_what_can_be_done(taken: tuple[Path, Path, str]) -> None:
    here, other, op = taken
    said = backhaul("parked", home=other)
    assert said.status == 0
    assert "backhaul parked remap --all" in said.out
    assert backhaul("parked", home=here).out == "nothing is parked\n"
    assert backhaul("parked", "export", home=other).json[0]["op"] == op


def test_parked_remap_gives_the_row_another_number(taken: tuple[Path, Path, str]) -> None:
    here, other, op = taken
    said = backhaul("parked", "remap", op, "--json", home=other)
    assert said.status == 0, said
    ((one),) = said.json["remapped"]
    assert (one["table"], one["old"]) == ("customer", 9)
    for home in (other, here):
        synced(home)
        found = dict(rows(home, "SELECT id, name FROM customer WHERE id >= 9"))
        assert found == {9: "Here", one["new"]: "There"}
    assert state(other)["parked"] == 0
    assert "no parked change has a key that is taken" in backhaul("parked", "remap", "--all", home=other).out


def test_parked_retry_sends_it_again_once_the_way_is_free(taken: tuple[Path, Path, str]) -> None:
    here, other, op = taken
    assert backhaul("parked", "retry", op, home=other).out == "1 change: go out again with the next push\n"
    synced(other)
    assert state(other)["parked"] == 1  # the key is still taken
    execute(here, "DELETE FROM customer WHERE id = 9")
    synced(here)
    assert backhaul("parked", "retry", "--all", "--json", home=other).json == {"retried": 1}
    synced(other)
    assert state(other)["parked"] == 0
    synced(here)
    assert rows(here, "SELECT name FROM customer WHERE id = 9") == [("There",)]


@pytest.mark.parametrize("command", ["retry", "discard", "remap"])
def test_what_is_parked_must_be_named_and_be_there(command: str, taken: tuple[Path, Path, str]) -> None:
    _, other, op = taken
    assert "name the changes, or say --all" in refused("parked", command, home=other)
    assert "name the changes, or say --all" in refused("parked", command, op, "--all", home=other)
    said = refused("parked", command, "0" * 32, home=other)
    assert "no parked change" in said
    assert "backhaul parked list" in said


@pytest.fixture
def shelf(tmp_path: Path, server: Server) -> Path:
    """A replica with counted articles; one of them was counted in letters."""
    home = make_home(tmp_path / "shelf")
    execute(home, ARTICLE)
    (home / "backhaul.toml").write_text(RULES)
    joined(home, server, scope="shelf" + str(tmp_path))
    execute(home, "INSERT INTO article VALUES ('7', 'many', NULL), ('x', 3, NULL)")
    synced(home)
    return home


def test_parked_edit_puts_a_value_right_here_and_there(shelf: Path, server: Server) -> None:
    (one,) = backhaul("parked", "list", "--json", home=shelf).json["parked"]
    assert one["reason"] == "value-invalid"
    for said, message in {
        "stock": "is not FIELD=VALUE",
        "=5": "is not FIELD=VALUE",
        "stock=many": "'many' is no INTEGER",
        "stock:=[": "is no JSON value",
        "stokc=5": "article has no column 'stokc'",
        "code=8": "is part of the primary key",
    }.items():
        assert message in refused("parked", "edit", one["op"], said, home=shelf)
    assert "no parked change" in refused("parked", "edit", "1" * 32, "stock=5", home=shelf)

    assert backhaul("parked", "edit", one["op"], "stock=5", "price:=null", "--json", home=shelf).json["edited"] >= 1
    assert rows(shelf, "SELECT stock FROM article WHERE code = '7'") == [(5,)]
    synced(shelf)
    assert state(shelf)["parked"] == 0
    assert backhaul("verify", home=shelf).status == 0


# ------------------------------------------------------------------------------------------------ aside


def test_aside_lists_what_does_not_fit_and_retries_it(replica: Path, server: Server, tmp_path: Path) -> None:
    other = joined(make_home(tmp_path / "other"), server, scope=str(replica))
    assert backhaul("aside", home=other).out == "nothing is set aside\n"
    execute(other, "CREATE UNIQUE INDEX one_phone ON customer (phone)")
    execute(replica, "INSERT INTO customer VALUES (5, 'Eve', '1')")
    synced(replica)
    synced(other)

    (one,) = backhaul("aside", "list", "--json", home=other).json["aside"]
    assert (one["table"], one["key"]) == ("customer", "[5]")
    assert "UNIQUE" in one["reason"]
    assert "UNIQUE" in backhaul("aside", home=other).out
    assert backhaul("aside", "retry", home=other).out == "0 fit now, 1 are still set aside\n"
    execute(other, "DROP INDEX one_phone")
    assert backhaul("aside", "retry", "--json", home=other).json == {"fitted": 1, "aside": 0}
    assert rows(other, "SELECT name FROM customer WHERE id = 5") == [("Eve",)]
    assert backhaul("verify", home=other).status == 0


# ------------------------------------------------------------------------------------------------ media


def test_media_retry_puts_a_parked_file_once_more(replica: Path) -> None:
    photo = replica / "photo.jpg"
    photo.write_bytes(b"light" * 1000)
    assert backhaul("media", "list", home=replica).out.startswith("no file was put yet")
    (put,) = backhaul("media", "put", "photo.jpg", "--json", home=replica).json["uploads"]
    assert "is pending, not parked" in refused("media", "retry", put["id"], home=replica)
    assert "there is no upload nothing" in refused("media", "retry", "nothing", home=replica)
    with opened(replica) as here, here.database.writing() as connection:
        assert uploads.park(connection, put["id"], reason="the file was changed", now=here.now)
    assert "the file was changed" in backhaul("media", "list", home=replica).out

    photo.write_bytes(b"more light" * 1000)
    (again,) = backhaul("media", "retry", put["id"], "--json", home=replica).json["uploads"]
    (listed,) = backhaul("media", "list", "--json", home=replica).json["uploads"]
    assert (listed["id"], listed["state"], listed["size"]) == (again["id"], "pending", 10_000)
    assert again["id"] != put["id"]
    with opened(replica) as here, here.database.writing() as connection:
        assert uploads.park(connection, again["id"], reason="the file was changed", now=here.now)
    photo.unlink()
    (kept,) = backhaul("media", "retry", again["id"], "--json", home=replica).json["uploads"]
    assert (kept["id"] != again["id"], kept["size"]) == (True, 10_000)


# ------------------------------------------------------------------------------------------------ conditions


def test_condition_list_says_who_says_so(replica: Path) -> None:
    before = {one["name"]: one for one in backhaul("condition", "list", "--json", home=replica).json["conditions"]}
    assert "override" not in before["connected"]["source"]
    assert backhaul("condition", "set", "connected", "off", home=replica).status == 0
    after = {one["name"]: one for one in backhaul("condition", "list", "--json", home=replica).json["conditions"]}
    assert not after["connected"]["on"]
    assert after["connected"]["source"] == "override"
    assert "connected" in backhaul("condition", "list", home=replica).out


# ------------------------------------------------------------------------------------------------ journeys


def test_pull_and_reconcile_by_hand(replica: Path, server: Server, tmp_path: Path) -> None:
    other = joined(make_home(tmp_path / "other"), server, scope=str(replica))
    execute(replica, "UPDATE customer SET phone = '77' WHERE id = 1")
    synced(replica)
    said = backhaul("pull", "--wait", "--json", home=other)
    assert said.json["done"]
    assert rows(other, "SELECT phone FROM customer WHERE id = 1") == [("77",)]
    execute(
        other,
        """
        UPDATE backhaul_replica SET muted = 1; DELETE FROM customer WHERE id = 2;
        UPDATE backhaul_replica SET muted = 0;
        """,
    )
    said = backhaul("reconcile", "--wait", home=other)
    assert said.status != 0
    assert "differ in customer" in said.err


# ------------------------------------------------------------------------------------------------ conflicts


def test_conflicts_without_one_and_one_that_there_is_not(replica: Path) -> None:
    assert backhaul("conflicts", "list", "--all", home=replica).out == "there is no conflict\n"
    for words in (["show", "7"], ["resolve", "7", "mine"], ["undo", "7"]):
        assert "7" in refused("conflicts", *words, home=replica)
    assert "say mine or theirs" in refused("conflicts", "resolve", "7", home=replica)
    assert "say mine or theirs" in refused("conflicts", "resolve", "7", "mine", "--set", "a=1", home=replica)
    assert "is no FIELD=VALUE" in refused("conflicts", "resolve", "7", "--set", "a", home=replica)


# ------------------------------------------------------------------------------------------------ the server's own


def test_replicas_lists_those_of_a_scope_and_revoke_shuts_one_out(replica: Path, server: Server) -> None:
    data = ("--data", str(server.data))
    me = state(replica)
    (mine,) = backhaul("replicas", *data, "--scope", me["scope"], "--json", home=replica).json
    assert mine["replica"] == me["replica"]
    assert mine["revoked_at"] is None
    listed = backhaul("replicas", *data, "--scope", me["scope"], env={"COLUMNS": "250"}).out
    assert me["replica"] in listed
    assert "good" in listed
    assert backhaul("replicas", *data, "--scope", "nobody", "--json").json == []

    assert backhaul("revoke", me["replica"], *data, "--json").json == {"revoked": me["replica"]}
    assert "revoked" in backhaul("replicas", *data, "--scope", me["scope"], env={"COLUMNS": "250"}).out
    assert "is revoked already" in refused("revoke", me["replica"], *data, home=None)
    execute(replica, "UPDATE customer SET phone = '7' WHERE id = 1")
    assert backhaul("push", "--wait", home=replica).status == 75
    assert state(replica)["pending"] == 1


@pytest.mark.parametrize(
    "words", [["replicas"], ["revoke", "somebody"], ["server-write", "customer", "1", "--fields", "{}"]]
)
def test_a_server_that_is_not_there_is_not_made(words: list[str], tmp_path: Path) -> None:
    said = backhaul(*words, "--data", str(tmp_path / "typo"), home=tmp_path)
    assert said.status == 2, said
    assert "no server" in said.err
    assert "hint: " in said.err
    assert contents(tmp_path) == {}


WRONG = {
    "no JSON": (["article", "7", "--fields", "{price"], 2, "--fields is no JSON"),
    "no object": (["article", "7", "--fields", "[1]"], 2, "--fields is no JSON object"),
    "no table": (["artcle", "7", "--fields", '{"price": "1"}'], 65, "no table artcle"),
    "no column": (["article", "7", "--fields", '{"prize": "1"}'], 65, "no column prize"),
    "half a key": (["line", "A", "--fields", '{"what": "x"}'], 65, "the key of line has 2 parts"),
    "letters in a counter": (["article", "x", "--fields", '{"stock": "many"}'], 65, "stock"),
    "another scope": (["article", "7", "--fields", "{}", "--scope", "nobody"], 2, "no scope 'nobody'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_server_write_refuses_what_cannot_be(case: str, shelf: Path, server: Server) -> None:
    words, status, message = WRONG[case]
    given = ["--scope", state(shelf)["scope"]] if "--scope" not in words else []
    said = backhaul("server-write", *words, *given, "--data", str(server.data))
    assert said.status == status, said
    assert said.err.startswith("error: ")
    assert message in said.err
    synced(shelf)
    assert rows(shelf, "SELECT price FROM article WHERE code = 'x'") == [(None,)]


def test_server_write_stands_and_arrives(shelf: Path, server: Server) -> None:
    here = ("--data", str(server.data), "--scope", state(shelf)["scope"])
    said = backhaul("server-write", "article", "x", "--fields", '{"price": "9.90", "stock": 12}', *here)
    assert said.status == 0, said
    assert said.out.startswith("written, as version ")
    execute(shelf, "UPDATE article SET price = '1.00' WHERE code = 'x'")
    synced(shelf)
    assert rows(shelf, "SELECT price, stock FROM article WHERE code = 'x'") == [("9.90", 12)]
    made = backhaul("server-write", "--fields", '{"what": "hose"}', *here, "--json", "--", "line", "B", "-1")
    assert made.json["version"] > 0
    synced(shelf)
    assert rows(shelf, "SELECT * FROM line WHERE invoice = 'B'") == [("B", -1, "hose")]


def test_server_write_takes_a_key_of_digits_for_what_its_column_is(shelf: Path, server: Server) -> None:
    """'7' is the code of an article, a text; and 1 is the number of a customer."""
    here = ("--data", str(server.data), "--scope", state(shelf)["scope"])
    assert backhaul("server-write", "article", "0815", "--fields", '{"price": "2"}', *here).status == 0
    assert backhaul("server-write", "customer", "1", "--fields", '{"phone": "911"}', *here).status == 0
    synced(shelf)
    assert rows(shelf, "SELECT price FROM article WHERE code = '0815'") == [("2",)]
    assert rows(shelf, "SELECT phone FROM customer WHERE id = 1") == [("911",)]
