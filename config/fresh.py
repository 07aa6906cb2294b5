"""The first backhaul.toml of a replica: what `backhaul init` writes, with comments that teach the rest."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from backhaul.errors import AlreadyInitialised
from config.settings import FILE

TEXT = """\
# The settings of this replica. Whatever is missing has the value that the comments show.
# Each one may also be said in the environment: [sync] pull_every is BACKHAUL_SYNC__PULL_EVERY.

# labels = []                     # what this machine is, for example ["region:eu"]

[replica]
database = {database}
remote = {remote}
# allow_plain_http = false        # true: speak http, not https, to another machine

[broker]
# url = "redis://127.0.0.1:6379/0"   # or amqp://...; without one, a private redis-server starts by itself

# A queue is open on a machine while all its conditions hold there: connected, unmetered, metered, not_roaming,
# charging, battery_not_low, device_idle, storage_not_low. Work goes to the smallest queue that has all it requires.
[queues.sync]
tags = ["connected"]

[queues.media]
tags = ["connected", "unmetered", "charging", "storage_not_low"]
# concurrency = 2                 # processes of its worker

[queues.maintenance]
tags = ["device_idle"]

[conditions]
# unmetered = false               # what this machine's conditions are; `backhaul condition set` goes before it

[sync]
# push_every = "15m"              # changes are pushed at once; this only bounds what a lost hint can cost
# pull_every = "30s"
# reconcile_every = "12h"
# reconcile_flex = "1h"

# [retry.push]                    # also .pull, .reconcile, .upload
# policy = "exponential"          # or "linear"
# initial = "2s"
# most = "5m"
# jitter = 0.5

[media]
# requires = ["connected", "unmetered", "charging", "storage_not_low"]
# chunk = "4MiB"

# [tables.article]                # how edits made on two replicas at once are merged; say it before `init`
# merge = {{ stock = "counter", tags = "set", notes = "text" }}   # others: lww, the default; or one for all: "max"
# deletes = "edit_wins"           # default: delete_wins

[work]
# modules = ["shop.background"]   # imported by the workers, for your own functions
"""


def write_fresh(home: Path, *, database: str, remote: str) -> Path:
    """Write backhaul.toml, whole or not at all. Raises AlreadyInitialised when there is one."""
    file = home / FILE
    handle, temporary = tempfile.mkstemp(dir=home, prefix=".backhaul-toml-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as writing:
            writing.write(TEXT.format(database=json.dumps(database), remote=json.dumps(remote)))
            writing.flush()
            os.fsync(writing.fileno())
        Path(temporary).chmod(0o644)
        os.link(temporary, file)  # unlike a rename, it fails when the file is there
    except FileExistsError as error:
        raise AlreadyInitialised(f"{file} is there already", hint="backhaul status shows the replica") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return file
