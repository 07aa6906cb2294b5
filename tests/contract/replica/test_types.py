"""Values of every column type go out and come in exactly, within a database's kind and across the two."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.replica.conftest import MakeReplica
from tests.contract.replica.test_rounds import assert_equal, settle
from tests.replicas import Replica

# Of PostgreSQL, each with the texts of some values.
OF_POSTGRESQL: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "7"],
    "bigint": ["-9223372036854775808", "9007199254740993"],
    "numeric": ["0.1", "12.50", "-0.000", "1e100", "NaN", "123456789012345678901234567890.123456789"],
    "numeric(10,2)": ["12.5", "-0.01"],
    "real": ["0.1", "NaN", "-Infinity", "16777216", "1e-30"],
    "double precision": ["0.1", "1e300", "-0", "5e-324", "Infinity", "NaN", "3"],
    "money": ["12.34"],
    "boolean": ["true", "false"],
    "text": ["", "é 漢字 \U0001f6b2 \u2028 \ufeff", '"\\\b\f\n\r\t\x01\x7f'],
    "character varying(20)": ["  padded  "],
    "character(5)": ["ab"],
    '"char"': ["x"],
    "bytea": ["\\x", "\\x00ff5c"],
    "uuid": ["018f3a52-7b1c-7000-8000-0123456789ab"],
    "date": ["2024-02-29", "infinity", "0044-03-15 BC"],
    "time": ["12:34:56.789012"],
    "time with time zone": ["12:00:00+02"],
    "timestamp": ["2024-02-29 12:34:56.000001", "-infinity", "294276-12-31 23:59:59"],
    "timestamp with time zone": ["2024-02-29 12:34:56+02", "2024-02-29 12:34:56.5-11"],
    "interval": ["1 year 2 mons 3 days 04:05:06.789", "-1 day"],
    "json": ['{"b": 1,  "a": [1.0, "\\u0041"]}'],
    "jsonb": ['{"b": 1.10, "a": [null, true]}'],
    "integer[]": ["{1,NULL,3}", "{}"],
    "text[]": ['{"a,b","c\\"d",NULL}'],
    "timestamp with time zone[]": ['{"2024-02-29 12:34:56+02"}'],
    "bytea[]": ['{"\\\\x00ff"}'],
    "mood": ["happy", "it's complicated"],
    "price": ["12.50"],
    "pair": ['(1,"a ""b")'],
    "inet": ["10.0.0.1/8", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": ["101"],
    "bit varying": ["10", ""],
    "point": ["(0.1,2)"],
    "int4range": ["[1,5)", "empty"],
    "tstzrange": ['["2024-01-01 00:00:00+01",)'],
    "tsvector": ["'a':1 'b':2"],
    "xml": ["<a>b</a>"],
}
TYPES = """
    CREATE TYPE mood AS ENUM ('happy', 'it''s complicated');
    CREATE DOMAIN price AS numeric(10, 2) CHECK (VALUE >= 0);
    CREATE TYPE pair AS (number integer, word text);
"""


def columns(types: dict[str, Any]) -> str:
    return ", ".join(f"c{number} {declared}" for number, declared in enumerate(types))


def as_texts(replica: Replica, types: dict[str, Any]) -> list[tuple[Any, ...]]:
    said = ", ".join(f"c{number}::text" for number in range(len(types)))
    return replica.asked(f"SELECT {said} FROM everything ORDER BY id")


def test_every_type_of_postgresql_arrives_exactly(make_on: MakeReplica) -> None:
    schema = f"{TYPES} CREATE TABLE everything (id BIGINT PRIMARY KEY, {columns(OF_POSTGRESQL)});"
    ann, bob = make_on("postgresql", schema=schema), make_on("postgresql", schema=schema)
    # Whatever the session of the app says, values travel in one form.
    ann.app.execute("SET DateStyle = 'German'; SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'sql_standard'")
    ann.app.execute("SET extra_float_digits = -5; SET bytea_output = 'escape'")
    places = ", ".join(f"CAST(%s AS text)::{declared}" for declared in OF_POSTGRESQL)
    for number in range(6):
        row = [values[number] if number < len(values) else None for values in OF_POSTGRESQL.values()]
        ann.app.execute(f"INSERT INTO everything VALUES ({number}, {places})", row)
    row = [values[-1] for values in OF_POSTGRESQL.values()]
    assign = ", ".join(f"c{n} = CAST(%s AS text)::{declared}" for n, declared in enumerate(OF_POSTGRESQL))
    ann.app.execute(f"UPDATE everything SET {assign} WHERE id = 0", row)
    settle(ann, bob)
    ann.app.execute("RESET ALL")
    assert as_texts(ann, OF_POSTGRESQL) == as_texts(bob, OF_POSTGRESQL)
    assert len(as_texts(bob, OF_POSTGRESQL)) == 6
    assert_equal((ann, bob))


decimals = st.decimals(allow_nan=False, allow_infinity=False, places=None).map(str)
PROPERTIES: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    # of PostgreSQL: (of SQLite, values)
    "bigint": ("INTEGER", st.integers(-(2**63), 2**63 - 1)),
    "double precision": ("REAL", st.floats(allow_nan=False)),
    "numeric": ("TEXT", st.decimals(-(10**30), 10**30, allow_nan=False, places=12).map(str)),
    "numeric(14,2)": ("NUMERIC(14,2)", st.decimals(-(10**11), 10**11, allow_nan=False, places=2).map(str)),
    "text": ("TEXT", st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    "bytea": ("BLOB", st.binary()),
    "boolean": ("BOOLEAN", st.booleans()),
    "timestamp": ("DATETIME", st.datetimes().map(str)),
    "date": ("DATE", st.dates().map(str)),
    "uuid": ("CHAR(36)", st.uuids().map(str)),
    "jsonb": ("JSON", st.sampled_from(['{"a":1.50,"b":[1,2]}', "[]", '"text"', "12"])),
}
ROWS = st.lists(st.tuples(*(values for _, values in PROPERTIES.values())), min_size=1, max_size=20)


@pytest.mark.parametrize("direction", ["to sqlite", "to postgresql"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS)
def test_values_cross_from_one_database_to_the_other(both: tuple[Replica, Replica], direction: str, rows: Any) -> None:
    here, there = both if direction == "to sqlite" else both[::-1]
    here.write("DELETE FROM everything")
    places = ", ".join("?" * (len(PROPERTIES) + 1))
    if here is both[0]:
        places = ", ".join(["?", *(f"CAST(CAST(? AS text) AS {declared})" for declared in PROPERTIES)])
    for number, row in enumerate(rows):
        given_as = [_as_text(value) for value in row] if here is both[0] else row
        here.write(f"INSERT INTO everything VALUES ({places})", number, *given_as)
    settle(here, there)
    assert len(there.rows("everything")) == len(rows)
    assert_equal(both)


def _as_text(value: Any) -> str:
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


@pytest.fixture
def both(make_on: MakeReplica) -> tuple[Replica, Replica]:
    of_sqlite = {f"{declared} -- {number}\n": None for number, (declared, _) in enumerate(PROPERTIES.values())}
    ann = make_on("postgresql", schema=f"CREATE TABLE everything (id BIGINT PRIMARY KEY, {columns(PROPERTIES)});")
    listed = ", ".join(f"c{number} {declared.partition(' --')[0]}" for number, declared in enumerate(of_sqlite))
    bob = make_on("sqlite", schema=f"CREATE TABLE everything (id BIGINT PRIMARY KEY, {listed});")
    return ann, bob


def test_a_decimal_that_a_column_of_sqlite_cannot_hold_is_set_aside(make_on: MakeReplica) -> None:
    ann = make_on("postgresql", schema="CREATE TABLE t (id text PRIMARY KEY, amount numeric);")
    bob = make_on("sqlite", schema="CREATE TABLE t (id TEXT PRIMARY KEY, amount NUMERIC);")
    ann.write("INSERT INTO t VALUES ('long', 1234567890123456.789), ('short', 12.50)")
    settle(ann, bob)
    assert bob.rows("t") == [("short", 12.5)]
    ann.write("UPDATE t SET amount = 1.25 WHERE id = 'long'")
    settle(ann, bob)
    assert bob.rows("t") == [("long", 1.25), ("short", 12.5)]
    assert_equal((ann, bob))


def test_what_is_no_number_is_set_aside_on_sqlite_and_arrives_on_postgresql(make_on: MakeReplica) -> None:
    schema = "CREATE TABLE t (id text PRIMARY KEY, amount double precision);"
    ann, bob, col = (make_on(kind, schema=schema) for kind in ("postgresql", "sqlite", "postgresql"))
    ann.write("INSERT INTO t VALUES ('a', 'NaN'), ('b', 'Infinity')")
    settle(ann, bob, col)
    assert bob.rows("t") == [("b", float("inf"))]
    assert col.asked("SELECT amount::text FROM t ORDER BY id") == [("NaN",), ("Infinity",)]
    assert_equal((ann, col))


def test_a_change_of_nothing_but_the_digits_is_a_change(make_on: MakeReplica) -> None:
    schema = "CREATE TABLE t (id text PRIMARY KEY, amount numeric, said json);"
    ann, bob = make_on("postgresql", schema=schema), make_on("postgresql", schema=schema)
    ann.write("INSERT INTO t VALUES ('a', 1.0, '{}')")
    ann.write("UPDATE t SET amount = 1.00")
    ann.write("UPDATE t SET said = '{ }'")
    settle(ann, bob)
    assert bob.asked("SELECT amount::text, said::text FROM t") == [("1.00", "{ }")]
