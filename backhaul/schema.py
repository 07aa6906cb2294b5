"""Every backhaul_* table, on one page: what a replica keeps beside the app's own tables, and what the server keeps.

Each table has one owner, the only file that writes it:

    backhaul_replica    replica/checkpoint.py     backhaul_work       work/ledger/
                                                  backhaul_work_*     work/ledger/
    backhaul_table      replica/tables.py         backhaul_condition  work/conditions.py
    backhaul_outbox     replica/outbox/ (*)       backhaul_worker     work/roster.py
    backhaul_upload     media/uploads.py          backhaul_lease      work/lease.py
    backhaul_aside      replica/aside.py          backhaul_endpoint   remotes/endpoint.py
    backhaul_block      replica/blocks.py         backhaul_conflict   replica/conflicts.py
    backhaul_stage      replica/stage.py          backhaul_text       replica/texts.py
    backhaul_lane       replica/lanes.py          backhaul_unseen     replica/unseen.py
    backhaul_pace       remotes/pace.py           backhaul_traffic    remotes/traffic.py
    backhaul_content    media/contents.py         backhaul_download   media/downloads.py
    backhaul_attachment replica/attachments.py (***)

    server_identity     server/store.py           server_applied      server/outcomes.py
    server_scope        server/scopes.py          server_record       server/records.py
    server_table        server/tables.py          server_upload       server/uploads.py
    server_enrolment    server/auth.py            server_media        server/uploads.py
    server_replica      server/auth.py (**)       server_aggregate    server/aggregates.py
    server_commit       server/scopes.py          server_block        server/blocks.py
    server_lane         server/outcomes.py        server_leap         server/leaps.py

(*) rows are born in the triggers of replica/capture.py and in replica/backfill.py; every later step is the outbox's,
but for the numbers that are given out anew, and what is offered anew, in a recovery: replica/renumbering.py.
(**) but its `seen_at`, which moves with the outcomes, by server/outcomes.py, how far it has pulled, by
server/horizon.py, and `known`, which server/lineage.py adds to.
(***) rows are born, and are gone with what names them, in the triggers of replica/capture_files.py.

Times are milliseconds since 1970-01-01 UTC. JSON stands in TEXT. The migrations in `migrations/` make these tables;
a test holds the two against each other.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite numbers a rowid table only when the column is spelt INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")

replica_metadata = MetaData(naming_convention=NAMING)
server_metadata = MetaData(naming_convention=NAMING)

# One row: who this replica is, how far it has got, and what the triggers read with each change.
replica = Table(
    "backhaul_replica",
    replica_metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True),
    Column("replica", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("remote", Text, nullable=False),  # the server's URL
    Column("home", Text, nullable=False),  # the folder of backhaul.toml
    Column("created_at", BigInteger, nullable=False),  # by the server's clock
    # read by the triggers
    Column("muted", Integer, nullable=False, server_default="0"),  # 1 inside a transaction that applies remote changes
    Column("group_id", Text),  # of the hooked transaction that is open now
    Column("seen_hlc", BigInteger, nullable=False, server_default="0"),  # the highest stamp that its rows may have
    Column("position", BigInteger, nullable=False, server_default="0"),  # the feed position applied so far
    # pull
    Column("cursor", Text, nullable=False, server_default=""),
    Column("last_pull_at", BigInteger),
    # push
    Column("last_hlc", BigInteger, nullable=False, server_default="0"),  # the highest stamp the server took
    Column("frozen_id", BigInteger, nullable=False, server_default="0"),  # no change up to this outbox id is pending
    Column("last_push_at", BigInteger),
    Column("clock_offset_ms", BigInteger, nullable=False, server_default="0"),  # the server's clock minus ours
    # recovery
    Column("origin", Text, nullable=False, server_default=""),  # the first replica id that this database had
    Column("former_id", BigInteger, nullable=False, server_default="0"),  # up to here changes may have been sent before
    Column("recovering", Text, nullable=False, server_default=""),  # see replica/recover.py
    Column("common_position", BigInteger, nullable=False, server_default="0"),  # with a server that was put back
    Column("common_hlc", BigInteger, nullable=False, server_default="0"),  # the highest stamp its rows had then
    Column("common_all", Integer, nullable=False, server_default="0"),  # 1: it had seen all that the server still has
    Column("staged_cursor", Text, nullable=False, server_default=""),  # pages up to here lie in backhaul_stage
    Column("staged_hlc", BigInteger, nullable=False, server_default="0"),  # the highest stamp that those tell of
)

# The lanes that changes are pushed in (replica/lanes.py): how far each is numbered, and what it has on its way.
lane = Table(
    "backhaul_lane",
    replica_metadata,
    Column("lane", BigInteger, primary_key=True, autoincrement=False),  # see lanes.py; as wide as what it is shifted to
    Column("last_send_seq", BigInteger, nullable=False),
    Column("changes", LargeBinary),  # digests of what its last claim is about (replica/footprint.py); NULL: anything
    Column("needs", LargeBinary),  # digests of what that depends on
)

# The tracked tables, as they were when the triggers were made, and how far each one's backfill has got.
tracked = Table(
    "backhaul_table",
    replica_metadata,
    Column("name", Text, primary_key=True),
    Column("definition", Text, nullable=False),  # wire.Table, JSON
    Column("shape", Text, nullable=False),  # of the columns and the triggers; another one means: altered since
    Column("backfill", Text, CheckConstraint("backfill IN ('pending', 'done')", name="backfill"), nullable=False),
    Column("backfill_after", Text),  # JSON: the key of the last row sent to the outbox
    Column("backfill_rows", BigInteger, nullable=False, server_default="0"),
    Column("behind", Text),  # JSON: columns whose values are still to be fetched; []: the whole table; NULL: none
    Column("behind_cursor", Text, nullable=False, server_default=""),  # how far that is
    Column("suspect", Text),  # JSON: columns that were edited unseen, perhaps; NULL: none
    Column("suspect_after", Text),  # JSON: the key of the last row that was looked at
    Column(
        "suspect_base", BigInteger, nullable=False, server_default="0"
    ),  # the feed position when it was doubted first
    Column("fresh", Integer, nullable=False, server_default="1"),  # 0: its rows were all sent once, or pulled
    Column("media", Text),  # replica/media_columns.py: MediaColumn, JSON; NULL: it names no files
)

# The changes on their way out.
#
# pending   captured, not sent yet. Brought in by the triggers and the backfill, and by `retry` of a parked change.
# sent      numbered, stamped and sent at least once: what it says can no longer change. By a claim.
# acked     the server has it, as `version`. By its result; deleted when the pull has passed that version.
# parked    refused for good, with the reason. By its result, or because it depends on a parked one. A person ends it.
# conflict  waits for a person to choose. By its result, or because it depends on one that is; gone by the choice.
# held      waits until the server has the file that its record is to become visible with, or for one that does.
outbox = Table(
    "backhaul_outbox",
    replica_metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),  # never used twice, or the server would drop changes
    Column("op_id", Text),  # made of what was captured, when it is first sent or parked; of what is sent again, before
    Column("group_id", Text),  # NULL: a group of its own
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # JSON array
    Column("kind", Text, nullable=False),
    Column("fields", Text),  # JSON object of the fields that changed; NULL for a delete
    Column("captured_at", BigInteger, nullable=False),
    Column("seen_hlc", BigInteger, nullable=False),
    Column("base", BigInteger, nullable=False),  # the feed position that the app had seen
    Column("state", Text, nullable=False, server_default="pending"),
    Column("send_seq", BigInteger),
    Column("hlc", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_at", BigInteger, nullable=False, server_default="0"),
    Column("lease_until", BigInteger, nullable=False, server_default="0"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("version", BigInteger),
    Column("reason", Text),  # the problem's name, once parked; the last error, before
    Column("detail", Text),
    Column("settled_at", BigInteger),
    Column("conflict_id", BigInteger),  # of a conflict: backhaul_conflict.number
    Column("captured", Text),  # JSON: what was edited in texts, as it was captured, beside the update made of it
    Column("again", Integer),  # 1: a person had it sent again, and may have done so before a backup was put back
    # The likeliest first, and no IN: SQLite would build a table for its list with every change of the app.
    CheckConstraint(
        "state = 'pending' OR state = 'parked' OR state = 'conflict' OR state = 'held'"
        " OR (send_seq IS NOT NULL AND (state = 'sent' OR state = 'acked'))",
        name="state",
    ),
    CheckConstraint(
        "kind = 'update' OR kind = 'insert' OR kind = 'delete' OR kind = 'backfill' OR kind = 'void'", name="kind"
    ),
    sqlite_autoincrement=True,
)
# No index over what is captured: it would cost every write of the app. Pending changes are those after `frozen_id`.
# On PostgreSQL a lower id may be committed later, so there they are found by an index, and so are those of one group.
Index(
    "ix_backhaul_outbox_pending",
    outbox.c.id,
    postgresql_where=text("state = 'pending'"),
).ddl_if(dialect="postgresql")
Index(
    "ix_backhaul_outbox_group",
    outbox.c.group_id,
    outbox.c.id,
    postgresql_where=text("state = 'pending'"),
).ddl_if(dialect="postgresql")
Index(
    "ix_backhaul_outbox_sent",
    outbox.c.send_seq,
    sqlite_where=text("state = 'sent'"),
    postgresql_where=text("state = 'sent'"),
)
Index(
    "ix_backhaul_outbox_refused",
    outbox.c.state,
    sqlite_where=text("state = 'parked' OR state = 'conflict' OR state = 'held'"),
    postgresql_where=text("state = 'parked' OR state = 'conflict' OR state = 'held'"),
)
# Conflicts that wait for a person, and what became of them (replica/conflicts.py). A row is one record of a conflict;
# those with the same number are resolved together.
#
# withheld  in no conflict yet: what the feed said of a part of an aggregate that a change of ours touches
# open      waits for a person. By the outcome of a change, or because it depends on one that is a conflict.
# resolved  a person chose, and `choice` says what; undone: what stood before was put back, as a new change.
conflict = Table(
    "backhaul_conflict",
    replica_metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("number", BigInteger),  # of the conflict: the id of its first row
    Column("state", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # canonical JSON array
    Column("roots", Text, nullable=False, server_default="[]"),  # JSON: the aggregates it is of, here, there and before
    Column("ops", Text, nullable=False, server_default="[]"),  # JSON: the op ids of our changes
    Column("kind", Text),  # of our changes together; NULL: none of them is of this record
    Column("base", BigInteger),  # the feed position that the first of them had seen
    Column("was", Text, nullable=False, server_default="{}"),  # JSON: what our changes found, as far as it is known
    Column("mine", Text, nullable=False, server_default="{}"),  # JSON: what they wrote
    Column("there", Text),  # whole, changed, deleted, absent: what `theirs` is; unknown: ask
    Column("theirs", Text, nullable=False, server_default="{}"),  # JSON
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column(
        "since", BigInteger, nullable=False, server_default="0"
    ),  # when another replica changed it, or its aggregate
    Column("reason", Text, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Column("opened_at", BigInteger, nullable=False),
    Column("choice", Text),  # mine, theirs, values
    Column("resolved_at", BigInteger),
    Column("before", Text),  # JSON: the fields that the choice did away with; null: there was no record
    Column("after", Text),  # JSON: the fields that it left here; null: it left no record
    CheckConstraint("state IN ('withheld', 'open', 'resolved', 'undone')", name="state"),
    CheckConstraint("(state = 'withheld') = (number IS NULL)", name="numbered"),
    sqlite_autoincrement=True,
)
Index(
    "ix_backhaul_conflict_record",
    conflict.c.table_name,
    conflict.c.key,
    unique=True,
    sqlite_where=text("state = 'withheld' OR state = 'open'"),
    postgresql_where=text("state = 'withheld' OR state = 'open'"),
)
Index("ix_backhaul_conflict_number", conflict.c.number)

# Records of the server that the app's own schema refuses (a UNIQUE, a CHECK, a trigger of the app's). They are fetched
# and tried again with later pulls, and are gone from here once they fit.
aside = Table(
    "backhaul_aside",
    replica_metadata,
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # canonical JSON array
    Column("reason", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("tried_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("table_name", "key"),
)

# The Yjs documents of the columns that are merged as `text`, where there is more to them than the text alone.
texts = Table(
    "backhaul_text",
    replica_metadata,
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # canonical JSON array
    Column("column_name", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),  # a Yjs update that is the whole document
    PrimaryKeyConstraint("table_name", "key", "column_name"),
)

# What the feed has told of records under a change of ours, which the app has not seen (replica/unseen.py).
unseen = Table(
    "backhaul_unseen",
    replica_metadata,
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # canonical JSON array
    Column("base", BigInteger, nullable=False),  # the feed position that the app has seen of it
    Column("fields", Text, nullable=False),  # JSON array of names; "*": all of the record
    PrimaryKeyConstraint("table_name", "key"),
)

# What was fetched of a round of pages, until all of it is applied together; in a recovery, also which records the
# server has (then without what they say). (replica/stage.py)
stage = Table(
    "backhaul_stage",
    replica_metadata,
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # canonical JSON array
    Column("version", BigInteger, nullable=False),
    Column("deleted", Integer, nullable=False),
    Column("record", Text),  # wire.Record, JSON
    PrimaryKeyConstraint("table_name", "key"),
)

# Numbers that the server has handed out for keys that this database makes up.
#
# spare     in hand, for when the open one runs out, or rows of others lie above it. By an answer of the server.
# open      the table's next key comes from it. By `turn`; at most one of a table.
block = Table(
    "backhaul_block",
    replica_metadata,
    Column("table_name", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("state", Text, CheckConstraint("state IN ('spare', 'open')", name="state"), nullable=False),
    Column("given_at", BigInteger, nullable=False),
    Column("next_size", BigInteger, nullable=False),  # how many to ask for once this one is begun
    PrimaryKeyConstraint("table_name", "first"),
)

# What is known of the server as an endpoint, once there is something to know: 1 for all, 2 for media alone.
endpoint = Table(
    "backhaul_endpoint",
    replica_metadata,
    Column("id", Integer, CheckConstraint("id IN (1, 2)", name="row"), primary_key=True),
    Column("held_until", BigInteger, nullable=False, server_default="0"),  # it asked to be left alone until then
    Column("held_because", Text),
)

# How much at once, and how often, as it was learned of the server and the link to it (remotes/pace.py).
pace = Table(
    "backhaul_pace",
    replica_metadata,
    Column("endpoint", Text, nullable=False),  # the server's URL
    Column("direction", Text, nullable=False),
    Column("dial", Text, nullable=False),  # what of it: ops, bytes, lanes, records, interval
    Column("value", BigInteger, nullable=False),
    Column("value_before", BigInteger, nullable=False),
    Column("usual", BigInteger, nullable=False),  # what it is where nothing was learned
    Column("reason", Text, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    CheckConstraint("direction IN ('push', 'pull', 'upload', 'download', 'reconcile')", name="direction"),
    PrimaryKeyConstraint("endpoint", "direction", "dial"),
)

# Bytes over metered links, for each node, kind of network and day of its local time (remotes/traffic.py).
traffic = Table(
    "backhaul_traffic",
    replica_metadata,
    Column("node", Text, nullable=False),
    Column("network", Text, nullable=False),  # metered, roaming
    Column("day", Text, nullable=False),  # as in 2026-11-29
    Column("sent", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    PrimaryKeyConstraint("node", "day", "network"),
)

# Units of background execution. The row is the truth, a message only rings its bell.
#
# ENQUEUED   waits for its time, its constraints and a worker. By enqueue, by a retry, a stop, a lost worker, or
#            (periodic work) by the end of a run.
# RUNNING    claimed by a worker, under a lease. By a claim.
# SUCCEEDED, FAILED, CANCELLED   finished. By the settling of a run, or by a cancel; periodic work only by a cancel.
# BLOCKED    waits for other work. (Chains come later.)
work = Table(
    "backhaul_work",
    replica_metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text),  # of unique work; all works of a chain that was enqueued under a name have it
    Column("task", Text, nullable=False),  # the Celery task that a message for it names, for example backhaul.upload
    Column("function", Text),  # for backhaul.task: the name of the host's plain Celery task
    Column("state", Text, nullable=False),
    Column("generation", Integer, nullable=False, server_default="0"),
    Column("queue", Text, nullable=False),
    Column("ordinary_queue", Text),  # of expedited work: where it goes after its first try
    Column("requires", Text, nullable=False, server_default="[]"),  # JSON: sorted constraint tags
    Column("tags", Text, nullable=False, server_default="[]"),  # JSON, for reading; searched in backhaul_work_tag
    Column("input", Text, nullable=False, server_default="{}"),
    Column("output", Text),
    Column("progress", Text),
    Column("checkpoint", Text),  # what the run kept for its next try; survives stops and crashes
    Column("merger", Text),  # how the outputs of what it waited for come to its input
    Column("interval_ms", BigInteger, nullable=False, server_default="0"),  # 0: one-time work
    Column("flex_ms", BigInteger, nullable=False, server_default="0"),
    Column("initial_delay_ms", BigInteger, nullable=False, server_default="0"),
    Column("begin_at", BigInteger),  # not before
    Column("override_at", BigInteger),  # of periodic work: when the next run is due, whatever else says
    Column("override_generation", Integer, nullable=False, server_default="0"),
    Column("expires_at", BigInteger),  # what has not begun by then is cancelled
    Column("backoff_policy", Text, nullable=False, server_default="exponential"),
    Column("backoff_ms", BigInteger, nullable=False, server_default="30000"),
    Column("backoff_most_ms", BigInteger, nullable=False, server_default="18000000"),
    Column("backoff_on_stop", Integer, nullable=False, server_default="0"),  # a stop counts like a retry
    Column("jitter", Integer, nullable=False, server_default="0"),  # per cent
    Column("max_attempts", Integer),
    Column("expedited", Integer, nullable=False, server_default="0"),
    Column("trigger_update_ms", BigInteger),  # null: no data triggers
    Column("trigger_most_ms", BigInteger),
    Column("triggered", Text),  # JSON: what has changed, as the run is told
    Column("created_at", BigInteger, nullable=False),
    Column("enqueued_at", BigInteger, nullable=False),  # the anchor of delays: when it last became ENQUEUED by itself
    Column("due_at", BigInteger, nullable=False),
    Column("rung_at", BigInteger, nullable=False, server_default="0"),  # when a message was last sent for it
    Column("attempt", Integer, nullable=False, server_default="0"),  # counted at the claim; 0 after a period closes
    Column(
        "retries", Integer, nullable=False, server_default="0"
    ),  # tries that asked for another; what max_attempts counts
    Column("losses", Integer, nullable=False, server_default="0"),  # runs in a row that were lost
    Column("crashes", Integer, nullable=False, server_default="0"),  # of these, whose own process died alone
    Column("runs", Integer, nullable=False, server_default="0"),  # periods closed
    Column("parents", Integer, nullable=False, server_default="0"),  # how many it waits, or waited, for
    Column("children", Integer, nullable=False, server_default="0"),  # whether any waits for it
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("node", Text),  # whose worker runs it, while RUNNING
    Column("worker", Text),  # who runs it, while RUNNING
    Column("process", Integer),  # the pid in which it runs, while RUNNING; null: not known
    Column("lease_until", BigInteger, nullable=False, server_default="0"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("stop_requested", Text),  # a stop reason, while RUNNING
    Column("stop_reason", Text),  # of the last stop
    Column("started_before", BigInteger),  # what a claim found in started_at and stop_reason, for a run that does not
    Column("stopped_before", Text),  # begin
    Column("last_error", Text),
    Column("last_outcome", Text),  # of the last run: success, failure, retry, stopped, lost
    CheckConstraint("state IN ('ENQUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'BLOCKED', 'CANCELLED')", name="state"),
    CheckConstraint(
        "(state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)", name="finished_has_its_time"
    ),
)
_enqueued = text("state = 'ENQUEUED'")
Index(
    "ix_backhaul_work_unrung",
    work.c.queue,
    work.c.expedited,
    work.c.rung_at,
    work.c.due_at,
    sqlite_where=_enqueued,
    postgresql_where=_enqueued,
)
_running = text("state = 'RUNNING'")
Index("ix_backhaul_work_running", work.c.lease_until, sqlite_where=_running, postgresql_where=_running)
_named = text("name IS NOT NULL")
Index("ix_backhaul_work_name", work.c.name, sqlite_where=_named, postgresql_where=_named)
_finished = text("finished_at IS NOT NULL")
Index("ix_backhaul_work_finished", work.c.finished_at, work.c.id, sqlite_where=_finished, postgresql_where=_finished)
_unfinished = text("finished_at IS NULL")
Index(
    "ix_backhaul_work_unfinished",
    work.c.created_at,
    work.c.id,
    sqlite_where=_unfinished,
    postgresql_where=_unfinished,
)
_expiring = text("expires_at IS NOT NULL AND finished_at IS NULL")
Index("ix_backhaul_work_expiring", work.c.expires_at, sqlite_where=_expiring, postgresql_where=_expiring)
_expedited = text("ordinary_queue IS NOT NULL")  # once, whatever it is now: they are counted
Index("ix_backhaul_work_expedited", work.c.created_at, sqlite_where=_expedited, postgresql_where=_expedited)
Index("ix_backhaul_work_state", work.c.state, work.c.created_at)
# What the function's name, which is one of the tags, is looked up by.
Index("ix_backhaul_work_task", work.c.task, work.c.function, work.c.finished_at)

# What a work waits for. position: the order in which the parents were named, and in which their outputs are merged.
work_parent = Table(
    "backhaul_work_parent",
    replica_metadata,
    Column("work_id", Text, primary_key=True),
    Column("parent_id", Text, primary_key=True),
    Column("position", Integer, nullable=False),
)
Index("ix_backhaul_work_parent_children", work_parent.c.parent_id)

# The tags that a work is found by.
work_tag = Table(
    "backhaul_work_tag",
    replica_metadata,
    Column("tag", Text, primary_key=True),
    Column("work_id", Text, primary_key=True),
)
Index("ix_backhaul_work_tag_work", work_tag.c.work_id)

# What waiting work is to be run for, when it changes. seen: of a table, how far the outbox was looked at; of a
# file, how it was then. first_at, last_at: of the changes since; null when there was none.
work_trigger = Table(
    "backhaul_work_trigger",
    replica_metadata,
    Column("work_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),  # table or file
    Column("what", Text, primary_key=True),  # the table's name, or the path
    Column("descendants", Integer, nullable=False, server_default="0"),
    Column("seen", Text, nullable=False, server_default=""),
    Column("first_at", BigInteger),
    Column("last_at", BigInteger),
    Column("unanswered_at", BigInteger),  # of a file: since when a look at it has not come back
    CheckConstraint("kind IN ('table', 'file')", name="kind"),
)

# Moments that are kept by name, for example the last `cancel_all`.
work_mark = Table(
    "backhaul_work_mark",
    replica_metadata,
    Column("name", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
)

# Files on their way out. The row's id is its work's id.
#
# pending   registered. By `put`.
# sending   an upload exists on the server; `sent` bytes of it are there. By the transfer's first answer.
# done      the server has the whole file, checked by its hash. parked: it cannot be sent, with the reason.
upload = Table(
    "backhaul_upload",
    replica_metadata,
    Column("id", Text, primary_key=True),
    Column("path", Text, nullable=False),  # of the file that was put; "": bytes were
    Column("kept", Boolean, nullable=False),  # what is sent is kept in the store, not the file at `path`
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),  # of the file that is sent, when it was hashed
    Column("state", Text, nullable=False),
    Column("fence", BigInteger, nullable=False, server_default="0"),  # goes up with each run that takes it
    Column("url", Text),  # of the upload on the server
    Column("sent", BigInteger, nullable=False, server_default="0"),
    Column("queue", Text),  # the queue of the worker that sent the last byte
    Column("worker", Text),
    Column("reason", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("priority", Integer, nullable=False, server_default="0"),  # higher is sent earlier
    Column("asked_at", BigInteger),  # when the server said, of many at once, that it does not have it
    CheckConstraint("state IN ('pending', 'sending', 'done', 'parked')", name="state"),
)
Index("ix_backhaul_upload_sha256", upload.c.sha256)
_open = text("state IN ('pending', 'sending')")
Index("ix_backhaul_upload_open", upload.c.priority, upload.c.created_at, sqlite_where=_open, postgresql_where=_open)

# The contents that are kept in the store of this replica, each in a file named by its hash (media/store.py).
content = Table(
    "backhaul_content",
    replica_metadata,
    Column("sha256", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("kept_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("on_server", Boolean, nullable=False),  # whole and checked, by the server's own word
    Column("pinned", Boolean, nullable=False),  # stays, whatever the budget
)

# Contents on their way here, as far as `received`; gone once they are kept.
#
# wanted  asked for. By `ask`, also from parked.
# parked  it will not come, with the reason. By the server's refusal.
download = Table(
    "backhaul_download",
    replica_metadata,
    Column("sha256", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("size", BigInteger),  # as the server told it
    Column("received", BigInteger, nullable=False, server_default="0"),
    Column("reason", Text),
    Column("asked_at", BigInteger, nullable=False),
    CheckConstraint("state IN ('wanted', 'parked')", name="state"),
)

# The files that rows name in a declared column (`[tables.NAME.media]`), until the server has what they held.
#
# wanted  to be looked at from `next_at` on; with the reason, where a look has failed. By the triggers; and again, when
#         the file was found to be gone, or another one, before it was sent.
# put     kept and hashed, and its upload registered. By `put`. Gone once the server has it.
attachment = Table(
    "backhaul_attachment",
    replica_metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),  # another one each time that a row names a file
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # JSON array, as in the outbox
    Column("path", Text, nullable=False),  # as the row says it
    Column("together", Integer, nullable=False),  # 1: the record becomes visible to others with its file
    Column("state", Text, nullable=False, server_default="wanted"),
    Column("named_at", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("upload_id", Text),
    Column("sha256", Text),
    Column("reason", Text),
    CheckConstraint("state = 'wanted' OR state = 'put' AND upload_id IS NOT NULL", name="state"),
    sqlite_autoincrement=True,
)
Index("ix_backhaul_attachment_record", attachment.c.table_name, attachment.c.key)
Index("ix_backhaul_attachment_state", attachment.c.state, attachment.c.next_at)

# What an operator (override) or a host program (published) says of a node; it goes before what is configured, and what
# is said of one node before what is said of all.
condition = Table(
    "backhaul_condition",
    replica_metadata,
    Column("name", Text, primary_key=True),
    Column("node", Text, primary_key=True),  # "" for all: a NULL in a key would be another one each time
    Column("source", Text, primary_key=True),
    Column("value", Boolean, nullable=False),
    Column("set_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    CheckConstraint("source IN ('override', 'published')", name="source"),
)

# The worker processes that were seen lately, what they serve, and what each sees of its node. JSON, where not said
# otherwise; what its parts mean: QueueState of work/roster.py, Reading of work/reading.py, Condition of
# work/conditions.py.
worker = Table(
    "backhaul_worker",
    replica_metadata,
    Column("node", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("concurrency", Integer),  # processes or threads that run work; NULL: not known
    Column("processes", Text),  # the pids that run work; NULL: not known
    Column("misrouted", BigInteger, nullable=False, server_default="0"),  # messages handed back since it started
    Column("queues", Text, nullable=False),
    Column("labels", Text, nullable=False, server_default="[]"),
    Column("readings", Text, nullable=False, server_default="[]"),
    Column("conditions", Text, nullable=False, server_default="[]"),  # in force
)

# Who may do what only one may do (leading the beats).
lease = Table(
    "backhaul_lease",
    replica_metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
)

# ---------------------------------------------------------------------------------------------------- the server

# One row: this server's own secret, which binds cursors to it (server/store.py).
server_identity = Table(
    "server_identity",
    server_metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# A set of records that are synced together, with one sequence (server/scopes.py).
server_scope = Table(
    "server_scope",
    server_metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),  # incremented in the writing transaction: commit order
    Column("feed", Text, nullable=False),  # random: a cursor of another feed is refused
    Column("hlc", BigInteger, nullable=False, server_default="0"),  # the highest stamp that was taken
    Column("horizon", BigInteger, nullable=False, server_default="0"),  # who has not got so far must begin anew
    Column("collected", BigInteger, nullable=False, server_default="0"),  # the last tombstone that was forgotten
)

# Where the feed stood after each push, until the horizon: a cursor that names another nonce than this has seen what is
# no more, because the server was put back to a backup (server/scopes.py).
server_commit = Table(
    "server_commit",
    server_metadata,
    Column("scope", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("committed_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "position"),
)

# Where the feed has leapt since the server was put back to a backup: kept for ever, for nobody knows who will still
# name what the past that is lost had given out (server/leaps.py).
server_leap = Table(
    "server_leap",
    server_metadata,
    Column("scope", Text, nullable=False),
    Column("position", BigInteger, nullable=False),  # to here
    Column("since", BigInteger, nullable=False),  # from here: nothing that is between was given out since
    Column("common", BigInteger, nullable=False),  # where the backup stood
    Column("resumed_at", BigInteger, nullable=False),  # when the first position after that was given out once more
    PrimaryKeyConstraint("scope", "position"),
)

# The tables that may be pushed, and how (server/tables.py).
server_table = Table(
    "server_table",
    server_metadata,
    Column("scope", Text, ForeignKey("server_scope.name"), nullable=False),
    Column("name", Text, nullable=False),
    Column("definition", Text, nullable=False),  # wire.Table, JSON
    PrimaryKeyConstraint("scope", "name"),
)

# Who may register (server/auth.py). Codes and tokens are kept as SHA-256 only.
server_enrolment = Table(
    "server_enrolment",
    server_metadata,
    Column("code_sha256", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("nonce_sha256", Text),  # of who used it: he may ask again, should the answer be lost
    Column("replica", Text),  # that came of it
)

# The replicas: kept for ever (server/auth.py).
server_replica = Table(
    "server_replica",
    server_metadata,
    Column("replica", Text, primary_key=True),
    Column("scope", Text, ForeignKey("server_scope.name"), nullable=False),
    Column("name", Text, nullable=False),
    Column("token_sha256", Text, nullable=False, unique=True),
    Column("predecessor", Text),  # the replica that this one was before it signed in again, or was forked
    Column("known", Text, nullable=False, server_default="{}"),  # JSON: {former self: [[first, last version]]}
    Column("position", BigInteger),  # the feed position up to which it has pulled; NULL: it has not
    Column("pulled_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("declared", Text, nullable=False, server_default="{}"),  # JSON: {table: [column]}, as it says them
    Column("behind", Integer, nullable=False, server_default="0"),  # 1: it must hear how columns are merged by now
)
Index("ix_server_replica_predecessor", server_replica.c.predecessor)

# How far each replica's pushes are known, for each lane that it pushes in: kept for ever (server/outcomes.py).
server_lane = Table(
    "server_lane",
    server_metadata,
    Column("replica", Text, ForeignKey("server_replica.replica"), nullable=False),
    Column("lane", BigInteger, nullable=False),  # see lanes.py; as wide as what it is shifted to
    Column("high_water", BigInteger, nullable=False),  # every number of the lane up to here has an outcome
    Column("settled", BigInteger, nullable=False),  # and every one up to here is known there, too
    PrimaryKeyConstraint("replica", "lane"),
)

# The outcomes of ops: kept for 30 days (server/outcomes.py).
server_applied = Table(
    "server_applied",
    server_metadata,
    Column("replica", Text, nullable=False),
    Column("send_seq", BigInteger, nullable=False),
    Column("op_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("problem", Text),  # wire.Problem, JSON
    Column("applied_at", BigInteger, nullable=False),
    Column("former", Integer, nullable=False),  # 1: it may have been sent under another number or identity, too
    PrimaryKeyConstraint("replica", "send_seq"),
    sqlite_with_rowid=False,  # the rows are short: one tree less is written with each op
)
Index("ix_server_applied_at", server_applied.c.applied_at)
Index(
    "ix_server_applied_former",
    server_applied.c.replica,
    server_applied.c.op_id,
    sqlite_where=text("former = 1"),
    postgresql_where=text("former = 1"),
)

# The records, tombstones included, each as its latest version (server/records.py).
server_record = Table(
    "server_record",
    server_metadata,
    Column("scope", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),  # canonical JSON array
    Column("version", BigInteger, nullable=False),  # feed position of the last change
    Column("born", BigInteger, nullable=False),  # feed position since which every field is there; 0: not whole yet
    Column("creator", Text, nullable=False),  # the replica that made it
    Column("deleted", Integer, nullable=False),
    Column("hlc", BigInteger, nullable=False),  # of the fields that `stamps` does not name; or of the delete
    Column("writer", Text, nullable=False),  # the same, the replica
    Column("fields", Text, nullable=False),  # JSON object
    Column("stamps", Text, nullable=False),  # JSON: {field: [hlc, writer, version]}, where not the record's
    Column(
        "states", Text, nullable=False, server_default="{}"
    ),  # JSON: {field: what its strategy keeps}, where it does
    PrimaryKeyConstraint("scope", "table_name", "key"),
)
Index("ix_server_record_feed", server_record.c.scope, server_record.c.version)

# The numbers that were handed out last to each replica, for keys that it makes up (server/blocks.py).
server_block = Table(
    "server_block",
    server_metadata,
    Column("scope", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("replica", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),  # of the feed: the keys up to here were looked at
    Column("given_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "table_name", "replica"),
)

# The aggregates (records that are right only together), each as its last change (server/aggregates.py).
server_aggregate = Table(
    "server_aggregate",
    server_metadata,
    Column("scope", Text, nullable=False),
    Column("table_name", Text, nullable=False),  # of the root
    Column("key", Text, nullable=False),  # of the root, canonical JSON array
    Column("version", BigInteger, nullable=False),  # of the last change
    Column("writer", Text, nullable=False),  # the replica that made it
    Column("others", BigInteger, nullable=False),  # version of the last change by another one than that; 0: never
    PrimaryKeyConstraint("scope", "table_name", "key"),
)

# Uploads that are not finished (server/uploads.py). The bytes lie in a file of the upload's own random name.
server_upload = Table(
    "server_upload",
    server_metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("replica", Text, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),  # bytes that are here, as long as the machine runs
    Column("synced", BigInteger, nullable=False),  # of them, those that are safe on disk
    Column("boot", Text, nullable=False),  # since which start of the machine; "": it is not known, and all are synced
    Column("sha256", Text),  # promised by the client, or found before it was published
    Column("metadata", Text, nullable=False),  # Upload-Metadata, as it came
    Column("concat", Text, nullable=False),  # Upload-Concat, as it came: "partial", "final;...", or ""
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("completed_at", BigInteger),
)

# Files that are whole and checked (server/uploads.py).
server_media = Table(
    "server_media",
    server_metadata,
    Column("scope", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("replica", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "sha256"),
)
