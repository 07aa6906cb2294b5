"""What is fetched before a page and laid under it, in its transaction: the records of changes that were overtaken, and
those that were set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.remotes.base import Remote
from backhaul.replica import aside, checkpoint, refetch, tried_again
from backhaul.replica.refetch import Overtaken
from backhaul.replica.tables import Tracked
from backhaul.replica.tried_again import TriedAgain
from backhaul.wire import Page, Record


@dataclass(frozen=True, kw_only=True)
class Under:
    """Each None when there is nothing of it."""

    overtaken: Overtaken | None = None
    tried_again: TriedAgain | None = None

    @property
    def records(self) -> list[Record]:
        return [record for one in (self.overtaken, self.tried_again) if one for record in one.records]

    @property
    def overtaken_tables(self) -> set[str]:
        return {record.table for record in self.overtaken.records} if self.overtaken else set()


def fetched(database: Database, remote: Remote, held: Under) -> Under:
    """held: what was fetched before, and is good for as long as no page was applied."""
    return Under(
        overtaken=refetch.overtaken(database, remote, held.overtaken),
        tried_again=tried_again.fetched(database, remote, held.tried_again),
    )


def lay(
    connection: Connection,
    tracked: Sequence[Tracked],
    under: Under,
    known: checkpoint.Checkpoint,
    page: Page,
    *,
    now: int,
) -> tuple[int, int]:
    """The page is applied after this. Returns how many records were touched, and how many are set aside now."""
    touched, refused = refetch.lay_overtaken(connection, tracked, under.overtaken, known, upto=page.position, now=now)
    aside.keep_all(connection, refused, now=now)
    fitted = tried_again.lay(connection, tracked, under.tried_again, known, upto=page.position, now=now)
    return touched + fitted, len(refused)
