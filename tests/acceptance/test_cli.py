"""The command line, typed: what it answers, and what bad input gets: an exit status, a message, a hint, and nothing
changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.acceptance.conftest import (
    Server,
    backhaul,
    contents,
    execute,
    joined,
    make_home,
    rows,
    started,
    synced,
)
from tests.services import free_port

KEYS = {"pending", "parked", "conflicts", "oldest_pending_seconds", "last_push_at", "last_pull_at", "queues"}


# ------------------------------------------------------------------------------------------------ a refused init


@pytest.fixture(scope="module")
def web_site() -> Iterator[str]:
    """A server that is none of ours."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>Welcome</h1>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


REFUSED = {
    "an unknown table": (["--table", "custmer"], 2, "there is no table 'custmer'", "customer"),
    "a table without a primary key": (["--table", "log"], 2, "'log' has no primary key", "give 'log' a primary key"),
    "a code that nobody made": (["--code", "AAAAA-AAAAA-AAAAA-AAAAA"], 65, "unknown, used or expired", ""),
    "plain http to another machine": (
        ["--remote", "http://sync.example.org"],
        2,
        "plain http to another machine",
        "https",
    ),
    "a remote that is no URL": (["--remote", "sync.example.org"], 2, "the remote's URL cannot be read", "https://"),
    "a database that is not there": (
        ["--database", "sqlite:///nothing.db"],
        2,
        "there is no database",
        "sqlite:///FILE",
    ),
    "a file that is no database": (["--database", "sqlite:///notes.txt"], 2, "not a database", "SQLite"),
    "a database that is not supported": (["--database", "mysql://localhost/shop"], 2, "", "sqlite:///FILE"),
    "half of the options": (["--code", ""], 2, "go together", "backhaul init --database"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_init_refuses_and_changes_nothing(case: str, home: Path, server: Server) -> None:
    (home / "notes.txt").write_text("no database, whatever its name says\n" * 100)
    options, status, message, hint = REFUSED[case]
    given = {"--database": "sqlite:///shop.db", "--remote": server.url, "--code": server.code("refused")}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    before = contents(home)

    said = backhaul("init", *(word for pair in given.items() for word in pair if pair[1]), home=home)

    assert said.status == status, said
    assert said.err.startswith("error: ")
    assert message in said.err
    assert hint in said.err
    assert contents(home) == before


def test_init_refuses_a_remote_that_does_not_answer(home: Path) -> None:
    before = contents(home)
    remote = f"http://127.0.0.1:{free_port()}"

    said = backhaul("init", "--database", "sqlite:///shop.db", "--remote", remote, "--code", "X", home=home)

    assert said.status == 75
    assert f"error: {remote} cannot be reached" in said.err
    assert "hint: check the URL of the remote" in said.err
    assert contents(home) == before


def test_init_refuses_a_remote_that_is_another_web_server(home: Path, web_site: str) -> None:
    before = contents(home)

    said = backhaul("init", "--database", "sqlite:///shop.db", "--remote", web_site, "--code", "X", home=home)

    assert said.status == 75
    assert "does not answer like a Backhaul server" in said.err
    assert contents(home) == before


BROKEN = {
    "no TOML": ("[sync\npull_every = 3\n", "line 1", ""),
    "a duration that is none": ('[sync]\n\npull_every = "soon"\n', "line 3: sync.pull_every", "30s"),
    "a setting that there is not": ("[media]\nchunks = 4\n", "line 2: media.chunks: there is no such setting", ""),
    "a condition that there is not": (
        '[queues.media]\ntags = ["unmeterd"]\n',
        "line 2: queues.media.tags",
        "unmetered",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("command", ["init", "status"])
def test_a_broken_backhaul_toml_is_told_by_line_and_field(case: str, command: str, home: Path, server: Server) -> None:
    text, place, hint = BROKEN[case]
    (home / "backhaul.toml").write_text(text)
    before = contents(home)
    options = ["--database", "sqlite:///shop.db", "--remote", server.url, "--code", "X"] if command == "init" else []

    said = backhaul(command, *options, home=home)

    assert said.status == 2
    assert place in said.err
    assert hint in said.err
    assert contents(home) == before


def test_a_second_init_is_refused_and_changes_nothing(replica: Path, server: Server) -> None:
    before = contents(replica)

    said = backhaul(
        "init", "--database", "sqlite:///shop.db", "--remote", server.url, "--code", server.code("x"), home=replica
    )

    assert said.status == 2
    assert "nothing was changed" in said.err
    assert "hint: after altering tables run `backhaul init` without --remote and --code" in said.err
    assert contents(replica) == before


def test_init_keeps_the_settings_that_were_written_before_it(home: Path, server: Server) -> None:
    (home / "backhaul.toml").write_text('[sync]\npull_every = "7s"  # ours\n')

    joined(home, server, scope="settings")

    text = (home / "backhaul.toml").read_text()
    assert text.startswith('[sync]\npull_every = "7s"  # ours\n')
    assert server.url in text


def test_init_says_which_tables_are_left_out_and_why(home: Path, server: Server) -> None:
    said = backhaul(
        *("init", "--json", "--database", "sqlite:///shop.db"),
        *("--remote", server.url, "--code", server.code("left out")),
        home=home,
    )

    assert {one["name"]: one["keys"] for one in said.json["tables"]} == {"customer": "generated", "line": "natural"}
    assert "'log' has no primary key" in said.json["left_out"][0]["reason"]
    assert (home / ".backhaul" / "token").stat().st_mode & 0o777 == 0o600


# ------------------------------------------------------------------------------------------------ on a replica


def test_a_folder_without_a_replica_says_how_to_make_one(tmp_path: Path) -> None:
    for command in ("status", "push", "up", "doctor", "verify"):
        said = backhaul(command, home=tmp_path)
        assert said.status == 2, command
        assert "holds no replica" in said.err
        assert "hint: backhaul init --database URL --remote URL --code CODE" in said.err
    assert contents(tmp_path) == {}


def test_errors_are_json_where_json_is_asked_for(tmp_path: Path) -> None:
    said = backhaul("status", "--json", home=tmp_path)
    assert said.status == 2
    assert said.json["error"]["code"] == "not-initialised"
    assert said.json["error"]["hint"].startswith("backhaul init")
    assert backhaul("status", "--json", "--loud", home=tmp_path).json["error"]["code"] == "misused"


def test_a_replica_whose_token_is_lost_or_revoked_is_signed_in_again_and_keeps_what_waits(
    replica: Path, server: Server
) -> None:
    data = ("--data", str(server.data))
    before = backhaul("status", "--json", home=replica).json
    was = before["replica"]
    execute(replica, "UPDATE customer SET phone = '7' WHERE id = 1")
    assert backhaul("revoke", was, *data).out == f"{was} is revoked\n"
    assert backhaul("revoke", was, *data).status == 2
    assert backhaul("verify", home=replica).status == 77
    (replica / ".backhaul" / "token").unlink()

    assert backhaul("init", "--code", "AAAAA-AAAAA-AAAAA-AAAAA", home=replica).status == 65
    elsewhere = backhaul("enroll", "--scope", "elsewhere", *data).out.strip()
    assert f"--scope {before['scope']}" in backhaul("init", "--code", elsewhere, home=replica).err
    code = backhaul("enroll", "--scope", before["scope"], *data).out.strip()
    done = backhaul("init", "--code", code, "--json", home=replica)
    assert done.status == 0, (done.out, done.err)
    said = done.json

    assert said["was"] == was
    assert backhaul("sync", "--wait", home=replica).status == 0
    status = backhaul("status", "--json", home=replica).json
    assert (status["replica"], status["pending"]) == (said["replica"], 0)
    listed = {row["replica"]: row for row in backhaul("replicas", "--json", *data).json}
    assert listed[was]["revoked_at"] is not None
    assert listed[said["replica"]]["predecessor"] == was
    assert listed[said["replica"]]["revoked_at"] is None


def test_a_code_stands_alone_on_its_line(server: Server) -> None:
    said = backhaul("enroll", "--data", str(server.data))
    assert said.out.count("\n") == 1
    assert " " not in said.out


def test_status_says_what_waits(replica: Path) -> None:
    execute(replica, "UPDATE customer SET phone = '3' WHERE id = 1")
    status = backhaul("status", "--json", home=replica).json
    assert KEYS | {"workers", "work"} <= set(status)
    assert status["pending"] == 1
    assert status["oldest_pending_seconds"] >= 0
    assert {queue["name"] for queue in status["queues"]} == {"sync", "media", "maintenance", "background"}
    assert all(set(queue) >= {"name", "tags", "open", "reason"} for queue in status["queues"])
    assert "1 pending" in backhaul("status", home=replica).out


def test_without_a_worker_sync_runs_here_and_leaves_nothing_pending(replica: Path) -> None:
    execute(replica, "INSERT INTO line VALUES ('B', 1, 'seal'), ('B', 2, 'pipe')")
    said = backhaul("sync", "--wait", home=replica)
    assert said.status == 0
    assert "it ran in this process" in said.out
    assert backhaul("status", "--json", home=replica).json["pending"] == 0


WHY: dict[str, tuple[list[str], int, str]] = {
    "a number": (["customer", "1"], 0, "pending: update captured"),
    "a composite key": (["line", '["A", 1]'], 0, "synced: "),
    "a composite key that is not whole": (["line", "A"], 2, "the key of line is (invoice, position)"),
    "no number": (["customer", "Ada"], 2, "a whole number, not 'Ada'"),
    "no record": (["customer", "77"], 2, "there is no record [77] in customer"),
    "no table": (["log", "1"], 2, "table 'log' is not synced"),
    "work": (["pull"], 0, "ENQUEUED: "),
    "no work": (["nothing"], 2, "there is no work 'nothing'"),
}


@pytest.mark.parametrize("case", WHY)
def test_why_answers_in_one_line(case: str, replica: Path) -> None:
    execute(replica, "UPDATE customer SET phone = '4' WHERE id = 1")
    words, status, line = WHY[case]
    said = backhaul("why", *words, home=replica)
    assert said.status == status
    assert line in (said.err if status else said.out)
    if not status:
        assert said.out.count("\n") == 1


def test_a_condition_that_is_off_keeps_work_waiting_and_why_says_so(replica: Path) -> None:
    execute(replica, "UPDATE customer SET phone = '5' WHERE id = 1")
    assert backhaul("condition", "set", "connected", "off", "--for", "2h", home=replica).status == 0

    said = backhaul("push", "--wait", home=replica)

    assert said.status == 75
    assert "waits for connected (off by override" in said.err
    assert "waits for connected (off by override" in backhaul("why", "customer", "1", home=replica).out
    closed = {queue["name"]: queue for queue in backhaul("status", "--json", home=replica).json["queues"]}["sync"]
    assert not closed["open"]
    assert "connected is off" in closed["reason"]
    assert backhaul("condition", "clear", "connected", "--json", home=replica).json["on"]
    assert backhaul("push", "--wait", home=replica).status == 0


def test_conditions_that_there_are_not_are_refused(replica: Path) -> None:
    said = backhaul("condition", "set", "unmeterd", "off", home=replica)
    assert said.status == 2
    assert "did you mean unmetered?" in said.err
    assert backhaul("condition", "set", "unmetered", "perhaps", home=replica).status == 2
    assert backhaul("condition", "set", "unmetered", "off", "--for", "a while", home=replica).status == 2


def test_a_table_that_was_altered_stops_everything_until_init_renews_it(replica: Path) -> None:
    execute(replica, "ALTER TABLE customer ADD COLUMN email TEXT; UPDATE customer SET phone = '6' WHERE id = 1")

    said = backhaul("push", "--wait", home=replica)
    assert said.status == 2
    assert "altered since `backhaul init`: customer" in said.err
    assert "hint: run: backhaul init" in said.err
    assert backhaul("status", "--json", home=replica).json["altered"] == ["customer"]
    assert backhaul("doctor", home=replica).status == 1

    assert "renewed: customer" in backhaul("init", home=replica).out
    assert "nothing was changed" in backhaul("init", home=replica).out
    assert backhaul("sync", "--wait", home=replica).status == 0
    assert backhaul("verify", home=replica).status == 0


def test_a_table_is_added_by_init(home: Path, server: Server) -> None:
    code = server.code("added")
    backhaul(
        *("init", "--database", "sqlite:///shop.db", "--remote", server.url, "--code", code, "--table", "customer"),
        home=home,
    )
    assert "renewed: line" in backhaul("init", "--table", "line", home=home).out
    assert backhaul("sync", "--wait", home=home).status == 0
    assert {one["table"] for one in backhaul("verify", "--json", home=home).json["tables"]} == {"customer", "line"}


def test_a_token_that_is_not_valid_keeps_what_waits(replica: Path) -> None:
    token = replica / ".backhaul" / "token"
    token.write_text("not-the-token\n")
    execute(replica, "UPDATE customer SET phone = '7' WHERE id = 1")

    said = backhaul("push", "--wait", home=replica)

    assert said.status == 75
    assert "does not accept this replica's token" in said.err
    assert backhaul("status", "--json", home=replica).json["pending"] == 1
    assert backhaul("verify", home=replica).status == 77


def test_verify_finds_what_differs(replica: Path) -> None:
    assert backhaul("verify", home=replica).status == 0
    execute(
        replica,
        """
        UPDATE backhaul_replica SET muted = 1;
        UPDATE customer SET name = 'Mallory' WHERE id = 2;
        UPDATE backhaul_replica SET muted = 0;
        """,
    )
    said = backhaul("verify", home=replica)
    assert said.status == 1
    assert "different: customer" in said.out
    execute(replica, "UPDATE customer SET phone = '8' WHERE id = 1")
    assert backhaul("verify", home=replica).status == 75


def test_two_new_rows_under_one_generated_key_are_never_merged(replica: Path, server: Server, tmp_path: Path) -> None:
    other = joined(make_home(tmp_path / "other"), server, scope=str(replica))
    execute(replica, "INSERT INTO customer VALUES (9, 'Here', NULL)")
    execute(other, "INSERT INTO customer VALUES (9, 'There', NULL)")
    assert backhaul("sync", "--wait", home=replica).status == 0
    assert backhaul("sync", "--wait", home=other).status == 0

    parked = backhaul("parked", "list", "--json", home=other).json["parked"]
    assert [(one["key"], one["reason"]) for one in parked] == [([9], "key-taken")]
    assert "parked: key-taken" in backhaul("why", "customer", "9", home=other).out
    assert rows(other, "SELECT name FROM customer WHERE id = 9") == [("There",)]

    exported = other / "parked.json"
    assert backhaul("parked", "export", "--out", str(exported), home=other).status == 0
    assert json.loads(exported.read_text())[0]["fields"]["name"] == "There"
    assert backhaul("parked", "discard", home=other).status == 2
    assert backhaul("parked", "discard", parked[0]["op"], home=other).status == 0
    assert rows(other, "SELECT name FROM customer WHERE id = 9") == [("Here",)]
    assert backhaul("sync", "--wait", home=other).status == 0
    assert backhaul("verify", home=other).status == 0


def test_a_conflict_is_shown_resolved_and_undone(tmp_path: Path, server: Server) -> None:
    here, there = make_home(tmp_path / "here"), make_home(tmp_path / "there")
    for one in (here, there):
        (one / "backhaul.toml").write_text('[tables.customer]\nmerge = {phone = "manual"}\n')
        joined(one, server, scope=str(tmp_path))
    synced(here)
    execute(here, "UPDATE customer SET phone = 'of here' WHERE id = 1")
    execute(there, "UPDATE customer SET phone = 'of there' WHERE id = 1")
    synced(there)
    synced(here)

    (one,) = backhaul("conflicts", "list", "--json", home=here).json["conflicts"]
    (record,) = one["records"]
    assert (record["table"], record["key"]) == ("customer", [1])
    assert (record["mine"], record["theirs"]) == ({"phone": "of here"}, {"phone": "of there"})
    number = str(one["id"])
    assert f"backhaul conflicts show {number}" in backhaul("why", "customer", "1", home=here).out
    shown = backhaul("conflicts", "show", number, home=here).out
    assert "of here" in shown
    assert "of there" in shown

    wrong = backhaul("conflicts", "resolve", number, "ours", home=here)
    assert wrong.status == 2
    assert "hint: choose mine or theirs" in wrong.err
    assert backhaul("conflicts", "resolve", number, "--set", "phone=of both", home=here).status == 0
    assert backhaul("status", "--json", home=here).json["conflicts"] == 0
    for home in (here, there):
        synced(home)
        assert rows(home, "SELECT phone FROM customer WHERE id = 1") == [("of both",)]
    assert backhaul("conflicts", "undo", number, "--json", home=here).json == {"undone": one["id"]}
    synced(here)
    assert rows(here, "SELECT phone FROM customer WHERE id = 1") == [("of there",)]


def test_a_server_that_is_away_costs_patience_and_nothing_else(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    with started("serve", "--data", "data", "--port", "0", folder=folder, until="listening on"):
        url = (folder / "serve.out").read_text().split("listening on ")[1].split()[0]
        joined(home, Server(url, folder / "data"), scope="away")
    execute(home, "UPDATE customer SET phone = '9' WHERE id = 1")

    said = backhaul("sync", "--wait", "--timeout", "5", "--json", home=home)

    assert said.status == 75
    assert "cannot be reached" in said.json["outcomes"][0]["said"]
    assert said.json["pending"] == 1
    assert "last error" in backhaul("why", "push", home=home).out
    assert backhaul("doctor", home=home).status == 1


def test_doctor_looks_at_everything(replica: Path) -> None:
    said = backhaul("doctor", "--json", home=replica)
    found = {one["check"]: one for one in said.json["findings"]}
    assert said.status == 0
    assert found["workers"]["verdict"] == "warn"
    assert found["left out"]["verdict"] == "warn"
    assert {found[name]["verdict"] for name in ("settings", "database", "capture", "token", "server")} == {"ok"}

    (replica / ".backhaul" / "token").chmod(0o644)
    said = backhaul("doctor", home=replica)
    assert said.status == 1
    assert "chmod 600" in said.out


def test_a_file_to_upload_waits_and_a_missing_one_is_refused(replica: Path) -> None:
    (replica / "photo.jpg").write_bytes(b"light" * 1000)
    assert backhaul("condition", "set", "unmetered", "off", home=replica).status == 0
    upload = backhaul("media", "put", "photo.jpg", "--json", home=replica).json["uploads"][0]
    assert "photo.jpg" in backhaul("media", "list", home=replica).out
    assert "waits for unmetered" in backhaul("why", upload["id"], home=replica).out

    said = backhaul("media", "put", "no-photo.jpg", home=replica)
    assert said.status == 2
    assert "no-photo.jpg cannot be read" in said.err


def test_kept_files_are_counted_pinned_fetched_and_tidied(replica: Path) -> None:
    (replica / "photo.jpg").write_bytes(b"light" * 1000)
    assert backhaul("condition", "set", "unmetered", "off", home=replica).status == 0
    before = backhaul("media", "cache", "--json", home=replica).json
    made = backhaul("media", "put", "photo.jpg", "--keep", "--json", home=replica).json["uploads"][0]
    assert made["kept"]
    assert not backhaul("media", "put", "photo.jpg", "--in-place", "--json", home=replica).json["uploads"][0]["kept"]
    kept = backhaul("media", "cache", "--json", home=replica).json
    assert kept["bytes"] == before["bytes"] + 5_000
    assert backhaul("media", "pin", made["sha256"], home=replica).status == 0
    assert backhaul("media", "cache", "--json", home=replica).json["pinned"] == kept["pinned"] + 5_000
    assert backhaul("media", "unpin", made["sha256"], home=replica).status == 0
    assert backhaul("media", "evict", "--all", "--json", home=replica).json["contents"] == 0  # it is not sent yet
    assert backhaul("media", "pin", "0" * 64, home=replica).status == 75
    work = backhaul("media", "fetch", "0" * 64, "--json", home=replica).json["works"][0]
    assert "waits for unmetered" in backhaul("why", work, home=replica).out
    (replica / ".backhaul" / "media" / "incoming" / "left").touch()
    assert "1 unfinished" in backhaul("media", "tidy", home=replica).out


def test_a_database_that_is_gone_is_not_made_anew(replica: Path) -> None:
    (replica / "shop.db").rename(replica / "elsewhere.db")
    said = backhaul("status", home=replica)
    assert said.status == 2
    assert "is not there" in said.err
    assert not (replica / "shop.db").exists()


@pytest.mark.parametrize("command", [["--help"], ["push", "--help"], ["version"], []])
def test_help_and_version_need_no_replica(command: list[str], tmp_path: Path) -> None:
    assert backhaul(*command, home=tmp_path).status == 0


def test_a_command_that_there_is_not_is_refused(tmp_path: Path) -> None:
    said = backhaul("pusch", home=tmp_path)
    assert said.status == 2
    assert "No such command" in said.err
