"""backhaul media: files that travel apart from the records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from backhaul.files import Media
from backhaul.replica import checkpoint
from config.media import limits_of
from workers.cli.here import opened
from workers.cli.options import AsJson, Home
from workers.cli.output import make_table, say_json, say_table, size

Keep = Annotated[
    bool | None,
    typer.Option(
        "--keep/--in-place",
        help="Keep the file as it is now, whatever becomes of it; or send it from where it is. Default: [media] keep.",
    ),
]


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="Files on their way to the server.", no_args_is_help=True)
    group.command()(put)
    group.command("list")(list_)
    group.command()(retry)
    group.command()(fetch)
    group.command()(cache)
    group.command()(evict)
    group.command()(pin)
    group.command()(unpin)
    group.command()(tidy)
    program.add_typer(group, name="media")


def put(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    *,
    keep: Keep = None,
    priority: Annotated[int, typer.Option(help="Higher goes earlier than all that is lower.")] = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Upload files in the background, each as work of its own, when the conditions of its queue hold."""
    with opened(home) as here:
        with here.database.reading() as connection:
            checkpoint.read(connection)
        media = Media(here.database, here.bell, here.clock)
        uploads = [media.put(file, keep=keep, priority=priority) for file in files]
    if as_json:
        return say_json({"uploads": [asdict(one) for one in uploads]})
    for one in uploads:
        print(f"{one.id}  {one.name}, {size(one.size)}")
    return print("see how far they are: backhaul media list; why one waits: backhaul why ID")


def retry(upload: Annotated[str, typer.Argument(metavar="ID")], *, home: Home = None, as_json: AsJson = False) -> None:
    """Put the file of a parked upload once more, as it is now: after what was wrong has been put right."""
    with opened(home) as here:
        again = Media(here.database, here.bell, here.clock).retry(upload)
    if as_json:
        return say_json({"uploads": [asdict(again)]})
    return print(f"{again.id}  {again.name}, {size(again.size)}")


def fetch(
    contents: Annotated[list[str], typer.Argument(metavar="SHA256...")], *, home: Home = None, as_json: AsJson = False
) -> None:
    """Have contents come here in the background, when the conditions of their queue hold; also refused ones."""
    with opened(home) as here:
        media = Media(here.database, here.bell, here.clock)
        works = [media.fetch(content) for content in contents]
    if as_json:
        return say_json({"works": [work.id for work in works]})
    return print("\n".join(f"{work.id}  on queue {work.queue}" for work in works))


def cache(*, home: Home = None, as_json: AsJson = False) -> None:
    """How much is kept here, how much may be, and how much of it could go."""
    with opened(home) as here:
        kept, limits = Media(here.database, here.bell, here.clock).kept(), limits_of(here.settings)
    if as_json:
        return say_json({**asdict(kept), "most": limits.most, "floor": limits.floor})
    print(f"{kept.contents} files, {size(kept.bytes)} of {size(limits.most)}")
    print(f"could go: {size(kept.evictable)}; pinned: {size(kept.pinned)}")
    return print("the rest is not on the server yet, as far as it is known here")


def evict(
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that can go, whatever the budget.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let files go that the server has, the least recently read first: until the rest is within the budget."""
    with opened(home) as here:
        gone = Media(here.database, here.bell, here.clock).evict(everything=everything)
    if as_json:
        return say_json(asdict(gone))
    left = f"; {size(gone.excess)} more should go, and cannot now" if gone.excess else ""
    return print(f"{gone.contents} files have gone{left}")


Content = Annotated[str, typer.Argument(metavar="SHA256")]


def pin(content: Content, *, home: Home = None) -> None:
    """Have a file stay here, whatever the budget."""
    with opened(home) as here:
        Media(here.database, here.bell, here.clock).pin(content)


def unpin(content: Content, *, home: Home = None) -> None:
    """Let a file go again when the budget asks for it."""
    with opened(home) as here:
        Media(here.database, here.bell, here.clock).pin(content, pinned=False)


def tidy(*, home: Home = None, as_json: AsJson = False) -> None:
    """Take away what crashes have left between the kept files and the database; Beat does so once an hour."""
    with opened(home) as here:
        found = Media(here.database, here.bell, here.clock).tidy()
    if as_json:
        return say_json(asdict(found))
    print(f"{found.leftovers} unfinished, {len(found.orphans)} without a row, {len(found.dangling)} without their file")
    return None if found.whole else print("some of the folder was in use and was left alone: try again")


def list_(*, home: Home = None, as_json: AsJson = False) -> None:
    """The files, how far each is, and why it does not go on."""
    with opened(home) as here:
        media = Media(here.database, here.bell, here.clock)
        uploads, unread = media.list(), media.unread()
    if as_json:
        said = {"uploads": [asdict(one) for one in uploads]}
        return say_json(said | {"unread": [asdict(one) for one in unread]})
    table = make_table("id", "file", "size", "state", "sent", "by queue", "reason")
    for one in uploads:
        sent = f"{100 * one.sent // one.size if one.size else 100} %"
        table.add_row(one.id, one.name, size(one.size), one.state, sent, one.queue or "-", one.reason or "-")
    for named in unread:
        reason = named.reason or "waits to be read"
        table.add_row("-", named.path, "-", "unread", "-", "-", f"{named.table} {named.key}: {reason}")
    return say_table(table) if uploads or unread else print("no file was put yet: backhaul media put FILE")
