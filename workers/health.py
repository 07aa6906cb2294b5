"""Whether a process is well, for the health check of its container: exit status 0, or 1 and a line that says why not.

python -m workers.health beat        somebody leads the beats of the replica in BACKHAUL_HOME
python -m workers.health http URL    there is an answer with status 200

(A worker is asked by Celery: `celery -A workers.app inspect ping`.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.errors import BackhaulError
from backhaul.work import lease
from config.loading import load

LEASE = "beat"
ANSWER_SECONDS = 3.0


def main(arguments: Sequence[str]) -> str | None:
    """What is wrong; None when all is well."""
    match arguments:
        case ["beat"]:
            return _of_the_beats()
        case ["http", url]:
            return _of_the_answer(url)
        case _:
            return __doc__


def _of_the_beats() -> str | None:
    try:
        database = open_database(load().database_url)
        with database.reading() as connection:
            leader = lease.holder(connection, LEASE, SystemClock().now())
        database.close()
    except BackhaulError as error:
        return str(error)
    return None if leader else "no beat leads"


def _of_the_answer(url: str) -> str | None:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=ANSWER_SECONDS):  # it is this machine: past every proxy
            return None
    except (URLError, OSError) as error:
        return f"{url}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
