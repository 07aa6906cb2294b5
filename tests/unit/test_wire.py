from __future__ import annotations

import gzip
import json
import math
import sqlite3
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from backhaul import wire
from backhaul.errors import Refused
from backhaul.wire import Op, Push, Tagged, canonical_key, compress, from_plain, inflate, to_plain

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.none() | TEXTS | INTEGERS | st.floats(allow_nan=False) | st.binary() | st.booleans()
CODINGS = ["zstd", "gzip"]
MIB = 2**20


# ------------------------------------------------------------------------------------------------------- values


@given(PLAIN)
def test_every_value_of_a_database_comes_back_as_itself(value: Any) -> None:
    text = wire.encode({"v": from_plain(value)})
    read = to_plain(msgspec.json.decode(text, type=dict[str, wire.Value])["v"])
    assert read == value
    assert type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-0.0)
@example(5e-324)
@example(1e16)
@example(1e300)
def test_a_real_stays_a_real_to_the_last_bit(value: float) -> None:
    read = msgspec.json.decode(wire.encode(from_plain(value)), type=wire.Value)
    assert isinstance(read, float)
    assert (read, math.copysign(1, read)) == (value, math.copysign(1, value))


@given(INTEGERS)
@example(2**53 + 1)
@example(-(2**63))
@example(2**63 - 1)
def test_an_integer_beyond_a_double_stays_exact(value: int) -> None:
    assert msgspec.json.decode(wire.encode(from_plain(value)), type=wire.Value) == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_refused(value: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps([value]), type=list[wire.Value])


@pytest.mark.parametrize("text", ['{"hex":"0"}', '{"hex":"zz"}', '{"real":"nan"}', '{"other":1}', "[1]"])
def test_a_tagged_value_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=wire.Value)


def test_null_absent_and_empty_are_three_things() -> None:
    op = '{"op":"%s","seq":1,"table":"t","key":[1],"kind":"update","hlc":"000000000001-0000","fields":%s}'
    fields = [msgspec.json.decode(op % ("a" * 32, text), type=Op).fields for text in ('{"a":null}', "{}", '{"a":""}')]
    assert fields == [{"a": None}, {}, {"a": ""}]


@given(st.lists(TEXTS | INTEGERS, min_size=1, max_size=4))
@example(['\x00\x01\x1f\x7f\x80\u2028\U0010ffff"\\/\b\f\n\r\t'])
@example(["caf\u00e9", "cafe\u0301", ""])
@example([2**63 - 1, -(2**63)])
def test_a_canonical_key_is_the_text_that_sqlite_makes(key: list[Any]) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        (text,) = connection.execute(f"SELECT json_array({', '.join('?' * len(key))})", key).fetchone()
    finally:
        connection.close()
    assert canonical_key(key) == text


@given(st.lists(PLAIN, max_size=4), st.lists(PLAIN, max_size=4))
def test_canonical_keys_are_equal_exactly_when_the_keys_are(one: list[Any], other: list[Any]) -> None:
    keys = [canonical_key([from_plain(value) for value in key]) for key in (one, other)]

    assert (keys[0] == keys[1]) == ([exactly(value) for value in one] == [exactly(value) for value in other])


def exactly(value: Any) -> tuple[Any, ...]:
    """What tells 1 from 1.0 and from True, and 0.0 from -0.0."""
    return type(value), value, math.copysign(1, value) if isinstance(value, float) else None


# ----------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "a" * 31},
        {"op": "A" * 32},
        {"seq": 0},
        {"seq": 2**63},
        {"seq": "1"},
        {"kind": "upsert"},
        {"hlc": "1-0"},
        {"base": -1},
        {"key": {}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_malformed_op_is_refused(wrong: dict[str, Any]) -> None:
    right = {"op": "a" * 32, "seq": 1, "table": "t", "key": [1], "kind": "delete", "hlc": "000000000001-0000"}
    assert msgspec.convert({"ops": [right]}, Push).ops[0].seq == 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"ops": [right | wrong]}, Push)


def test_a_push_of_too_many_ops_is_refused() -> None:
    op = {"op": "a" * 32, "seq": 1, "table": "t", "key": [1], "kind": "delete", "hlc": "000000000001-0000"}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"ops": [op] * (wire.MOST_OPS + 1)}, Push)


def test_a_problem_is_named_by_the_end_of_its_type() -> None:
    assert wire.problem_name(wire.Problem(type=wire.PROBLEM_BASE + "key-taken", title="")) == "key-taken"


# -------------------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("coding", CODINGS)
@given(body=st.binary(max_size=3_000) | st.builds(bytes.__mul__, st.binary(max_size=9), st.integers(0, 2_000)))
def test_a_compressed_body_comes_back(coding: str, body: bytes) -> None:
    packed, used = compress(body, coding)
    assert used == (coding if len(body) >= wire.SMALLEST_COMPRESSED else None)
    assert inflate(packed, used) == body


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_may_inflate_to_the_limit_and_no_further(coding: str) -> None:
    packed, used = compress(b"x" * 5_000, coding)
    assert inflate(packed, used, limit=5_000) == b"x" * 5_000
    with pytest.raises(Refused) as caught:
        inflate(packed, used, limit=4_999)
    assert (caught.value.problem, caught.value.status) == ("inflated-too-large", 413)


def test_a_plain_body_is_bounded_too() -> None:
    assert inflate(b"x" * 10, None, limit=10) == b"x" * 10
    with pytest.raises(Refused):
        inflate(b"x" * 11, "identity", limit=10)


@pytest.mark.parametrize("coding", CODINGS)
@given(cut=st.integers(1, 200))
def test_a_body_that_is_cut_short_is_refused(coding: str, cut: int) -> None:
    packed, _ = compress(bytes(range(256)) * 40, coding)
    with pytest.raises(Refused) as caught:
        inflate(packed[:-cut], coding)
    assert (caught.value.problem, caught.value.status) == ("malformed", 400)


@pytest.mark.parametrize("coding", CODINGS)
@given(noise=st.binary(max_size=200))
def test_noise_is_refused_and_never_raises_anything_else(coding: str, noise: bytes) -> None:
    with suppress(Refused):
        inflate(noise, coding)


def test_a_tail_behind_the_stream_is_refused() -> None:
    with pytest.raises(Refused):
        inflate(gzip.compress(b"x" * 2_000) + b"tail", "gzip")


def test_a_frame_that_hides_its_size_or_wants_a_huge_window_is_refused() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 2_000)
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    huge = stream.compress(b"x" * 2_000) + stream.flush()
    for body in (unsized, huge):
        with pytest.raises(Refused) as caught:
            inflate(body, "zstd")
        assert caught.value.problem == "malformed"


def test_an_unknown_coding_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        inflate(b"", "br")
    assert (caught.value.problem, caught.value.status) == ("unsupported-coding", 415)


def test_an_inflated_value_is_what_the_coding_is_called_in_any_case() -> None:
    packed, _ = compress(b"x" * 2_000, "gzip")
    assert inflate(packed, " GZIP ") == b"x" * 2_000


INFLATE_A_BOMB = """
import resource, sys
from pathlib import Path
from backhaul.errors import Refused
from backhaul.wire import inflate
body = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    inflate(body, sys.argv[2])
except Refused as refused:
    print(refused.problem, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_of_one_gibibyte_is_refused_quickly_and_in_little_memory(coding: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip_bomb() if coding == "gzip" else zstd_bomb())
    assert bomb.stat().st_size < 2 * MIB
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", INFLATE_A_BOMB, str(bomb), coding], capture_output=True, text=True, check=True
    )
    problem, grown_kib = ended.stdout.split()
    assert problem == "inflated-too-large"
    assert int(grown_kib) < 48 * 1024
    assert time.monotonic() - began < 20


def gzip_bomb() -> bytes:
    """1,024 times the same flushed block of 1 MiB; the checksum at its end would be wrong, but nobody gets there."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * 1_023


def zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj(size=1024 * MIB)
    block = bytes(MIB)
    return b"".join([*(packer.compress(block) for _ in range(1_024)), packer.flush()])


def test_tagged_values_are_the_only_objects() -> None:
    assert from_plain(b"\x00\xff") == Tagged(hex="00ff")
    assert from_plain(float("-inf")) == Tagged(real="-Infinity")
    assert to_plain(Tagged(real="Infinity")) == math.inf
