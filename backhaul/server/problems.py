"""Every problem that the server names (RFC 9457): its HTTP status and its title. `docs/protocol.md` lists the same."""

from __future__ import annotations

import msgspec

from backhaul.errors import Refused
from backhaul.wire import PROBLEM_BASE, Problem, problem_name

CATALOGUE: dict[str, tuple[int, str]] = {
    # of a request
    "malformed": (400, "The request cannot be read"),
    "protocol-unsupported": (400, "This version of the protocol is not spoken here"),
    "token-invalid": (401, "The token is missing or not valid"),
    "code-invalid": (403, "The enrolment code is unknown, used or expired"),
    "replica-revoked": (403, "This replica may not sync any more"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "This cannot be done here"),
    "request-timeout": (408, "The request did not arrive in time"),
    "replica-forked": (409, "Another op was sent under this number"),
    "sequence-gap": (409, "The numbers do not continue where the server stands"),
    "schema-conflict": (409, "The table is known otherwise"),
    "schema-behind": (409, "Columns are merged otherwise by now than this replica knows"),
    "replica-unrelated": (409, "The replica that this one says it is, or was, is not of its line"),
    "cursor-expired": (410, "The cursor is not of this feed"),
    "server-restored": (410, "The server was put back to an older state"),
    "batch-too-large": (413, "Too much in one request"),
    "answer-too-large": (413, "The answer would be too large"),
    "body-too-large": (413, "The body is too large"),
    "inflated-too-large": (413, "The body inflates to too much"),
    "unsupported-coding": (415, "The content coding is not supported"),
    "unsupported-media-type": (415, "The content type is not supported"),
    "table-invalid": (422, "The description of a table contradicts itself"),
    "internal": (500, "The server failed"),
    "busy": (503, "The server is busy"),
    # of one op
    "table-unknown": (422, "The table is not synced in this scope"),
    "column-unknown": (422, "The column is not synced in this scope"),
    "key-invalid": (422, "The key is not a key of the table"),
    "value-invalid": (422, "A value is none that can travel"),
    "immutable": (409, "The field has a value, and cannot be changed"),
    "value-too-large": (413, "A value is larger than a value may be"),
    "record-too-large": (413, "The record would be larger than a record may be"),
    "op-failed": (500, "The server fails on this op"),
    "fields-invalid": (422, "The fields do not go with the kind of the op"),
    "key-taken": (409, "Another replica made a record with this generated key first"),
    "depends-on-refused": (422, "What it depends on was refused"),
    "record-gone": (422, "The record was deleted, so long ago that the server has forgotten it"),
    "outcome-forgotten": (422, "Whether this was taken before is no longer known"),
    "conflict": (409, "Another replica wrote meanwhile, and a person is to decide"),
    "merge-failed": (409, "The function that is to merge the field failed"),
    "depends-on-conflict": (409, "What it depends on is a conflict"),
    "clock-drift": (422, "The stamp is too far ahead of the server's clock"),
    # of media
    "metadata-invalid": (400, "Upload-Metadata cannot be used"),
    "checksum-unsupported": (400, "The checksum's algorithm is not supported"),
    "upload-final": (403, "The upload is made of others, and takes no bytes itself"),
    "parts-unfinished": (409, "Not all of the parts are whole"),
    "offset-mismatch": (409, "The upload continues at another offset"),
    "upload-expired": (410, "The upload has expired"),
    "tus-unsupported": (412, "This version of tus is not spoken here"),
    "upload-too-large": (413, "The upload is too large"),
    "media-type-forbidden": (415, "The server takes no files of this type"),
    "range-unsatisfiable": (416, "The content has no such range"),
    "content-mismatch": (422, "The content is not what its hash promised"),
    "media-type-mismatch": (422, "The content is not of the type that was declared"),
    "checksum-mismatch": (460, "The chunk is not what its checksum says"),
    "storage-full": (507, "The server's disk is full"),
    "quota-exceeded": (507, "The scope has no room for this file"),
}

CONFLICTS = ("conflict", "merge-failed", "depends-on-conflict")


def problem(name: str, detail: str = "", *, op: str | None = None, limit: int | None = None) -> Problem:
    status, title = CATALOGUE[name]
    return Problem(type=PROBLEM_BASE + name, title=title, status=status, detail=detail, op=op, limit=limit)


def of_refusal(refused: Refused, *, limit: int | None = None) -> Problem:
    """What a refused request is answered with."""
    told = problem(refused.problem, str(refused), limit=refused.limit or limit)
    if refused.cursor:
        told = msgspec.structs.replace(told, cursor=refused.cursor, position=refused.position)
    return msgspec.structs.replace(told, due=refused.due)


def is_conflict(told: Problem | None) -> bool:
    """Whether it is for a person to decide, and not refused."""
    return told is not None and problem_name(told) in CONFLICTS


def refusal(name: str, detail: str, *, due: int | None = None, limit: int | None = None) -> Refused:
    """For raising: the whole request is refused."""
    return Refused(detail, problem=name, status=CATALOGUE[name][0], due=due, limit=limit)
