"""Where a key stands in a TOML file."""

from __future__ import annotations

import pytest

from config.toml_lines import line_of

TEXT = '''\
labels = ["a:b"]  # sync.pull_every = 1

[replica]
"database" = """
remote = "not a key"
[sync]
"""
remote = 'x'

  [ queues . "big one" ]
  tags = [
    "connected",
  ]
retry.push.jitter = 1
[sync]  # [media]
pull_every = "1s"
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("labels",), 1),
        (("labels", 0), 1),
        (("replica", "database"), 4),
        (("replica", "remote"), 8),
        (("replica", "missing"), 3),
        (("queues", "big one", "tags", 0), 11),
        (("queues", "big one", "retry", "push", "jitter"), 14),
        (("sync",), 15),
        (("sync", "pull_every"), 16),
        (("media",), None),
    ],
)
def test_a_key_is_found_on_its_line(path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(TEXT, path) == line
