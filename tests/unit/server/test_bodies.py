"""Large bodies go past the parser, straight into blocks: whole, in order, and as far as they came."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backhaul.server import bodies, receiving
from backhaul.server.bodies import BLOCK, LEAST, MOST_SPARE, RING
from backhaul.server.contents.disk import DiskTail
from backhaul.server.problems import refusal
from tests import services
from tests.unit.server.conftest import Caller, problem
from tests.unit.server.test_media import HalfSent, checksum, create, offset, patch, sha256
from tests.unit.server.test_promises import standing
from tests.waiting import eventually

FILM = os.urandom(8 * BLOCK + 5)
HALF = 3 * BLOCK + 7
DAY = timedelta(days=1)


def content(till: Caller, data: bytes = FILM) -> bytes:
    return till.call("GET", f"/v1/media/sha256/{sha256(data)}").content


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that came straight."""
    came, updated = [0], bodies.Straight.buffer_updated

    def counted(self: bodies.Straight, nbytes: int) -> None:
        came[0] += nbytes
        updated(self, nbytes)

    monkeypatch.setattr(bodies.Straight, "buffer_updated", counted)
    return came


def test_most_of_a_large_body_goes_past_the_parser(till: Caller, straight: list[int]) -> None:
    """An h11 or an uvicorn that keeps its things elsewhere has it all go through, and nothing else would say so."""
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM).status_code == 204
    assert len(FILM) >= straight[0] > len(FILM) // 2
    assert content(till) == FILM


@pytest.mark.parametrize("why", ["no reader", "no length"])
def test_what_cannot_go_straight_goes_through_the_parser(
    till: Caller, straight: list[int], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    address = create(till, FILM).headers["Location"]
    if why == "no reader":
        monkeypatch.setattr(bodies, "_Reader", None)
        assert patch(till, address, 0, FILM).status_code == 204
    else:
        assert patch(till, address, 0, iter([FILM[:HALF], FILM[HALF:]])).status_code == 204  # type: ignore[arg-type]
    assert straight == [0]
    assert content(till) == FILM


def test_a_disk_that_is_slower_than_the_line_gets_the_bytes_in_their_order(
    till: Caller, straight: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks are full then, and the line waits."""
    written = DiskTail.write

    def slowly(self: DiskTail, block: bytes | memoryview) -> None:
        time.sleep(0.02)
        written(self, block)

    monkeypatch.setattr(DiskTail, "write", slowly)
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM, **checksum(FILM)).status_code == 204
    assert straight[0] > len(FILM) // 2
    assert content(till) == FILM


def test_blocks_are_used_again_and_made_when_they_are_needed(till: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_spare", [])
    small = FILM[: LEAST - 1]
    assert patch(till, create(till, small).headers["Location"], 0, small).status_code == 204
    assert bodies._spare == []
    made: set[int] = set()
    for at in range(2 * MOST_SPARE):
        data = FILM[at:]
        assert patch(till, create(till, data).headers["Location"], 0, data).status_code == 204
        made |= {id(block) for block in bodies._spare}
    assert 0 < len(made) <= RING


def test_what_came_before_a_cut_is_kept_to_the_byte(till: Caller, server: services.SyncServer) -> None:
    address = create(till, FILM).headers["Location"]
    HalfSent(till, address, FILM[:HALF], len(FILM)).cut()
    eventually(lambda: standing(server, address)[0] == HALF, what="all that came is kept")
    assert patch(till, address, HALF, FILM[HALF:]).status_code == 204
    assert content(till) == FILM


def test_a_newer_request_takes_over_from_one_that_hangs_in_the_middle(till: Caller, straight: list[int]) -> None:
    address = create(till, FILM).headers["Location"]
    hanging = HalfSent(till, address, FILM[:HALF], len(FILM))
    eventually(lambda: straight[0] > BLOCK, what="some of it came")
    kept = offset(till, address)
    assert BLOCK < kept <= HALF
    assert patch(till, address, kept, FILM[kept:]).status_code == 204
    assert hanging.status() == 408
    assert content(till) == FILM


def test_who_falls_silent_in_the_middle_is_let_go_and_what_came_is_kept(
    till: Caller, straight: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "QUIET_SECONDS", 0.2)
    address = create(till, FILM).headers["Location"]
    silent = HalfSent(till, address, FILM[:HALF], len(FILM))
    assert silent.status() == 408
    assert straight[0] > 0
    assert offset(till, address) == HALF


def test_who_is_refused_in_the_middle_is_told_so_and_the_connection_is_of_use_again(
    till: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, writes, made = DiskTail.write, [0], list[object]()
    monkeypatch.setattr(bodies.Protocol, "connection_made", lambda _, transport: made.append(transport))

    def full(self: DiskTail, block: bytes | memoryview) -> None:
        writes[0] += 1
        if writes[0] == 3:
            raise refusal("storage-full", "there is no room for these bytes")
        written(self, block)

    monkeypatch.setattr(DiskTail, "write", full)
    address = create(till, FILM).headers["Location"]
    assert problem(patch(till, address, 0, FILM)) == (507, "storage-full")
    at = offset(till, address)
    assert at % BLOCK == 0
    assert patch(till, address, at, FILM[at:]).status_code == 204
    assert content(till) == FILM
    assert made == []


# ---------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine's own, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "backhaul test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return files


@pytest.fixture
def guarded(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[Caller]:
    """A replica that speaks to its server over TLS."""
    tls = {"tls_certificate": certificate[0], "tls_key": certificate[1]}
    with services.sync_server(tmp_path / "server", most_upload=64 * 2**20, **tls) as running:
        caller = Caller(running, trusting=certificate[0])
        yield caller
        caller.session.close()


def test_over_tls_it_is_the_same(guarded: Caller, straight: list[int]) -> None:
    address = create(guarded, FILM).headers["Location"]
    assert patch(guarded, address, 0, FILM[:HALF]).status_code == 204
    assert patch(guarded, address, HALF, FILM[HALF:]).status_code == 204
    assert straight[0] > len(FILM) // 2
    assert content(guarded) == FILM
