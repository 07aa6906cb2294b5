"""The pages of a pull: asked for one after the other, and put together while they are few."""

from __future__ import annotations

import msgspec

from backhaul.database import Database
from backhaul.errors import Refused, SignInRequired, TryLater
from backhaul.remotes import pace
from backhaul.remotes.base import Remote
from backhaul.replica import checkpoint, lanes, pacing, recover
from backhaul.replica.recover import OnReset
from backhaul.wire import Page, canonical_key


def page(database: Database, remote: Remote, since: str, limit: int, on_reset: OnReset, *, now: int) -> Page | None:
    """None when the server does not know the cursor any more, or an outcome, and a recovery has begun."""
    with database.reading() as connection:
        known, settled = checkpoint.read(connection), lanes.settled(connection)
        learned = pace.learned(connection, "pull")
    recover.check_is_oneself(known, remote)
    try:
        return pacing.page_of(
            database,
            learned,
            limit,
            lambda asked: remote.pull(since, asked, sent=known.given_out, settled=settled),
            now=now,
        )
    except Refused as refusal:
        if refusal.problem == "replica-forked":
            recover.heal_pull(database, remote, known)
        elif refusal.problem == "server-restored" and (refusal.cursor or refusal.due is not None):
            recover.begin_restored(database, refusal, since=since, settled=settled, now=now, on_reset=on_reset)
        elif refusal.problem == "cursor-expired" and since:
            # What waits in the outbox stays; everything the server has comes again, and is laid under it.
            recover.begin_anew(database, since=since, on_reset=on_reset)
        else:
            raise
    return None


def further(database: Database, remote: Remote, page: Page, limit: int, *, now: int) -> Page | None:
    """None when it does not come: it is asked for again, and then it is heard why, once this one is staged."""
    with database.reading() as connection:
        settled, learned = lanes.settled(connection), pace.learned(connection, "pull")
    try:
        return pacing.page_of(
            database, learned, limit, lambda asked: remote.pull(page.cursor, asked, settled=settled), now=now
        )
    except (TryLater, SignInRequired, Refused):
        return None


def alone(database: Database, limit: int, ask: pacing.Ask, *, now: int) -> Page:
    """A page that is part of no round. Raises what asking raises."""
    with database.reading() as connection:
        learned = pace.learned(connection, "pull")
    return pacing.page_of(database, learned, limit, ask, now=now)


def joined(page: Page, further: Page) -> Page:
    """A record that comes again comes with all that its first coming said, and more."""
    records = {(record.table, canonical_key(record.key)): record for record in page.records}
    for record in further.records:
        place = record.table, canonical_key(record.key)
        records.pop(place, None)  # what is listed later stands later
        records[place] = record
    return msgspec.structs.replace(further, records=list(records.values()), hlc=max(page.hlc, further.hlc))
