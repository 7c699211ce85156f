"""One exhibit from its cells to its tasks, with what is missing, and from the store to its entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from refldnq.experiments.reproduce.jobs import Task
from refldnq.experiments.reproduce.methods import schedule_of, settings_of, why_not, why_not_levels, work_of
from refldnq.experiments.reproduce.plan import PlannedCell, count_of, runs_of
from refldnq.experiments.reproduce.sources import MissingError, Prepared, Sources, prepare
from refldnq.experiments.reproduce.store import Store
from refldnq.experiments.reproduce.summary import Entry, entries


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What there is to do for an exhibit.

    Parameters
    ----------
    cells : tuple of PlannedCell
        All of it; with numbers of images where the data are there.
    tasks : tuple of Task
        Runs whose networks, data and methods are there.
    skipped : mapping of PlannedCell to str
        Why the others are not.
    totals : mapping of str to int
        Training images by network.
    """

    cells: tuple[PlannedCell, ...]
    tasks: tuple[Task, ...]
    skipped: Mapping[PlannedCell, str]
    totals: Mapping[str, int]


def plan_of(
    cells: Sequence[PlannedCell],
    seeds: Sequence[int],
    sources: Sources,
    *,
    schedule: str = "scaled",
    beside: Path | None = None,
) -> Plan:
    """Look for what the cells need.

    Parameters
    ----------
    cells : sequence of PlannedCell
        From `refldnq.experiments.reproduce.plan.cells_of`.
    seeds : sequence of int
        Of every cell.
    sources : Sources
        Where to look.
    schedule : {'scaled', 'capped', 'published'}, optional
        As in `refldnq.experiments.reproduce.plan.PlannedRun`.
    beside : Path, optional
        See `refldnq.experiments.reproduce.jobs.Task`.

    Returns
    -------
    Plan
    """
    found: dict[PlannedCell, None] = {}
    tasks: list[Task] = []
    skipped: dict[PlannedCell, str] = {}
    totals: dict[str, int] = {}
    absent: dict[str, str] = {}
    for cell in cells:
        try:
            if cell.network in absent:
                raise MissingError(absent[cell.network])
            prepared = _prepared(sources, cell.network, absent)
            totals[cell.network] = len(prepared.train)
            reason = why_not(cell.method) or why_not_levels(cell.method, cell.levels)
            if reason is not None:
                raise MissingError(reason)
            count = _count(cell, prepared)
        except MissingError as missing:
            skipped[cell] = str(missing)
            found[cell] = None
            continue
        exact = replace(cell, images=count)
        if exact in found:
            continue
        found[exact] = None
        for run in runs_of(exact, count, seeds, schedule_of(cell.method, schedule, count)):
            identity = {**prepared.fingerprints, **settings_of(run, prepared)}
            work = work_of(run, prepared)
            tasks.append(Task(run=run, identity=identity, sources=sources, beside=beside, work=work))
    return Plan(cells=tuple(found), tasks=tuple(tasks), skipped=skipped, totals=totals)


def _prepared(sources: Sources, network: str, absent: dict[str, str]) -> Prepared:
    # What is not there is looked for once.
    try:
        return prepare(sources, network)
    except MissingError as missing:
        absent[network] = str(missing)
        raise


def _count(cell: PlannedCell, prepared: Prepared) -> int:
    try:
        return count_of(prepared.usual_images if cell.images is None else cell.images, len(prepared.train))
    except ValueError as wrong:  # more images than there are
        raise MissingError(str(wrong)) from wrong


def entries_of(
    exhibit: str,
    plan: Plan,
    store: Store,
    *,
    seeds: Sequence[int] | None = None,
    schedule: str = "scaled",
    planned_only: bool = True,
) -> list[Entry]:
    """What the store has for an exhibit.

    Parameters
    ----------
    exhibit : str
        Of the paper.
    plan : Plan
        What is wanted.
    store : Store
        What is there.
    seeds, schedule : optional
        As in `refldnq.experiments.reproduce.summary.entries`.
    planned_only : bool, optional
        Whether only the plan's own runs count, with its settings, networks and data; otherwise all runs of
        its cells.

    Returns
    -------
    list of Entry
    """
    ids = {task.id for task in plan.tasks}
    rows = [row for row in store.rows() if not planned_only or row.id in ids]
    return entries(
        exhibit,
        plan.cells,
        rows,
        seeds=seeds,
        schedule=schedule,
        totals=plan.totals,
        skipped=plan.skipped,
    )
