"""Speed side by side with PyTorch and NumPy, in one run on one machine.

python benchmarks/speed.py                      measure everything, about ten minutes
python benchmarks/speed.py --only admm          measure one group
python benchmarks/speed.py --markdown FILE      write the tables of the last full run into FILE
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import machine
import numpy as np
from store import RESULTS, markdown_table, write_json, write_section
from timing import Contest, Effort, geometric_mean, measure

from refldnq._kernels.threads import thread_count

GROUPS = ("layers", "hessian", "admm", "projection", "update")

QUIET = 0.1
"""Cores that other programs may keep busy; rows above it count as disturbed."""

TARGETS = (
    ("all rows, float64, geometric mean", {"against": "torch", "dtype": "float64"}, 2.0),
    ("all rows, float32, geometric mean", {"against": "torch", "dtype": "float32"}, 0.7),
    ("ADMM, d = 576", {"against": "numpy solve", "d": 576}, 5.0),
)
"""What is aimed at: a name, the rows that count, the least ratio of their time to ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large the problems are.

    Parameters
    ----------
    batch : int
        Images of a layer's batch.
    channels : tuple of int
        Channels of the convolutions of the Hessians and ADMM; d is nine times as much.
    hessian_images, update_images : int
        Images of a Hessian and of an epoch.
    numbers : int
        What is projected.
    """

    batch: int = 128
    channels: tuple[int, ...] = (16, 32, 64)
    hessian_images: int = 500
    update_images: int = 500
    numbers: int = 1 << 21


QUICK = Sizes(batch=4, channels=(16,), hessian_images=100, update_images=100, numbers=1 << 14)
"""Shows that everything runs; says nothing about speed."""


def contests(group: str, sizes: Sizes) -> Iterator[Contest]:
    """The contests of a group, one at a time, so that memory does not add up."""
    # PyTorch is imported here and not at the top: tables are made without it.
    from speed_layers import layer_contests
    from speed_projection import projection_contests
    from speed_solvers import admm_contests, hessian_contests
    from speed_update import update_contests

    from refldnq.models import build

    rng = np.random.default_rng(0)
    makers: dict[str, Callable[[], Iterator[Contest]]] = {
        "layers": lambda: layer_contests(build("resnet20", rng), sizes.batch, rng),
        "hessian": lambda: hessian_contests(sizes.channels, sizes.hessian_images, rng),
        "admm": lambda: admm_contests(sizes.channels, rng),
        "projection": lambda: projection_contests(sizes.numbers, rng),
        "update": lambda: update_contests(build("resnet20", rng), sizes.update_images, rng),
    }
    return makers[group]()


@contextmanager
def same_threads() -> Iterator[None]:
    """Hold PyTorch and the BLAS libraries to the number of threads that the kernels use."""
    import scipy.linalg.cython_blas
    import torch
    from threadpoolctl import threadpool_limits

    assert scipy.linalg.cython_blas is not None  # loads SciPy's BLAS, so that it is limited too
    torch.set_num_threads(thread_count())
    with threadpool_limits(limits=thread_count(), user_api="blas"):
        yield


def run(
    groups: tuple[str, ...], sizes: Sizes, effort: Effort, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Measure the groups and return the record; `tell` is called with every row."""
    rows: list[dict[str, Any]] = []
    with same_threads():
        described = machine.describe()
        for group in groups:
            for contest in contests(group, sizes):
                for row in measure(contest, effort):
                    rows.append(row)
                    tell(row)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "quick": sizes == QUICK,
        "sizes": asdict(sizes),
        "effort": asdict(effort),
        "machine": described,
        "rows": rows,
        "means": means(rows),
        "targets": targets(rows),
        "disturbed": sum(row["elsewhere"] > QUIET for row in rows),
    }


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means of the ratios, for every opponent and type: all rows, then group by group."""
    found = []
    for against, dtype in sorted(
        {(row["against"], row["dtype"]) for row in rows}, key=lambda pair: pair[::-1]
    ):
        own = [row for row in rows if (row["against"], row["dtype"]) == (against, dtype)]
        for group in ("all", *(name for name in GROUPS if any(row["group"] == name for row in own))):
            ratios = [row["ratio"] for row in own if group in ("all", row["group"])]
            found.append(
                {
                    "against": against,
                    "dtype": dtype,
                    "group": group,
                    "rows": len(ratios),
                    "ratio": geometric_mean(ratios),
                }
            )
    return found


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was reached of `TARGETS`; those without a row are left out."""
    found = []
    for name, wanted, least in TARGETS:
        own = [
            row["ratio"]
            for row in rows
            if row["against"] == wanted["against"]
            and row["dtype"] == wanted.get("dtype", row["dtype"])
            and (
                "d" not in wanted
                or (row["group"] == "admm" and row["name"].startswith(f"d = {wanted['d']},"))
            )
        ]
        if own:
            ratio = geometric_mean(own)
            found.append(
                {
                    "name": name,
                    "against": wanted["against"],
                    "target": least,
                    "reached": ratio,
                    "met": ratio >= least,
                }
            )
    return found


def markdown(record: dict[str, Any]) -> str:
    """The record as tables in Markdown.

    Raises
    ------
    ValueError
        If it is the record of a quick run, whose numbers mean nothing.
    """
    if record["quick"]:
        raise ValueError("`record` must be of a full run, got a quick one.")
    effort = record["effort"]
    parts = [
        f"{record['date']}, {machine.line(record['machine'])}. Milliseconds are medians (minima in brackets) "
        f"over {effort['repeats']} turns; the ratio is their median over ours: above 1, this package is "
        f"faster. Both sides computed the same numbers. {_disturbance(record)}",
        markdown_table(
            ["target", "against", "at least", "reached", "met"],
            [
                [
                    t["name"],
                    t["against"],
                    f"{t['target']:g}",
                    f"{t['reached']:.2f}",
                    "yes" if t["met"] else "no",
                ]
                for t in record["targets"]
            ],
        ),
        markdown_table(
            ["geometric mean", "against", "type", "rows", "ratio"],
            [
                [m["group"], m["against"], m["dtype"], str(m["rows"]), f"{m['ratio']:.2f}"]
                for m in record["means"]
            ],
        ),
    ]
    for group in GROUPS:
        rows = [row for row in record["rows"] if row["group"] == group]
        if rows:
            table = markdown_table(
                [group, "type", "ours, ms", "against", "theirs, ms", "ratio"], list(map(cells, rows))
            )
            parts.append(table)
    return "\n\n".join(parts)


def _disturbance(record: dict[str, Any]) -> str:
    rows = f"{record['disturbed']} of {len(record['rows'])} rows"
    return f"During {rows} other programs kept more than {QUIET:g} cores busy."


def cells(row: dict[str, Any]) -> list[str]:
    """A row's cells."""
    ours, other = (
        f"{1e3 * row[side]['median']:.3g} ({1e3 * row[side]['min']:.3g})" for side in ("ours", "other")
    )
    return [row["name"], row["dtype"], ours, row["against"], other, f"{row['ratio']:.2f}"]


def show(record: dict[str, Any]) -> None:
    """Print the tables to the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table("", "type", "ours, ms", "against", "theirs, ms", "ratio", box=None, pad_edge=False)
    for row in record["rows"]:
        name, *rest = cells(row)
        table.add_row(f"{row['group']}: {name}", *rest)
    console.print(table)
    for mean in record["means"]:
        console.print(
            f"geometric mean, {mean['group']}, {mean['dtype']}, against {mean['against']}: "
            f"{mean['ratio']:.2f} ({mean['rows']} rows)"
        )
    for target in record["targets"]:
        console.print(
            f"{'met' if target['met'] else 'MISSED'}: {target['name']}, against {target['against']}: "
            f"{target['reached']:.2f}, target {target['target']:g}"
        )
    console.print(_disturbance(record))
    if record["quick"]:
        console.print("a quick run: it shows that everything works, its times mean nothing")


def _groups(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    chosen = tuple(value.split(",")) if value else GROUPS
    unknown = [name for name in chosen if name not in GROUPS]
    if unknown:
        raise click.BadParameter(f"must be among {', '.join(GROUPS)}, got {unknown[0]!r}.")
    return chosen


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the record to FILE; a full run writes benchmarks/results/speed.json by default.",
)
@click.option("--quick", is_flag=True, help="Small problems and two turns: shows that everything works.")
@click.option("--only", callback=_groups, metavar="GROUPS", help=f"Some of {','.join(GROUPS)}.")
@click.option(
    "--repeats", type=click.IntRange(min=1), help="Turns of every side.", show_default="9; 2 with --quick"
)
@click.option(
    "--markdown",
    "markdown_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure nothing; write the tables of the record (--json) into FILE, in place of the old ones.",
)
def main(
    json_file: Path | None,
    quick: bool,
    only: tuple[str, ...],
    repeats: int | None,
    markdown_file: Path | None,
) -> None:
    """Measure this package's speed side by side with PyTorch's and NumPy's."""
    default = RESULTS / "speed.json"
    if markdown_file is not None:
        try:
            record = json.loads((json_file or default).read_text(encoding="utf-8"))
            write_section(markdown_file, "speed", markdown(record))
        except (OSError, ValueError) as refusal:
            raise click.ClickException(str(refusal)) from refusal
        return
    sizes = QUICK if quick else Sizes()
    effort = Effort(repeats=repeats or 2, seconds=0.002, most=3) if quick else Effort(repeats=repeats or 9)

    def tell(row: dict[str, Any]) -> None:
        click.echo(
            f"{row['group']}: {row['name']}, {row['dtype']}, {row['against']}: {row['ratio']:.2f}", err=True
        )

    record = run(only, sizes, effort, tell)
    file = json_file or (default if not quick and only == GROUPS else None)
    if file is not None:
        write_json(file, record)
    show(record)


if __name__ == "__main__":
    main()
