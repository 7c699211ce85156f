"""``refldnq reproduce``: a table or a figure of the paper, run again and shown beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refldnq.cli.options import in_a_folder, json_option
from refldnq.cli.output import progress, say, say_table, write_json

if TYPE_CHECKING:
    from refldnq.experiments.reproduce.exhibit import Plan
    from refldnq.experiments.reproduce.jobs import Workers
    from refldnq.experiments.reproduce.store import Store

EXHIBITS = ("table1", "table2", "table3", "table4", "fig2a", "fig2b", "fig2c")

EVERY = 5.0
"""Seconds between two lines on the progress within a run; on a terminal there is a bar instead."""

Command = Callable[..., Any]


def _words(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in (text or "").split(",") if word))


def _file(name: str, words: str) -> Callable[[Command], Command]:
    return click.option(
        name,
        f"{name.removeprefix('--')}_file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        callback=in_a_folder,
        help=words,
    )


@click.command()
@click.argument("exhibit", type=click.Choice(EXHIBITS), metavar="|".join(EXHIBITS))
@click.option("--networks", callback=_words, metavar="NAME,...", help="In place of the paper's.")
@click.option(
    "--methods",
    callback=_words,
    metavar="NAME,...",
    help="In place of the paper's; NAME+retrain trains with labels afterwards; all: every one.",
)
@click.option(
    "--seeds",
    help="Such as 0-4 or 0,2; the paper's numbers are of 5 runs.  [default: 0-2; all with --show-only]",
)
@click.option("--images", help="Calibration images, such as 500,1%; the paper's if not given.")
@click.option("--levels", help="Such as 3,5, in place of every method's own.")
@click.option("--keep-ends", is_flag=True, help="The first and the last layer remain in full precision.")
@click.option(
    "--schedule",
    type=click.Choice(["scaled", "capped", "published"]),
    default="scaled",
    show_default=True,
    help="Training: for few images; with no more image passes for more of them; or as its authors have it.",
)
@click.option(
    "--data",
    metavar="DIR",
    help="CIFAR-10 or another data set; the digits' networks have theirs with them.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Trained networks: NAME.h5, or published checkpoints.  [default: the folder weights in --data]",
)
@click.option(
    "--store",
    "store_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="refldnq-runs.sqlite",
    show_default=True,
    metavar="FILE",
    callback=in_a_folder,
    help="Where runs are kept, one row each; none is done twice.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes on this machine."
)
@click.option("--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster that does the runs instead.")
@click.option("--retry-failed", is_flag=True, help="Try runs again that have failed.")
@click.option("--show-only", is_flag=True, help="Run nothing; show what the store has.")
@_file("--csv", "Write the table as CSV, with all digits.")
@_file(
    "--markdown", "Write the table as a section of this file, in place of an older one of the same command."
)
@_file("--figure", "Write a PNG with error bars.")
@json_option
def reproduce(
    exhibit: str,
    networks: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: str | None,
    images: str | None,
    levels: str | None,
    keep_ends: bool,
    schedule: str,
    data: str | None,
    weights: str | None,
    store_file: Path,
    jobs: int,
    dask: str | None,
    retry_failed: bool,
    show_only: bool,
    csv_file: Path | None,
    markdown_file: Path | None,
    figure_file: Path | None,
    json_file: Path | None,
) -> None:
    """Run a table or a figure of the paper again and show it beside the paper's numbers.

    Runs go into a store and are never done twice, whichever exhibit asks for them; interrupted, the same
    command goes on. Rows whose data, weights or method are not there say so and are skipped. Exits with 1 if
    a run that was asked for has failed or is not finished, or none of a network named here was possible.
    """
    from refldnq.experiments.drawing import draw
    from refldnq.experiments.reproduce import tables
    from refldnq.experiments.reproduce.amounts import amounts, numbers
    from refldnq.experiments.reproduce.exhibit import Plan, entries_of, plan_of
    from refldnq.experiments.reproduce.figures import picture_of
    from refldnq.experiments.reproduce.jobs import Workers
    from refldnq.experiments.reproduce.methods import known_methods, why_not
    from refldnq.experiments.reproduce.plan import cells_of
    from refldnq.experiments.reproduce.store import Store
    from refldnq.experiments.sections import write_section

    unknown = [name for name in methods if name != "all" and why_not(name) is not None]
    if unknown:
        raise click.ClickException(
            f"`methods`: {why_not(unknown[0])}; known are {', '.join(known_methods())}."
        )
    if figure_file is not None:
        draw(lambda axes: None)  # without matplotlib it is refused here, not after the runs
    typed = methods
    if "all" in methods:
        usual = [cell.method for cell in cells_of(exhibit, networks=networks)]
        methods = tuple(dict.fromkeys((*usual, *known_methods())))
    cells = cells_of(
        exhibit,
        networks=networks,
        methods=methods,
        levels=numbers(levels, "levels") if levels else (),
        images=amounts(images) if images else (),
        keep_ends=keep_ends,
    )
    asked = None if seeds is None else numbers(seeds)
    chosen, store = asked or numbers("0-2"), Store(store_file)
    if show_only:
        plan = Plan(cells=cells, tasks=(), skipped={}, totals={})
    else:
        # Other processes look at the same places from wherever they are.
        place = data if data in (None, "digits") else str(Path(data).resolve())
        folder = Path(weights) if weights else _weights_beside(data)
        plan = plan_of(
            cells,
            chosen,
            _sources(place, folder),
            schedule=schedule,
            beside=store_file.resolve(),
        )
        _execute(plan, store, Workers(jobs=jobs, dask=dask), retry_failed)
    found = entries_of(
        exhibit,
        plan,
        store,
        seeds=asked if show_only else chosen,
        schedule=schedule,
        planned_only=not show_only,
    )
    headings, rows = tables.table_of(exhibit, found, plan.totals)
    say(tables.TITLES[exhibit], json_file)
    if rows:
        say_table(headings, rows, json_file)
    for line in (tables.LEGENDS[tables.kind_of(exhibit)], *tables.lines_of(exhibit, found)):
        say(line, json_file)
    write_json(json_file, tables.json_of(exhibit, found))
    if csv_file is not None:
        _write(csv_file, tables.csv_of(exhibit, found).encode(), json_file)
    if figure_file is not None:
        _write(figure_file, picture_of(exhibit, found, plan.totals), json_file)
    if markdown_file is not None:
        asked_for = {"methods": ",".join(typed), "levels": levels, "images": images}
        asked_for |= {"schedule": schedule if schedule != "scaled" else None}
        chosen_words = [f"{name}={words}" for name, words in asked_for.items() if words]
        chosen_words += ["keep-ends"] if keep_ends else []
        section = " ".join(["reproduce", exhibit, *networks, *chosen_words])
        write_section(markdown_file, section, tables.markdown_of(exhibit, found, plan.totals))
        say(f"Wrote {markdown_file}.", json_file)
    without = [name for name in networks if not any(task.run.network == name for task in plan.tasks)]
    without = [] if show_only else without
    if without:
        say(f"No run was possible of {', '.join(without)}, which was asked for by name.", json_file)
    settled = {row.id: row.state for row in store.rows()} if plan.tasks else {}
    failed = sum(settled.get(task.id) != "done" for task in plan.tasks)
    if failed:
        say(f"{failed} of {len(plan.tasks)} runs have failed or are not finished.", json_file)
    if failed or without:
        click.get_current_context().exit(1)


def _execute(plan: Plan, store: Store, workers: Workers, retry_failed: bool) -> None:
    from refldnq.experiments.reproduce.jobs import Task, TaskOutcome, execute
    from refldnq.experiments.reproduce.plan import PlannedRun
    from refldnq.experiments.run import Event

    over = {"done"} if retry_failed else {"done", "failed"}
    settled = {row.id for row in store.rows() if row.state in over}
    left = {task.id: task for task in plan.tasks if task.id not in settled}
    if not left:
        return
    work = {task.run: task.work for task in left.values()}
    whole, ended, told = sum(work.values()), 0.0, -EVERY
    brought: Event | None = None
    if len(left) < len(plan.tasks):
        click.echo(f"{len(left)} of {len(plan.tasks)} runs are left; the store has the others.", err=True)
    with progress() as tell:

        def on_outcome(task: Task, outcome: TaskOutcome, kept: bool) -> None:
            nonlocal ended
            ended += task.work
            what = f"failed: {outcome.reason}"
            if outcome.result is not None:
                what = f"{outcome.result['change']:+.2f} points in {outcome.result['seconds']:.0f} s"
            aside = "" if kept else "; another process has it already"
            tell(Event(f"{task.run.words}: {what}{aside}", min(1.0, ended / whole)))

        def within(run: PlannedRun, event: Event) -> None:
            nonlocal told, brought
            done = (ended + min(event.fraction, 0.99) * work[run]) / whole
            event = Event(f"{run.words}: {event.message}", done, restored=event.restored)
            if event.restored:  # the last of them is told: a log needs no line for each
                brought = event
                return
            if brought is not None:
                tell(brought)
                brought = None
            now = time.monotonic()
            if not sys.stderr.isatty() and now - told < EVERY:  # nor a line an epoch
                return
            told = now
            tell(event)

        execute(
            list(left.values()), store, workers, retry_failed=retry_failed, on_outcome=on_outcome, tell=within
        )


def _sources(data: str | None, weights: Path | None) -> Any:
    from refldnq import models
    from refldnq.experiments.reproduce.sources import Sources, Zoo

    zoo = Zoo(models.NAMES, models.SHIPPED, models.build, models.preprocess, models.shipped)
    return Sources(zoo, data, None if weights is None else str(weights.resolve()))


def _weights_beside(data: str | None) -> Path | None:
    folder = Path(data) / "weights" if data else None
    return folder if folder is not None and folder.is_dir() else None


def _write(file: Path, content: bytes, json_file: Path | None) -> None:
    from refldnq.formats.atomic import atomic_path

    with atomic_path(file) as temporary:
        temporary.write_bytes(content)
    say(f"Wrote {file}.", json_file)
