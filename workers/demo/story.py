"""The story: a technician's laptop and an office, through a day on which everything goes wrong that can.

Every scene checks what it claims, and the demo fails if a claim does not hold.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from workers.demo.equality import differences
from workers.demo.shop import make_photo
from workers.demo.stage import DemoFailed, Player, Stage, ask_broker, until
from workers.demo.telling import Telling

PATIENCE = 30.0
APART_SECONDS = 1.0  # well over what two measurements of the server's clock differ by on a busy machine
PHOTOS = 3
BATCHES, BATCH = 30, 10  # transactions, and visits in each, around the loss of the broker


def play(stage: Stage, tell: Telling) -> None:
    """Raises DemoFailed."""
    _curtain(stage, tell)
    _offline(stage, tell)
    _online(stage, tell)
    _unmetered(stage, tell)
    _same_record(stage, tell)
    _broker_lost(stage, tell)
    _equal(stage, tell)


def _curtain(stage: Stage, tell: Telling) -> None:
    with tell.scene("Setting up: a server and two replicas") as outcome:
        stage.start_server()
        tell.say(f"The sync server listens on {stage.url}.")
        stage.make_replica(stage.office, customers=True)
        tell.say("The office has a database with three customers; `backhaul init` made it a replica.")
        stage.make_replica(stage.laptop, customers=False)
        tell.say("The technician's laptop is a replica too, still empty.")
        tell.say("`backhaul up` in both: a redis-server of their own, two workers, beat; on the laptop also Flower.")
        stage.start_replicas()
        flower = stage.laptop.running["addresses"]["flower"]
        tell.say(f"Flower shows the laptop's workers and tasks: {flower}")
        until(lambda: stage.laptop.app.has("customers", "C-3"), PATIENCE, "the customers reach the laptop")
        tell.say("The office's customers, who were there before `init`, are on the laptop.")
        workers = sum(len(player.running["queues"]) for player in (stage.laptop, stage.office))
        outcome(f"{workers} workers, 2 beats, 2 brokers, Flower, 1 server")


def _offline(stage: Stage, tell: Telling) -> None:
    laptop = stage.laptop
    with tell.scene("In the cellar: no network, and the app works") as outcome:
        laptop.backhaul("condition", "set", "connected", "off")
        laptop.backhaul("condition", "set", "unmetered", "off")
        took = _work_offline(laptop)
        tell.say("A new customer, three visits with a photo each, an invoice and its three lines in one transaction.")
        tell.say(f"Every commit was local; the slowest took {took * 1000:.1f} ms.")
        tell.quote("backhaul why invoices 2026-001", laptop.backhaul("why", "invoices", "2026-001"))
        pending = laptop.app.backhaul.status().pending
        if pending != 8 or stage.office.app.has("invoices", "2026-001"):
            raise DemoFailed(f"offline, {pending} changes are pending where 8 should be")
        outcome(f"{pending} changes and {PHOTOS} photos wait on the laptop")


def _work_offline(laptop: Player) -> float:
    """Returns the seconds of the slowest commit."""
    app, slowest = laptop.app, 0.0
    steps: list[Callable[[], None]] = [
        lambda: app.write(("INSERT INTO customers VALUES ('C-4', 'Garage Ferro', '555-0104', NULL, NULL)", {})),
        *(
            partial(app.visit, f"V-{number}", "C-4", "boiler looked at", f"photo-{number}.jpg")
            for number in range(1, PHOTOS + 1)
        ),
        lambda: app.invoice("2026-001", "C-4", [("Pump", 18_900), ("Seals", 1_250), ("Two hours", 13_000)]),
    ]
    for step in steps:
        began = time.perf_counter()
        step()
        slowest = max(slowest, time.perf_counter() - began)
    for number in range(1, PHOTOS + 1):
        app.backhaul.media.put(make_photo(laptop.home, f"photo-{number}.jpg"))
    return slowest


def _online(stage: Stage, tell: Telling) -> None:
    laptop, office = stage.laptop, stage.office
    with tell.scene("On the road: a mobile network. Data goes, photos wait") as outcome:
        began = time.monotonic()
        laptop.backhaul("condition", "clear", "connected")
        total = laptop.app.backhaul.status().pending
        with tell.bar("changes sent", total or 1) as sent:
            until(lambda: _left(laptop, total, sent) == 0, PATIENCE, "the changes are sent")
        until(lambda: office.app.has("invoices", "2026-001"), PATIENCE, "the invoice is in the office")
        took = time.monotonic() - began
        tell.say(f"{took:.1f} seconds after the network came, the invoice and its lines are in the office.")
        photo = laptop.app.backhaul.media.list()[0]
        why = laptop.backhaul("why", photo.id)
        tell.quote(f"backhaul why {photo.id}", why)
        if "unmetered" not in why or any(one.sent for one in laptop.app.backhaul.media.list()):
            raise DemoFailed("the photos did not wait for an unmetered network")
        outcome(f"data in {took:.1f} s; {PHOTOS} photos wait for unmetered")


def _left(player: Player, total: int, sent: Callable[[float], None]) -> int:
    pending = player.app.backhaul.status().pending
    sent(total - pending)
    return pending


def _unmetered(stage: Stage, tell: Telling) -> None:
    laptop = stage.laptop
    with tell.scene("At home: unmetered. The photos go, by the media worker alone") as outcome:
        began = time.monotonic()
        laptop.backhaul("condition", "set", "unmetered", "on")
        total = sum(one.size for one in laptop.app.backhaul.media.list())
        with tell.bar("photos sent", total) as sent:
            until(lambda: _bytes_sent(laptop, sent) == total, PATIENCE, "the photos are sent")
        until(lambda: _all_done(laptop), PATIENCE, "the server has checked the photos")
        uploads = laptop.app.backhaul.media.list()
        by = {(one.queue, str(one.worker).partition("@")[0]) for one in uploads}
        if by != {("media", "media")}:
            raise DemoFailed(f"the photos went by {by}")
        tell.quote("backhaul media list", laptop.backhaul("media", "list"))
        outcome(f"{total / 2**20:.0f} MiB in {time.monotonic() - began:.1f} s, all by queue media")


def _bytes_sent(player: Player, sent: Callable[[float], None]) -> int:
    done = sum(one.sent for one in player.app.backhaul.media.list())
    sent(done)
    return done


def _all_done(player: Player) -> bool:
    return all(one.state == "done" for one in player.app.backhaul.media.list())


def _same_record(stage: Stage, tell: Telling) -> None:
    laptop, office = stage.laptop, stage.office
    with tell.scene("Both edit the same customer while apart") as outcome:
        for player in (laptop, office):
            player.backhaul("condition", "set", "connected", "off")
        laptop.app.edit("C-2", phone="555-0999", note="key at the desk (laptop)")
        time.sleep(APART_SECONDS)
        office.app.edit("C-2", address="14 Harbour Street", note="call ahead (office, later)")
        tell.say("The laptop changed the phone and the note; a second later the office the address and the note.")
        for player in (laptop, office):
            player.backhaul("condition", "clear", "connected")
        until(lambda: _agree(laptop, office), PATIENCE, "both have the same customer")
        customer = laptop.app.customer("C-2")
        tell.say(f"Both now hold: {customer['phone']}, {customer['address']}, {customer['note']!r}")
        expected = ("555-0999", "14 Harbour Street", "call ahead (office, later)")
        if (customer["phone"], customer["address"], customer["note"]) != expected:
            raise DemoFailed("the edits were not merged field by field, the later one winning")
        outcome("different fields: both kept; the same field: the later one")


def _agree(laptop: Player, office: Player) -> bool:
    quiet = not any(player.app.backhaul.status().pending for player in (laptop, office))
    ours, theirs = laptop.app.customer("C-2"), office.app.customer("C-2")
    return quiet and ours == theirs and ours["phone"] == "555-0999" and ours["address"] == "14 Harbour Street"


def _broker_lost(stage: Stage, tell: Telling) -> None:
    laptop, office = stage.laptop, stage.office
    with tell.scene("The broker is wiped, then killed, in the middle of it all") as outcome:
        path = urlsplit(laptop.running["addresses"]["broker"]).path
        with tell.bar("visits written", BATCHES * BATCH) as written:
            for number in range(BATCHES):
                _write_batch(laptop, number)
                written((number + 1) * BATCH)
                if number in (BATCHES // 3, BATCHES // 2):
                    _harm_broker(path, tell, kill=number == BATCHES // 2)
        until(lambda: laptop.app.backhaul.status().pending == 0, PATIENCE, "every change is sent")
        last = f"B-{BATCHES - 1}-{BATCH - 1}"
        until(lambda: office.app.has("visits", last), PATIENCE, "the last visit is in the office")
        arrived = _count(office, "SELECT count(*) FROM visits WHERE id LIKE 'B-%'")
        if arrived != BATCHES * BATCH:
            raise DemoFailed(f"{arrived} of {BATCHES * BATCH} visits arrived")
        tell.say(f"All {arrived} visits are in the office: messages were lost, changes were not.")
        outcome(f"{arrived} of {BATCHES * BATCH} changes arrived")


def _write_batch(laptop: Player, number: int) -> None:
    statement = "INSERT INTO visits VALUES (:id, 'C-1', '2026-05-05', 'meter read', NULL)"
    laptop.app.write(*((statement, {"id": f"B-{number}-{place}"}) for place in range(BATCH)))
    time.sleep(0.03)  # as fast as a busy app, not as fast as a loop


def _harm_broker(path: str, tell: Telling, *, kill: bool) -> None:
    if not kill:
        ask_broker(path, "FLUSHALL")
        tell.say("FLUSHALL: every message is gone.")
        return
    told = ask_broker(path, "INFO server")
    pid = next(int(line.partition(":")[2]) for line in told.splitlines() if line.startswith("process_id"))
    os.kill(pid, signal.SIGKILL)
    tell.say("kill -9: the redis-server is gone. A worker will start another one.")


def _equal(stage: Stage, tell: Telling) -> None:
    with tell.scene("Are all three equal?") as outcome:
        for player in (stage.laptop, stage.office):
            player.backhaul("sync", "--wait")
        compared = {player.name: player.backhaul_json("verify") for player in (stage.laptop, stage.office)}
        tell.quote("backhaul verify", stage.laptop.backhaul("verify"))
        rows, found = differences(stage)
        if found or not all(one["equal"] for one in compared.values()):
            raise DemoFailed(f"they differ: {'; '.join(found) or compared}")
        tell.say(f"Row by row: {rows} records, the same on the laptop, in the office and on the server.")
        outcome(f"equal, by fingerprint and row by row ({rows} records)")


def _count(player: Player, statement: str) -> int:
    connection = sqlite3.connect(player.file)
    try:
        return int(connection.execute(statement).fetchone()[0])
    finally:
        connection.close()
