"""The comparison as tables: headings and cells of text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from refldnq.experiments.comparison.problems import ComparedProblem
from refldnq.experiments.comparison.runs import ComparedRun

RUN_COLUMNS = (
    "method",
    "levels",
    "images",
    "layer error",
    "certified gap",
    "output error",
    "accuracy, %",
    "drop, points",
    "seconds",
)
"""Headings of `run_rows`. Errors are relative; the layer error is the layers' geometric mean, the certified
gap their median."""

PROBLEM_COLUMNS = ("solver", "objective", "ratio to admm", "least", "most", "ratio to the bound")
"""Headings of `problem_rows`."""

PROBLEM_NOTE = (
    "Every layer's problem as the original network's inputs make it, the same for all solvers, which have "
    "their default settings and as many scales as in the runs; objectives relative to zero weights, "
    "geometric means over the layers where they are positive."
)


def run_rows(runs: Sequence[ComparedRun]) -> list[tuple[str, ...]]:
    """One row a run."""
    rows: list[tuple[str, ...]] = []
    for run in runs:
        layers, record = run.record["layers"], run.record
        gaps = [layer["gap"] for layer in layers if layer["gap"] is not None]
        rows.append(
            (
                run.cell.method,
                str(run.cell.levels),
                str(run.cell.images),
                f"{geometric_mean([layer['relative_error'] for layer in layers]):.4f}",
                _percent(statistics.median(gaps)) if gaps else "no certificate",
                f"{layers[-1]['relative_output_error']:.4f}",
                _number(record["accuracy_after"], 2),
                _number(record["drop"], 2),
                f"{record['seconds']:.1f}",
            )
        )
    return rows


def problem_rows(problems: Sequence[ComparedProblem]) -> list[tuple[str, ...]]:
    """One row a solver."""
    rows: list[tuple[str, ...]] = []
    for solver in problems[0].errors if problems else ():
        ratios = [
            problem.errors[solver] / problem.errors["admm"]
            for problem in problems
            if problem.errors["admm"] > 0
        ]
        above = [problem.errors[solver] / problem.bound for problem in problems if problem.bound > 0]
        rows.append(
            (
                solver,
                f"{geometric_mean([problem.errors[solver] for problem in problems]):.4f}",
                f"{geometric_mean(ratios):.3f}",
                f"{min(ratios, default=math.nan):.3f}",
                f"{max(ratios, default=math.nan):.3f}",
                f"{geometric_mean(above):.2f} ({len(above)} of {len(problems)} layers)" if above else "",
            )
        )
    return rows


def geometric_mean(values: Sequence[float | None]) -> float:
    """Of the positive, finite ones; NaN without any.

    Examples
    --------
    >>> geometric_mean([1.0, 4.0, 0.0, None])
    2.0
    """
    logs = [math.log(value) for value in values if value is not None and 0 < value < math.inf]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 1 else f"{100 * share:.3g} %"


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
