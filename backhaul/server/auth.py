"""Who may sync: enrolment codes, registration, tokens. The only file that writes `server_enrolment` and, but for the
high-water mark, `server_replica`.

A code is shown once and works once, for an hour. It carries 100 bits, so it is not guessed; codes and tokens are kept
as their SHA-256 only, and looked up by it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, text

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
    connection: Connection, registration: Registration, now: int, functions: Functions | None = None
) -> Registered:
    """Spend the code, make the scope if it is new, and the replica. Raises Refused: `code-invalid`, `table-invalid`,
    `schema-conflict`; the code is not spent then."""
    scope = _spend(connection, registration.code, now)
    scopes.make(connection, scope)
    scopes.lock(connection, scope)
    agreed = tables.declare(connection, scope, registration.tables, functions)
    declared = names.declared(registration.tables)
    spoken = names.speech({table.name: newest_names(table.renamed) for table in agreed}, declared)
    replica, token = secrets.token_hex(8), secrets.token_urlsafe(32)
    _make(connection, replica, scope, registration.name[:LONGEST_NAME].replace("\0", ""), token, now)
    declare(connection, replica, declared)
    told = [names.told_table(table, spoken) for table in agreed]
    return Registered(replica=replica, token=token, scope=scope, now=now, tables=told)


def declare(connection: Connection, replica: str, declared: str) -> None:
    """What the replica calls its tables and columns, from now on: JSON, {table: [column]}."""
    statement = "UPDATE server_replica SET declared = :declared WHERE replica = :replica"
    connection.execute(text(statement), {"replica": replica, "declared": declared})


def declared(connection: Connection, replica: str) -> str:
    statement = "SELECT declared FROM server_replica WHERE replica = :replica"
    return str(connection.execute(text(statement), {"replica": replica}).scalar_one_or_none() or "{}")


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


def _spend(connection: Connection, code: str, now: int) -> str:
    statement = """
        UPDATE server_enrolment
        SET used_at = :now
        WHERE code_sha256 = :code AND used_at IS NULL AND expires_at > :now
        RETURNING scope
    """
    scope = connection.execute(text(statement), {"code": _hash(_canonical(code)), "now": now}).scalar_one_or_none()
    if scope is None:
        raise refusal("code-invalid", "this code is unknown, used or expired; `backhaul enroll` makes a fresh one")
    return str(scope)


def _make(connection: Connection, replica: str, scope: str, name: str, token: str, now: int) -> None:
    statement = """
        INSERT INTO server_replica (replica, scope, name, token_sha256, high_water, created_at, seen_at)
        VALUES (:replica, :scope, :name, :token, 0, :now, :now)
    """
    values = {"replica": replica, "scope": scope, "name": name, "token": _hash(token), "now": now}
    connection.execute(text(statement), values)


def _canonical(code: str) -> str:
    """The code as a person may type it: any case, any dashes, and the letters that look like digits."""
    return code.upper().replace("-", "").replace(" ", "").translate(str.maketrans("ILO", "110"))


def _hash(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()
