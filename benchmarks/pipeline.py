"""Wall time and peak memory of the command `refldnq quantize`, as a user runs it.

    python benchmarks/pipeline.py --data DIR [--network resnet20] [-- --profile best --seed 1 ...]

DIR holds ``cifar-10-batches-bin/`` and ``weights/``. What follows ``--`` is given to `refldnq quantize`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import machine
from options import stored
from published import WEIGHTS
from store import Key, Store, markdown_table
from timing import seconds_elsewhere

from refldnq._kernels.threads import thread_count


def run(*arguments: str, folder: Path | None = None) -> tuple[float, float, float]:
    """Run a command of ``refldnq`` in a process of its own, in this folder or another.

    Returns
    -------
    seconds : float
        Wall-clock time, start of the interpreter included.
    peak : float
        Largest resident memory in MB (10^6 bytes), as the system accounts it.
    elsewhere : float
        Cores that were busy with something else, in the mean.

    Raises
    ------
    ChildProcessError
        If the command fails.
    """
    began, busy = time.perf_counter(), seconds_elsewhere(children=True)
    process = subprocess.Popen([sys.executable, "-m", "refldnq.cli", *arguments], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ChildProcessError(f"`refldnq {arguments[0]}` must succeed, got exit code {process.returncode}.")
    unit = 1 if sys.platform == "darwin" else 1024
    seconds = time.perf_counter() - began
    elsewhere = max(0.0, seconds_elsewhere(children=True) - busy) / seconds
    return seconds, usage.ru_maxrss * unit / 1e6, elsewhere


def measure(data: Path, network: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Convert and quantize a published network in a temporary folder; the record as JSON values."""
    with tempfile.TemporaryDirectory() as folder:
        model, out, report = (Path(folder) / name for name in ("model.h5", "quantized.h5", "report.json"))
        run("convert", str(data / "weights" / WEIGHTS[network]), "--arch", network, "-o", str(model))
        seconds, peak, elsewhere = run(
            "quantize", str(model), "--data", str(data), "-o", str(out), "--json", str(report), *options
        )
        written = json.loads(report.read_text(encoding="utf-8"))
    kept = ("accuracy_before", "accuracy_after", "drop", "seconds", "peak_rss_mb", "update_images")
    return {
        "wall_seconds": seconds,
        "wall_peak_rss_mb": peak,
        "elsewhere": elsewhere,
        "command": {name: written[name] for name in kept},
        "images": written["provenance"]["request"]["images"],
        "machine": machine.describe(),
    }


HEADINGS = (
    "network",
    "options",
    "images",
    "before, %",
    "after, %",
    "minutes",
    "peak memory, MB",
    "threads",
    "cores busy elsewhere",
)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""

    def cells(row: dict[str, Any]) -> list[str]:
        key, result = row["key"], row["result"]
        return [
            key["network"],
            f"`{key['options']}`" if key["options"] else "",
            str(result["images"]),
            f"{result['command']['accuracy_before']:.2f}",
            f"{result['command']['accuracy_after']:.2f}",
            f"{result['wall_seconds'] / 60:.1f}",
            f"{result['wall_peak_rss_mb']:.0f}",
            str(key["threads"]),
            f"{result['elsewhere']:.2f}",
        ]

    rows = sorted(rows, key=lambda row: [str(value) for value in row["key"].values()])
    return markdown_table(HEADINGS, [cells(row) for row in rows])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("pipeline", markdown)
@click.option("--network", type=click.Choice(tuple(WEIGHTS)), default="resnet20", show_default=True)
@click.argument("options", nargs=-1)
def main(store: Store, data: Path, network: str, options: tuple[str, ...]) -> None:
    """Measure `refldnq quantize` on a published network; OPTIONS, after --, are its own."""
    key: Key = {"network": network, "options": " ".join(options), "threads": thread_count()}
    row = store.run(key, lambda: measure(data, network, options))
    result = row["result"]
    own, seconds, peak = result["command"], result["wall_seconds"], result["wall_peak_rss_mb"]
    click.echo(
        f"{network}: {seconds:.0f} s, {peak:.0f} MB as the system counts; "
        f"{own['seconds']:.0f} s, {own['peak_rss_mb']:.0f} MB as the command does; "
        f"drop {own['drop']:.2f} points; {result['elsewhere']:.2f} cores busy elsewhere"
    )


if __name__ == "__main__":
    main()
