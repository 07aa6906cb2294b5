"""The contract of a content store: what every store keeps."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from hashlib import sha1, sha256
from itertools import pairwise

import pytest

from backhaul.errors import Busy, Refused
from backhaul.server.contents import ContentStore
from backhaul.server.contents.base import BLOCK, Whole

SMALL = os.urandom(300_000)
PART = 5 * 2**20  # of a store that keeps parts
LARGE = os.urandom(2 * PART + 7)
SIZES = [0, 1, BLOCK, BLOCK + 1, PART, PART + 1, 2 * PART, len(LARGE)]
SCOPE = "shop"


def hash_of(data: bytes) -> str:
    return sha256(data).hexdigest()


def add(store: ContentStore, upload: str, whole: bytes, start: int, stop: int, *, promised: bool = True) -> None:
    with closing(store.append(upload, len(whole), start, None)) as tail:
        for at in range(start, stop, BLOCK):
            tail.write(whole[at : min(at + BLOCK, stop)])
        assert tail.position == stop
        tail.sync()
        if promised:
            tail.settle()


def read_whole(store: ContentStore, upload: str, length: int) -> bytes | None:
    blocks = store.whole(upload, length)
    if blocks is None:
        return None
    with closing(blocks):
        return b"".join(blocks)


def read(store: ContentStore, data: bytes, start: int, stop: int) -> bytes:
    with closing(store.read(SCOPE, hash_of(data), start, stop)) as blocks:
        return b"".join(blocks)


def publish(store: ContentStore, upload: str, data: bytes) -> None:
    assert read_whole(store, upload, len(data)) == data
    store.publish(upload, len(data), SCOPE, hash_of(data))
    store.discard(upload)


def brought(store: ContentStore, data: bytes, upload: str = "up") -> None:
    store.begin(upload, len(data))
    add(store, upload, data, 0, len(data))
    publish(store, upload, data)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_added_is_published_whole(store: ContentStore, size: int) -> None:
    data = LARGE[:size]
    store.begin("up", size)
    add(store, "up", data, 0, size)
    assert store.size(SCOPE, hash_of(data)) is None
    publish(store, "up", data)
    assert store.size(SCOPE, hash_of(data)) == len(data)
    assert read(store, data, 0, size) == data


def test_small_contents_are_put_at_once(store: ContentStore, again: Callable[[], ContentStore]) -> None:
    contents = [b"", b"x", SMALL, *(b"%d" % number for number in range(40))]
    brought(store, b"x")
    store.put_all(SCOPE, {hash_of(data): Whole(f"up{n}", memoryview(data)) for n, data in enumerate(contents)})
    for data in contents:
        assert read(again(), data, 0, len(data)) == data
    for number in range(len(contents)):
        store.discard(f"up{number}")
    assert store.size(SCOPE, hash_of(SMALL)) == len(SMALL)


def test_bytes_are_added_in_pieces_of_any_size_by_one_process_after_the_other(
    store: ContentStore, again: Callable[[], ContentStore]
) -> None:
    places = [0, 1, PART - 1, PART, 2 * PART - 1, len(LARGE)]
    store.begin("up", len(LARGE))
    for start, stop in pairwise(places):
        add(again(), "up", LARGE, start, stop)
    publish(again(), "up", LARGE)
    assert read(store, LARGE, 0, len(LARGE)) == LARGE


@pytest.mark.parametrize("kept", [0, PART - 1, PART, PART + BLOCK])
def test_what_was_never_promised_is_cut_off(store: ContentStore, again: Callable[[], ContentStore], kept: int) -> None:
    other = os.urandom(len(LARGE))
    store.begin("up", len(LARGE))
    add(store, "up", LARGE, 0, kept)
    add(store, "up", LARGE[:kept] + other[kept:], kept, len(LARGE), promised=False)
    add(again(), "up", LARGE, kept, len(LARGE))
    publish(store, "up", LARGE)
    assert read(store, LARGE, 0, len(LARGE)) == LARGE


@pytest.mark.parametrize("kept", [0, PART + 5])
def test_a_tail_is_cut_back_and_goes_on(store: ContentStore, kept: int) -> None:
    store.begin("up", len(LARGE))
    add(store, "up", LARGE, 0, kept)
    with closing(store.append("up", len(LARGE), kept, None)) as tail:
        for _ in range(9):
            tail.write(b"x" * BLOCK)
        tail.cut_back(kept)
        assert tail.position == kept
        tail.write(LARGE[kept:])
        tail.sync()
        tail.settle()
    publish(store, "up", LARGE)


def test_a_tail_reckons_the_checksum_of_what_was_written(store: ContentStore) -> None:
    store.begin("up", len(SMALL))
    with closing(store.append("up", len(SMALL), 0, "sha1")) as tail:
        tail.write(SMALL)
        assert tail.checksum() == b64encode(sha1(SMALL).digest()).decode()


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (5, 5 + BLOCK), (PART - 1, PART + 1), (len(LARGE) - 1, len(LARGE))]
)
def test_ranges(store: ContentStore, start: int, stop: int) -> None:
    brought(store, LARGE)
    assert read(store, LARGE, start, stop) == LARGE[start:stop]


def test_scopes_do_not_meet(store: ContentStore) -> None:
    brought(store, SMALL)
    assert store.size("another", hash_of(SMALL)) is None
    with pytest.raises(Refused, match="lost"):
        store.read("another", hash_of(SMALL), 0, 1)


def test_what_is_not_here_is_said_to_be(store: ContentStore) -> None:
    assert store.size(SCOPE, hash_of(SMALL)) is None
    assert store.whole("nothing", 5) is None
    assert store.whole("nothing", len(LARGE)) is None
    with pytest.raises(Refused) as caught:
        store.append("nothing", 5, 0, None)
    assert caught.value.problem == "not-found"
    with pytest.raises(Refused) as caught:
        store.read(SCOPE, hash_of(SMALL), 0, 1)
    assert caught.value.problem == "not-found"
    store.discard("nothing")
    store.remove(SCOPE, hash_of(SMALL))


def test_an_upload_is_held_by_one_process_at_a_time(store: ContentStore, again: Callable[[], ContentStore]) -> None:
    store.begin("up", len(SMALL))
    with closing(store.hold("up")):
        with pytest.raises(Busy) as caught:
            again().hold("up")
        assert caught.value.retry_after_ms
        add(store, "up", SMALL, 0, len(SMALL))
        publish(store, "up", SMALL)
    again().hold("up").close()
    store.discard("up")
    store.hold("up").close()


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_a_discarded_upload_is_gone(store: ContentStore, data: bytes) -> None:
    store.begin("up", len(data))
    add(store, "up", data, 0, len(data))
    store.discard("up")
    assert read_whole(store, "up", len(data)) is None
    with pytest.raises(Refused):
        store.append("up", len(data), 0, None)


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_the_same_content_twice_is_there_once_and_until_it_is_removed(store: ContentStore, data: bytes) -> None:
    brought(store, data, "first")
    brought(store, data, "second")
    store.remove(SCOPE, hash_of(data))
    assert store.size(SCOPE, hash_of(data)) is None


def test_reading_the_whole_may_be_repeated(store: ContentStore, again: Callable[[], ContentStore]) -> None:
    """The server died while it was hashing, or after it."""
    store.begin("up", len(LARGE))
    add(store, "up", LARGE, 0, len(LARGE))
    blocks = store.whole("up", len(LARGE))
    assert blocks is not None
    next(iter(blocks))
    blocks.close()
    publish(again(), "up", LARGE)
    assert read(store, LARGE, 0, len(LARGE)) == LARGE


def test_names_of_scopes_are_neither_paths_nor_keys(store: ContentStore) -> None:
    for scope in ("../up", "a/b", "ä\u202e", "x" * 100):
        store.begin("up", len(SMALL))
        add(store, "up", SMALL, 0, len(SMALL))
        assert read_whole(store, "up", len(SMALL)) == SMALL
        store.publish("up", len(SMALL), scope, hash_of(SMALL))
        store.discard("up")
        assert store.size(scope, hash_of(SMALL)) == len(SMALL)
    assert store.size(SCOPE, hash_of(SMALL)) is None


def test_there_is_room_or_no_telling(store: ContentStore) -> None:
    free = store.free()
    assert free is None or free > 0
