"""Wall time and peak memory of the commands `refldnq convert` and `refldnq quantize`, as a user runs them.

    python benchmarks/pipeline.py --data DIR [--network resnet20] [-- --seed 1 ...]

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
from published import WEIGHTS
from store import RESULTS, write_json


def run(*arguments: str) -> tuple[float, float]:
    """Run a command of ``refldnq`` in a process of its own.

    Returns
    -------
    seconds : float
        Wall-clock time, start of the interpreter included.
    peak : float
        Largest resident memory in MB (10^6 bytes), as the system accounts it.

    Raises
    ------
    ChildProcessError
        If the command fails.
    """
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "refldnq.cli", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ChildProcessError(f"`refldnq {arguments[0]}` must succeed, got exit code {process.returncode}.")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - began, usage.ru_maxrss * unit / 1e6


def measure(data: Path, network: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Convert and quantize a published network in a temporary folder; the record as JSON values."""
    with tempfile.TemporaryDirectory() as folder:
        model, out, report = (Path(folder) / name for name in ("model.h5", "quantized.h5", "report.json"))
        run("convert", str(data / "weights" / WEIGHTS[network]), "--arch", network, "-o", str(model))
        seconds, peak = run(
            "quantize", str(model), "--data", str(data), "-o", str(out), "--json", str(report), *options
        )
        written = json.loads(report.read_text(encoding="utf-8"))
    kept = ("accuracy_before", "accuracy_after", "drop", "seconds", "peak_rss_mb", "update_images")
    return {
        "network": network,
        "options": list(options),
        "wall_seconds": seconds,
        "wall_peak_rss_mb": peak,
        "command": {name: written[name] for name in kept},
        "machine": machine.describe(),
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, metavar="DIR"
)
@click.option("--network", type=click.Choice(tuple(WEIGHTS)), default="resnet20", show_default=True)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS / "pipeline.json",
    metavar="FILE",
    help="Where the record goes.  [default: benchmarks/results/pipeline.json]",
)
@click.argument("options", nargs=-1)
def main(data: Path, network: str, json_file: Path, options: tuple[str, ...]) -> None:
    """Measure `refldnq quantize` on a published network; OPTIONS, after --, are its own."""
    try:
        record = measure(data, network, options)
        write_json(json_file, record)
    except (OSError, ValueError) as refusal:
        raise click.ClickException(str(refusal)) from refusal
    own, seconds, peak = record["command"], record["wall_seconds"], record["wall_peak_rss_mb"]
    click.echo(
        f"{network}: {seconds:.0f} s, {peak:.0f} MB as the system counts; "
        f"{own['seconds']:.0f} s, {own['peak_rss_mb']:.0f} MB as the command does; "
        f"drop {own['drop']:.2f} points"
    )


if __name__ == "__main__":
    main()
