"""The house itself: what the pages promise is there, the pins are whole, and no file knows one machine's affairs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from config.settings import PROBED, QueueSection, Settings
from config.sync_sections import TableSection
from tests.conftest import ROOT
from workers.cli.program import FILES

PAGES = ["README.md", "docs/operations.md", "docs/conditions.md"]
PIN = re.compile(r"^([a-z0-9.-]+(?:\[[a-z,]+\])?)==([^ ]+)", re.MULTILINE)
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# ------------------------------------------------------------------------------------------------ what the pages say


def spoken(page: str) -> str:
    """The commands of a page: the lines of its shell blocks, and what stands between backticks."""
    text = text_of(page)
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", outside)])


def backhaul_commands() -> list[str]:
    found = (re.findall(r"(?:^|[\s(])(backhaul [a-z][^#&;)\n]*)", spoken(page), re.MULTILINE) for page in PAGES)
    return sorted({command.strip() for commands in found for command in commands})


def command_tree(command: str) -> Any:
    program = typer.Typer()
    program.callback()(lambda: None)  # without one, Typer takes a program of one command for that command
    import_module(f"workers.cli.{FILES[command]}").add_to(program)
    return typer.main.get_command(program)


@pytest.mark.parametrize("command", backhaul_commands())
def test_each_backhaul_command_of_the_pages_exists_with_its_options(command: str) -> None:
    words = shlex.split(command)[1:]
    at = command_tree(words[0])
    while words and hasattr(at, "commands"):
        word = words.pop(0)
        assert word in at.commands, f"`{command}`: there is no {word!r}, only {', '.join(sorted(at.commands))}"
        at = at.commands[word]
    options = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options


def test_every_command_is_announced() -> None:
    assert set(FILES) <= set(re.findall(r"`([a-z]+)`", text_of("CHANGELOG.md")))


@pytest.mark.parametrize("page", PAGES)
def test_each_make_target_of_the_pages_exists(page: str) -> None:
    for target in re.findall(r"(?:^|[\s(])make ([a-z][a-z-]*)", spoken(page), re.MULTILINE):
        assert target in targets(), f"make {target}"


@pytest.mark.parametrize(
    "page", [*PAGES, "docs/decisions.md", "docs/work.md", "docs/testing.md", "docs/probes.md", "CHANGELOG.md"]
)
def test_each_link_between_the_pages_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page)):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_readme_draws_the_tree_as_it_is() -> None:
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", text_of("README.md"), re.DOTALL)
    assert tree is not None
    folder = ""
    for indent, name in re.findall(r"^( *)([a-z]+)/ ", tree[1], re.MULTILINE):
        folder = name if not indent else folder
        assert (ROOT / (f"{folder}/{name}" if indent else name)).is_dir(), name


def test_operations_names_every_setting() -> None:
    named = set(re.findall(r"^\| `([^`]+)`", text_of("docs/operations.md"), re.MULTILINE))
    assert set(settings_of(Settings)) <= named


def test_the_page_of_probes_names_every_condition_that_is_probed() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", text_of("docs/probes.md"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(PROBED)


def settings_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Each setting's path; a setting that stands once for each queue, retry or condition has its NAME or WORK."""
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        if path == "retry":
            yield from settings_of(type(field.default.push), "retry.WORK.")
        elif path == "queues":
            yield from settings_of(QueueSection, "queues.NAME.")
        elif path == "tables":
            yield from settings_of(TableSection, "tables.NAME.")
        elif path in ("conditions", "unknown"):
            yield f"{path}.NAME"
        elif isinstance(field.default, BaseModel):
            yield from settings_of(type(field.default), f"{path}.")
        else:
            yield path


# ------------------------------------------------------------------------------------------------ make


def targets() -> set[str]:
    return set(re.findall(r"^\.PHONY: ([a-z-]+)$", text_of("Makefile"), re.MULTILINE))


@pytest.mark.skipif(shutil.which("make") is None, reason="no make: install it with your system's packages")
def test_make_alone_lists_every_target() -> None:
    said = subprocess.run(["make"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^ +make ([a-z-]+) ", said, re.MULTILINE)) == targets()


def test_ci_runs_what_a_person_runs() -> None:
    assert re.findall(r"^make ([a-z]+)$", text_of(".ci/run"), re.MULTILINE) == ["test", "lint"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


# ------------------------------------------------------------------------------------------------ requirements


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_and_has_its_hashes(file: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", text_of(file).strip())
    for entry in entries:
        assert PIN.match(entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_tests_run_with_what_is_installed() -> None:
    installed, tested = (
        dict(PIN.findall(text_of("requirements.txt"))),
        dict(PIN.findall(text_of("requirements-dev.txt"))),
    )
    assert installed.items() <= tested.items()


def test_what_pyproject_asks_for_is_pinned() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    for file, asked in (("requirements.txt", project["dependencies"]), ("requirements-dev.txt", extras)):
        pinned = {name.split("[")[0] for name, _ in PIN.findall(text_of(file))}
        assert {re.split(r"[\[ >=;]", one)[0] for one in asked} <= pinned


# ------------------------------------------------------------------------------------------------ one machine's affairs


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git checkout: what belongs to the project is not known here")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_index_or_a_place_of_one_machine() -> None:
    index = r"index-url *[=:]|https?://[^ ]*/(?:simple|packages)/|pypi\.[a-z]+|pythonhosted"
    place = rf"/(?:home|Users)/[a-z]\w*/|/root/|{re.escape(str(ROOT))}/"
    unwanted = re.compile(f"{index}|{place}".encode())
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode(errors='replace')}"
        for path in tracked_files()
        if path != Path(__file__).resolve() and (match := unwanted.search(path.read_bytes()))
    ]
    assert found == []


# ------------------------------------------------------------------------------------------------ layers


def test_imports_point_one_way() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
