"""What a person says of machines, and sees of them: `condition`, `pause`, `resume`, `status --nodes`, `why`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from backhaul.clock import SystemClock
from backhaul.work import roster
from backhaul.work.conditions import Condition, effective
from backhaul.work.reading import STALE_MS, Reading
from backhaul.work.roster import QueueState
from tests.acceptance.conftest import backhaul
from workers.cli.here import opened

KIOSK = {"BACKHAUL_NODE": "kiosk"}
GONE = 2**22 + 1  # the number of no process: Linux gives no higher one than 2**22


def beat(home: Path, node: str, *, queue: QueueState, ago_ms: int = -60_000, misrouted: int = 0, **said: Any) -> None:
    """A worker of that node is heard of, by a clock that is fast: commands take their time on a busy machine. Its name
    is of another host, so that nobody looks for its process here."""
    with opened(home) as here, here.database.writing() as connection:
        now = here.now - ago_ms
        name = f"{queue.name}@far.{node}"
        roster.beat(connection, name=name, node=node, pid=1, queues=[queue], now=now, concurrency=2, **said)
        for _ in range(misrouted):
            roster.misrouted(connection, name, node)


def held_by(home: Path, node: str | None = None) -> dict[str, Any]:
    asked = ["condition", "list", "--json", *(["--node", node] if node else [])]
    return {one["name"]: one for one in backhaul(*asked, home=home, env=KIOSK).json["conditions"]}


def test_a_word_of_one_machine_is_not_that_of_another(replica: Path) -> None:
    beat(replica, "attic", queue=QueueState(name="media", open=True), conditions=effective({}, {}, {}))
    said = backhaul("condition", "set", "charging", "off", "--for", "2h", "--json", home=replica, env=KIOSK)
    assert (said.json["node"], said.json["source"], said.json["on"], said.err) == ("kiosk", "override", False, "")
    assert said.json["expires_at"] - said.json["since"] == 2 * 3_600_000
    assert held_by(replica)["charging"]["source"] == "override"
    assert held_by(replica, "attic")["charging"]["on"]

    said = backhaul("condition", "set", "unmetered", "off", "--node", "attic", home=replica, env=KIOSK)
    assert (said.out, said.err) == ("unmetered is off on attic (override)\n", "")
    assert held_by(replica)["unmetered"]["source"] == "default"
    assert not held_by(replica, "attic")["unmetered"]["on"]

    assert backhaul("condition", "set", "connected", "off", "--all-nodes", home=replica, env=KIOSK).status == 0
    assert held_by(replica)["connected"]["node"] == held_by(replica, "attic")["connected"]["node"] == ""
    said = backhaul("condition", "clear", "connected", home=replica, env=KIOSK)
    assert said.out == "connected is off on all nodes (override)\n"
    assert "(all nodes)" in backhaul("condition", "list", home=replica, env=KIOSK).out


def test_what_was_taken_back_is_not_what_a_silent_machine_is_taken_for(replica: Path) -> None:
    now = SystemClock().now()
    word = Condition(name="charging", value=False, source="override", since=now, node="attic")
    reading = Reading(name="unmetered", answer="no", since=now, read_at=now + 30_000, source="NetworkManager")
    published = Condition(name="unmetered", value=True, source="published", since=now, node="attic")
    held = effective({}, {}, {"charging": word, "unmetered": published}, readings={"unmetered": reading}, now=now)
    said = {"conditions": held, "readings": {"unmetered": reading}}
    beat(replica, "attic", queue=QueueState(name="media", open=False), ago_ms=3_600_000, **said)
    assert held_by(replica, "attic")["charging"]["on"]
    assert (held_by(replica, "attic")["unmetered"]["source"], held_by(replica, "attic")["unmetered"]["on"]) == (
        "probe",
        False,
    )

    ask = ("condition", "clear", "charging", "--node")
    said_of = backhaul(*ask, "attic", home=replica, env=KIOSK)
    words = "charging: nothing is said of it any more on"
    assert said_of.out == f"{words} attic; what its workers see: on (default)\n"
    assert backhaul(*ask, "atic", home=replica, env=KIOSK).out == f"{words} atic; no worker of it was heard of\n"
    assert backhaul(*ask, "atic", "--json", home=replica, env=KIOSK).json["on"] is None


def test_a_worker_of_another_node_is_not_looked_for_among_our_processes(replica: Path) -> None:
    host = socket.gethostname()
    with opened(replica) as here, here.database.writing() as connection:
        for node in (here.settings.node, "attic"):
            queues = [QueueState(name="sync", open=True)]
            roster.beat(connection, name=f"one@{host}", node=node, pid=GONE, queues=queues, now=here.now + 60_000)
    alive = {one["node"]: one["alive"] for one in backhaul("status", "--nodes", "--json", home=replica).json["nodes"]}
    assert alive == {host: False, "attic": True}


def test_a_machine_that_nobody_knows_is_remarked_on_and_two_answers_to_where_are_refused(replica: Path) -> None:
    said = backhaul("condition", "set", "charging", "off", "--node", "atic", home=replica)
    assert (said.status, said.out) == (0, "charging is off on atic (override)\n")
    assert "no worker of a node 'atic' was heard of" in said.err
    said = backhaul("condition", "list", "--node", "cellar", home=replica)
    assert said.status != 0
    assert "hint: backhaul status --nodes" in said.err
    assert backhaul("pause", "--node", "attic", "--all-nodes", home=replica).status == 2


def test_a_pause_holds_everything_until_it_is_over_or_taken_back(replica: Path) -> None:
    said = backhaul("pause", "--for", "2h", home=replica, env=KIOSK)
    assert said.out.startswith("kiosk is paused until ")
    status = backhaul("status", "--json", home=replica, env=KIOSK).json
    assert status["paused"]["paused"]
    assert not any(queue["open"] for queue in status["queues"])
    assert "paused    on kiosk until" in backhaul("status", home=replica, env=KIOSK).out
    assert "waits for not_paused (off by override" in backhaul("push", "--wait", home=replica, env=KIOSK).err

    assert backhaul("pause", "--all-nodes", home=replica, env=KIOSK).out == "every node is paused: backhaul resume\n"
    said = backhaul("resume", home=replica, env=KIOSK)
    assert said.status == 75
    assert "still paused, by an override of all nodes" in said.out
    assert backhaul("resume", "--all-nodes", home=replica, env=KIOSK).status == 0
    assert backhaul("push", "--wait", home=replica, env=KIOSK).status == 0


def test_status_tells_of_each_node_and_why_what_each_lacks(replica: Path) -> None:
    now = SystemClock().now()  # and what it reads is read by that clock, too
    fresh = Reading(
        name="unmetered", answer="no", since=now - 5_000, read_at=now + 30_000, source="NetworkManager", detail="wwan0"
    )
    old = Reading(name="charging", answer="no", since=1, read_at=now - STALE_MS - 30_000, source="UPower")
    readings = {one.name: one for one in (fresh, old)}
    held = effective({}, {}, {}, readings=readings, now=now)
    closed = QueueState(name="media", open=False, reason="unmetered is off (NetworkManager: wwan0)", since=now - 5_000)
    beat(replica, "attic", queue=closed, readings=readings, conditions=held, labels=["region:eu"])
    with opened(replica) as here, here.database.writing() as connection:
        for _ in range(3):
            roster.misrouted(connection, "media@far.attic", "attic")
    beat(replica, "cellar", queue=QueueState(name="sync", open=True, since=now), ago_ms=3_600_000)

    attic, cellar = backhaul("status", "--nodes", "--json", home=replica).json["nodes"]
    assert (attic["node"], attic["alive"], attic["labels"]) == ("attic", True, ["region:eu"])
    assert (cellar["node"], cellar["alive"]) == ("cellar", False)
    (worker,) = attic["workers"]
    assert (worker["concurrency"], worker["misrouted"], worker["heartbeat_seconds"] < 60) == (2, 3, True)
    assert worker["queues"] == [{"name": "media", "open": False, "since": closed.since, "reason": closed.reason}]
    seen = {one["name"]: one for one in attic["conditions"]}
    said = {name: seen["unmetered"][name] for name in ("on", "source", "by", "answer", "stale", "since")}
    assert said == {
        "on": False,
        "source": "probe",
        "by": "NetworkManager",
        "answer": "no",
        "stale": False,
        "since": fresh.since,
    }
    assert (seen["charging"]["on"], seen["charging"]["answer"], seen["charging"]["stale"]) == (True, "unknown", True)
    assert seen["charging"]["age_seconds"] >= 90

    out = backhaul("status", "--nodes", home=replica).out
    for word in ("node attic (region:eu)", "NetworkManager: wwan0", "too old", "closed", "none of its workers answers"):
        assert word in out

    (replica / "photo.jpg").write_bytes(b"light")
    upload = backhaul("media", "put", "photo.jpg", "--json", home=replica).json["uploads"][0]["id"]
    line = backhaul("why", upload, home=replica).out
    assert line.startswith("ENQUEUED: queue media is closed on every worker that serves it;")
    assert "media@far.attic on attic cannot since" in line
    assert "(unmetered is off (NetworkManager: wwan0))" in line
    assert "cellar" not in line
