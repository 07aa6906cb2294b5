"""Where we connect, and what we say there."""

from __future__ import annotations

import json
import logging
import socket
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw

from backhaul.errors import BackhaulError, ConfigurationInvalid, Misused, RemoteInsecure, SignInRequired, Unreachable
from backhaul.remotes import connection
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.tus import TusRemote
from backhaul.wire import MOST_BODY, OutgoingOp, Table, inflate
from tests.unit.remotes.stub import reply, stub

TOKEN = "a-secret-token"
PUSHED = reply(body=json.dumps({"results": [], "now": 1}).encode())
DIGEST = reply(body=json.dumps({"tables": [], "position": 7, "now": 1}).encode())


def op(number: int, text: str = "x") -> OutgoingOp:
    return OutgoingOp(
        op=f"{number:032x}",
        seq=number,
        table="customer",
        key=Raw(b"[9007199254740993]"),
        kind="insert",
        hlc="000000000001-0000",
        fields=Raw(json.dumps({"name": text}).encode()),
    )


@pytest.mark.parametrize("remote", [HttpRemote, TusRemote])
@pytest.mark.parametrize(
    "url",
    [
        "http://sync.example.org",
        "http://10.0.0.1:8000",
        "http://0.0.0.0:80",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://2130706433",
    ],
)
def test_plain_http_to_another_machine_is_refused_with_the_way_out(remote: type, url: str) -> None:
    with pytest.raises(RemoteInsecure) as caught:
        remote(url, TOKEN)
    assert "https://" in str(caught.value.hint)
    closing(remote(url, TOKEN, allow_plain=True))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "http://127.8.8.8", "http://[::1]:1", "http://localhost", "https://sync.example.org/x/"],
)
def test_https_and_this_machine_are_fine(url: str) -> None:
    assert HttpRemote(url, TOKEN)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sync.example.org",
        "ftp://sync.example.org",
        "https://",
        "https:///v1",
        "https://user:secret@sync.example.org",
        "http://127.0.0.1\\@sync.example.org",
        "http://127.0.0.1@sync.example.org",
        "https://sync.example.org?token=secret",
        "https://sync.example.org#secret",
        "https://sync.example.org:99999",
        "https://sync .example.org",
        "https://sync.example.org\r\nHost: x",
        "sqlite:///secret.db",
    ],
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        HttpRemote(url)
    assert caught.value.hint
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "gr\u00fcn"])
def test_a_token_that_no_header_carries_is_refused_unspoken(token: str) -> None:
    with pytest.raises(Misused) as caught:
        HttpRemote("https://sync.example.org", token)
    assert not token or token not in str(caught.value)


def test_the_token_travels_in_its_header_and_nowhere_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with stub(reply(401)) as server, closing(HttpRemote(server.url, TOKEN)) as remote:
        with pytest.raises(SignInRequired) as caught:
            remote.digest()
        assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in f"{caught.value} {caught.value.hint} {remote!r} {remote._connection!r} {caplog.text}"


def test_a_proxy_never_sees_what_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(DIGEST) as proxy, stub(DIGEST) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        with closing(HttpRemote(server.url, TOKEN)) as remote:
            remote.digest()
        assert (len(proxy.requests), len(server.requests)) == (0, 1)


def test_every_request_names_the_protocol_and_what_it_reads() -> None:
    with stub(PUSHED) as server, closing(HttpRemote(server.url, TOKEN)) as remote:
        remote.push([op(1)])
    headers = server.requests[0].headers
    assert headers["Backhaul-Protocol"] == "1"
    assert headers["Accept-Encoding"] == "zstd, gzip"
    assert headers["Content-Type"] == "application/json"


def test_the_body_of_a_redirect_is_not_inflated_behind_our_back() -> None:
    packed = zlib.compress(bytes(2**20), wbits=31)
    redirect = reply(302, packed, Location="/elsewhere", Content_Encoding="gzip")
    with stub(redirect) as server, closing(connection.Connection(server.url)) as link:
        assert link.exchange("GET", "/v1/digest").body == packed
        assert len(server.requests) == 1


def test_cookies_are_not_kept() -> None:
    with stub(reply(body=b"{}", Set_Cookie="a=b"), DIGEST) as server, closing(HttpRemote(server.url)) as remote:
        with pytest.raises(Unreachable):
            remote.digest()
        remote.digest()
        assert "Cookie" not in server.requests[1].headers


def test_a_push_is_spliced_from_what_the_triggers_wrote() -> None:
    with stub(PUSHED) as server, closing(HttpRemote(server.url, TOKEN)) as remote:
        remote.push([op(1)])
    assert b'"key":[9007199254740993]' in server.requests[0].body


def test_a_large_push_is_compressed_until_the_server_cannot_read_it() -> None:
    unsupported = reply(415, b"{}", content_type="application/problem+json", Accept_Encoding="gzip")
    ops = [op(number, "much the same " * 40) for number in range(1, 200)]
    with stub(PUSHED, unsupported, PUSHED) as server, closing(HttpRemote(server.url, TOKEN)) as remote:
        for _ in range(3):
            remote.push(ops)
    codings = [request.headers.get("Content-Encoding") for request in server.requests]
    assert codings == ["zstd", "zstd", None, None]
    assert len(server.requests[0].body) < len(server.requests[2].body) / 10
    assert inflate(server.requests[0].body, "zstd", MOST_BODY) == server.requests[2].body


def test_the_token_of_a_registration_is_the_remotes_from_then_on() -> None:
    registered = reply(body=json.dumps({"replica": "r", "token": TOKEN, "scope": "s", "now": 1}).encode())
    with stub(registered, DIGEST) as server, closing(HttpRemote(server.url)) as remote:
        remote.register("code", [Table(name="t", columns=[], key=["id"])], "laptop")
        remote.digest()
    assert [request.headers.get("Authorization") for request in server.requests] == [None, f"Bearer {TOKEN}"]


def test_nobody_listening_is_unreachable_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with closing(HttpRemote(f"http://127.0.0.1:{port}", TOKEN)) as remote, pytest.raises(Unreachable) as caught:
        remote.digest()
    assert "Connection refused" in str(caught.value)
    assert "check the URL" in str(caught.value.hint)


def test_tls_to_a_server_without_it_is_unreachable_and_not_downgraded() -> None:
    with stub(DIGEST) as server, closing(HttpRemote(server.url.replace("http:", "https:"), TOKEN)) as remote:
        with pytest.raises(Unreachable) as caught:
            remote.digest()
        assert "cannot be trusted" in str(caught.value)


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with closing(HttpRemote(url, TOKEN, timeout=(0.2, 0.2))) as remote, pytest.raises(Unreachable) as caught:
            remote.digest()
    assert "in time" in str(caught.value)


def test_an_answer_that_drips_is_given_up_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_EXCHANGE", -1.0)
    with stub(DIGEST) as server, closing(HttpRemote(server.url, TOKEN)) as remote:
        with pytest.raises(Unreachable) as caught:
            remote.digest()
        assert "did not arrive within" in str(caught.value)


def test_every_failure_is_one_of_ours_and_has_a_hint() -> None:
    with stub(b"\r\n\r\n") as server, closing(HttpRemote(server.url, TOKEN)) as remote:
        with pytest.raises(BackhaulError) as caught:
            remote.digest()
        assert caught.value.hint


def test_a_request_that_does_not_leave_is_given_up_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_EXCHANGE", -1.0)
    with stub(PUSHED) as server, closing(HttpRemote(server.url, TOKEN)) as remote:
        with pytest.raises(Unreachable) as caught:
            remote.push([op(1)])
        assert "did not leave within" in str(caught.value)


# ------------------------------------------------------------------------------------------------ where it goes first
