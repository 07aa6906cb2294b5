"""Who may sync: enrolment codes, registration, tokens. The only file that writes `server_enrolment` and, but for the
high-water mark, `server_replica`.

A code is shown once and works once, for an hour. It carries 100 bits, so it is not guessed; codes and tokens are kept
as their SHA-256 only, and looked up by it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, RowMapping

from backhaul.errors import Misused
from backhaul.merge import Functions
from backhaul.server import lineage, names, scopes, tables
from backhaul.server.names import Renaming
from backhaul.server.problems import refusal
from backhaul.statements import text
from backhaul.wire import Registered, Registration, Versions

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # without I, L, O and U
GROUPS, GROUP = 4, 5
CODE_LIFETIME_MS = 3_600_000
LONGEST_NAME = 200
LONGEST_SCOPE = 100


@dataclass(frozen=True, kw_only=True)
class Replica:
    """Who asks, as the token says."""

    id: str
    scope: str


def enrol(connection: Connection, scope: str, now: int) -> str:
    """A fresh one-time code for one replica of the scope, for example `7Q2KD-0XV9M-RT5H3-N8BWE`. Raises Misused."""
    if not scope or len(scope) > LONGEST_SCOPE or not scope.isprintable():
        raise Misused("that is no name for a scope", hint=f"use 1 to {LONGEST_SCOPE} printable characters")
    code = "-".join("".join(secrets.choice(CROCKFORD) for _ in range(GROUP)) for _ in range(GROUPS))
    statement = """
        INSERT INTO server_enrolment (code_sha256, scope, expires_at)
        VALUES (:code, :scope, :expires_at)
    """
    values = {"code": _hash(_canonical(code)), "scope": scope, "expires_at": now + CODE_LIFETIME_MS}
    connection.execute(text(statement), values)
    return code


def register(
    connection: Connection, registration: Registration, now: int, functions: Functions = tables.NONE
) -> Registered:
    """Spend the code, make the scope if it is new, and the replica. Raises Refused: `code-invalid`, `table-invalid`,
    `schema-conflict`; the code is not spent then."""
    scope, replica = _spend(connection, registration, now)
    scopes.make(connection, scope)
    scopes.lock(connection, scope)
    agreed = tables.declare(connection, scope, registration.tables, functions)
    name = registration.name[:LONGEST_NAME].replace("\0", "")
    was = _known(connection, registration.was, scope)
    token = _make(connection, replica, scope, name, was, registration.knows, now)
    declared = names.declared(registration.tables)
    declare(connection, replica, declared)
    if agreed.anew:
        fall_behind(connection, scope, replica)
    newest = tables.newest_names_of(tables.shapes(connection, scope, functions))
    spoken = names.speech(newest, declared)
    told = [names.told_table(table, spoken) for table in agreed.tables]
    return Registered(replica=replica, token=token, scope=scope, now=now, tables=told, succeeds=was)


def declare(connection: Connection, replica: str, declared: str) -> None:
    """What the replica calls its tables and columns, from now on: JSON, {table: [column]}."""
    statement = "UPDATE server_replica SET declared = :declared, behind = 0 WHERE replica = :replica"
    connection.execute(text(statement), {"replica": replica, "declared": declared})


def fall_behind(connection: Connection, scope: str, replica: str) -> None:
    """Every replica of the scope but this one has to hear of what is agreed by now, before it pulls again."""
    statement = "UPDATE server_replica SET behind = 1 WHERE scope = :scope AND replica <> :replica"
    connection.execute(text(statement), {"scope": scope, "replica": replica})


def check_is_current(connection: Connection, replica: str) -> None:
    """Raises Refused `schema-behind`. Who captures whole values of a column that others add to must not see what they
    have added: it would count as written by him, too."""
    statement = "SELECT behind FROM server_replica WHERE replica = :replica"
    if connection.execute(text(statement), {"replica": replica}).scalar():
        raise refusal("schema-behind", "columns are merged otherwise by now: say your tables, and hear how")


def declared(connection: Connection, replica: str) -> str:
    statement = "SELECT declared FROM server_replica WHERE replica = :replica"
    return str(connection.execute(text(statement), {"replica": replica}).scalar_one_or_none() or "{}")


def names_of(connection: Connection, scope: str, replica: str) -> tuple[Renaming, Renaming]:
    """From every older name in the scope to the newest; and to what the replica calls what was renamed since it has
    said it."""
    newest = tables.newest_names_of(tables.shapes(connection, scope))
    if not newest.changes_anything():
        return names.SAME, names.SAME
    return newest, names.speech(newest, declared(connection, replica))


def succeed(connection: Connection, asker: Replica, was: str, now: int, knows: Versions = ()) -> Registered:
    """Another identity for a replica whose database was copied or put back: its numbers are given out twice.

    was: the one that its database has, by whatever token it asks. Both stay good: the other copy may go on as it.
    knows: what that database has written itself.
    Raises Refused `replica-unrelated`.
    """
    was = _known(connection, was, asker.scope)
    replica = secrets.token_hex(8)
    statement = "SELECT name FROM server_replica WHERE replica = :replica"
    name = str(connection.execute(text(statement), {"replica": was or asker.id}).scalar_one())
    token = _make(connection, replica, asker.scope, name, was or asker.id, knows, now)
    inherited = """
        UPDATE server_replica
        SET (declared, behind) = (SELECT declared, behind FROM server_replica WHERE replica = :was)
        WHERE replica = :replica
    """
    connection.execute(text(inherited), {"replica": replica, "was": was or asker.id})
    return Registered(replica=replica, token=token, scope=asker.scope, now=now, succeeds=was or asker.id)


def listed(connection: Connection, scope: str | None = None) -> list[RowMapping]:
    """The replicas, of one scope or of all, and how far each has got; the one that was seen last comes first."""
    statement = """
        SELECT replica, server_replica.scope, server_replica.name, created_at, seen_at, pulled_at, revoked_at,
               predecessor, server_replica.position, server_scope.position AS head
        FROM server_replica JOIN server_scope ON server_scope.name = server_replica.scope
        WHERE server_replica.scope = coalesce(:scope, server_replica.scope)
        ORDER BY CASE WHEN pulled_at > seen_at THEN pulled_at ELSE seen_at END DESC, replica
    """
    return list(connection.execute(text(statement), {"scope": scope}).mappings())


def authenticate(connection: Connection, token: str, speaks_for: str = "") -> Replica:
    """Whose token it is, or the one for whom he says he speaks. Raises Refused: `token-invalid`, `replica-revoked`,
    `replica-unrelated`."""
    statement = "SELECT replica, scope, revoked_at FROM server_replica WHERE token_sha256 = :token"
    found = connection.execute(text(statement), {"token": _hash(token)}).one_or_none()
    if found is None:
        raise refusal("token-invalid", "this token is of no replica of this server")
    if found.revoked_at is not None:
        raise refusal("replica-revoked", "this replica was revoked")
    return speaking_for(connection, Replica(id=found.replica, scope=found.scope), speaks_for)


def check_active(connection: Connection, replica: str) -> None:
    """Raises Refused `replica-revoked`: what took long is asked for once more before it takes effect."""
    statement = "SELECT revoked_at FROM server_replica WHERE replica = :replica"
    if connection.execute(text(statement), {"replica": replica}).scalar() is not None:
        raise refusal("replica-revoked", "this replica was revoked")


def speaking_for(connection: Connection, asker: Replica, other: str) -> Replica:
    """The other one, when it is a successor of the asker: all processes and machines of a database that became one go
    on with the token that each of them has. "" is the asker. Raises Refused: `replica-unrelated`, `replica-revoked`."""
    if other in ("", asker.id):
        return asker
    if asker.id not in lineage.ancestors(connection, other):
        raise refusal("replica-unrelated", "this token cannot speak for a replica that is no successor of its own")
    statement = "SELECT scope, revoked_at FROM server_replica WHERE replica = :replica"
    found = connection.execute(text(statement), {"replica": other}).one()
    if found.scope != asker.scope:
        raise refusal("replica-unrelated", "this token cannot speak for a replica of another scope")
    if found.revoked_at is not None:
        raise refusal("replica-revoked", "this replica was revoked")
    return Replica(id=other, scope=found.scope)


def revoke(connection: Connection, replica: str, now: int) -> bool:
    """From now on the replica is refused. False when there is no such replica, or it is revoked already."""
    statement = "UPDATE server_replica SET revoked_at = :now WHERE replica = :replica AND revoked_at IS NULL"
    return connection.execute(text(statement), {"replica": replica, "now": now}).rowcount == 1


def _spend(connection: Connection, registration: Registration, now: int) -> tuple[str, str]:
    """The scope of the code, and the replica that comes of it: the same one for who asks again with the same nonce, as
    long as it has not begun to send."""
    nonce = _hash(registration.nonce) if registration.nonce else None
    statement = """
        UPDATE server_enrolment
        SET used_at = :now, nonce_sha256 = :nonce, replica = coalesce(replica, :replica)
        WHERE code_sha256 = :code AND expires_at > :now AND (used_at IS NULL OR nonce_sha256 = :nonce)
        RETURNING scope, replica
    """
    values = {"code": _hash(_canonical(registration.code)), "nonce": nonce, "replica": secrets.token_hex(8), "now": now}
    spent = connection.execute(text(statement), values).one_or_none()
    if spent is None:
        raise refusal("code-invalid", "this code is unknown, used or expired; `backhaul enroll` makes a fresh one")
    return spent.scope, spent.replica


def _known(connection: Connection, was: str, scope: str) -> str:
    """ "" when the server does not know it (any more). Raises Refused `replica-unrelated`."""
    statement = "SELECT scope FROM server_replica WHERE replica = :replica"
    found = connection.execute(text(statement), {"replica": was}).scalar()
    if found not in (None, scope):
        raise refusal("replica-unrelated", f"the replica {was} is of another scope")
    return was if found else ""


def _make(connection: Connection, replica: str, scope: str, name: str, was: str, knows: Versions, now: int) -> str:
    """Returns the token. A replica that is there already (who registers it asks again) gets another one, unless it has
    sent something."""
    statement = """
        INSERT INTO server_replica (replica, scope, name, token_sha256, created_at, seen_at, predecessor, known)
        VALUES (:replica, :scope, :name, :token, :now, :now, :was, :known)
        ON CONFLICT (replica) DO UPDATE SET token_sha256 = excluded.token_sha256, known = excluded.known
        WHERE server_replica.revoked_at IS NULL
          AND NOT EXISTS (SELECT 1 FROM server_lane WHERE server_lane.replica = server_replica.replica)
        RETURNING replica
    """
    token = secrets.token_urlsafe(32)
    values = {"replica": replica, "scope": scope, "name": name, "token": _hash(token), "was": was or None, "now": now}
    values["known"] = lineage.of_successor(connection, was, knows)
    if connection.execute(text(statement), values).scalar_one_or_none() is None:
        raise refusal("code-invalid", "the replica that this code was for is at work already")
    return token


def _canonical(code: str) -> str:
    """The code as a person may type it: any case, any dashes, and the letters that look like digits."""
    return code.upper().replace("-", "").replace(" ", "").translate(str.maketrans("ILO", "110"))


def _hash(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()
