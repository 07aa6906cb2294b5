"""What a server's answer means to us: the one place where HTTP statuses become our errors.

    no answer, reset                  Unreachable: the outcome is unknown, the same call again is safe
    timeout, 408, 504                 TimedOut, which is Unreachable, too
    2xx that cannot be read           Unreachable: so is a captive portal's page, whatever it says
    3xx                               Unreachable: not followed, and no verdict on what was sent
    401                               SignInRequired
    425, 5xx                          Unreachable
    429, 503                          Busy, with the wait that was asked for
    403 `replica-revoked`             SignInRequired
    400 `protocol-unsupported`        Unreachable
    other 4xx with problem details    Refused, with the problem's name
    other 4xx without                 Unreachable: it is not our server that speaks; only 413 counts from a proxy, too

The statuses: RFC 9110, RFC 6585. Problem details: RFC 9457.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from backhaul.errors import BackhaulError, Busy, Refused, SignInRequired, TimedOut, Unreachable
from backhaul.wire import MOST_BODY, PROTOCOL, PROTOCOL_HEADER, Problem, inflate, problem_name

Message = TypeVar("Message")

MOST_ANSWER = 2 * MOST_BODY  # a page holds whole records, where the pushes that made it held single fields
LONGEST_WAIT_MS = 3_600_000  # whatever a server asks for, it is asked again after an hour
LONGEST_DETAIL = 500  # characters of a server's text that we repeat
TOO_EARLY = 425
TOO_LARGE = 413
HINTS = {
    "schema-conflict": "make the table here as the others have it, or sync it under another name; nothing was changed",
}
BUSY = (429, 503)
OUT_OF_TIME = (408, 504)  # the server has not had all of the request in time, or a proxy not the answer
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)  # the last: thousands of brackets


class AnswerTooLarge(Unreachable):
    """The answer is larger than we can hold; ask for less."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """origin: the server's URL, without what was asked. body: as it came, still coded. headers: any case."""

    origin: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def from_backhaul(self) -> bool:
        """Whether a Backhaul server of our protocol says this: it says so in every answer, a sign-in page does not."""
        return self.headers.get(PROTOCOL_HEADER) == PROTOCOL

    @property
    def media_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def message(answer: Answer, kind: type[Message]) -> Message:
    """The message in a good answer. Raises what the answer means, when it is not good or cannot be read."""
    accept(answer)
    if answer.media_type != "application/json":
        raise stranger(answer, f"it sent {answer.media_type or 'nothing'} where JSON was due")
    try:
        return msgspec.json.decode(_plain(answer), type=kind)
    except UNREADABLE as error:
        raise stranger(answer, str(error)[:LONGEST_DETAIL]) from error


def accept(answer: Answer) -> None:
    """Raises what the answer means, unless it is a Backhaul server's yes."""
    if not answer.good:
        raise failure(answer)
    if not answer.from_backhaul:
        raise stranger(answer, _protocol(answer))


def failure(answer: Answer) -> BackhaulError:
    """What an answer that is not good means."""
    status, origin = answer.status, answer.origin
    if status == 401:
        return signed_out(answer)
    if status in BUSY:
        return Busy(f"{origin} is busy (HTTP {status})", retry_after_ms=retry_after_ms(answer.headers))
    if status in OUT_OF_TIME:
        return TimedOut(f"{origin} could not answer in time (HTTP {status})", hint="look into the server's log")
    if status == TOO_EARLY or status >= 500:
        return Unreachable(f"{origin} could not answer (HTTP {status})", hint="look into the server's log")
    if 300 <= status < 400:
        return _moved(answer)
    return _refusal(answer)


def signed_out(answer: Answer) -> SignInRequired:
    """The token is not, or no longer, one of this server's."""
    return SignInRequired(
        f"{answer.origin} does not accept this replica's token",
        hint="sign in again: backhaul init --code CODE (from `backhaul enroll` on the server); what waits is kept",
    )


def stranger(answer: Answer, because: str) -> Unreachable:
    """The answer is not one that our protocol knows."""
    return Unreachable(
        f"{answer.origin} does not answer like a Backhaul server (HTTP {answer.status}: {because})",
        hint="check the URL of the remote, and that no sign-in page or proxy of this network answers in its place",
    )


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Retry-After (RFC 9110 10.2.3) in milliseconds, 0 to one hour; None when there is none that can be read.

    A date counts from the answer's own Date: our clock may be wrong, and is not asked.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        wait = int(text[:9]) * 1000
    else:
        try:
            until, since = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("Date", ""))
            wait = int((until - since).total_seconds() * 1000)
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(wait, 0), LONGEST_WAIT_MS)


def _refusal(answer: Answer) -> BackhaulError:
    """What is said of the replica or of the program is no verdict on what was sent: that stays in its queue."""
    problem = _problem(answer)
    if problem is not None:
        name, said = problem_name(problem), (problem.detail or problem.title)[:LONGEST_DETAIL]
        if name == "replica-revoked":
            return signed_out(answer)
        if name == "protocol-unsupported":
            return stranger(answer, said)
        said = f"{answer.origin} refuses: {said}"
        return Refused(
            said,
            hint=HINTS.get(name),
            problem=name,
            status=answer.status,
            due=problem.due,
            cursor=problem.cursor or "",
            position=problem.position or 0,
        )
    if answer.status == TOO_LARGE:
        return Refused(f"{answer.origin} takes no message of this size", problem="too-large", status=TOO_LARGE)
    return stranger(answer, _protocol(answer))


def _problem(answer: Answer) -> Problem | None:
    if answer.media_type != "application/problem+json":
        return None
    try:
        return msgspec.json.decode(_plain(answer), type=Problem)
    except (*UNREADABLE, Unreachable):
        return None


def _plain(answer: Answer) -> bytes:
    try:
        return inflate(answer.body, answer.headers.get("Content-Encoding"), MOST_ANSWER)
    except Refused as refusal:
        if refusal.problem == "inflated-too-large":
            raise AnswerTooLarge(f"{answer.origin} sent an answer that inflates to more than we hold") from refusal
        raise stranger(answer, str(refusal)) from refusal


def _moved(answer: Answer) -> Unreachable:
    where = _place(answer.headers.get("Location", ""))
    return Unreachable(
        f"{answer.origin} points to {where} (HTTP {answer.status}); redirects are not followed",
        hint="if the server has moved there, make that the URL of the remote; if not, sign in to this network first",
    )


def _place(location: str) -> str:
    """The server that a redirect points to, and nothing of what it says there."""
    try:
        place = urlsplit(location)
    except ValueError:
        return "another place"
    return f"{place.scheme}://{place.hostname}"[:LONGEST_DETAIL] if place.hostname else "another place"


def _protocol(answer: Answer) -> str:
    spoken = answer.headers.get(PROTOCOL_HEADER)
    return f"it speaks protocol {spoken[:20]!r}, not {PROTOCOL!r}" if spoken else f"it sends no {PROTOCOL_HEADER}"
