"""backhaul work: what is to be done in the background, why it is not done yet, and what a person does about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, get_args

import msgspec
import typer
from sqlalchemy import Connection

from backhaul.clock import iso
from backhaul.errors import Misused, Unknown
from backhaul.work import ledger
from backhaul.work.ledger import State, Work
from workers.cli import enqueueing
from workers.cli.asking import why_work
from workers.cli.enqueueing import works_of
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table, span

BY = "a person (backhaul work cancel)"
MOST_LISTED = 100
TIMES = ("begin_at", "override_at", "expires_at", "created_at", "enqueued_at", "due_at", "started_at", "finished_at")

Id = Annotated[str, typer.Argument(metavar="ID", help="As `work list` names it.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `work list` names them.")]
States = Annotated[list[str] | None, typer.Option("--state", help="ENQUEUED, RUNNING, BLOCKED, ... Repeatable.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="With one of these tags, or a function's name.")]
Names = Annotated[list[str] | None, typer.Option("--name", help="Enqueued under one of these unique names.")]
Ours = Annotated[bool, typer.Option("--ours", help="Also Backhaul's own: push, pull, uploads.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="So many at the most.")]
After = Annotated[str | None, typer.Option("--after", help="The next page, as the one before it has said.")]
All = Annotated[bool, typer.Option("--all", help="All of the host's work that is not finished.")]


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="Work in the background: what there is, and why it waits.", no_args_is_help=True)
    group.command("list")(list_)
    for command in (show, why, cancel, prune, enqueueing.enqueue):
        group.command()(command)
    program.add_typer(group, name="work")


def list_(
    *,
    states: States = None,
    tags: Tags = None,
    names: Names = None,
    ours: Ours = False,
    limit: Limit = MOST_LISTED,
    after: After = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The work there is: a match of each kind of filter, any of one kind. What is unfinished comes first, the newest of
    it before the others, then what has finished last."""
    wanted = [_state(state) for state in states] if states else None
    with opened(home) as here:
        works = works_of(here)
        found = works.query(states=wanted, tags=tags, names=names, ours=ours, after=after, limit=limit + 1)
        now = here.now
    more, found = len(found) > limit, found[:limit]
    if as_json:
        return say_json({"work": [_exported(work) for work in found], "after": found[-1].place if more else None})
    table = make_table("id", "work", "name", "state", "queue", "try", "when", "tags")
    for work in found:
        tags_said, when = ", ".join(work.tags) or "-", _when(work, now)
        table.add_row(work.id, work.label, work.name or "-", work.state, work.queue, str(work.attempt), when, tags_said)
    say_table(table) if found else print("there is no such work")
    return print(f"there is more: --after {found[-1].place}") if more else None


def show(work_id: Id, *, home: Home = None, as_json: AsJson = False) -> None:
    """Everything about one piece of work: what was asked, how far it is, what it was given and what it gave."""
    with opened(home) as here:
        work = _get(here, work_id)
        line = why_work(here, work_id)
    if as_json:
        return say_json(_exported(work) | {"why": line})
    print(line)
    table = make_table("of it", "is")
    for name, value in _exported(work).items():
        if value not in (None, [], {}, False, ""):
            said = iso(value) if name in TIMES and isinstance(value, int) else value
            table.add_row(name, said if isinstance(said, str) else msgspec.json.encode(said).decode())
    return say_table(table)


def why(work_id: Id, *, home: Home = None, as_json: AsJson = False) -> None:
    """Say in one line why it is not done yet: what it waits for, since when, who could run it, its next try."""
    with opened(home) as here:
        line = why_work(here, work_id)
    if as_json:
        return say_json({"of": work_id, "state": line.partition(":")[0], "why": line})
    return print(line)


def cancel(
    ids: Ids = None,
    *,
    tags: Tags = None,
    names: Names = None,
    all_: All = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """End work for good, and what waits for it. A run under way is told; what it returns is ignored."""
    if not (ids or tags or names or all_) or (all_ and (ids or tags or names)):
        raise Misused("say which work: ids, --tag, --name, or --all", hint="backhaul work list names them")
    with opened(home) as here:
        for work_id in ids or []:
            _check_hosts(_get(here, work_id))
        for work in works_of(here).query(names=names, ours=True) if names else []:
            _check_hosts(work)
        with here.database.writing() as connection:
            ended = _cancelled(connection, here.now, ids or [], tags or [], names or [], all_)
    if as_json:
        return say_json({"cancelled": ended})
    return print(f"{ended} cancelled" if ended else "nothing of it was still to be done")


def prune(*, home: Home = None, as_json: AsJson = False) -> None:
    """Forget the work that is finished, but for what something unfinished has waited for."""
    with opened(home) as here:
        number = works_of(here).prune()
    return say_json({"pruned": number}) if as_json else print(f"{number} forgotten")


def _cancelled(connection: Connection, now: int, ids: list[str], tags: list[str], names: list[str], all_: bool) -> int:
    if all_:
        return ledger.cancel_all(connection, now=now, by=BY)
    by_id = sum(ledger.cancel_by_id(connection, one, now=now, by=BY) for one in ids)
    by_tag = sum(ledger.cancel_by_tag(connection, one, now=now, by=BY) for one in tags)
    return by_id + by_tag + sum(ledger.cancel_by_name(connection, one, now=now, by=BY) for one in names)


def _check_hosts(work: Work) -> None:
    if work.ours:
        raise Misused(f"{work.id} is Backhaul's own work", hint="backhaul condition set connected off: it waits then")


def _get(here: Here, work_id: str) -> Work:
    with here.database.reading() as connection:
        work = ledger.get(connection, work_id)
    if work is None:
        raise Unknown(f"there is no work {work_id!r}", hint="backhaul work list")
    return work


def _state(said: str) -> State:
    known: tuple[State, ...] = get_args(State)
    for state in known:
        if said.upper() == state:
            return state
    raise Misused(f"there is no state {said!r}", hint=f"one of {', '.join(known)}")


def _when(work: Work, now: int) -> str:
    if work.finished_at is not None:
        return f"ended {ago(work.finished_at, now)}"
    if work.state == "RUNNING":
        return f"since {span(max(0, now - (work.started_at or now)) / 1000)}"
    if work.state == "BLOCKED":
        return "after other work"
    if work.due_at >= ledger.NEVER:
        return "on a change"
    return f"in {span((work.due_at - now) / 1000)}" if work.due_at > now else f"due {ago(work.due_at, now)}"


def _exported(work: Work) -> dict[str, Any]:
    """Every column, by its name, and what people see of it. Times: milliseconds since 1970."""
    waits = work.state == "ENQUEUED" and work.due_at < ledger.NEVER
    return {"id": work.id, "work": work.label, "next_run_at": work.due_at if waits else None} | asdict(work)
