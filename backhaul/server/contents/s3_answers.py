"""What a bucket's answers mean to us: the one place where boto3's errors become ours.

429, 5xx (503 SlowDown), no answer, a body that breaks off    Busy, with the wait that was asked for
404, 416                                                      ClientError as it came: `is_missing`
other 4xx, no credentials                                     ConfigurationInvalid: a person has to mend it
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NotConnected

from backhaul.errors import Busy, ConfigurationInvalid

WAIT_MS = 2_000
LONGEST_WAIT_SECONDS = 3600
PASSING = (HTTPClientError, NotConnected, IncompleteReadError)
MISSING = (404, 416)
SLOWED = ("SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException")
TOO_MANY = 429


@contextmanager
def answers_read() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if is_missing(error):
            raise
        raise _meaning(error) from error
    except PASSING as error:
        raise Busy(f"the bucket does not answer: {type(error).__name__}", retry_after_ms=WAIT_MS) from error
    except BotoCoreError as error:
        raise ConfigurationInvalid(
            "the bucket of media cannot be used", hint=f"look at [server] media and the credentials: {error}"
        ) from error


def is_missing(error: ClientError) -> bool:
    return _status(error) in MISSING and error.response.get("Error", {}).get("Code") != "NoSuchBucket"


def _meaning(error: ClientError) -> Exception:
    code, status = str(error.response.get("Error", {}).get("Code", "")), _status(error)
    if status >= 500 or status == TOO_MANY or code in SLOWED:
        return Busy(f"the bucket is busy ({code or status})", retry_after_ms=_wait_ms(error))
    return ConfigurationInvalid(
        f"the bucket of media refuses: {code or status}",
        hint="look at [server] media, the credentials, and what they may do",
    )


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _wait_ms(error: ClientError) -> int:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said = str(headers.get("retry-after", ""))
    return min(int(said), LONGEST_WAIT_SECONDS) * 1000 if said.isdigit() and int(said) else WAIT_MS
