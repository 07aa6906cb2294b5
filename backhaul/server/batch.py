"""Many small contents in one request, each judged by itself: room kept for them, bytes in their places, rows entered.

The order is that of an upload (intake.py), and what is cut in between is done again: names that were kept and not used
expire as uploads do, with whatever bytes there are of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Busy, DatabaseBusy, Refused
from backhaul.server import auth, tus, uploads
from backhaul.server.auth import Replica
from backhaul.server.contents.base import ContentStore, Whole
from backhaul.server.media_types import MOST_NEEDED, Policy
from backhaul.server.problems import of_refusal, refusal
from backhaul.server.room import Room
from backhaul.server.settings import Settings
from backhaul.server.tus import Metadata
from backhaul.server.uploads import Content, Upload
from backhaul.wire import NewContent, Problem

Sent = tuple[NewContent, memoryview]


class Batch:
    def __init__(self, store: ContentStore, settings: Settings, database: Database, clock: Clock) -> None:
        self._store = store
        self._policy = Policy(settings.media_types)
        self._room = Room(store, settings.media_quota)
        self._lifetime_ms = settings.upload_lifetime_ms
        self._database = database
        self._clock = clock

    def take(self, replica: Replica, sent: Sequence[Sent]) -> list[Problem | None]:
        """What came of each, in their order; None: the scope has it now.

        Raises Refused (`storage-full`, `replica-revoked`) and Busy: then of none it is known."""
        refused: dict[str, Problem] = {}
        whole: dict[str, tuple[Metadata, memoryview]] = {}
        for told, content in sent:
            metadata = tus.described(told.sha256, told.name, told.media_type)
            try:
                self._check(metadata, content)
            except Refused as refusal:
                refused[told.sha256] = of_refusal(refusal)
            else:
                whole[told.sha256] = (metadata, content)
        self._room.check_disk(sum(len(content) for _, content in whole.values()))
        kept, beyond = self._keep_room(replica, whole)
        self._enter(replica, kept, whole)
        problems = {hashed: problem for hashed, problem in refused.items() if hashed not in whole}
        problems |= dict.fromkeys(beyond, of_refusal(self._room.exceeded()))
        return [problems.get(told.sha256) for told, _ in sent]

    def _check(self, metadata: Metadata, content: memoryview) -> None:
        self._policy.check_declared(metadata.media_type)
        hashed = sha256(content).hexdigest()
        if hashed != metadata.sha256:
            raise refusal("content-mismatch", f"the content has the SHA-256 {hashed}")
        self._policy.check_bytes(metadata.media_type, bytes(content[:MOST_NEEDED]))

    def _keep_room(
        self, replica: Replica, whole: Mapping[str, tuple[Metadata, memoryview]]
    ) -> tuple[dict[str, Upload], list[str]]:
        """Those that may come, each with an upload of its own; and the hashes of those for which there is no room. What
        the scope has already is neither."""
        now, kept, beyond = self._clock.now(), dict[str, Upload](), list[str]()
        with self._database.writing() as connection:
            left = self._room.left(connection, replica.scope, now)
            known = set(uploads.known(connection, replica.scope, list(whole)))
            for hashed, (metadata, content) in whole.items():
                if hashed in known:
                    continue
                if left is not None and len(content) > left:
                    beyond.append(hashed)
                    continue
                left = None if left is None else left - len(content)
                kept[hashed] = self._upload(replica, metadata, len(content), now)
            uploads.create_all(connection, list(kept.values()), now)
        return kept, beyond

    def _upload(self, replica: Replica, told: Metadata, length: int, now: int) -> Upload:
        return Upload(
            id=secrets.token_urlsafe(18),
            scope=replica.scope,
            replica=replica.id,
            length=length,
            position=0,
            sha256=told.sha256,
            metadata=tus.coded(told),
            expires_at=now + self._lifetime_ms,
        )

    def _enter(
        self, replica: Replica, kept: Mapping[str, Upload], whole: Mapping[str, tuple[Metadata, memoryview]]
    ) -> None:
        names = [upload.id for upload in kept.values()]
        contents = [_content(hashed, *whole[hashed]) for hashed in kept]
        try:
            with self._database.reading() as connection:
                auth.check_active(connection, replica.id)
            if kept:
                small = {hashed: Whole(upload.id, whole[hashed][1]) for hashed, upload in kept.items()}
                self._store.put_all(replica.scope, small)
            with self._database.writing() as connection:
                uploads.enter_all(connection, replica.scope, replica.id, contents, self._clock.now())
                uploads.forget(connection, *names)
        except (Refused, Busy, DatabaseBusy):
            self._give_up(replica.scope, kept)
            raise

    def _give_up(self, scope: str, kept: Mapping[str, Upload]) -> None:
        """Those that are in their places already are entered when their uploads expire, if they do not come again."""
        with suppress(Busy, DatabaseBusy):  # they expire, then
            for upload in kept.values():
                self._store.discard(upload.id)
            gone = [upload.id for hashed, upload in kept.items() if self._store.size(scope, hashed) is None]
            with self._database.writing() as connection:
                uploads.forget(connection, *gone)


def _content(hashed: str, metadata: Metadata, content: memoryview) -> Content:
    return Content(sha256=hashed, size=len(content), name=metadata.name, media_type=metadata.media_type)
