"""backhaul work, typed: what it lists and says, what it ends and forgets, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backhaul.work import OneTimeWork, chain, ledger
from tests.acceptance.conftest import backhaul, rows
from workers.cli.enqueueing import works_of
from workers.cli.here import opened

FUNCTIONS = """
from backhaul.work import worker

@worker
def collect(context):
    return {"pages": 3}

@worker
def send(context):
    pass
"""


@pytest.fixture
def shop(replica: Path) -> Path:
    """A replica whose workers would have two functions."""
    (replica / "reports.py").write_text(FUNCTIONS)
    settings = replica / "backhaul.toml"
    settings.write_text(settings.read_text().replace('# modules = ["shop.background"]', 'modules = ["reports"]'))
    return replica


def typed(*words: str, home: Path) -> Any:
    said = backhaul("work", *words, "--json", home=home)
    assert said.status == 0, said
    return said.json


def listed(home: Path, *words: str) -> list[str]:
    return [one["id"] for one in typed("list", *words, home=home)["work"]]


def test_work_is_enqueued_listed_explained_and_cancelled(shop: Path) -> None:
    assert backhaul("work", "list", home=shop).out == "there is no such work\n"
    asked = ["--input", '{"year": 2026}', "--tag", "yearly", "--delay", "10m", "--needs", "connected"]
    (work_id,) = typed("enqueue", "reports.collect", *asked, home=shop)["ids"]
    (named,) = typed("enqueue", "reports.send", "--name", "nightly", "--every", "12h", "--flex", "2h", home=shop)["ids"]
    again = typed("enqueue", "reports.send", "--name", "nightly", "--every", "1h", home=shop)
    assert (again["ids"], again["kept"]) == ([named], True)
    plain = backhaul("work", "enqueue", "shop.mail", "--plain", "--input", '{"args": [7]}', home=shop).out.strip()

    assert set(listed(shop)) == {work_id, named, plain}
    assert listed(shop, "--tag", "yearly") == listed(shop, "--tag", "reports.collect") == [work_id]
    assert listed(shop, "--name", "nightly", "--state", "enqueued") == [named]
    assert listed(shop, "--state", "RUNNING", "--state", "BLOCKED") == []
    assert "push" in listed(shop, "--ours")
    page = typed("list", "--limit", "2", home=shop)
    assert [one["id"] for one in page["work"]] == [plain, named]
    said = backhaul("work", "list", "--limit", "2", home=shop).out
    assert said.endswith(f"there is more: --after {page['after']}\n")
    rest = typed("list", "--after", page["after"], home=shop)
    assert ([one["id"] for one in rest["work"]], rest["after"]) == ([work_id], None)
    table = backhaul("work", "list", home=shop).out
    assert "reports.collect" in table
    assert "yearly" in table

    shown = typed("show", work_id, home=shop)
    assert (shown["work"], shown["input"], shown["initial_delay_ms"]) == ("reports.collect", {"year": 2026}, 600_000)
    assert shown["next_run_at"] == shown["enqueued_at"] + 600_000
    why = typed("why", work_id, home=shop)
    assert why["state"] == "ENQUEUED"
    assert why["why"].startswith("ENQUEUED: waits for its time, 0:10:00 after it was enqueued, on queue sync")
    assert backhaul("work", "why", work_id, home=shop).out == why["why"] + "\n"
    assert why["why"] in backhaul("work", "show", work_id, home=shop).out

    assert typed("cancel", work_id, home=shop) == {"cancelled": 1}
    assert backhaul("work", "cancel", work_id, home=shop).out == "nothing of it was still to be done\n"
    assert "cancelled by a person (backhaul work cancel)" in backhaul("work", "why", work_id, home=shop).out
    assert typed("cancel", "--name", "nightly", home=shop) == {"cancelled": 1}
    assert typed("prune", home=shop) == {"pruned": 2}
    assert listed(shop) == [plain]


def test_cancelling_takes_along_what_waits_and_leaves_sync_alone(shop: Path) -> None:
    steps = [OneTimeWork("reports.collect", id="a"), OneTimeWork("reports.send", id="b", tags={"last"})]
    with opened(shop) as here:
        works_of(here).enqueue(chain(steps[0]).then(steps[1]))
        works_of(here).enqueue(OneTimeWork("reports.send", id="c", tags={"last"}))
    assert backhaul("work", "why", "b", home=shop).out == "BLOCKED: waits for reports.collect a (ENQUEUED)\n"
    assert typed("cancel", "a", home=shop) == {"cancelled": 2}
    assert typed("cancel", "--tag", "last", home=shop) == {"cancelled": 1}
    with opened(shop) as here:
        works_of(here).enqueue(OneTimeWork("reports.send", id="d"))
    assert backhaul("work", "cancel", "--all", home=shop).out == "1 cancelled\n"
    with opened(shop) as here, here.database.reading() as connection:
        push = ledger.get(connection, "push")
    assert push is not None
    assert not push.finished


REFUSED: list[tuple[list[str], str, str]] = [
    (["enqueue", "reports.colect"], "no worker function 'reports.colect'", "did you mean 'reports.collect'?"),
    (["enqueue", "backhaul.push"], "Backhaul's own work", ""),
    (["enqueue", "reports.send", "--input", "[1]"], "input cannot be written as JSON", ""),
    (["enqueue", "reports.send", "--input", "{"], "the input is no JSON", ""),
    (["enqueue", "reports.send", "--delay", "10"], "--delay '10' is not a duration", "--delay 10m"),
    (["enqueue", "reports.send", "--needs", "wifi"], "nothing is known of 'wifi'", "unmetered"),
    (["enqueue", "reports.send", "--needs", "metered", "--needs", "unmetered"], "one network", ""),
    (["enqueue", "reports.send", "--needs", "metered"], "no declared queue has all", "add metered"),
    (["enqueue", "reports.send", "--every", "12h"], "periodic work needs a name", ""),
    (["enqueue", "reports.send", "--policy", "keep"], "a policy is of a name", ""),
    (["enqueue", "reports.send", "--name", "n", "--policy", "perhaps"], "no policy 'perhaps'", "append"),
    (["list", "--state", "asleep"], "no state 'asleep'", "ENQUEUED"),
    (["show", "nobody"], "there is no work 'nobody'", "backhaul work list"),
    (["why", "nobody"], "a name that is in use keeps nothing", "backhaul work list"),
    (["cancel"], "say which work", "backhaul work list"),
    (["cancel", "push", "--all"], "say which work", "backhaul work list"),
    (["cancel", "push"], "push is Backhaul's own work", "backhaul condition set"),
    (["cancel", "--name", "push"], "push is Backhaul's own work", "backhaul condition set"),
    (["cancel", "nobody"], "there is no work 'nobody'", "backhaul work list"),
]


def test_what_a_person_types_wrongly_is_refused_with_a_hint(shop: Path) -> None:
    def stored() -> list[Any]:
        return rows(shop, "SELECT id, state, generation, due_at FROM backhaul_work ORDER BY id")

    before = stored()
    for words, message, hint in REFUSED:
        said = backhaul("work", *words, home=shop)
        assert said.status == 2, (words, said)
        assert said.err.startswith("error: "), said
        assert message in said.err
        assert hint in said.err.partition("hint: ")[2], said
        assert "hint: " in said.err, said
    assert stored() == before
