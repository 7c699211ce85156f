"""``python -m refldnq.cli`` is the command ``refldnq``."""

from __future__ import annotations

from refldnq.cli import main

main(prog_name="refldnq")
