"""The app's own triggers, fired twice or kept still."""

from __future__ import annotations

import pytest

from backhaul.replica import enrol, inspection, muting
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

TABLES = """
    CREATE TABLE article (id TEXT PRIMARY KEY, stock INTEGER, begins TEXT);
    CREATE TABLE move (id TEXT PRIMARY KEY, article TEXT, number INTEGER);
"""
SQLITE = """
    CREATE TRIGGER "when it moves" AFTER INSERT ON move WHEN CASE WHEN NEW.number <> 0 THEN 1 ELSE 0 END
    BEGIN UPDATE article SET stock = stock + NEW.number WHERE id = NEW.article; END;
    CREATE TRIGGER plain AFTER DELETE ON move FOR EACH ROW
    begin -- nothing but this
      UPDATE article SET stock = stock - OLD.number WHERE id = OLD.article;
    END;
"""
POSTGRESQL = """
    CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
        UPDATE article SET stock = stock + NEW.number WHERE id = NEW.article; RETURN NULL; END';
    CREATE TRIGGER "when it moves" AFTER INSERT ON move FOR EACH ROW WHEN (NEW.number <> 0) EXECUTE FUNCTION moved();
"""
STILL = {"move": Rules(triggers="mute")}


def schema(kind: str) -> str:
    return TABLES + (SQLITE if kind == "sqlite" else POSTGRESQL)


def say(replica: Replica, rules: dict[str, Rules]) -> None:
    enrol.renew(replica.database, replica.remote, rules=rules)


def told(replica: Replica) -> list[str]:
    with replica.database.reading() as connection:
        return inspection.app_triggers(connection, ["article", "move"])


def stock(replica: Replica) -> list[tuple[int]]:
    return replica.asked("SELECT stock FROM article")


def test_a_trigger_that_is_kept_still_does_not_do_twice_what_arrives(make: MakeReplica, kind: str) -> None:
    a, b = make(schema=schema(kind)), make(schema=schema(kind))
    assert "when it moves" in told(a)
    for one in (a, b):
        say(one, STILL)
        assert told(one) == []
    a.write("INSERT INTO article VALUES ('a', 0, 'x')")
    a.sync()
    b.sync()
    a.write("INSERT INTO move VALUES ('m', 'a', 5)")
    a.write("INSERT INTO move VALUES ('n', 'a', 0)")
    for one in (a, b, a):
        one.sync()
    assert stock(a) == stock(b) == [(5,)]
    b.write("INSERT INTO move VALUES ('o', 'a', 2)")
    for one in (b, a, b):
        one.sync()
    assert stock(a) == stock(b) == [(7,)]
    assert all(compare(one.database, one.remote, context=one.context).equal for one in (a, b))


def test_it_is_let_go_again_as_it_was(make: MakeReplica, kind: str) -> None:
    a = make(schema=schema(kind))
    before = definitions(a)
    say(a, STILL)
    assert definitions(a) != before
    say(a, STILL)
    say(a, {"move": Rules(triggers="fire")})
    assert definitions(a) == before
    assert "when it moves" in told(a)


def definitions(replica: Replica) -> list[str]:
    asked = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name NOT LIKE 'backhaul%' ORDER BY name"
    if not replica.database.sqlite:
        asked = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname NOT LIKE 'backhaul%' ORDER BY tgname"
    return [" ".join(sql.split()) for (sql,) in replica.asked(asked)]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; END",
        "CREATE TRIGGER t AFTER UPDATE OF begin ON x WHEN NEW.begin = 'BEGIN SELECT' BEGIN SELECT 1; END",
        "CREATE TRIGGER t AFTER INSERT ON x -- WHEN BEGIN SELECT\n WHEN (1) BEGIN SELECT CASE WHEN 1 THEN 2 END; END",
    ],
)
def test_the_condition_stands_before_the_body_whatever_is_written_there(sql: str) -> None:
    assert " ".join(muting.without_condition(muting.with_condition(sql)).split()) == " ".join(sql.split())
    assert muting.with_condition(sql).count("coalesce((SELECT muted") == 1
