"""Wall time and peak memory of the commands that need no file of anybody's, as a user runs them.

    python benchmarks/commands.py [--command "kit selftest" ...]

Each runs in a process and an empty folder of its own. A finished row is never measured again.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

import click
import machine
from options import stored
from pipeline import run
from store import Key, Store, markdown_table

from refldnq._kernels.threads import thread_count

COMMANDS = (
    "quickstart",
    "reproduce table4 --networks cnn-digits",
    "verify",
    "kit run refldnq.verify.kit.reference:Reference",
    "kit selftest",
    "kit fuzz --count 1000",
)
"""What is measured: the first command of the README, and those of the checks."""


def measure(command: str) -> dict[str, Any]:
    """One command; the record as JSON values."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, peak, elsewhere = run(*shlex.split(command), folder=Path(folder))
    return {
        "wall_seconds": seconds,
        "peak_rss_mb": peak,
        "elsewhere": elsewhere,
        "machine": machine.describe(),
    }


HEADINGS = ("command", "seconds", "peak memory, MB", "threads", "cores busy elsewhere")


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""

    def cells(row: dict[str, Any]) -> list[str]:
        key, result = row["key"], row["result"]
        numbers = (f"{result['wall_seconds']:.0f}", f"{result['peak_rss_mb']:.0f}")
        return [f"`refldnq {key['command']}`", *numbers, str(key["threads"]), f"{result['elsewhere']:.2f}"]

    return markdown_table(HEADINGS, [cells(row) for row in rows])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("commands", markdown, needs_data=False)
@click.option("--command", "commands", multiple=True, help="Which, without refldnq.  [default: all]")
def main(store: Store, data: Path | None, commands: tuple[str, ...]) -> None:
    """Measure commands of refldnq that need no data."""
    for command in commands or COMMANDS:
        key: Key = {"command": command, "threads": thread_count()}
        result = store.run(key, lambda command=command: measure(command))["result"]
        click.echo(
            f"{command}: {result['wall_seconds']:.0f} s, {result['peak_rss_mb']:.0f} MB; "
            f"{result['elsewhere']:.2f} cores busy elsewhere"
        )


if __name__ == "__main__":
    main()
