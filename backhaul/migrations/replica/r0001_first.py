"""The tables of a replica, as they were first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "replica_0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers a rowid table only when the column is spelt INTEGER.
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _backhaul_replica()
    _backhaul_lane()
    _backhaul_table()
    _backhaul_outbox()
    _backhaul_conflict()
    _backhaul_aside()
    _backhaul_text()
    _backhaul_unseen()
    _backhaul_stage()
    _backhaul_block()
    _backhaul_endpoint()
    _backhaul_pace()
    _backhaul_traffic()
    _backhaul_work()
    _backhaul_upload()
    _backhaul_content()
    _backhaul_download()
    _backhaul_attachment()
    _backhaul_condition()
    _backhaul_worker()
    _backhaul_lease()


def _backhaul_replica() -> None:
    op.create_table(
        "backhaul_replica",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="ck_backhaul_replica_one_row"), nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("remote", sa.Text, nullable=False),
        sa.Column("home", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("muted", sa.Integer, nullable=False, server_default="0"),
        sa.Column("group_id", sa.Text),
        sa.Column("seen_hlc", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("cursor", sa.Text, nullable=False, server_default=""),
        sa.Column("last_pull_at", sa.BigInteger),
        sa.Column("last_hlc", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("frozen_id", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_push_at", sa.BigInteger),
        sa.Column("clock_offset_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("origin", sa.Text, nullable=False, server_default=""),
        sa.Column("former_id", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("recovering", sa.Text, nullable=False, server_default=""),
        sa.Column("common_position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("common_hlc", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("common_all", sa.Integer, nullable=False, server_default="0"),
        sa.Column("staged_cursor", sa.Text, nullable=False, server_default=""),
        sa.Column("staged_hlc", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_backhaul_replica"),
    )


def _backhaul_lane() -> None:
    op.create_table(
        "backhaul_lane",
        sa.Column("lane", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("last_send_seq", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.LargeBinary),
        sa.Column("needs", sa.LargeBinary),
        sa.PrimaryKeyConstraint("lane", name="pk_backhaul_lane"),
    )


def _backhaul_table() -> None:
    op.create_table(
        "backhaul_table",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column(
            "backfill",
            sa.Text,
            sa.CheckConstraint("backfill IN ('pending', 'done')", name="ck_backhaul_table_backfill"),
            nullable=False,
        ),
        sa.Column("backfill_after", sa.Text),
        sa.Column("backfill_rows", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("behind", sa.Text),
        sa.Column("behind_cursor", sa.Text, nullable=False, server_default=""),
        sa.Column("suspect", sa.Text),
        sa.Column("suspect_after", sa.Text),
        sa.Column("suspect_base", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("fresh", sa.Integer, nullable=False, server_default="1"),
        sa.Column("media", sa.Text),
        sa.PrimaryKeyConstraint("name", name="pk_backhaul_table"),
    )


def _backhaul_outbox() -> None:
    op.create_table(
        "backhaul_outbox",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("op_id", sa.Text),
        sa.Column("group_id", sa.Text),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("fields", sa.Text),
        sa.Column("captured_at", sa.BigInteger, nullable=False),
        sa.Column("seen_hlc", sa.BigInteger, nullable=False),
        sa.Column("base", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="pending"),
        sa.Column("send_seq", sa.BigInteger),
        sa.Column("hlc", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("lease_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("version", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("conflict_id", sa.BigInteger),
        sa.Column("captured", sa.Text),
        sa.Column("again", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_backhaul_outbox"),
        sa.CheckConstraint(
            "kind = 'update' OR kind = 'insert' OR kind = 'delete' OR kind = 'backfill' OR kind = 'void'",
            name="ck_backhaul_outbox_kind",
        ),
        sa.CheckConstraint(
            "state = 'pending' OR state = 'parked' OR state = 'conflict' OR state = 'held' OR (send_seq IS NOT NULL AND (state = 'sent' OR state = 'acked'))",
            name="ck_backhaul_outbox_state",
        ),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.create_index(
            "ix_backhaul_outbox_group",
            "backhaul_outbox",
            ["group_id", "id"],
            postgresql_where=sa.text("state = 'pending'"),
        )
    if op.get_bind().dialect.name == "postgresql":
        # Between two looks of the statistics all that waits may have come, or gone: a plan made by them goes through the
        # whole outbox once for each change of a batch. Without any, a state is taken for a two-hundredth of the rows.
        op.execute("ALTER TABLE backhaul_outbox ALTER COLUMN state SET STATISTICS 0")
    if op.get_bind().dialect.name == "postgresql":
        op.create_index(
            "ix_backhaul_outbox_pending", "backhaul_outbox", ["id"], postgresql_where=sa.text("state = 'pending'")
        )
    op.create_index(
        "ix_backhaul_outbox_refused",
        "backhaul_outbox",
        ["state"],
        sqlite_where=sa.text("state = 'parked' OR state = 'conflict' OR state = 'held'"),
        postgresql_where=sa.text("state = 'parked' OR state = 'conflict' OR state = 'held'"),
    )
    op.create_index(
        "ix_backhaul_outbox_sent",
        "backhaul_outbox",
        ["send_seq"],
        sqlite_where=sa.text("state = 'sent'"),
        postgresql_where=sa.text("state = 'sent'"),
    )


def _backhaul_conflict() -> None:
    op.create_table(
        "backhaul_conflict",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("number", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("roots", sa.Text, nullable=False, server_default="[]"),
        sa.Column("ops", sa.Text, nullable=False, server_default="[]"),
        sa.Column("kind", sa.Text),
        sa.Column("base", sa.BigInteger),
        sa.Column("was", sa.Text, nullable=False, server_default="{}"),
        sa.Column("mine", sa.Text, nullable=False, server_default="{}"),
        sa.Column("there", sa.Text),
        sa.Column("theirs", sa.Text, nullable=False, server_default="{}"),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("since", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("choice", sa.Text),
        sa.Column("resolved_at", sa.BigInteger),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_backhaul_conflict"),
        sa.CheckConstraint("(state = 'withheld') = (number IS NULL)", name="ck_backhaul_conflict_numbered"),
        sa.CheckConstraint("state IN ('withheld', 'open', 'resolved', 'undone')", name="ck_backhaul_conflict_state"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_backhaul_conflict_number", "backhaul_conflict", ["number"])
    op.create_index(
        "ix_backhaul_conflict_record",
        "backhaul_conflict",
        ["table_name", "key"],
        unique=True,
        sqlite_where=sa.text("state = 'withheld' OR state = 'open'"),
        postgresql_where=sa.text("state = 'withheld' OR state = 'open'"),
    )


def _backhaul_aside() -> None:
    op.create_table(
        "backhaul_aside",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("tried_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "key", name="pk_backhaul_aside"),
    )


def _backhaul_text() -> None:
    op.create_table(
        "backhaul_text",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("column_name", sa.Text, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "key", "column_name", name="pk_backhaul_text"),
    )


def _backhaul_unseen() -> None:
    op.create_table(
        "backhaul_unseen",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("base", sa.BigInteger, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "key", name="pk_backhaul_unseen"),
    )


def _backhaul_stage() -> None:
    op.create_table(
        "backhaul_stage",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.Integer, nullable=False),
        sa.Column("record", sa.Text),
        sa.PrimaryKeyConstraint("table_name", "key", name="pk_backhaul_stage"),
    )


def _backhaul_block() -> None:
    op.create_table(
        "backhaul_block",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column(
            "state",
            sa.Text,
            sa.CheckConstraint("state IN ('spare', 'open')", name="ck_backhaul_block_state"),
            nullable=False,
        ),
        sa.Column("given_at", sa.BigInteger, nullable=False),
        sa.Column("next_size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "first", name="pk_backhaul_block"),
    )


def _backhaul_endpoint() -> None:
    op.create_table(
        "backhaul_endpoint",
        sa.Column(
            "id", sa.Integer, sa.CheckConstraint("id IN (1, 2)", name="ck_backhaul_endpoint_row"), nullable=False
        ),
        sa.Column("held_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("held_because", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_backhaul_endpoint"),
    )


def _backhaul_pace() -> None:
    op.create_table(
        "backhaul_pace",
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("direction", sa.Text, nullable=False),
        sa.Column("dial", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("value_before", sa.BigInteger, nullable=False),
        sa.Column("usual", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decided_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint(
            "direction IN ('push', 'pull', 'upload', 'download', 'reconcile')", name="ck_backhaul_pace_direction"
        ),
        sa.PrimaryKeyConstraint("endpoint", "direction", "dial", name="pk_backhaul_pace"),
    )


def _backhaul_traffic() -> None:
    op.create_table(
        "backhaul_traffic",
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node", "day", "network", name="pk_backhaul_traffic"),
    )


def _backhaul_work() -> None:
    op.create_table(
        "backhaul_work",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("function", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("ordinary_queue", sa.Text),
        sa.Column("requires", sa.Text, nullable=False, server_default="[]"),
        sa.Column("tags", sa.Text, nullable=False, server_default="[]"),
        sa.Column("input", sa.Text, nullable=False, server_default="{}"),
        sa.Column("output", sa.Text),
        sa.Column("progress", sa.Text),
        sa.Column("checkpoint", sa.Text),
        sa.Column("merger", sa.Text),
        sa.Column("interval_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("flex_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("initial_delay_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("begin_at", sa.BigInteger),
        sa.Column("override_at", sa.BigInteger),
        sa.Column("override_generation", sa.Integer, nullable=False, server_default="0"),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("backoff_policy", sa.Text, nullable=False, server_default="exponential"),
        sa.Column("backoff_ms", sa.BigInteger, nullable=False, server_default="30000"),
        sa.Column("backoff_most_ms", sa.BigInteger, nullable=False, server_default="18000000"),
        sa.Column("backoff_on_stop", sa.Integer, nullable=False, server_default="0"),
        sa.Column("jitter", sa.Integer, nullable=False, server_default="0"),
        sa.Column("max_attempts", sa.Integer),
        sa.Column("expedited", sa.Integer, nullable=False, server_default="0"),
        sa.Column("trigger_update_ms", sa.BigInteger),
        sa.Column("trigger_most_ms", sa.BigInteger),
        sa.Column("triggered", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("enqueued_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("rung_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("retries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("losses", sa.Integer, nullable=False, server_default="0"),
        sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("runs", sa.Integer, nullable=False, server_default="0"),
        sa.Column("parents", sa.Integer, nullable=False, server_default="0"),
        sa.Column("children", sa.Integer, nullable=False, server_default="0"),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("node", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("process", sa.Integer),
        sa.Column("lease_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("stop_requested", sa.Text),
        sa.Column("stop_reason", sa.Text),
        sa.Column("started_before", sa.BigInteger),
        sa.Column("stopped_before", sa.Text),
        sa.Column("last_error", sa.Text),
        sa.Column("last_outcome", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_backhaul_work"),
        sa.CheckConstraint(
            "(state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)",
            name="ck_backhaul_work_finished_has_its_time",
        ),
        sa.CheckConstraint(
            "state IN ('ENQUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'BLOCKED', 'CANCELLED')",
            name="ck_backhaul_work_state",
        ),
    )
    op.create_index(
        "ix_backhaul_work_unrung",
        "backhaul_work",
        ["queue", "expedited", "rung_at", "due_at"],
        sqlite_where=sa.text("state = 'ENQUEUED'"),
        postgresql_where=sa.text("state = 'ENQUEUED'"),
    )
    op.create_index(
        "ix_backhaul_work_running",
        "backhaul_work",
        ["lease_until"],
        sqlite_where=sa.text("state = 'RUNNING'"),
        postgresql_where=sa.text("state = 'RUNNING'"),
    )
    op.create_index(
        "ix_backhaul_work_name",
        "backhaul_work",
        ["name"],
        sqlite_where=sa.text("name IS NOT NULL"),
        postgresql_where=sa.text("name IS NOT NULL"),
    )
    op.create_index(
        "ix_backhaul_work_finished",
        "backhaul_work",
        ["finished_at", "id"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_backhaul_work_unfinished",
        "backhaul_work",
        ["created_at", "id"],
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "ix_backhaul_work_expiring",
        "backhaul_work",
        ["expires_at"],
        sqlite_where=sa.text("expires_at IS NOT NULL AND finished_at IS NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.create_index(
        "ix_backhaul_work_expedited",
        "backhaul_work",
        ["created_at"],
        sqlite_where=sa.text("ordinary_queue IS NOT NULL"),
        postgresql_where=sa.text("ordinary_queue IS NOT NULL"),
    )
    op.create_index("ix_backhaul_work_state", "backhaul_work", ["state", "created_at"])
    op.create_index("ix_backhaul_work_task", "backhaul_work", ["task", "function", "finished_at"])
    op.create_table(
        "backhaul_work_parent",
        sa.Column("work_id", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("work_id", "parent_id", name="pk_backhaul_work_parent"),
    )
    op.create_index("ix_backhaul_work_parent_children", "backhaul_work_parent", ["parent_id"])
    op.create_table(
        "backhaul_work_tag",
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("work_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tag", "work_id", name="pk_backhaul_work_tag"),
    )
    op.create_index("ix_backhaul_work_tag_work", "backhaul_work_tag", ["work_id"])
    op.create_table(
        "backhaul_work_trigger",
        sa.Column("work_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("descendants", sa.Integer, nullable=False, server_default="0"),
        sa.Column("seen", sa.Text, nullable=False, server_default=""),
        sa.Column("first_at", sa.BigInteger),
        sa.Column("last_at", sa.BigInteger),
        sa.Column("unanswered_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("work_id", "kind", "what", name="pk_backhaul_work_trigger"),
        sa.CheckConstraint("kind IN ('table', 'file')", name="ck_backhaul_work_trigger_kind"),
    )
    op.create_table(
        "backhaul_work_mark",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_backhaul_work_mark"),
    )


def _backhaul_upload() -> None:
    op.create_table(
        "backhaul_upload",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("modified_ns", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("url", sa.Text),
        sa.Column("sent", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("queue", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("asked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_backhaul_upload"),
        sa.CheckConstraint("state IN ('pending', 'sending', 'done', 'parked')", name="ck_backhaul_upload_state"),
    )
    op.create_index("ix_backhaul_upload_sha256", "backhaul_upload", ["sha256"])
    op.create_index(
        "ix_backhaul_upload_open",
        "backhaul_upload",
        ["priority", "created_at"],
        sqlite_where=sa.text("state IN ('pending', 'sending')"),
        postgresql_where=sa.text("state IN ('pending', 'sending')"),
    )


def _backhaul_content() -> None:
    op.create_table(
        "backhaul_content",
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("kept_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
        sa.Column("on_server", sa.Boolean, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_backhaul_content"),
    )


def _backhaul_download() -> None:
    op.create_table(
        "backhaul_download",
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("received", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("reason", sa.Text),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_backhaul_download"),
        sa.CheckConstraint("state IN ('wanted', 'parked')", name="ck_backhaul_download_state"),
    )


def _backhaul_attachment() -> None:
    op.create_table(
        "backhaul_attachment",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("together", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="wanted"),
        sa.Column("named_at", sa.BigInteger, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("upload_id", sa.Text),
        sa.Column("sha256", sa.Text),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_backhaul_attachment"),
        sa.CheckConstraint(
            "state = 'wanted' OR state = 'put' AND upload_id IS NOT NULL", name="ck_backhaul_attachment_state"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_backhaul_attachment_record", "backhaul_attachment", ["table_name", "key"])
    op.create_index("ix_backhaul_attachment_state", "backhaul_attachment", ["state", "next_at"])


def _backhaul_condition() -> None:
    op.create_table(
        "backhaul_condition",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("value", sa.Boolean, nullable=False),
        sa.Column("set_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("name", "node", "source", name="pk_backhaul_condition"),
        sa.CheckConstraint("source IN ('override', 'published')", name="ck_backhaul_condition_source"),
    )


def _backhaul_worker() -> None:
    op.create_table(
        "backhaul_worker",
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("concurrency", sa.Integer),
        sa.Column("processes", sa.Text),
        sa.Column("misrouted", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("queues", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False, server_default="[]"),
        sa.Column("readings", sa.Text, nullable=False, server_default="[]"),
        sa.Column("conditions", sa.Text, nullable=False, server_default="[]"),
        sa.PrimaryKeyConstraint("node", "name", name="pk_backhaul_worker"),
    )


def _backhaul_lease() -> None:
    op.create_table(
        "backhaul_lease",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_backhaul_lease"),
    )
