"""The messages, typed: each is JSON (RFC 8259)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from backhaul.lanes import MOST_LANES, last_of
from backhaul.wire.tables import Table
from backhaul.wire.values import Value

PROTOCOL = "1"
PROTOCOL_HEADER = "Backhaul-Protocol"
REPLICA_HEADER = "Backhaul-Replica"  # the replica for which is asked, where the token is of one that it was
MOST_OPS = 20_000  # of one push: a transaction goes whole, so this is also the largest one that can be sent
MOST_BODY = 16 * 2**20  # bytes of one message, inflated
MOST_WIRE = 8 * 2**20  # bytes of one message, as sent
MOST_VALUE = 4 * 2**20  # characters of one text, or bytes of one blob
MOST_RECORD = 8 * 2**20  # bytes of a record's fields as JSON; an answer holds some of them
MOST_RANGES = 10_000  # of versions, in what a successor says that it knows
MOST_HASHES = 1_000  # of one question which contents the server has
MOST_PAGE = 5_000  # records of one pull page, before it is completed to a group boundary

Kind = Literal["insert", "update", "delete", "backfill", "void"]
Status = Literal["applied", "duplicate", "conflict", "rejected", "retry"]


Versions = Annotated[Sequence[tuple[int, int]], Meta(max_length=MOST_RANGES)]  # ranges: first and last, both in


class Registration(Struct, forbid_unknown_fields=True):
    """POST /v1/replicas. code: a one-time enrolment code. name: for people.

    was: the replica that this one was before, when it signs in again. nonce: random; who says the same code with the
    same nonce again is answered again, for the first answer may have been lost. knows: see Succession.
    """

    code: str
    tables: list[Table]
    name: str = ""
    was: str = ""
    nonce: str = ""
    knows: Versions = ()


class Succession(Struct, forbid_unknown_fields=True):
    """POST /v1/replicas/successor: a replica asks for another identity. was: the one that its database has.

    knows: the versions of what was written by that database, as ranges; any versions of others may be among them.
    """

    was: str
    knows: Versions = ()


class Oneself(Struct):
    """GET /v1/replicas/self: for whom is asked, as the server takes it."""

    replica: str
    scope: str


class Registered(Struct):
    """tables: those of the scope, as they are agreed between its replicas. succeeds: the replica that the new one
    takes over from, as far as the server knows it."""

    replica: str
    token: str
    scope: str
    now: int
    tables: list[Table] = []
    succeeds: str = ""


class Tables(Struct, forbid_unknown_fields=True):
    """PUT /v1/tables: the tables of this replica, as they are now; and its answer: those of the scope, as agreed."""

    tables: list[Table]


class Op(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One change. seq: the replica's number of it, gap-free in its lane. base: the feed position that the app had seen.

    A `void` op says nothing: it fills the number of an op that was given up before the server had ever accepted it.
    """

    op: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    seq: Annotated[int, Meta(ge=1, le=last_of(MOST_LANES - 1))]
    table: str
    key: list[Value]
    kind: Kind
    hlc: Annotated[str, Meta(pattern="^[0-9a-f]{12}-[0-9a-f]{4}$")]
    base: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    group: str | None = None
    fields: dict[str, Value] = {}
    former: bool = False  # it may have been sent before, under another number
    early: bool = False  # an update of a record that this replica's backfill has yet to send


class Push(Struct, forbid_unknown_fields=True):
    ops: Annotated[list[Op], Meta(max_length=MOST_OPS)]


class OutgoingOp(Struct, omit_defaults=True, gc=False):
    """An Op on its way out: the key and the fields as the trigger wrote them, spliced in without a parse."""

    op: str
    seq: int
    table: str
    key: Raw
    kind: str
    hlc: str
    base: int = 0
    group: str | None = None
    fields: Raw | UnsetType = UNSET
    former: bool = False
    early: bool = False


class OutgoingPush(Struct):
    ops: list[OutgoingOp]


class Problem(Struct, omit_defaults=True):
    """Problem details (RFC 9457). type: `https://backhaul.invalid/problems/` and a name; branch on the name.

    due: the number to go on with, of `sequence-gap` and `server-restored`. cursor, position: of `server-restored`, the
    last place in the feed that both sides know.
    Of a conflict: cause: the op that it is held with. version: of the record as it stands there, 0 when it is not.
    since: when another replica last changed its aggregate. deleted, theirs: whether it is deleted, and else the fields
    that the op names (of a delete, all); None when left out.
    """

    type: str
    title: str
    status: int = 0
    detail: str = ""
    op: str | None = None
    limit: int | None = None
    due: int | None = None
    cursor: str | None = None
    position: int | None = None
    cause: str | None = None
    theirs: dict[str, Value] | None = None
    deleted: bool = False
    version: int = 0
    since: int = 0


class Result(Struct, omit_defaults=True, gc=False):
    """What became of one op. version: the feed position at which the server has it."""

    op: str
    status: Status
    version: int = 0
    problem: Problem | None = None


class Pushed(Struct):
    results: list[Result]
    now: int


class Record(Struct, omit_defaults=True):
    """A record in the feed. whole: `fields` holds every field; otherwise only what changed since the cursor."""

    table: str
    key: list[Value]
    version: int
    whole: bool = False
    deleted: bool = False
    fields: dict[str, Value] = {}


class Page(Struct):
    """GET /v1/pull. hlc: the highest stamp in the page. head: the feed's last position when the page was read."""

    records: list[Record]
    cursor: str
    position: int
    head: int
    more: bool
    hlc: str
    now: int


class Keys(Struct, forbid_unknown_fields=True):
    """POST /v1/records: the current state of these records, whole."""

    keys: Annotated[list[tuple[str, list[Value]]], Meta(max_length=MOST_OPS)]


Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Hashes(Struct, forbid_unknown_fields=True):
    """POST /v1/media/known: the SHA-256 of contents. The answer is the same, with those that the scope has."""

    hashes: Annotated[list[Hash], Meta(max_length=MOST_HASHES)]


class NewContent(Struct, forbid_unknown_fields=True):
    """A content that is sent whole. size: bytes. name, media_type: as `filename` and `filetype` of an upload."""

    sha256: Hash
    size: Annotated[int, Meta(ge=0, le=MOST_WIRE)]
    name: str = ""
    media_type: str = ""


class NewContents(Struct, forbid_unknown_fields=True):
    """POST /v1/media/contents: what follows this head, one after the other."""

    contents: Annotated[list[NewContent], Meta(max_length=MOST_HASHES)]


class Entered(Struct):
    """What came of each, in their order: None when the scope has it now."""

    problems: list[Problem | None]


class Wanted(Struct, forbid_unknown_fields=True):
    """How many numbers a replica asks for, above the highest that it knows of."""

    count: Annotated[int, Meta(ge=1, le=2**31)]
    above: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class BlocksWanted(Struct, forbid_unknown_fields=True):
    """POST /v1/blocks: numbers for the keys of these tables."""

    tables: Annotated[dict[str, Wanted], Meta(max_length=MOST_OPS)]


class Block(Struct):
    """The numbers from first to last are the asker's alone."""

    table: str
    first: int
    last: int


class Blocks(Struct):
    blocks: list[Block]
    now: int


class TableDigest(Struct):
    """kinds: of the fields that are compared by what they are, not as they are written: name -> kind (see kinds.py)."""

    table: str
    count: int
    fingerprint: str
    kinds: dict[str, str] = {}


class Digest(Struct):
    tables: list[TableDigest]
    position: int
    now: int


PROBLEM_BASE = "https://backhaul.invalid/problems/"


def problem_name(problem: Problem) -> str:
    return problem.type.removeprefix(PROBLEM_BASE)
