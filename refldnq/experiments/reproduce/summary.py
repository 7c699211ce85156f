"""Means and errors over seeds, and what stands in the paper beside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refldnq.experiments.reproduce.methods import schedule_of
from refldnq.experiments.reproduce.paper import PaperRow
from refldnq.experiments.reproduce.plan import PlannedCell, count_of, origin_of, paper_row
from refldnq.experiments.reproduce.store import Row
from refldnq.experiments.run import wilson


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A mean over runs.

    Parameters
    ----------
    mean : float
        The mean.
    sd, error : float or None
        Standard deviation of one run (n - 1), and standard error of the mean; None for a single run.
    """

    mean: float
    sd: float | None
    error: float | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell of an exhibit: what came out of its runs, and the paper's row.

    Parameters
    ----------
    cell : PlannedCell
        The network, the method and so on; with a number of images if runs are there.
    n : int
        Finished runs.
    group : str
        Same for runs that differ in their seeds alone; empty without runs.
    values : mapping of str to Mean
        ``before``, ``after`` (percent), ``change`` (points), ``output_error``, ``seconds``, and with more
        than five classes the first three with ``_top5``; empty without runs.
    labels_used : bool or None
        Whether a label has had an influence; None without runs.
    facts : mapping
        ``steps``, ``epochs``, ``image_passes``, ``skipped``, ``mean_levels``, ``total`` and ``train_total``:
        those of the first run; ``interval``: Wilson's 95 % interval of the mean of ``after``, percent, over
        the test images.
    paper : PaperRow or None
        What the paper has.
    notes : tuple of str
        Why runs are missing.
    runs : tuple of Row
        The finished ones.
    """

    cell: PlannedCell
    n: int = 0
    group: str = ""
    values: Mapping[str, Mean]
    labels_used: bool | None = None
    facts: Mapping[str, Any]
    paper: PaperRow | None = None
    notes: tuple[str, ...] = ()
    runs: tuple[Row, ...] = ()

    @property
    def schedule(self) -> str:
        """How its runs trained; empty without runs."""
        return self.runs[0].run.schedule if self.runs else ""

    @property
    def origin(self) -> str:
        """Whose the method is, see `refldnq.experiments.reproduce.plan.origin_of`."""
        return origin_of(self.cell.method, self.cell.levels)


def mean_of(values: Sequence[float]) -> Mean:
    """The mean, the standard deviation and the standard error.

    Raises
    ------
    ValueError
        If there is no value.

    Examples
    --------
    >>> mean_of([1.0, 2.0, 3.0, 4.0]).mean, round(mean_of([1.0, 2.0, 3.0, 4.0]).error, 4)
    (2.5, 0.6455)
    >>> mean_of([1.0]).sd is None
    True
    """
    if not values:
        raise ValueError("`values` must hold at least one value, got none.")
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Mean(mean=statistics.fmean(values), sd=sd, error=None if sd is None else sd / len(values) ** 0.5)


def entries(
    exhibit: str,
    cells: Sequence[PlannedCell],
    rows: Sequence[Row],
    *,
    seeds: Sequence[int] | None = None,
    schedule: str = "scaled",
    totals: Mapping[str, int] | None = None,
    skipped: Mapping[PlannedCell, str] | None = None,
) -> list[Entry]:
    """The entries of an exhibit, one a cell, or several where runs of a cell differ in more than their seeds.

    Parameters
    ----------
    exhibit : str
        Of the paper.
    cells : sequence of PlannedCell
        From `cells_of`.
    rows : sequence of Row
        Of the store.
    seeds : sequence of int, optional
        Only these; None means all.
    schedule : str, optional
        As in `refldnq.experiments.reproduce.plan.PlannedRun`.
    totals : mapping of str to int, optional
        Training images by network, for cells with shares of them; of other networks those that the rows name.
        A share of an unknown number stands for any number of images, as does None.
    skipped : mapping of PlannedCell to str, optional
        Why cells have no runs.

    Returns
    -------
    list of Entry
        In the order of the cells.
    """
    known = {**totals_of(rows), **(totals or {})}
    found: list[Entry] = []
    seen: set[tuple[PlannedCell, str]] = set()
    for cell in cells:
        own = [
            row
            for row in rows
            if _belongs(row, cell, known, schedule) and (seeds is None or row.run.seed in seeds)
        ]
        groups: dict[str, list[Row]] = {}
        for row in own:
            if row.state == "done":
                groups.setdefault(row.group, []).append(row)
        notes = _notes(own, (skipped or {}).get(cell))
        printed = paper_row(exhibit, cell) if exhibit.startswith("table") else None
        if not groups:
            found.append(Entry(cell=cell, values={}, facts={}, paper=printed, notes=notes))
        for group, members in groups.items():
            first = members[0].run
            exact = PlannedCell(first.network, first.method, first.levels, first.images, first.keep_ends)
            if (exact, group) in seen:  # two shares of few images may be one number
                continue
            seen.add((exact, group))
            found.append(_entry(exact, group, members, printed, notes))
    return found


def totals_of(rows: Sequence[Row]) -> dict[str, int]:
    """Training images by network, as finished runs tell; without networks that have had several data sets."""
    found: dict[str, set[int]] = {}
    for row in rows:
        total = (row.result or {}).get("train_total")
        if total is not None:
            found.setdefault(row.run.network, set()).add(int(total))
    return {network: next(iter(own)) for network, own in found.items() if len(own) == 1}


def _belongs(row: Row, cell: PlannedCell, totals: Mapping[str, int], schedule: str) -> bool:
    run = row.run
    own = (run.network, run.method, run.levels, run.keep_ends, run.schedule)
    asked = schedule_of(cell.method, schedule, run.images)
    if own != (cell.network, cell.method, cell.levels, cell.keep_ends, asked):
        return False
    if isinstance(cell.images, float) and cell.network in totals:
        return run.images == count_of(cell.images, totals[cell.network])
    return not isinstance(cell.images, int) or run.images == cell.images


def _notes(rows: Sequence[Row], skipped: str | None) -> tuple[str, ...]:
    notes = [skipped] if skipped else []
    reasons: dict[str, list[Row]] = {}
    for row in rows:
        if row.state != "done":
            why = f"failed: {row.reason}" if row.state == "failed" else "not finished"
            reasons.setdefault(why, []).append(row)
    for why, own in reasons.items():
        seeds = ", ".join(str(row.run.seed) for row in own)
        count = own[0].run.images
        plural = ("" if count == 1 else "s", "" if len(own) == 1 else "s")
        notes.append(f"{count} image{plural[0]}, seed{plural[1]} {seeds} {why}")
    return tuple(notes)


def _entry(
    cell: PlannedCell, group: str, rows: Sequence[Row], printed: PaperRow | None, notes: tuple[str, ...]
) -> Entry:
    results = [dict(row.result or {}) for row in rows]
    series: dict[str, list[float]] = {
        "before": [100 * one["correct_before"] / one["total"] for one in results],
        "after": [100 * one["correct_after"] / one["total"] for one in results],
        "change": [one["change"] for one in results],
        "seconds": [one["seconds"] for one in results],
    }
    if all(one["correct_before_top5"] is not None for one in results):
        before, after = (
            [100 * one[f"correct_{when}_top5"] / one["total"] for one in results]
            for when in ("before", "after")
        )
        series["before_top5"], series["after_top5"] = before, after
        series["change_top5"] = [
            100 * (one["correct_after_top5"] - one["correct_before_top5"]) / one["total"] for one in results
        ]
    if all(one["output_error"] is not None for one in results):
        series["output_error"] = [one["output_error"] for one in results]
    names = ("steps", "epochs", "image_passes", "skipped", "mean_levels", "total", "train_total")
    facts: dict[str, Any] = {name: results[0].get(name) for name in names}
    mean_correct = statistics.fmean(one["correct_after"] for one in results)
    facts["interval"] = wilson(mean_correct, results[0]["total"])
    return Entry(
        cell=cell,
        n=len(rows),
        group=group,
        values={name: mean_of(values) for name, values in series.items()},
        labels_used=any(one["labels_used"] for one in results),
        facts=facts,
        paper=printed,
        notes=notes,
        runs=tuple(rows),
    )
