"""What each answer of a server becomes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from backhaul.errors import BackhaulError, Busy, Refused, SignInRequired, TimedOut, Unreachable
from backhaul.remotes.answers import Answer, AnswerTooLarge, message, retry_after_ms
from backhaul.remotes.http import HttpRemote
from backhaul.wire import Digest
from tests.unit.remotes.stub import DATE, reply, stub

DIGEST = json.dumps({"tables": [], "position": 7, "now": 1}).encode()


def asked(*replies: bytes) -> Any:
    with stub(*replies) as server, closing(HttpRemote(server.url, "a-secret-token")) as remote:
        return remote.digest()


def failed(*replies: bytes) -> BackhaulError:
    with pytest.raises(BackhaulError) as caught:
        asked(*replies)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    return caught.value


def problem(name: str, detail: str = "because") -> bytes:
    return json.dumps({"type": f"https://backhaul.invalid/problems/{name}", "title": name, "detail": detail}).encode()


def test_a_good_answer_is_its_message() -> None:
    assert asked(reply(body=DIGEST)).position == 7


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("zstd", zstandard.ZstdCompressor().compress(DIGEST)),
        ("gzip", zlib.compress(DIGEST, wbits=31)),
        ("identity", DIGEST),
    ],
)
def test_an_answer_is_read_in_each_coding(coding: str, packed: bytes) -> None:
    assert asked(reply(body=packed, Content_Encoding=coding)).position == 7


def test_a_problem_is_refused_with_its_name_and_status() -> None:
    error = failed(reply(422, problem("key-reused", "said so"), content_type="application/problem+json"))
    assert isinstance(error, Refused)
    assert (error.problem, error.status) == ("key-reused", 422)
    assert "said so" in str(error)


def test_a_sign_in_is_asked_for_when_the_token_is_not_valid() -> None:
    error = failed(reply(401))
    assert isinstance(error, SignInRequired)
    assert "backhaul init --code" in str(error.hint)


def test_a_replica_that_was_revoked_keeps_what_it_has() -> None:
    answer = reply(403, problem("replica-revoked"), content_type="application/problem+json")
    assert isinstance(failed(answer), SignInRequired)


def test_a_server_that_no_longer_speaks_our_protocol_refuses_no_data() -> None:
    answer = reply(400, problem("protocol-unsupported"), content_type="application/problem+json", protocol="2")
    assert type(failed(answer)) is Unreachable


@pytest.mark.parametrize("status", [425, 500, 502, 507])
def test_an_answer_that_time_heals_is_unreachable(status: int) -> None:
    assert type(failed(reply(status))) is Unreachable


@pytest.mark.parametrize("status", [408, 504])
def test_an_answer_that_less_at_once_may_heal_says_that_time_ran_out(status: int) -> None:
    assert type(failed(reply(status))) is TimedOut


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "17"}, 17_000),
        ({"Retry-After": "Sun, 06 Nov 1994 08:51:37 GMT", "Date": DATE}, 120_000),
        ({"Retry-After": "Sun, 06 Nov 1994 08:40:00 GMT", "Date": DATE}, 0),
        ({"Retry-After": "86400"}, 3_600_000),
        ({"Retry-After": "9" * 5_000}, 3_600_000),
        ({"Retry-After": "Sun, 06 Nov 1994 08:51:37 GMT"}, None),
        ({"Retry-After": "soon", "Date": DATE}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
def test_a_busy_server_says_how_long_to_wait(status: int, headers: dict[str, str], wait: int | None) -> None:
    error = failed(reply(status, headers=headers))
    assert isinstance(error, Busy)
    assert error.retry_after_ms == wait


def test_a_date_that_is_too_far_to_count_is_an_hour_at_most() -> None:
    headers = {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT", "Date": "Mon, 01 Jan 0001 00:00:00 GMT"}
    assert retry_after_ms(headers) in (None, 3_600_000)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_refuses_nothing(status: int) -> None:
    with stub(reply(body=DIGEST)) as other:
        error = failed(reply(status, Location=f"{other.url}/v1/digest?session=secret"))
        assert other.requests == []
    assert isinstance(error, Unreachable)
    assert "http://127.0.0.1" in str(error)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 422])
def test_a_page_for_people_is_not_our_servers_word(status: int) -> None:
    error = failed(reply(status, b"<html>Sign in to Hotel WiFi</html>", content_type="text/html", protocol=None))
    assert type(error) is Unreachable
    assert "does not answer like a Backhaul server" in str(error)
    assert "check the URL" in str(error.hint)


def test_a_proxy_that_finds_the_message_too_large_is_believed() -> None:
    error = failed(reply(413, b"<html>Too Large</html>", content_type="text/html", protocol=None))
    assert isinstance(error, Refused)
    assert error.status == 413


def test_json_of_another_program_is_not_our_servers_word() -> None:
    assert "does not answer like" in str(failed(reply(body=DIGEST, protocol=None)))


def test_another_version_of_the_protocol_is_named() -> None:
    assert "protocol '2'" in str(failed(reply(body=DIGEST, protocol="2")))


@pytest.mark.parametrize(
    "answer",
    [
        reply(body=DIGEST[:-1]),
        reply(body=b'{"tables": 3}'),
        reply(body=DIGEST, Content_Encoding="br"),
        reply(body=DIGEST, Content_Encoding="zstd"),
        reply(body=zstandard.ZstdCompressor().compress(DIGEST * 99)[:-9], Content_Encoding="zstd"),
        reply(body=zlib.compress(DIGEST, wbits=31)[:-9], Content_Encoding="gzip"),
        reply(body=DIGEST, length=len(DIGEST) + 1),
        reply(body=DIGEST, content_type="text/plain"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
    ids=["cut", "type", "br", "no-zstd", "cut-zstd", "cut-gzip", "short", "text", "cut-chunk", "ssh", "nothing"],
)
def test_an_answer_that_cannot_be_read_has_an_unknown_outcome(answer: bytes) -> None:
    assert type(failed(answer)) is Unreachable


def zstd_bomb() -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(bytes(256 * 2**20))


def gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()


@pytest.mark.parametrize(("coding", "bomb"), [("zstd", zstd_bomb), ("gzip", gzip_bomb)])
def test_a_bomb_is_not_inflated(coding: str, bomb: Callable[[], bytes]) -> None:
    error = failed(reply(body=bomb(), Content_Encoding=coding))
    assert type(error) is AnswerTooLarge


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backhaul.remotes.connection.MOST_ANSWER", 100_000)
    assert type(failed(reply(body=bytes(200_000)))) is AnswerTooLarge


@pytest.mark.parametrize("location", ["", "//", "http://[", "/v1/push", "http://" + "x" * 60_000])
def test_a_redirect_to_nowhere_is_unreachable_too(location: str) -> None:
    error = failed(reply(307, Location=location))
    assert type(error) is Unreachable
    assert len(str(error)) < 1_000


def test_an_answer_of_many_brackets_cannot_be_read() -> None:
    assert type(failed(reply(body=b"[" * 500_000))) is Unreachable
    assert type(failed(reply(400, b'{"title":' * 500_000, content_type="application/problem+json"))) is Unreachable


@given(
    status=st.integers(200, 599),
    body=st.one_of(st.binary(max_size=40), st.just(problem("x")), st.just(DIGEST), st.just(b"[" * 9_999)),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "Content-Type",
                "Content-Encoding",
                "Retry-After",
                "Date",
                "Location",
                "Backhaul-Protocol",
                "Upload-Offset",
            ]
        ),
        st.one_of(
            st.text(st.characters(max_codepoint=255), max_size=20),
            st.sampled_from(["1", "zstd", "gzip", "application/json", "application/problem+json", DATE]),
        ),
    ),
)
def test_whatever_a_server_answers_only_our_own_errors_come_of_it(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    answer = Answer(origin="https://sync.example.org", status=status, headers=headers, body=body)
    try:
        message(answer, Digest)
    except (Unreachable, Busy, SignInRequired, Refused):
        return
    assert answer.good
    assert answer.from_backhaul
