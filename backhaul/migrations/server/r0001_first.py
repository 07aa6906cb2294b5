"""The tables of the server, as they were first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "server_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _server_identity()
    _server_scope()
    _server_commit()
    _server_leap()
    _server_table()
    _server_enrolment()
    _server_replica()
    _server_lane()
    _server_applied()
    _server_record()
    _server_block()
    _server_aggregate()
    _server_upload()
    _server_media()


def _server_identity() -> None:
    op.create_table(
        "server_identity",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="ck_server_identity_one_row"), nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_server_identity"),
    )


def _server_scope() -> None:
    op.create_table(
        "server_scope",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("feed", sa.Text, nullable=False),
        sa.Column("hlc", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("horizon", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("collected", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("name", name="pk_server_scope"),
    )


def _server_commit() -> None:
    op.create_table(
        "server_commit",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("nonce", sa.Text, nullable=False),
        sa.Column("committed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "position", name="pk_server_commit"),
    )


def _server_leap() -> None:
    op.create_table(
        "server_leap",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("common", sa.BigInteger, nullable=False),
        sa.Column("resumed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "position", name="pk_server_leap"),
    )


def _server_table() -> None:
    op.create_table(
        "server_table",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name="pk_server_table"),
        sa.ForeignKeyConstraint(["scope"], ["server_scope.name"], name="fk_server_table_scope"),
    )


def _server_enrolment() -> None:
    op.create_table(
        "server_enrolment",
        sa.Column("code_sha256", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        sa.Column("nonce_sha256", sa.Text),
        sa.Column("replica", sa.Text),
        sa.PrimaryKeyConstraint("code_sha256", name="pk_server_enrolment"),
    )


def _server_replica() -> None:
    op.create_table(
        "server_replica",
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("token_sha256", sa.Text, nullable=False),
        sa.Column("predecessor", sa.Text),
        sa.Column("known", sa.Text, nullable=False, server_default="{}"),
        sa.Column("position", sa.BigInteger),
        sa.Column("pulled_at", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("declared", sa.Text, nullable=False, server_default="{}"),
        sa.Column("behind", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("replica", name="pk_server_replica"),
        sa.ForeignKeyConstraint(["scope"], ["server_scope.name"], name="fk_server_replica_scope"),
        sa.UniqueConstraint("token_sha256", name="uq_server_replica_token_sha256"),
    )
    op.create_index("ix_server_replica_predecessor", "server_replica", ["predecessor"])


def _server_lane() -> None:
    op.create_table(
        "server_lane",
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("lane", sa.BigInteger, nullable=False),
        sa.Column("high_water", sa.BigInteger, nullable=False),
        sa.Column("settled", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("replica", "lane", name="pk_server_lane"),
        sa.ForeignKeyConstraint(["replica"], ["server_replica.replica"], name="fk_server_lane_replica"),
    )


def _server_applied() -> None:
    op.create_table(
        "server_applied",
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("send_seq", sa.BigInteger, nullable=False),
        sa.Column("op_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("applied_at", sa.BigInteger, nullable=False),
        sa.Column("former", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("replica", "send_seq", name="pk_server_applied"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_server_applied_at", "server_applied", ["applied_at"])
    op.create_index(
        "ix_server_applied_former",
        "server_applied",
        ["replica", "op_id"],
        sqlite_where=sa.text("former = 1"),
        postgresql_where=sa.text("former = 1"),
    )


def _server_record() -> None:
    op.create_table(
        "server_record",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("born", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("deleted", sa.Integer, nullable=False),
        sa.Column("hlc", sa.BigInteger, nullable=False),
        sa.Column("writer", sa.Text, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("stamps", sa.Text, nullable=False),
        sa.Column("states", sa.Text, nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("scope", "table_name", "key", name="pk_server_record"),
    )
    op.create_index("ix_server_record_feed", "server_record", ["scope", "version"])


def _server_block() -> None:
    op.create_table(
        "server_block",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("given_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "table_name", "replica", name="pk_server_block"),
    )


def _server_aggregate() -> None:
    op.create_table(
        "server_aggregate",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("writer", sa.Text, nullable=False),
        sa.Column("others", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "table_name", "key", name="pk_server_aggregate"),
    )


def _server_upload() -> None:
    op.create_table(
        "server_upload",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("synced", sa.BigInteger, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("concat", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_server_upload"),
    )


def _server_media() -> None:
    op.create_table(
        "server_media",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "sha256", name="pk_server_media"),
    )
