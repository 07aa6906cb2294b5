"""What a person sees in Flower, in a real browser: workers, their queues, tasks by name, a retry with its reason."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.acceptance.branch import Branch, ServerProcess
from tests.services import chromium, free_port
from tests.waiting import eventually

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE_MS = 20_000


@pytest.fixture
def page() -> Iterator[Page]:
    binary = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(binary), args=list(QUIET))
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield page
        browser.close()


@pytest.mark.slow
def test_flower_shows_workers_queues_tasks_and_a_retry_with_its_reason(page: Page, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server")
    server.start()
    home = tmp_path / "van"
    home.mkdir()
    app = sqlite3.connect(home / "van.db")
    app.execute("CREATE TABLE visit (id INTEGER PRIMARY KEY, note TEXT)")
    branch = Branch(home, home / "van.db", server)
    port = free_port()
    flower = f"http://127.0.0.1:{port}"
    with branch.up("--flower-port", str(port)):
        eventually(lambda: _listens(port), timeout=30, what="Flower answers")
        page.goto(f"{flower}/workers")
        for name in [worker["name"] for worker in branch.workers()]:
            expect(page.get_by_role("link", name=name)).to_be_visible()
        (media,) = [one["name"] for one in branch.workers() if one["name"].startswith("media@")]
        page.goto(f"{flower}/worker/{media}#tab-queues")
        expect(page.locator("#tab-queues, #queues").get_by_role("cell", name="media").first).to_be_visible()

        with app:
            app.execute("INSERT INTO visit VALUES (1, 'arrives')")
        eventually(lambda: branch.status()["pending"] == 0, timeout=30, what="the change is on the server")
        shows(page, f"{flower}/tasks", "backhaul.push", "backhaul.pull")

        server.kill()
        with app:
            app.execute("INSERT INTO visit VALUES (2, 'waits')")
        eventually(lambda: _retries(branch), timeout=30, what="the push waits for its next try")
        runs = branch.one("SELECT runs FROM backhaul_work WHERE id = 'push'")
        run = f"push.{runs}"
        shows(page, f"{flower}/task/{run}", "RETRY", "cannot be reached")
        server.start()
        eventually(lambda: branch.status()["pending"] == 0, timeout=60, what="the retry has brought it")
        shows(page, f"{flower}/task/{run}", "SUCCESS")
    app.close()
    server.stop()


def shows(page: Page, url: str, *words: str) -> None:
    """A page of Flower tells what it knew when it was asked, and events come to it after the database has changed."""

    def all_there() -> bool:
        page.goto(url)
        said = page.locator("body").inner_text()
        return all(word in said for word in words)

    eventually(all_there, timeout=30, what=f"{url} shows {' and '.join(words)}", pause=0.3)


def _retries(branch: Branch) -> bool:
    return bool(branch.one("SELECT attempt > 0 AND state = 'ENQUEUED' FROM backhaul_work WHERE id = 'push'"))


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
