"""What travels between a replica and the server: messages, values, and their coding. `docs/protocol.md` is the text.

Messages are JSON (RFC 8259), typed by the structures below, optionally compressed (zstd, RFC 8878; gzip, RFC 1952).
Every decompression is bounded: a body may inflate to `limit` bytes and no further, whatever it claims.

A value of a record is null, a string, an integer (64 bits, signed: read it as an integer, not as a double), a real
(a JSON number with a point or an exponent), a boolean, or one of the objects `{"hex": "00ff"}` (bytes) and
`{"real": "Infinity"}` / `{"real": "-Infinity"}`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import zstandard
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from backhaul.errors import Refused

PROTOCOL = "1"
PROTOCOL_HEADER = "Backhaul-Protocol"
MOST_OPS = 20_000  # of one push: a transaction goes whole, so this is also the largest one that can be sent
MOST_BODY = 16 * 2**20  # bytes of one message, inflated
MOST_WIRE = 8 * 2**20  # bytes of one message, as sent
MOST_VALUE = 4 * 2**20  # characters of one text, or bytes of one blob
MOST_RECORD = 8 * 2**20  # bytes of a record's fields as JSON; an answer holds some of them
MOST_PAGE = 5_000  # records of one pull page, before it is completed to a group boundary
SMALLEST_COMPRESSED = 1024  # bytes below which a body is not worth compressing
ZSTD_LEVEL = 1
ZSTD_WINDOW = 8 * 2**20  # RFC 9659

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


Atom = None | bool | Integer | float | str
Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]


class Tagged(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A value that JSON has no form for: `hex` or `real`. Or what an op does to a column that is merged by a strategy
    of DELTAS: `add` (a counter; decimals as text), `put` and `cut` (a set), `update` (a text: a Yjs update), `was` and
    `now` (custom and manual). Or a text in the feed: `text` and `state`, the Yjs document that it is of."""

    hex: Hex | UnsetType = UNSET
    real: Literal["Infinity", "-Infinity", "NaN"] | UnsetType = UNSET
    add: int | str | UnsetType = UNSET
    put: list[Any] | UnsetType = UNSET
    cut: list[Any] | UnsetType = UNSET
    update: Hex | UnsetType = UNSET
    was: Atom | Tagged | UnsetType = UNSET
    now: Atom | Tagged | UnsetType = UNSET
    text: str | UnsetType = UNSET
    state: Hex | UnsetType = UNSET


Value = Atom | Tagged
Kind = Literal["insert", "update", "delete", "backfill", "void"]
KeyKind = Literal["generated", "natural", "blocks"]
Deletes = Literal["delete_wins", "edit_wins"]
STRATEGIES = frozenset({"lww", "counter", "set", "text", "max", "min", "server_wins", "immutable", "custom", "manual"})
DELTAS = frozenset({"counter", "set", "text", "custom", "manual"})  # an update of theirs is captured as was and now
Status = Literal["applied", "duplicate", "conflict", "rejected", "retry"]


class Column(Struct, forbid_unknown_fields=True):
    name: str
    type: str = ""


class Reference(Struct, forbid_unknown_fields=True):
    """A foreign key: `columns` of this table name the record of `table` whose `target` columns are equal."""

    columns: list[str]
    table: str
    target: list[str]


class Table(Struct, forbid_unknown_fields=True):
    """A table as the server must know it. key: the primary key's columns, in order.

    merge: the strategies of the columns that are not `lww`; a custom one is `custom:module:function`. deletes: what
    becomes of an edit that meets a delete. aggregate: the table that this one's records are parts of, by a reference.
    renamed: old column -> new.
    """

    name: str
    columns: list[Column]
    key: list[str]
    keys: KeyKind = "natural"
    references: list[Reference] = []
    merge: dict[str, str] = {}
    deletes: Deletes = "delete_wins"
    aggregate: str = ""
    renamed: dict[str, str] = {}

    def strategy(self, column: str) -> str:
        """The name of the column's strategy."""
        return strategy_name(self.merge.get(column, "lww"))

    def deltas(self) -> dict[str, str]:
        """The columns whose updates travel as what was done, not as what came of it: column -> strategy's name."""
        found = {column: strategy_name(said) for column, said in self.merge.items()}
        return {column: name for column, name in found.items() if name in DELTAS}


def strategy_name(said: str) -> str:
    """`custom` of `custom:module:function`; the others are their names."""
    return said.partition(":")[0]


def newest_names(renamed: Mapping[str, str]) -> dict[str, str]:
    """For each old name of a column, the newest one: a column may have been renamed several times."""
    found = {}
    for old in renamed:
        name, seen = old, {old}
        while name in renamed and renamed[name] not in seen:
            name = renamed[name]
            seen.add(name)
        found[old] = name
    return found


class Registration(Struct, forbid_unknown_fields=True):
    """POST /v1/replicas. code: a one-time enrolment code. name: for people.

    was: the replica that this one was before, when it signs in again. nonce: random; who says the same code with the
    same nonce again is answered again, for the first answer may have been lost.
    """

    code: str
    tables: list[Table]
    name: str = ""
    was: str = ""
    nonce: str = ""


class Succession(Struct, forbid_unknown_fields=True):
    """POST /v1/replicas/successor: a replica asks for another identity. was: the one that its database has."""

    was: str


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


class Op(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One change. seq: the replica's gap-free number of it. base: the feed position that the app had seen.

    A `void` op says nothing: it fills the number of an op that was given up before the server had ever accepted it.
    """

    op: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
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


class OutgoingOp(Struct, omit_defaults=True):
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

    due: the number that a `sequence-gap` should have gone on with. cursor, position: of `server-restored`, the last
    place in the feed that both sides know.
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


class Result(Struct, omit_defaults=True):
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


encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="sorted").encode


def canonical_key(key: list[Any]) -> str:
    """The text of a key that is equal exactly when the keys are; the same text as SQLite's json_array makes."""
    return _canonical(key).decode()


def to_plain(value: Any) -> Any:
    """A wire value as Python holds it: bytes for hex, a float for a real beyond JSON."""
    if type(value) is Tagged:
        if value.text is not UNSET:
            return value.text
        return bytes.fromhex(value.hex) if value.hex is not UNSET else float(str(value.real))
    return value


def from_plain(value: Any) -> Value:
    """A Python value of a database row as it travels."""
    if isinstance(value, bytes | bytearray | memoryview):
        return Tagged(hex=bytes(value).hex())
    if isinstance(value, float) and not math.isfinite(value):
        return Tagged(real="NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")
    return value  # type: ignore[no-any-return]  # the database's own scalar types are the wire's


def compress(body: bytes, coding: str | None) -> tuple[bytes, str | None]:
    """The body in the coding ("zstd", "gzip" or None), and the coding that was used: small bodies stay as they are."""
    if coding is None or len(body) < SMALLEST_COMPRESSED:
        return body, None
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body), "zstd"
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush(), "gzip"


def inflate(body: bytes, coding: str | None, limit: int = MOST_BODY) -> bytes:
    """The body without its coding. Raises Refused: `unsupported-coding`, `malformed`, `inflated-too-large`."""
    coding = (coding or "identity").strip().lower()
    if coding == "identity":
        plain = body
    elif coding == "zstd":
        plain = _inflate_zstd(body, limit)
    elif coding == "gzip":
        plain = _inflate_gzip(body, limit)
    else:
        raise Refused(f"the coding {coding!r} is not supported", problem="unsupported-coding", status=415)
    if len(plain) > limit:
        raise _too_large(limit)
    return plain


def _inflate_zstd(body: bytes, limit: int) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(body, read_across_frames=False)
    try:
        declared = zstandard.frame_content_size(body)
        plain = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise Refused(f"not a zstd frame: {error}", problem="malformed", status=400) from error
    # A truncated frame reads short without an error, so the size in its head must be there and hold.
    if declared < 0 or (len(plain) <= limit and len(plain) != declared):
        raise Refused("the zstd frame is cut short or does not say its size", problem="malformed", status=400)
    return plain


def _inflate_gzip(body: bytes, limit: int) -> bytes:
    reader = zlib.decompressobj(31)
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(f"not a gzip stream: {error}", problem="malformed", status=400) from error
    if len(plain) <= limit and (not reader.eof or reader.unused_data):
        raise Refused("the gzip stream is cut short or has a tail", problem="malformed", status=400)
    return plain


def _too_large(limit: int) -> Refused:
    return Refused(f"the body inflates to more than {limit} bytes", problem="inflated-too-large", status=413)
