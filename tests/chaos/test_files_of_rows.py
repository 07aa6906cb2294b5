"""A process dies while it puts the files that rows name, at each of the written points, and the next one ends where it
would have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from backhaul.media import uploads
from backhaul.media.store import Store
from backhaul.media.tidy import look, tidy
from backhaul.replica import attachments
from backhaul.replica.media_columns import MediaColumn
from backhaul.replica.strategies import Rules
from backhaul.work import ledger
from tests.chaos.crash_points import CRASH_POINTS, CrashPoint
from tests.chaos.dying import DEATH, Reaper, reaper
from tests.chaos.journeys import CLOCK, run
from tests.convergence.servers import store_server
from tests.replicas import Replica, make_replica

SCHEMA = "CREATE TABLE photo (id INTEGER PRIMARY KEY, path TEXT, sha256 TEXT, original_sha256 TEXT);"
HOUR = 3_600_000
POINTS = [point for point in CRASH_POINTS if point.journey in ("attach", "reduce")]


@pytest.fixture(scope="module")
def helper() -> Iterator[Reaper]:
    with reaper() as helper:
        yield helper


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_whoever_comes_after_a_death_puts_every_file_once(tmp_path: Path, helper: Reaper, point: CrashPoint) -> None:
    names = ["a.jpg"] if point.journey == "reduce" else ["a.jpg", "b.jpg"]
    contents = {name: _picture(tmp_path / "photos" / name, side=40 + 4 * len(names)) for name in names}
    with store_server(f"sqlite:///{tmp_path / 'server.sqlite'}", CLOCK) as server:
        media = MediaColumn(column="path", folder="photos", sha256="sha256", **_made(point))
        rules = {"photo": Rules(media=media)}
        replica = make_replica(
            tmp_path / "app.sqlite", server.connect(), schema=SCHEMA, code=server.enrol(), rules=rules
        )
        for number, name in enumerate(names):
            replica.write("INSERT INTO photo (id, path) VALUES (?, ?)", number, name)
        store = Store(tmp_path / "media")
        url = replica.database.engine.url.render_as_string()
        job = {"database": url, "home": str(tmp_path), "folder": str(store.folder), "now": CLOCK.now()}

        assert helper.die(point, job) == DEATH
        tidy(replica.database, store)
        again = run(point.journey, job | {"now": job["now"] + HOUR})
        assert run(point.journey, job | {"now": job["now"] + 2 * HOUR}) == 0
        assert again == (
            0 if point.name in ("put", "made put") else 1 if point.name == "first file put" else len(names)
        )

        _check_that_all_is_put(replica, store, point, contents)
        replica.close()


def _picture(path: Path, *, side: int) -> str:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.effect_noise((side, side), 50).convert("RGB").save(path)
    return sha256(path.read_bytes()).hexdigest()


def _made(point: CrashPoint) -> dict[str, object]:
    if point.journey == "attach":
        return {}
    return {"transform": "image", "largest": 20, "original": "later", "original_sha256": "original_sha256"}


def _check_that_all_is_put(replica: Replica, store: Store, point: CrashPoint, contents: dict[str, str]) -> None:
    """What each row says of its file is kept, and on its way once: it, and the original of what was made."""
    with replica.database.reading() as connection:
        registered = uploads.listed(connection)
        works = [ledger.get(connection, upload.id) for upload in registered]
        named = attachments.listed(connection)  # that wait to be read
    assert all(work is not None and work.state == "ENQUEUED" for work in works)
    assert named == []
    sent = Counter(upload.sha256 for upload in registered)
    for _, path, said, original in replica.rows("photo"):
        assert sent[said] == 1
        assert store.path(said).exists()
        if point.journey == "attach":
            assert said == contents[path]
        else:
            assert original == contents[path] != said
            assert sent[original] == (2 if point.name in ("original put", "made admitted, in the transaction") else 1)
            assert store.path(original).exists()
    assert len(sent) == len(contents) * (2 if point.journey == "reduce" else 1)
    tidy(replica.database, store)
    assert look(replica.database, store).number == 0
    assert list((store.folder / "incoming").iterdir()) == []
