"""``refldnq verify``: every claim of the paper, established anew."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refldnq.cli.options import in_a_folder, json_option
from refldnq.cli.output import progress, say, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refldnq.verify.claims.base import Claim
    from refldnq.verify.reporting.results import Result

JOBS = 2
"""Processes where there are as many cores."""


@click.command()
@click.option("--only", metavar="ID[,ID]", help="Only these claims, such as eq22.  [default: all]")
@json_option
@click.option(
    "--html",
    "html_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=in_a_folder,
    help="Write the results, with formulas, proofs and figures, as a page.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help=f"Processes.  [default: {JOBS}, or the number of cores if fewer]",
)
def verify(only: str | None, json_file: Path | None, html_file: Path | None, jobs: int | None) -> None:
    """Check every claim of the paper: as printed, as corrected, by programs.

    Exits with 0 only if every verdict was established in this run. Without python-flint the certified part
    is missing, and the exit code says so. Claims about times change nothing.
    """
    from refldnq._kernels.threads import thread_count
    from refldnq.experiments.run import Event
    from refldnq.verify import claims as registry
    from refldnq.verify.reporting.record import results_json
    from refldnq.verify.reporting.results import examine_all
    from refldnq.verify.reporting.text import all_established, summary

    if only is None:
        chosen = registry.claims()
    else:
        try:
            names = {registry.find(name.strip()).id for name in only.split(",")}
        except ValueError as unknown:
            raise click.UsageError(str(unknown)) from unknown
        chosen = tuple(claim for claim in registry.claims() if claim.id in names)
    if html_file is not None:
        from refldnq.verify.reporting.page import check_packages, results_html

        check_packages()
    began = time.perf_counter()
    done = 0
    with progress() as tell:

        def count(result: Result) -> None:
            nonlocal done
            done += 1
            tell(Event(f"{result.id}: {'established' if result.established else 'NOT'}", done / len(chosen)))

        results = examine_all(chosen, jobs=jobs or min(JOBS, thread_count()), on_done=count)
    seconds = time.perf_counter() - began
    write_json(json_file, results_json(chosen, results, seconds))
    if html_file is not None:
        from refldnq.formats.atomic import atomic_path

        with atomic_path(html_file) as temporary:
            temporary.write_text(results_html(chosen, results, seconds), encoding="utf-8")
    _say_results(chosen, results, json_file)
    for line in summary(chosen, results, seconds):
        say(line, json_file)
    if html_file is not None:
        say(f"Wrote {html_file}.", json_file)
    if not all_established(chosen, results):
        click.get_current_context().exit(1)


def _say_results(chosen: Sequence[Claim], results: Sequence[Result], json_file: Path | None) -> None:
    from rich.console import Console

    from refldnq.verify.reporting.text import results_table, results_text

    console = Console(stderr=json_file == Path("-"))
    if console.is_terminal:
        console.print(results_table(chosen, results))
    else:
        say(results_text(chosen, results), json_file)
