"""What may stand in backhaul.toml and the environment, and what is said of what may not."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import msgspec
import pytest

from backhaul.errors import AlreadyInitialised, ConfigurationInvalid, NotInitialised
from backhaul.replica.media_columns import MediaColumn
from backhaul.work.conditions import effective
from config.fresh import write_fresh
from config.loading import load
from config.media import most_bytes
from config.settings import Settings
from config.sync_sections import MediaOfTable

REPLICA = '[replica]\ndatabase = "sqlite:///shop.db"\nremote = "https://sync.example"\n'


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKHAUL_HOME", "BACKHAUL_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)


def refused(home: Path, text: str) -> str:
    (home / "backhaul.toml").write_text(text)
    with pytest.raises(ConfigurationInvalid) as refusal:
        load(home)
    return str(refusal.value).replace(f"{home}/", "")


def test_a_fresh_file_means_the_defaults(tmp_path: Path) -> None:
    write_fresh(tmp_path, database="sqlite:///shop.db", remote="https://sync.example")
    settings = load(tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/shop.db"
    assert settings.replica.remote == "https://sync.example"
    assert set(settings.queues["media"].tags) == {"connected", "unmetered", "charging", "storage_not_low"}
    assert settings.sync.push_every == 15 * 60_000
    assert settings.media.chunk == 4 * 2**20
    assert settings.retry.reconcile.initial == 30_000
    with pytest.raises(AlreadyInitialised):
        write_fresh(tmp_path, database="sqlite:///other.db", remote="https://other.example")
    assert [file.name for file in tmp_path.iterdir()] == ["backhaul.toml"]


def test_what_the_comments_of_a_fresh_file_say_is_what_is_meant(tmp_path: Path) -> None:
    write_fresh(tmp_path, database="sqlite:///shop.db", remote="https://sync.example")
    plain = load(tmp_path)
    file = tmp_path / "backhaul.toml"
    bare = [line.removeprefix("# ") for line in file.read_text().splitlines()]
    examples = ("node", "url", "concurrency", "unmetered", "device_idle", "hours", "modules")
    examples += (
        "[tables.article]",
        "merge",
        "deletes",
        "kinds",
        "download_requires",
        "max_bytes",
        "day",
        "month",
        "pull_most",
    )
    examples += ("[tables.photo.media]", "column", "folder", "sha256", "visible", "transform = ")
    meant = [line for line in bare if re.match(r"\w+ = |\[[\w.]+\]", line) and not line.startswith(examples)]
    file.write_text("\n".join(meant))
    assert load(tmp_path) == plain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[replica]\ndatabase = "sqlite:///a\nremote = "b"\n', "backhaul.toml: Illegal character '\\n' (at line 2"),
        (REPLICA + '[sync]\n# slow\npull_every = "soon"\n', "backhaul.toml, line 6: sync.pull_every: not a duration"),
        (
            REPLICA + "[sync]\npush_lanes = 2\n",
            "backhaul.toml, line 5: sync.push_lanes: a SQLite database has one writer",
        ),
        (REPLICA + "[sync]\npush_lanes = 17\n", "backhaul.toml, line 5: sync.push_lanes: Input should be less than"),
        (REPLICA + "[sync]\npull_every = 30\n", "backhaul.toml, line 5: sync.pull_every: not a duration"),
        (REPLICA + "[snyc]\n", "backhaul.toml, line 4: snyc: there is no such setting"),
        (REPLICA + "[sync]\npush_evry = '1m'\n", "backhaul.toml, line 5: sync.push_evry: there is no such setting"),
        (REPLICA + '[queues]\nbig = {tags = ["unmetred"]}\n', "line 5: queues.big.tags.0: there is no condition"),
        (REPLICA + '[queues.big]\ntags = "connected"\n', "line 5: queues.big.tags: it should be a list"),
        (REPLICA + "[conditions]\nchargin = true\n", "line 5: conditions.chargin: there is no condition 'chargin'"),
        (REPLICA + "[unknown]\nchargin = true\n", "line 5: unknown.chargin: there is no condition 'chargin'"),
        (REPLICA + '[queues.big]\nlabels = ["eu"]\n', "line 5: queues.big.labels.0: 'eu' is no label: one has a colon"),
        ('labels = ["eu"]\n' + REPLICA, "line 1: labels.0: 'eu' is no label: one has a colon"),
        (REPLICA + '[quiet]\nhours = ["22-6"]\n', "line 5: quiet.hours.0: '22-6' are no hours; write them like"),
        (REPLICA + '[quiet]\nhours = ["06:00-06:00"]\n', "line 5: quiet.hours.0: '06:00-06:00' is no length of time"),
        (REPLICA + "[tables.photo.media]\nfolder = 'p'\n", "line 4: tables.photo.media: it has no column"),
        (REPLICA + "[tables.photo.media]\ncolumn = ''\n", "line 5: tables.photo.media.column: String should have"),
        (REPLICA + "[tables.photo.media]\ncolumn = 'p'\nsha = 's'\n", "line 6: tables.photo.media.sha: there is no"),
        (
            REPLICA + "[tables.photo.media]\ncolumn = 'p'\nvisible = 'soon'\n",
            "line 6: tables.photo.media.visible: Input should be 'at-once' or 'with-media'",
        ),
        (
            REPLICA + "[tables.photo.media]\ncolumn = 'p'\ntransform = 'picture'\n",
            "line 6: tables.photo.media.transform: 'picture' is neither image nor a function",
        ),
        (REPLICA + "[retry.push]\njitter = 3\n", "line 5: retry.push.jitter: Input should be less than or equal to 1"),
        ('[replica]\ndatabase = "sqlite:///a"\n', "backhaul.toml, line 1: replica.remote: it is missing"),
    ],
)
def test_an_error_names_the_line_and_the_field(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, REPLICA + '[sync]\npull_every = "soon"\n[media]\nchunk = "big"\n')
    assert len(said.splitlines()) == 2


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backhaul.toml").write_text(REPLICA + '[sync]\npull_every = "2s"\npush_every = "3s"\n')
    monkeypatch.setenv("BACKHAUL_HOME", str(tmp_path))
    monkeypatch.setenv("BACKHAUL_SYNC__PULL_EVERY", "7s")
    monkeypatch.setenv("BACKHAUL_QUEUES__BIG__TAGS", '["charging", "region:eu"]')
    monkeypatch.setenv("BACKHAUL_BROKER_URL", "redis://broker")
    settings = load()
    assert (settings.sync.pull_every, settings.sync.push_every) == (7_000, 3_000)
    assert settings.queues["big"].tags == ("charging", "region:eu")
    assert "sync" in settings.queues
    assert settings.broker.url == "redis://broker"


def test_a_wrong_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKHAUL_SYNC__PULL_EVERY", "soon")
    assert "environment, BACKHAUL_SYNC__PULL_EVERY: sync.pull_every: not a duration" in refused(tmp_path, REPLICA)


@pytest.mark.parametrize(
    ("variable", "value", "said", "hint"),
    [
        ("UNMETERD", "off", "there is no condition 'unmeterd'", "did you mean unmetered?"),
        ("UNMETERED", "perhaps", "'perhaps' is neither on nor off", "BACKHAUL_CONDITION_UNMETERED=on or"),
    ],
)
def test_what_the_environment_says_of_conditions_is_read_as_early_as_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str, hint: str
) -> None:
    (tmp_path / "backhaul.toml").write_text(REPLICA)
    monkeypatch.setenv(f"BACKHAUL_CONDITION_{variable}", value)
    with pytest.raises(ConfigurationInvalid) as refusal:
        load(tmp_path)
    assert str(refusal.value).startswith(f"environment, BACKHAUL_CONDITION_{variable}: {said}")
    assert (refusal.value.hint or "").startswith(hint)


def test_the_environment_alone_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotInitialised) as refusal:
        load(tmp_path)
    assert refusal.value.hint is not None
    assert "backhaul init" in refusal.value.hint
    monkeypatch.setenv("BACKHAUL_REPLICA__DATABASE", "postgresql://host/name")
    monkeypatch.setenv("BACKHAUL_REPLICA__REMOTE", "https://sync.example")
    assert load(tmp_path).database_url == "postgresql://host/name"


def test_a_node_is_called_as_it_is_said_and_else_as_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path, initialised=False).node == socket.gethostname()
    (tmp_path / "backhaul.toml").write_text('node = "kiosk-7"\n' + REPLICA)
    assert load(tmp_path).node == "kiosk-7"
    monkeypatch.setenv("BACKHAUL_NODE", "attic")
    assert load(tmp_path).node == "attic"
    monkeypatch.setenv("BACKHAUL_NODE", "")
    assert load(tmp_path).node == socket.gethostname()
    monkeypatch.setenv("BACKHAUL_NODE", "two\nlines")
    assert "environment, BACKHAUL_NODE: node: it should be a name" in refused(tmp_path, REPLICA)


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(tmp_path, initialised=False)
    with pytest.raises(ValueError, match="frozen"):
        settings.labels = ("x",)


def test_our_folder_is_private(tmp_path: Path) -> None:
    assert load(tmp_path, initialised=False).state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("unmetered", "not_roaming", "limits", "expected"),
    [
        (True, True, {"metered": "5 MiB"}, None),
        (False, True, {"metered": "5 MiB", "roaming": "0B"}, 5 * 2**20),
        (False, False, {"metered": "5 MiB", "roaming": "0B"}, 0),
        (False, False, {"metered": "5 MiB"}, 5 * 2**20),
        (False, True, {"roaming": "0B"}, None),
        (False, True, {}, None),
    ],
)
def test_how_large_a_file_may_be_is_said_by_the_kind_of_link(
    tmp_path: Path, unmetered: bool, not_roaming: bool, limits: dict[str, str], expected: int | None
) -> None:
    settings = Settings(home=tmp_path, media={"max_bytes": limits})
    held = {"unmetered": unmetered, "not_roaming": not_roaming}
    assert most_bytes(settings, effective(held, {}, {})) == expected


def test_what_is_said_of_a_tables_files_is_what_the_library_knows_of_them() -> None:
    """Both say the same fields: one judges what a person wrote, the other goes with the replica."""
    said = {name: field.default for name, field in MediaOfTable.model_fields.items() if name != "download"}
    known = {field.name: field.default for field in msgspec.structs.fields(MediaColumn)}
    assert said == known | {"column": None}
