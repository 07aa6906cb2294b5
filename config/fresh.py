"""The first backhaul.toml of a replica: what `backhaul init` writes, with comments that teach the rest."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from backhaul.errors import AlreadyInitialised
from config.loading import FILE

TEXT = """\
# The settings of this replica. Whatever is missing has the value that the comments show.
# Each one may also be said in the environment: [sync] pull_every is BACKHAUL_SYNC__PULL_EVERY.

# node = "kiosk-7"                # what this machine is called; default: the host's name
# labels = []                     # what this machine is, for example ["region:eu"]

[replica]
database = {database}
remote = {remote}
# allow_plain_http = false        # true: speak http, not https, to another machine

[broker]
# url = "redis://127.0.0.1:6379/0"   # or amqp://...; without one, a private redis-server starts by itself

# A queue is open on a machine while all its conditions hold there: connected, unmetered, metered, not_roaming,
# charging, battery_not_low, device_idle, storage_not_low, not_quiet, budget. Work goes to the smallest queue that has
# all it requires.
[queues.sync]
tags = ["connected"]

[queues.media]
tags = ["connected", "unmetered", "charging", "storage_not_low"]
# concurrency = 2                 # processes of its worker
# kinds = ["backhaul.upload", "backhaul.download", "backhaul.attach", "backhaul.transform"]   # what runs here alone

[queues.maintenance]
tags = ["device_idle"]

[queues.background]
tags = ["connected", "unmetered", "battery_not_low"]

[conditions]
# unmetered = false               # what this machine's conditions are; `backhaul condition set` goes before it

# [unknown]
# device_idle = false             # what is taken where the machine does not say; docs/conditions.md has the defaults

# [quiet]
# hours = ["22:00-06:00"]         # local time, in which not_quiet does not hold

# [budget]                        # bytes over metered links, in and out; uploads wait once they are used up
# day = "200MB"
# month = "2GB"
# roaming.day = "20MB"            # of roaming links alone, beside that; metered.day of the others

[sync]
# push_every = "15m"              # changes are pushed at once; this only bounds what a lost hint can cost
# push_lanes = 1                  # PostgreSQL: how many workers push beside each other
# pull_every = "30s"              # the usual one; it shrinks to pull_least while much changes, and stretches to
# pull_most = "2m"                # while nothing does; reconcile_every has the same two
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
# order = "small"                 # small and new files first; "new": the newest; "old": as they were put
# max_bytes = {{ metered = "5MiB", roaming = "0B" }}   # larger files wait for another link
# download = "lazy"               # "eager": what others put comes with the record that names it (tables.NAME.media)
# download_requires = ["connected", "unmetered", "charging", "storage_not_low"]   # the same as `requires`
# cache = "2GB"                   # of kept files: beyond it the least recently used go, if the server has them
# floor = "500MB"                 # of the disk that stay free, if that is enough
# transform_requires = ["charging"]   # what is made of files before they are sent, as [tables.NAME.media] says
# keep = true                     # false: a file is sent from where it is, and must stay there as it is until then

# [tables.article]                # how edits made on two replicas at once are merged; say it before `init`
# merge = {{ stock = "counter", tags = "set", notes = "text" }}   # others: lww, the default; or one for all: "max"
# deletes = "edit_wins"           # default: delete_wins

# [tables.photo.media]            # its rows name files, which are sent in the background: docs/media.md
# column = "path"                 # relative to `folder`
# folder = "photos"               # nothing outside of it is sent; default: the replica's folder
# sha256 = "photo_sha256"         # columns that others are told in what the file holds; also size, type, name,
# visible = "with-media"          # orientation; default: at-once
# transform = "image"             # a smaller picture in its place; or a function of yours, MODULE:FUNCTION

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
