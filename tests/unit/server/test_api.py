"""The server over HTTP: what good requests get, and what every kind of bad one gets."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import pytest
import requests
import zstandard

from backhaul.errors import ConfigurationInvalid
from backhaul.remotes.http import HttpRemote
from backhaul.server.problems import CATALOGUE
from backhaul.server.serve import Server
from backhaul.server.settings import Settings
from backhaul.wire import MOST_OPS, OutgoingOp, Table
from tests.services import sync_server
from tests.unit.server.conftest import CUSTOMER, Caller, problem


def test_health_asks_for_no_token(server):
    answer = requests.get(server.url + "/v1/health", timeout=20)
    assert (answer.status_code, answer.json()["status"], answer.headers["Backhaul-Protocol"]) == (200, "ok", "1")


def test_our_own_client_gets_on_with_the_server(server, till):
    remote = HttpRemote(server.url, till.registered["token"])
    remote.declare([msgspec.convert(CUSTOMER, type=Table)])
    op = till.op("insert", "customer", [1], fields=msgspec.Raw(b'{"name":"Ann"}'))
    pushed = remote.push([OutgoingOp(**op | {"key": msgspec.Raw(b"[1]")})])
    assert [(r.status, r.version) for r in pushed.results] == [("applied", 1)]
    page = remote.pull("", 100)
    assert [(r.key, r.fields) for r in page.records] == [([1], {"name": "Ann"})]
    assert remote.pull(page.cursor, 100).records == []
    assert [r.whole for r in remote.records([("customer", [1]), ("customer", [2])])] == [True]
    assert [(t.table, t.count) for t in remote.digest().tables] == [("customer", 1), ("invoice", 0)]
    remote.close()


# -------------------------------------------------------------------------------------------------- who may ask


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Bearer ", "Basic abc", "Bearer \xff"])
def test_without_a_good_token_nothing_is_told(till, authorization):
    till.session.headers["Authorization"] = authorization
    for method, path in (
        ("GET", "/v1/pull"),
        ("POST", "/v1/push"),
        ("GET", "/v1/digest"),
        ("GET", "/v1/media/sha256/x"),
    ):
        answer = till.call(method, path)
        assert problem(answer) == (401, "token-invalid")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_code_works_once(server, till):
    code = server.enrol("shop")
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{5}-){3}[0-9A-HJKMNP-TV-Z]{5}", code)
    said = {"code": code.lower().replace("-", " "), "tables": [CUSTOMER]}
    assert till.call("POST", "/v1/replicas", said).status_code == 201
    assert problem(till.call("POST", "/v1/replicas", said)) == (403, "code-invalid")


def test_a_code_is_not_spent_by_a_registration_that_fails(server, till):
    code = server.enrol("shop")
    bad = CUSTOMER | {"key": ["nothing"]}
    assert problem(till.call("POST", "/v1/replicas", {"code": code, "tables": [bad]})) == (422, "table-invalid")
    assert till.call("POST", "/v1/replicas", {"code": code, "tables": [CUSTOMER]}).status_code == 201


def test_a_code_expires_after_an_hour(server, till, clock):
    code = server.enrol("shop")
    clock.ahead += 3_600_001
    assert problem(till.call("POST", "/v1/replicas", {"code": code, "tables": []})) == (403, "code-invalid")


def test_another_protocol_is_refused(till):
    answer = till.call("GET", "/v1/pull", headers={"Backhaul-Protocol": "2"})
    assert problem(answer) == (400, "protocol-unsupported")


# ------------------------------------------------------------------------------------------------- what is no request


def pushed(**said: object) -> bytes:
    op = {"op": "0" * 32, "seq": 1, "table": "t", "key": [1], "kind": "insert", "hlc": "000000000000-0000"}
    return json.dumps({"ops": [op | said]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"ops": 1}',
        b'{"ops": [{}]}',
        b'{"ops": [], "more": 1}',
        b'{"ops": [NaN]}',
        b'\xff\xfe{"ops": []}',
        b'{"ops": "\\ud800"}',
        b'{"ops": [' + b"[" * 100_000,
        b'{"ops": [{"op":"x","seq":1,"table":"t","key":[1],"kind":"insert","hlc":"0"}]}',
        pushed(seq=0),
        pushed(kind="upsert"),
        pushed(key=[{"a": 1}]),
        pushed(key=[2**63]),
        pushed(fields={"name": [1]}),
        pushed(fields={"name": {"hex": "FF"}}),
        pushed(hlc="0" * 17),
    ],
)
def test_a_malformed_push_is_refused_and_changes_nothing(till, body):
    answer = till.call("POST", "/v1/push", data=body, headers={"Content-Type": "application/json"})
    assert problem(answer) == (400, "malformed")
    assert till.call("GET", "/v1/pull").json()["head"] == 0


def test_too_many_ops_are_refused_with_the_limit(till):
    ops = [till.op("void", "customer", []) for _ in range(MOST_OPS + 1)]
    answer = till.push(*ops)
    assert problem(answer) == (413, "batch-too-large")
    assert answer.json()["limit"] == MOST_OPS
    assert till.push(*ops[:-1]).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(till, chunked):
    piece = b" " * 2**20
    data = (piece for _ in range(9)) if chunked else piece * 9
    answer = till.call("POST", "/v1/push", data=data, headers={"Content-Type": "application/json"})
    assert problem(answer) == (413, "body-too-large")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_compressed_push_is_read(till, coding):
    plain = json.dumps({"ops": [till.op("insert", "customer", [1], fields={"name": "1"})]}).encode()
    body = gzip.compress(plain, mtime=0) if coding == "gzip" else zstandard.compress(plain)
    headers = {"Content-Type": "application/json; charset=utf-8", "Content-Encoding": coding}
    answer = till.call("POST", "/v1/push", data=body, headers=headers)
    assert [result["status"] for result in answer.json()["results"]] == ["applied"]


BOMB = b"0" * (64 * 2**20)


@pytest.mark.parametrize(
    ("coding", "body", "expected"),
    [
        ("gzip", gzip.compress(BOMB, mtime=0), (413, "inflated-too-large")),
        ("zstd", zstandard.compress(BOMB), (413, "inflated-too-large")),
        ("gzip", gzip.compress(b'{"ops": []}', mtime=0)[:-9], (400, "malformed")),
        ("gzip", gzip.compress(b'{"ops": []}', mtime=0) + b"tail", (400, "malformed")),
        ("gzip", zlib.compress(b'{"ops": []}'), (400, "malformed")),
        ("zstd", zstandard.compress(b'{"ops": []}' * 99)[:-4], (400, "malformed")),
        ("zstd", b"not zstd", (400, "malformed")),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(b'{"ops": []}'), (400, "malformed")),
        ("br", b"x", (415, "unsupported-coding")),
        ("gzip, zstd", b"x", (415, "unsupported-coding")),
    ],
)
def test_a_coding_that_lies_is_refused(till, coding, body, expected):
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = till.call("POST", "/v1/push", data=body, headers=headers)
    assert problem(answer) == expected
    if expected[0] == 415:
        assert answer.headers["Accept-Encoding"] == "zstd, gzip"


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_json_is_refused(till, kind):
    answer = till.call("POST", "/v1/push", data=b'{"ops": []}', headers={"Content-Type": kind})
    assert problem(answer) == (415, "unsupported-media-type")


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1e3", "²", ""])
def test_a_limit_that_is_none_is_refused(till, limit):
    assert problem(till.call("GET", "/v1/pull", params={"limit": limit})) == (400, "malformed")


def test_what_is_not_there_is_a_problem_too(till):
    assert problem(till.call("GET", "/v1/nothing")) == (404, "not-found")
    assert problem(till.call("GET", "/v1/push")) == (405, "method-not-allowed")
    assert problem(till.call("POST", "/")) == (404, "not-found")


def test_a_bug_tells_nothing_of_itself(till, server, monkeypatch, caplog):
    monkeypatch.setattr("backhaul.server.feed.digest", lambda *_: 1 / 0)
    answer = till.call("GET", "/v1/digest")
    assert problem(answer) == (500, "internal")
    assert "ZeroDivision" not in answer.text


# --------------------------------------------------------------------------------------------------- what is said


def test_answers_are_compressed_for_who_can_read_that(till):
    till.push(*[till.op("insert", "customer", [n], fields={"name": "x" * 99}) for n in range(99)])
    plain = till.call("GET", "/v1/pull", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    packed = till.call("GET", "/v1/pull", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    best = till.call("GET", "/v1/pull", headers={"Accept-Encoding": "gzip, zstd;q=0.5, br"}, stream=True)
    assert best.headers["Content-Encoding"] == "zstd"
    assert "zstd" not in till.call("GET", "/v1/pull", headers={"Accept-Encoding": "zstd;q=0"}).headers.get(
        "Content-Encoding", ""
    )
    records = [
        json.loads(zstandard.decompress(best.raw.read(decode_content=False)))["records"],
        packed.json()["records"],
    ]
    assert records == [plain.json()["records"]] * 2


def test_outcomes_of_a_push_name_the_op_and_its_problem(till, other_till):
    other_till.push(other_till.op("insert", "customer", [1], fields={"name": "1"}))
    ops = [
        till.op("insert", "customer", [1], fields={"name": "1"}),
        till.op("insert", "invoice", [7], fields={"customer_id": 1}),
        till.op("insert", "customer", [2], fields={"name": "2"}, group="g"),
        till.op("update", "customer", [2], fields={"secret": 1}, group="g"),
        till.op("insert", "customer", [3], fields={"name": "3"}),
    ]
    results = till.push(*ops).json()["results"]
    names = [result.get("problem", {}).get("type", "/applied").rpartition("/")[2] for result in results]
    assert names == ["key-taken", "depends-on-refused", "depends-on-refused", "column-unknown", "applied"]
    assert [result["op"] for result in results] == [op["op"] for op in ops]
    again = till.push(*ops).json()["results"]
    assert [result["status"] for result in again] == ["rejected"] * 4 + ["duplicate"]
    assert again[0]["problem"] == results[0]["problem"]


def test_a_fork_and_a_gap_refuse_the_push(till):
    till.push(till.op("insert", "customer", [1], fields={"name": "1"}))
    fork = till.op("insert", "customer", [2], fields={"name": "2"}) | {"seq": 1}
    assert problem(till.push(fork)) == (409, "replica-forked")
    answer = till.push(fork | {"seq": 9})
    assert problem(answer) == (409, "sequence-gap")
    assert answer.json()["due"] == 2


def test_a_replica_gets_a_successor_by_its_token(till):
    answer = till.call("POST", "/v1/replicas/successor", {"was": till.registered["replica"]})
    made = answer.json()
    assert (answer.status_code, made["succeeds"], made["scope"]) == (
        201,
        till.registered["replica"],
        till.registered["scope"],
    )
    assert made["replica"] != till.registered["replica"]
    op = till.op("insert", "customer", [1], fields={"name": "1"})
    assert till.push(op).json()["results"][0]["status"] == "applied"  # the old identity stays good
    till.session.headers["Authorization"] = f"Bearer {made['token']}"
    again = till.push(op | {"former": True}).json()["results"]
    assert [result["status"] for result in again] == ["duplicate"]


def test_a_code_of_another_scope_signs_nobody_in(till):
    registration = {"code": till.server.enrol("elsewhere"), "tables": [], "was": till.registered["replica"]}
    assert problem(till.call("POST", "/v1/replicas", registration)) == (409, "replica-unrelated")
    assert till.call("POST", "/v1/replicas", registration | {"was": ""}).status_code == 201  # the code was not spent


def test_who_asks_again_with_the_same_nonce_is_answered_again(till):
    registration = {"code": till.server.enrol("lost"), "tables": [], "nonce": "n" * 32}
    first, second = (till.call("POST", "/v1/replicas", registration).json() for _ in range(2))
    assert first["replica"] == second["replica"]
    assert first["token"] != second["token"]
    other = registration | {"nonce": "m" * 32}
    assert problem(till.call("POST", "/v1/replicas", other)) == (403, "code-invalid")


def test_a_drifted_clock_is_told_to_come_again(till):
    op = till.op("insert", "customer", [1], fields={"name": "1"}) | {"hlc": "ffffffffffff-0000"}
    (result,) = till.push(op).json()["results"]
    assert (result["status"], result["problem"]["type"].rpartition("/")[2]) == ("retry", "clock-drift")


def test_a_cursor_of_another_server_is_expired(till):
    assert problem(till.call("GET", "/v1/pull", params={"cursor": "AAAA"})) == (410, "cursor-expired")


def test_too_many_keys_and_bad_ones_are_refused(till):
    assert problem(till.call("POST", "/v1/records", {"keys": [["customer", [1]]] * (MOST_OPS + 1)})) == (
        413,
        "batch-too-large",
    )
    assert problem(till.call("POST", "/v1/records", {"keys": [["customer"]]})) == (400, "malformed")
    assert till.call("POST", "/v1/records", {"keys": [["nothing\u0000", [None]]]}).json() == []


def test_every_problem_is_in_the_text_of_the_protocol():
    text = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    for name, (status, _) in CATALOGUE.items():
        assert re.search(rf"\| `{name}` \| {status} \|", text), name


# ------------------------------------------------------------------------------------------------------ starting


def test_a_port_that_is_taken_is_said_before_anything_is_made(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(data=tmp_path / "server", port=taken.getsockname()[1])
        with pytest.raises(ConfigurationInvalid, match="cannot listen"):
            Server(settings, on_ready=print)
    assert not (tmp_path / "server").exists()


@pytest.mark.parametrize("certificate", [None, "nothing.pem", "not-a-certificate.pem"])
def test_tls_that_cannot_be_is_said_before_anything_is_made(tmp_path, certificate):
    (tmp_path / "not-a-certificate.pem").write_text("hello")
    settings = Settings(
        data=tmp_path / "server",
        tls_key=tmp_path / "not-a-certificate.pem",
        tls_certificate=tmp_path / certificate if certificate else None,
    )
    with pytest.raises(ConfigurationInvalid, match="TLS"):
        Server(settings, on_ready=print)
    assert not (tmp_path / "server").exists()


def test_a_stop_that_was_asked_for_is_a_good_end(tmp_path):
    program = (
        "import sys; from pathlib import Path; from backhaul.server.serve import serve;"
        "from backhaul.server.settings import Settings;"
        "serve(Settings(data=Path(sys.argv[1])), on_ready=lambda port: print(port, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert requests.get(f"http://127.0.0.1:{port}/v1/health", timeout=20).status_code == 200
        process.terminate()
        assert process.wait(60) == 0


def test_what_was_pushed_survives_a_restart(tmp_path):
    with sync_server(tmp_path) as first:
        caller = Caller(first)
        caller.push(caller.op("insert", "customer", [1], fields={"name": "1"}))
        cursor = caller.call("GET", "/v1/pull").json()["cursor"]
    with sync_server(tmp_path) as second:
        caller.server = second
        assert caller.call("GET", "/v1/pull", params={"cursor": cursor}).json()["records"] == []
        assert len(caller.call("GET", "/v1/pull").json()["records"]) == 1
    caller.session.close()
