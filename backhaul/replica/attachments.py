"""The ledger of backhaul_attachment: files that rows name, until the server has what they held. (The states are told in
schema.py; rows are born, and taken back, in the triggers of capture_files.py.)

    (named) -> wanted -> put -> gone: the server has it
                  ^       |
                  +-------+  the file was gone, or another one, before it was sent

A row that names another file, or the same one anew, has another id: a verb that is given an id counts only for what
that row said then.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Row

from backhaul.clock import iso
from backhaul.statements import as_bytes, members, on_postgresql, text

MOST_LISTED = 1_000
# The server has it: it was uploaded, under whichever name.
THERE = """
    EXISTS (SELECT 1 FROM backhaul_upload AS done WHERE done.sha256 = named.sha256 AND done.state = 'done')
"""
# Its upload was given up, because the file was not what was put any more, or was put anew by itself.
SPOILT = """
    NOT EXISTS (
        SELECT 1 FROM backhaul_upload AS upload
        WHERE upload.id = named.upload_id
          AND NOT (upload.state = 'parked'
                   AND (upload.reason LIKE 'media-changed:%' OR upload.reason LIKE 'media-missing:%')))
"""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file that a row names. key: JSON. path: as the row says it. together: whether the record becomes visible to
    others only with it. named_at: when the row said so. reason: why the last look has failed; the next: next_at."""

    id: int
    table: str
    key: str
    path: str
    together: bool
    state: Literal["wanted", "put"]
    named_at: int
    next_at: int
    tries: int
    upload_id: str | None
    sha256: str | None
    reason: str | None

    def said(self, work: str) -> str:
        """What it waits for, as part of a line. work: the one that reads it."""
        if self.upload_id is not None:
            as_it_is = f", as it is ({self.reason})" if self.reason else ""
            return f"its file {self.path} is on its way{as_it_is}: backhaul why {self.upload_id}"
        if self.reason is None:
            return f"its file {self.path} waits to be read: backhaul why {work}"
        return f"its file {self.path} is not read: {self.reason}; looked at again {iso(self.next_at)}"


# ------------------------------------------------------------------------------------------------ asking


def due(
    connection: Connection,
    now: int,
    *,
    after: int = 0,
    most: int,
    of: Collection[str] | None = None,
    but: Collection[str] = (),
) -> list[Attachment]:
    """What is to be looked at, after this id, in their order. of: in rows of these tables; None: of all. but: not of
    these."""
    where = f"state = 'wanted' AND next_at <= :now AND id > :after AND table_name NOT IN ({members(connection, 'but')})"
    values: dict[str, int | str] = {"now": now, "after": after, "most": most, "but": json.dumps(list(but))}
    if of is not None:
        where += f" AND table_name IN ({members(connection, 'of')})"
        values["of"] = json.dumps(list(of))
    return _found(connection, f"{where} ORDER BY id LIMIT :most", **values)


def tables_due(connection: Connection, now: int) -> set[str]:
    """The tables whose rows name something to look at, or to look at again."""
    statement = f"""
        SELECT DISTINCT table_name FROM backhaul_attachment AS named
        WHERE state = 'wanted' AND next_at <= :now OR state = 'put' AND {SPOILT}
    """  # noqa: S608 - constants
    return set(connection.execute(text(statement), {"now": now}).scalars())


def any_there(connection: Connection) -> bool:
    """Whether one is done with."""
    return _any(connection, f"state = 'put' AND {THERE}")


def any_together(connection: Connection) -> bool:
    """Whether a record waits for its file."""
    return _any(connection, "together = 1")


def of_record(connection: Connection, table: str, key: str) -> Attachment | None:
    """The file of a record that is not on the server yet. key: canonical JSON."""
    found = _found(connection, "table_name = :table AND key = :key ORDER BY id DESC LIMIT 1", table=table, key=key)
    return found[0] if found else None


def listed(connection: Connection, *, most: int = MOST_LISTED) -> list[Attachment]:
    """Those that are not put yet, the newest first."""
    return _found(connection, "state = 'wanted' ORDER BY id DESC LIMIT :most", most=most)


def _any(connection: Connection, where: str, **values: int) -> bool:
    statement = f"SELECT EXISTS (SELECT 1 FROM backhaul_attachment AS named WHERE {where})"  # noqa: S608 - constants
    return bool(connection.execute(text(statement), values).scalar_one())


def _found(connection: Connection, where: str, **values: int | str) -> list[Attachment]:
    statement = f"""
        SELECT id, table_name, key, {as_bytes(connection, "path")} AS path, together, state, named_at, next_at, tries,
               upload_id, sha256, reason
        FROM backhaul_attachment WHERE {where}
    """  # noqa: S608 - constants
    return [_attachment(row) for row in connection.execute(text(statement), values)]


def _attachment(row: Row[tuple[object, ...]]) -> Attachment:
    """An app can store text in SQLite that is no UTF-8; no file is found by that, and it is told with marks."""
    known = dict(row._mapping)
    path = bytes(known.pop("path")).decode(errors="replace")
    return Attachment(table=known.pop("table_name"), path=path, together=bool(known.pop("together")), **known)


# ------------------------------------------------------------------------------------------------ verbs


def put(connection: Connection, attachment_id: int, *, upload_id: str, sha256: str, reason: str | None = None) -> bool:
    """wanted -> put: its content is kept, and on its way as this upload. reason: why it is not what it should be."""
    statement = """
        UPDATE backhaul_attachment SET state = 'put', upload_id = :upload_id, sha256 = :sha256, reason = :reason
        WHERE id = :id AND state = 'wanted'
    """
    values = {"id": attachment_id, "upload_id": upload_id, "sha256": sha256, "reason": reason}
    return bool(connection.execute(text(statement), values).rowcount)


def postpone(connection: Connection, attachment_id: int, *, reason: str, next_at: int) -> bool:
    """Stays wanted: what this look has found, and when the next one is."""
    statement = f"""
        UPDATE backhaul_attachment SET reason = :reason, next_at = :next_at, tries = tries + 1
        WHERE id IN (SELECT id FROM backhaul_attachment WHERE id = :id AND state = 'wanted'{_free(connection)})
    """  # noqa: S608 - constants
    values = {"id": attachment_id, "reason": reason, "next_at": next_at}
    return bool(connection.execute(text(statement), values).rowcount)


def again(connection: Connection, now: int) -> list[str]:
    """put -> wanted: what was put is not what the file holds, or its upload was put anew; it is read once more. The ids
    of the uploads that they were."""
    spoilt = f"""
        SELECT id, upload_id FROM backhaul_attachment AS named
        WHERE state = 'put' AND {SPOILT} AND NOT {THERE}{_free(connection)}
    """  # noqa: S608 - constants
    found = {row.id: row.upload_id for row in connection.execute(text(spoilt))}
    statement = f"""
        UPDATE backhaul_attachment SET state = 'wanted', upload_id = NULL, sha256 = NULL, next_at = :now
        WHERE state = 'put' AND id IN ({members(connection, "ids", "bigint")})
    """  # noqa: S608 - constants
    if found:
        connection.execute(text(statement), {"now": now, "ids": json.dumps(list(found))})
    return list(found.values())


def arrived(connection: Connection) -> int:
    """put -> gone: the server has it. How many."""
    statement = f"""
        DELETE FROM backhaul_attachment
        WHERE id IN (SELECT id FROM backhaul_attachment AS named WHERE state = 'put' AND {THERE}{_free(connection)})
    """  # noqa: S608 - constants
    return connection.execute(text(statement)).rowcount


def _free(connection: Connection) -> str:
    """What an app is writing at this moment is left for the next time, on PostgreSQL, where we would wait for each
    other."""
    return " FOR UPDATE SKIP LOCKED" if on_postgresql(connection) else ""


def forget(connection: Connection, attachment_id: int, *, key: str) -> bool:
    """-> gone: the row that had this key does not name it any more."""
    statement = "DELETE FROM backhaul_attachment WHERE id = :id AND key = :key"
    return bool(connection.execute(text(statement), {"id": attachment_id, "key": key}).rowcount)


def redeclare(connection: Connection, table: str, *, together: bool) -> None:
    """Whether records of this table become visible only with their files was said anew."""
    statement = "UPDATE backhaul_attachment SET together = :together WHERE table_name = :table"
    connection.execute(text(statement), {"table": table, "together": int(together)})


def forget_table(connection: Connection, table: str) -> None:
    """-> gone: its rows name no files any more, or in another column."""
    connection.execute(text("DELETE FROM backhaul_attachment WHERE table_name = :table"), {"table": table})


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name."""
    statement = "UPDATE backhaul_attachment SET table_name = :new WHERE table_name = :old"
    connection.execute(text(statement), {"old": old, "new": new})
