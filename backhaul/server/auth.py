"""Who may sync: enrolment codes, registration, tokens. The only file that writes `server_enrolment` and, but for the
high-water mark, `server_replica`.

A code is shown once and works once, for an hour. It carries 100 bits, so it is not guessed; codes and tokens are kept
as their SHA-256 only, and looked up by it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, RowMapping, text

from backhaul.errors import Misused
from backhaul.merge import Functions
from backhaul.server import names, scopes, tables
from backhaul.server.problems import refusal
from backhaul.wire import Registered, Registration, newest_names

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
    token = _make(connection, replica, scope, name, was, now)
    declared = names.declared(registration.tables)
    declare(connection, replica, declared)
    spoken = names.speech({table.name: newest_names(table.renamed) for table in agreed}, declared)
    told = [names.told_table(table, spoken) for table in agreed]
    return Registered(replica=replica, token=token, scope=scope, now=now, tables=told, succeeds=was)


def declare(connection: Connection, replica: str, declared: str) -> None:
    """What the replica calls its tables and columns, from now on: JSON, {table: [column]}."""
    statement = "UPDATE server_replica SET declared = :declared WHERE replica = :replica"
    connection.execute(text(statement), {"replica": replica, "declared": declared})


def declared(connection: Connection, replica: str) -> str:
    statement = "SELECT declared FROM server_replica WHERE replica = :replica"
    return str(connection.execute(text(statement), {"replica": replica}).scalar_one_or_none() or "{}")


def succeed(connection: Connection, asker: Replica, was: str, now: int) -> Registered:
    """Another identity for a replica whose database was copied or put back: its numbers are given out twice.

    was: the one that its database has, by whatever token it asks. Both stay good: the other copy may go on as it.
    Raises Refused `replica-unrelated`.
    """
    was = _known(connection, was, asker.scope)
    replica = secrets.token_hex(8)
    statement = "SELECT name FROM server_replica WHERE replica = :replica"
    name = str(connection.execute(text(statement), {"replica": was or asker.id}).scalar_one())
    token = _make(connection, replica, asker.scope, name, was or asker.id, now)
    declare(connection, replica, declared(connection, was or asker.id))
    return Registered(replica=replica, token=token, scope=asker.scope, now=now, succeeds=was or asker.id)


def lineage(connection: Connection, replica: str) -> list[str]:
    """The replica, and those that it was before."""
    statement = """
        WITH RECURSIVE line (replica, predecessor) AS (
            SELECT replica, predecessor FROM server_replica WHERE replica = :replica
            UNION
            SELECT before.replica, before.predecessor
            FROM server_replica AS before JOIN line ON before.replica = line.predecessor
        )
        SELECT replica FROM line
    """
    return list(connection.execute(text(statement), {"replica": replica}).scalars())


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


def authenticate(connection: Connection, token: str) -> Replica:
    """Raises Refused: `token-invalid`, `replica-revoked`."""
    statement = "SELECT replica, scope, revoked_at FROM server_replica WHERE token_sha256 = :token"
    found = connection.execute(text(statement), {"token": _hash(token)}).one_or_none()
    if found is None:
        raise refusal("token-invalid", "this token is of no replica of this server")
    if found.revoked_at is not None:
        raise refusal("replica-revoked", "this replica was revoked")
    return Replica(id=found.replica, scope=found.scope)


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


def _make(connection: Connection, replica: str, scope: str, name: str, was: str, now: int) -> str:
    """Returns the token. A replica that is there already (who registers it asks again) gets another one, unless it has
    sent something."""
    statement = """
        INSERT INTO server_replica (replica, scope, name, token_sha256, high_water, created_at, seen_at, predecessor)
        VALUES (:replica, :scope, :name, :token, 0, :now, :now, :was)
        ON CONFLICT (replica) DO UPDATE SET token_sha256 = excluded.token_sha256
        WHERE server_replica.high_water = 0 AND server_replica.revoked_at IS NULL
        RETURNING replica
    """
    token = secrets.token_urlsafe(32)
    values = {"replica": replica, "scope": scope, "name": name, "token": _hash(token), "was": was or None, "now": now}
    if connection.execute(text(statement), values).scalar_one_or_none() is None:
        raise refusal("code-invalid", "the replica that this code was for is at work already")
    return token


def _canonical(code: str) -> str:
    """The code as a person may type it: any case, any dashes, and the letters that look like digits."""
    return code.upper().replace("-", "").replace(" ", "").translate(str.maketrans("ILO", "110"))


def _hash(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()
