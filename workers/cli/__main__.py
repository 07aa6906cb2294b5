"""python -m workers.cli: the command line, whatever is on the PATH."""

from __future__ import annotations

from workers.cli import main

main()
