"""The page that other clients are written from: its examples are messages, and its hashes are those that we reckon."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from backhaul import wire
from backhaul.digest import fingerprint, row_hash
from backhaul.server.problems import problem
from backhaul.wire import (
    Digest,
    Entered,
    Hashes,
    Keys,
    NewContents,
    Page,
    Problem,
    Push,
    Pushed,
    Record,
    Registered,
    Registration,
)
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "protocol.md").read_text("utf-8")
KINDS: dict[str, Any] = {
    "code": Registration,
    "token": Registered,
    "ops": Push,
    "results": Pushed,
    "records": Page,
    "type": Problem,
    "position": Digest,
    "hashes": Hashes,
    "contents": NewContents,
    "problems": Entered,
}
PROBLEM = re.compile(r'"type":"https://backhaul\.invalid/problems/([a-z-]+)",\s*"title":"([^"]+)","status":(\d+)')
HASH = re.compile(r"^\| `(\[.+?\])`(?: \((\d+) bytes.*?\)| \(.*?\))? \| `([0-9a-f]{16})` \|$", re.MULTILINE)


def messages() -> list[str]:
    """What stands in the blocks of the page: the whole of it, or what comes after a request line or a status."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found = [part for block in blocks for part in re.split(r"^(?=[{\[])", block, flags=re.MULTILINE)]
    texts = [re.split(r"\n\n", part)[0] for part in found if part.startswith(("{", "["))]
    return [text.replace("[...]", "[]") for text in texts if "{...}" not in text]


def kind_of(message: Any) -> Any:
    """The first of the names that the message has tells what it is."""
    return list[Record] if isinstance(message, list) else next(KINDS[name] for name in KINDS if name in message)


def read(text: str) -> Any:
    return msgspec.json.decode(text, type=kind_of(json.loads(text)))


def members(message: Any) -> Iterator[str]:
    """The names of all members; those of fields and of kinds are the app's."""
    if isinstance(message, list):
        for one in message:
            yield from members(one)
    elif isinstance(message, dict):
        for name, value in message.items():
            yield name
            yield from members(value if name not in ("fields", "kinds") else None)


@pytest.mark.parametrize("text", messages())
def test_an_example_is_a_message_of_members_that_we_know(text: str) -> None:
    read(text)
    structs = [one for one in vars(wire).values() if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    assert set(members(json.loads(text))) <= {name for struct in structs for name in struct.__struct_fields__}


def test_every_kind_of_message_has_an_example() -> None:
    found = {str(kind_of(json.loads(text))) for text in messages()}
    assert found == {str(kind) for kind in [*KINDS.values(), list[Record]]}


def test_the_request_for_records_is_one() -> None:
    (text,) = re.findall(r"^`POST /v1/records` with `(.*?)`", PAGE, re.MULTILINE)
    assert msgspec.json.decode(text, type=Keys).keys[0] == ("visit", ["v-1"])


def test_no_example_repeats_the_key_among_the_fields() -> None:
    decoded = [read(text) for text in messages()]
    (registration,) = (message for message in decoded if isinstance(message, Registration))
    keys = {table.name: set(table.key) for table in registration.tables}
    said = [entry for message in decoded for entry in entries(message)]
    assert said
    assert [entry for entry in said if keys[entry.table] & entry.fields.keys()] == []


def entries(message: Any) -> list[Any]:
    if isinstance(message, list):
        return message
    return list(getattr(message, "ops", getattr(message, "records", [])))


def test_the_hashes_of_the_digest_are_those_that_we_reckon() -> None:
    rows = HASH.findall(PAGE)
    assert len(rows) == 3
    hashes = []
    for text, size, told in rows:
        hashes.append(row_hash(*json.loads(text)))
        assert f"{hashes[-1]:016x}" == told
        assert not size or len(text.encode()) == int(size)
    (of_two,) = re.findall(r"fingerprint of a table with the first and the third of these is `([0-9a-f]{16})`", PAGE)
    assert fingerprint([hashes[0], hashes[2]]) == of_two
    (digest,) = (message for message in map(read, messages()) if isinstance(message, Digest))
    assert [table.fingerprint for table in digest.tables] == [f"{one:016x}" for one in hashes[:2]]


def test_the_problems_of_the_examples_are_those_of_the_server() -> None:
    told = PROBLEM.findall(PAGE)
    assert told
    assert told == [(name, problem(name).title, str(problem(name).status)) for name, _, _ in told]
