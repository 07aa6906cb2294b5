"""Signing in again: a replica whose token is lost, refused or revoked gets another identity, with a fresh code.

What waits is kept, and goes out under the new identity; the server knows what it has taken already. The token is stored
before the database is changed: who is killed in between is signed in by the next push or pull.
"""

from __future__ import annotations

from contextlib import closing

from backhaul.clock import Clock
from backhaul.database import open_database
from backhaul.errors import Refused
from backhaul.remotes.http import HttpRemote
from backhaul.replica import checkpoint, outbox, recover, tables
from backhaul.wire import Registered
from config.credentials import forget_nonce, keeper, nonce_of
from config.schedule import ensure_standing
from config.settings import Settings


def sign_in(settings: Settings, code: str, name: str, clock: Clock) -> Registered:
    """Raises Refused (`code-invalid`, `replica-unrelated`), Unreachable: nothing is changed then."""
    replica = settings.replica
    with (
        closing(open_database(settings.database_url)) as database,
        closing(HttpRemote(replica.remote, allow_plain=replica.allow_plain_http)) as remote,
    ):
        with database.reading() as connection:
            known, knows = checkpoint.read(connection), outbox.written(connection)
            tracked = [one.table for one in tables.all_tracked(connection)]
        remote.belong(None, keeper(settings.state))
        nonce = nonce_of(settings.state, code)
        try:
            registered = remote.register(code, tracked, name, was=known.replica, nonce=nonce, knows=knows)
        except Refused as refusal:
            forget_nonce(settings.state)
            if refusal.problem == "replica-unrelated":
                refusal.hint = f"ask for a code of this scope: backhaul enroll --scope {known.scope}"
            raise
        recover.sign_in(database, registered, was=known.replica)
        with database.writing() as connection:
            ensure_standing(connection, settings, clock.now())
        forget_nonce(settings.state)
        return registered
