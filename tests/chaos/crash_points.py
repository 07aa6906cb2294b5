"""Where a process can die, journey by journey: what was done by then, and what must be true after the next run.

A point is before or after one step, a function of ours, at its first call or a later one. "In the transaction" means
that the step stands inside one that is not committed yet. Wherever it is, the next run of the journey, by a fresh
process, must end as if nothing had happened: nothing lost, nothing doubled, everyone equal (see test_crash_points.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CrashPoint:
    """step: module and name, as for import. call: which call of it, from 1. done, then: for people."""

    journey: str
    name: str
    when: Literal["before", "after"]
    step: str
    call: int = 1
    done: str
    then: str

    def __str__(self) -> str:
        return f"{self.journey}, {self.name}"


OUTBOX = "backhaul.replica.outbox"
PUSH = "backhaul.replica.push"
REMOTE = "backhaul.server.memory:StoreRemote"
TUS = "backhaul.remotes.tus:TusRemote"
UPLOADS = "backhaul.media.uploads"
STORE = "backhaul.media.store:Store"
PUT = "tests.chaos.journeys"


def _points(journey: str, *points: tuple[str, Literal["before", "after"], str, int, str, str]) -> list[CrashPoint]:
    return [
        CrashPoint(journey=journey, name=name, when=when, step=step, call=call, done=done, then=then)
        for name, when, step, call, done, then in points
    ]


CRASH_POINTS = [
    *_points(
        "push",
        (
            "claimed, in the transaction",
            "after",
            f"{OUTBOX}:claim",
            1,
            "numbers and stamps were given out, and rolled back",
            "the changes are pending, and the numbers are given out again",
        ),
        (
            "claimed",
            "before",
            f"{PUSH}:_exchange",
            1,
            "the changes are sent, under a lease that nobody holds any more",
            "the run that holds the push takes them over, and sends the same bytes",
        ),
        (
            "server wrote, in its transaction",
            "after",
            "backhaul.server.scopes:advance",
            1,
            "the server wrote everything, and rolled back",
            "the same bytes are new to the server",
        ),
        (
            "answer lost",
            "after",
            f"{REMOTE}.push",
            1,
            "the server has the changes, the replica does not know",
            "the same bytes again are duplicates, with the versions of the first time",
        ),
        (
            "settled, in the transaction",
            "after",
            f"{OUTBOX}:settle",
            1,
            "as with a lost answer",
            "as with a lost answer",
        ),
        (
            "first batch settled",
            "before",
            f"{PUSH}:_report",
            1,
            "the first batch is acked, the rest pending",
            "the rest goes out",
        ),
        (
            "second batch: answer lost",
            "after",
            f"{REMOTE}.push",
            2,
            "a group is on the server whole, the replica does not know",
            "the group is a duplicate, whole",
        ),
        (
            "second batch settled, in the transaction",
            "after",
            f"{OUTBOX}:settle",
            2,
            "as with a lost answer",
            "as with a lost answer",
        ),
    ),
    *_points(
        "refusal",
        (
            "answer lost",
            "after",
            f"{REMOTE}.push",
            1,
            "the server has refused changes for good, the replica does not know",
            "it gets the stored refusals, and parks the same changes",
        ),
        (
            "settled, in the transaction",
            "after",
            f"{OUTBOX}:settle",
            1,
            "as with a lost answer",
            "as with a lost answer",
        ),
        (
            "dependents parked, in the transaction",
            "after",
            f"{OUTBOX}:park_dependents",
            1,
            "what depends on a parked change was parked, and rolled back",
            "it is parked by the next claim",
        ),
    ),
    *_points(
        "unsendable",
        (
            "message refused whole",
            "before",
            f"{PUSH}:_narrow",
            1,
            "everything is sent, and on no server",
            "smaller messages go out, with the same numbers",
        ),
        (
            "parked, in the transaction",
            "after",
            f"{OUTBOX}:park_unsendable",
            1,
            "a change was parked, its number filled with nothing, and both rolled back",
            "it is found and parked again",
        ),
        (
            "parked",
            "after",
            f"{PUSH}:_narrow",
            3,
            "a change is parked, and its number is filled with nothing, which is not sent yet",
            "the filling goes out, and what comes after it",
        ),
    ),
    *_points(
        "backfill",
        (
            "enqueued, in the transaction",
            "before",
            "backhaul.replica.tables:backfilled",
            1,
            "rows went to the outbox, and rolled back",
            "they go to the outbox, once",
        ),
        (
            "enqueued",
            "after",
            "backhaul.replica.backfill:advance",
            1,
            "the rows of the first table wait in the outbox",
            "they are sent, once, and the next table follows",
        ),
        (
            "table done, in the transaction",
            "after",
            "backhaul.replica.tables:backfill_done",
            1,
            "the end of a table was noted, and rolled back",
            "it is found again that the table has no more rows",
        ),
        (
            "answer lost",
            "after",
            f"{REMOTE}.push",
            2,
            "the server has rows, the replica does not know",
            "the same bytes again are duplicates",
        ),
    ),
    *_points(
        "pull",
        ("page on its way", "after", f"{REMOTE}.pull", 1, "nothing", "the same page comes again"),
        (
            "first page kept, in the transaction",
            "after",
            "backhaul.replica.stage:keep",
            1,
            "a page was put aside for the end of the round, and rolled back",
            "the same page comes again",
        ),
        (
            "first page kept",
            "after",
            "backhaul.replica.pull:_take",
            1,
            "the records of one page wait for the end of the round, and where the next one begins is known",
            "the next page comes",
        ),
        (
            "second page on its way",
            "after",
            f"{REMOTE}.pull",
            2,
            "as above",
            "the second page comes again, by the cursor of the first",
        ),
        (
            "rows written, in the transaction",
            "after",
            "backhaul.replica.rows:write",
            1,
            "rows of the whole round were written with capture muted, and rolled back",
            "capture is not muted; the last page comes again, and the pages before it are still there",
        ),
        (
            "passed changes forgotten, in the transaction",
            "after",
            f"{OUTBOX}:forget_passed",
            1,
            "as before it",
            "as before it",
        ),
        (
            "cursor moved, in the transaction",
            "after",
            "backhaul.replica.checkpoint:pulled",
            1,
            "rows and cursor were written, and rolled back",
            "as before it",
        ),
        (
            "last page applied",
            "after",
            "backhaul.replica.pull:pull",
            1,
            "everything",
            "there is nothing to do",
        ),
    ),
    *_points(
        "overtaken",
        ("records on their way", "after", f"{REMOTE}.records", 1, "nothing", "they are asked for again"),
        (
            "forgotten, in the transaction",
            "after",
            f"{OUTBOX}:forget_overtaken",
            1,
            "the note to fetch a record was taken off, and rolled back",
            "the record is fetched",
        ),
        (
            "records written, in the transaction",
            "after",
            "backhaul.replica.apply:lay_under",
            1,
            "rows were written with capture muted, and rolled back",
            "capture is not muted; the record is fetched",
        ),
        (
            "page over them written, in the transaction",
            "after",
            "backhaul.replica.checkpoint:pulled",
            1,
            "the record, the page and the cursor were written, and rolled back",
            "as before it",
        ),
    ),
    *_points(
        "fork",
        (
            "successor asked for",
            "after",
            f"{REMOTE}.succeed",
            1,
            "the server has made a successor, nobody knows it",
            "another one is asked for",
        ),
        (
            "signed in, in the transaction",
            "after",
            "backhaul.replica.renumbering:sign_in",
            1,
            "what waits was renumbered, and rolled back",
            "the same again, under another successor",
        ),
        (
            "signed in",
            "after",
            "backhaul.replica.recover:sign_in",
            1,
            "the database is the successor, and the token is of the one it was",
            "the old token speaks for the successor",
        ),
        (
            "sent anew: answer lost",
            "after",
            f"{REMOTE}.push",
            2,
            "the server has the changes under the new identity, the replica does not know",
            "they are known by their ids",
        ),
    ),
    *_points(
        "late",
        (
            "begun anew",
            "after",
            "backhaul.replica.recover:begin_anew",
            1,
            "everything is to be pulled",
            "it is pulled",
        ),
        (
            "page noted, in the transaction",
            "after",
            "backhaul.replica.recover:note",
            1,
            "the first pages were applied or staged, and what came was noted, and rolled back",
            "they come again",
        ),
        (
            "round ended",
            "before",
            "backhaul.replica.sweep:sweep",
            1,
            "everything has come, what did not is still here",
            "it is deleted by the next pull",
        ),
        (
            "swept, in the transaction",
            "after",
            "backhaul.replica.sweep:_delete",
            1,
            "what did not come was deleted, with capture muted, and rolled back",
            "it is deleted, and not captured",
        ),
    ),
    *_points(
        "restored",
        (
            "begun, in the transaction",
            "after",
            "backhaul.replica.renumbering:take_back",
            1,
            "what was acknowledged was taken back, and rolled back",
            "the server says again that it was put back",
        ),
        (
            "begun",
            "after",
            "backhaul.replica.recover:begin_restored",
            1,
            "the cursor is the common one, nothing is fetched",
            "everything is fetched",
        ),
        (
            "page staged",
            "after",
            "backhaul.replica.restored:_fetch",
            1,
            "some of what the server has lies staged",
            "the rest is fetched",
        ),
        (
            "offered, in the transaction",
            "after",
            "backhaul.replica.renumbering:offer",
            1,
            "what the server has lost went to the outbox, and rolled back",
            "it goes there, once",
        ),
        (
            "offered",
            "after",
            "backhaul.replica.restored:_settle",
            1,
            "some of what the server has lost is in the outbox",
            "the rest goes there; nothing twice",
        ),
    ),
    *_points(
        "discard",
        (
            "dependents parked, in the transaction",
            "after",
            "backhaul.replica.parked:park_dependents",
            1,
            "nothing, after the rollback",
            "the changes are still parked, and can be given up",
        ),
        (
            "records on their way",
            "after",
            f"{REMOTE}.records",
            1,
            "what depends on the parked changes is parked",
            "the changes are still parked, and can be given up",
        ),
        (
            "given up, in the transaction",
            "after",
            f"{OUTBOX}:discard",
            1,
            "the changes were taken off, and are back after the rollback",
            "the changes are still parked, and can be given up",
        ),
        (
            "records written, in the transaction",
            "after",
            "backhaul.replica.apply:lay_under",
            1,
            "rows were written with capture muted, and rolled back",
            "capture is not muted; the changes are still parked, and can be given up",
        ),
        (
            "given up",
            "after",
            "backhaul.replica.refetch:lay_under",
            1,
            "the records are as the server has them",
            "there is nothing left to give up",
        ),
    ),
    *_points(
        "conflict",
        (
            "answer lost",
            "after",
            f"{REMOTE}.push",
            1,
            "the server has judged changes to be conflicts, the replica does not know",
            "it gets the stored outcomes, and has the same conflicts",
        ),
        (
            "entered, in the transaction",
            "after",
            "backhaul.replica.conflicts:keep",
            1,
            "the conflict was entered, and rolled back",
            "as with a lost answer",
        ),
        (
            "first batch settled",
            "before",
            f"{PUSH}:_report",
            1,
            "one conflict is open, the next changes are pending",
            "they are held with it, or go out and are one themselves",
        ),
    ),
    *_points(
        "resolve",
        (
            "what came later held, in the transaction",
            "after",
            f"{OUTBOX}:hold",
            1,
            "a later change was held with the conflict, and rolled back",
            "it is held, and goes with the choice",
        ),
        (
            "ours sent again, in the transaction",
            "after",
            f"{OUTBOX}:insist",
            1,
            "our changes were made anew, and rolled back",
            "the conflict is open, and can be decided",
        ),
        (
            "one of two resolved",
            "after",
            "backhaul.replica.resolution:resolve",
            1,
            "the first is resolved, the second open",
            "the second can be decided; the first is not open any more",
        ),
        (
            "theirs laid in, in the transaction",
            "after",
            "backhaul.replica.resolution:_give_in",
            1,
            "our changes are gone and the rows theirs, and both rolled back",
            "capture is not muted; the conflict can be decided",
        ),
    ),
    *_points(
        "undo",
        (
            "put back, in the transaction",
            "before",
            "backhaul.replica.conflicts:undone",
            1,
            "the rows were written, with a change of each, and rolled back",
            "the choice stands, and can be undone",
        ),
        (
            "one of two undone",
            "after",
            "backhaul.replica.resolution:undo",
            1,
            "the first is undone, the second resolved",
            "the second can be undone; the first is not done twice",
        ),
    ),
    *_points(
        "upload",
        ("not begun", "before", f"{TUS}.create", 1, "nothing", "it begins"),
        (
            "answer to the creation lost",
            "after",
            f"{TUS}.create",
            1,
            "the server has an empty upload that nobody knows",
            "another one is made; the empty one expires",
        ),
        (
            "begun, in the transaction",
            "after",
            f"{UPLOADS}:begin",
            1,
            "as with a lost answer",
            "as with a lost answer",
        ),
        (
            "chunk on its way",
            "before",
            f"{TUS}.append",
            2,
            "one chunk is on the server, and noted",
            "the second chunk is sent",
        ),
        (
            "answer to a chunk lost",
            "after",
            f"{TUS}.append",
            2,
            "two chunks are on the server, one is noted",
            "the server is asked, and the third chunk is sent",
        ),
        (
            "noted, in the transaction",
            "after",
            f"{UPLOADS}:advance",
            2,
            "as with a lost answer",
            "as with a lost answer",
        ),
        (
            "whole",
            "before",
            f"{UPLOADS}:finish",
            1,
            "the server has the whole content, checked; it is not noted",
            "the server is asked, and no byte is sent",
        ),
        (
            "finished, in the transaction",
            "after",
            f"{UPLOADS}:finish",
            1,
            "as before it",
            "the server is asked, and no byte is sent",
        ),
    ),
    *_points(
        "put",
        (
            "half copied",
            "before",
            f"{STORE}.admit",
            1,
            "a file on its way in, without its writer; no row",
            "it is taken away, and the file can be put again",
        ),
        (
            "registered, in the transaction",
            "after",
            f"{UPLOADS}:register",
            1,
            "as before it",
            "as before it",
        ),
        (
            "admitted, in the transaction",
            "after",
            f"{STORE}.admit",
            1,
            "a kept file, and no row",
            "it is taken away, or has its row by the next put of the same content",
        ),
        (
            "put",
            "before",
            f"{PUT}:_done",
            1,
            "everything",
            "nothing is to be done",
        ),
    ),
    *_points(
        "tidy",
        (
            "leftover seen",
            "after",
            f"{STORE}.leftovers",
            1,
            "nothing",
            "the next round takes it away",
        ),
        (
            "row gone, in the transaction",
            "after",
            "backhaul.media.contents:forget",
            1,
            "nothing",
            "the next round takes it away",
        ),
        (
            "row gone, its file left",
            "before",
            f"{STORE}.remove",
            1,
            "some rows are gone, their files are not",
            "a file without a row is taken away by the next round",
        ),
    ),
    *_points(
        "evict",
        (
            "rows gone, in the transaction",
            "after",
            "backhaul.media.contents:evict",
            1,
            "nothing",
            "the next round lets them go",
        ),
        (
            "rows gone, their files left",
            "before",
            f"{STORE}.remove",
            1,
            "a file without a row",
            "it is taken away by the next round of tidying",
        ),
        (
            "evicted",
            "after",
            f"{STORE}.remove",
            1,
            "everything",
            "nothing is to be done",
        ),
    ),
]
