"""backhaul doctor: looks at everything a replica needs, and says what to do about what is missing."""

from __future__ import annotations

import typer

from workers.checks import Finding, Patient, examine
from workers.cli.here import Here, live_workers, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import make_table, say_json, say_table

FAILED = 1


def add_to(program: typer.Typer) -> None:
    program.command()(doctor)


def doctor(*, home: Home = None, as_json: AsJson = False) -> None:
    """Check settings, database, triggers, token, server and its clock, broker and workers. 1 when something fails."""
    with opened(home) as here:
        findings = [Finding("settings", "ok", f"{here.settings.home}/backhaul.toml can be used"), *_findings(here)]
    failed = any(finding.verdict == "fail" for finding in findings)
    if as_json:
        say_json({"healthy": not failed, "findings": findings})
    else:
        _say(findings)
    raise typer.Exit(FAILED if failed else 0)


def _findings(here: Here) -> list[Finding]:
    patient = Patient(
        settings=here.settings,
        database=here.database,
        remote=lambda: here.remote,
        workers=lambda connection: list(live_workers(connection, here.now, here.settings.node)),
        clock=here.clock,
    )
    return list(examine(patient))


def _say(findings: list[Finding]) -> None:
    table = make_table("", "check", "finding", "do")
    for finding in findings:
        table.add_row(finding.verdict, finding.check, finding.said, finding.hint or "-")
    say_table(table)
