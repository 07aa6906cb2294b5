"""What the server answers to requests that say two things, ask for what is not there, or by a wrong method."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhaul.server.doubles import has_double
from backhaul.wire import Push, Tagged, encode
from tests.unit.server.conftest import problem

JSON = {"Content-Type": "application/json"}
OP = (
    '{"op":"0b7c3e9a54f14d0f8a1e2c3d4b5a6978","seq":1,"table":"customer","key":[1],"kind":"insert",'
    '"hlc":"01a1fadab694-0000","fields":{"name":"x"}}'
)


TWICE = [
    ('"seq":1', '"seq":1,"seq":1'),
    ('"name":"x"', '"name":"x","name":"y"'),
    ('"name":"x"', '"name":"x" , "name" : "y"'),
    ('"name":"x"', '"name":"x","n\\u0061me":"y"'),
    ('"name":"x"', '"name":{"hex":"00","hex":"01"}'),
    ('"hlc"', '"base":0,"base":0,"hlc"'),
]


@pytest.mark.parametrize(
    "body", ['{"ops":[],"ops":[]}', *('{"ops":[' + OP.replace(*change) + "]}" for change in TWICE)]
)
def test_an_object_that_names_a_member_twice_is_refused(till, body):
    assert problem(till.call("POST", "/v1/push", data=body, headers=JSON)) == (400, "malformed")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(),
    st.just('":'),
    st.builds(Tagged, hex=st.just("00")),
)
OPS = st.fixed_dictionaries(
    {
        "op": st.just("0b7c3e9a54f14d0f8a1e2c3d4b5a6978"),
        "seq": st.integers(1, 9),
        "table": st.text(),
        "key": st.lists(st.one_of(st.integers(0, 9), st.text())),
        "kind": st.just("insert"),
        "hlc": st.just("01a1fadab694-0000"),
    },
    optional={
        "base": st.integers(0, 2),
        "group": st.one_of(st.none(), st.text()),
        "fields": st.dictionaries(st.text(), VALUES),
    },
)


@given(ops=st.lists(OPS, max_size=4), spaces=st.booleans())
def test_a_push_is_found_to_be_single_by_counting(ops, spaces):
    said = encode({"ops": ops})
    plain = json.dumps(json.loads(said), indent=1).encode() if spaces else said
    assert not has_double(plain, msgspec.json.decode(plain, type=Push))


@given(ops=st.lists(OPS, min_size=1, max_size=3), name=st.text(), spaces=st.booleans())
def test_one_member_more_is_found_in_whatever_spelling(ops, name, spaces):
    ops[0]["fields"] = {name: "x"}
    said = json.loads(encode({"ops": ops}))
    plain = json.dumps(said, indent=1) if spaces else json.dumps(said, separators=(",", ":"))
    member = json.dumps(name) + (": " if spaces else ":") + '"x"'
    assert member in plain
    plain = plain.replace(member, f"{member},{member}", 1)
    read = msgspec.json.decode(plain, type=Push)
    assert has_double(plain.encode(), read)


def test_a_method_that_there_is_not_is_told_which_there_are(till):
    answer = till.call("DELETE", "/v1/push")
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["Allow"] == "POST"


def test_a_range_that_there_is_not_is_a_problem_with_the_length(till):
    from tests.unit.server.test_media import PHOTO, TUS, sha256

    hashed = sha256(PHOTO)
    metadata = {"Upload-Length": str(len(PHOTO)), "Content-Type": "application/offset+octet-stream"}
    made = till.session.post(till.server.url + "/v1/media", data=PHOTO, headers=TUS | metadata, timeout=20)
    assert made.status_code == 201, made.text
    answer = till.call("GET", f"/v1/media/sha256/{hashed}", headers={"Range": f"bytes={len(PHOTO)}-"})
    assert problem(answer) == (416, "range-unsatisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(PHOTO)}"
    assert problem(till.call("GET", f"/v1/media/sha256/{hashed}", headers={"Range": "bytes=x-y"})) == (400, "malformed")
    assert till.call("GET", f"/v1/media/sha256/{hashed}", headers={"Range": "bytes=0-3"}).content == PHOTO[:4]
