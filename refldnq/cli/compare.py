"""``refldnq compare``: one network under several solvers and profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from refldnq.cli.options import data_option, dtype_option, json_option, model_argument
from refldnq.cli.output import progress, say, say_table, write_json


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    words = [word for word in text.split(",") if word]
    if not all(word.isdigit() for word in words):
        raise click.BadParameter(f"must be numbers with commas between them, got {text!r}.")
    return tuple(int(word) for word in words)


@click.command()
@model_argument
@data_option()
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="FOLDER",
    help="For the quantized networks, the figures and the page; runs that it holds are not repeated.",
)
@click.option(
    "--methods",
    default="paper,admm_plus,blocks,best",
    show_default=True,
    help="Solvers, in the paper's algorithm, and profiles.",
)
@click.option("--levels", default=3, show_default=True, help="Levels of every layer.")
@click.option("--images", default=500, show_default=True, help="Calibration images.")
@click.option(
    "--more-levels",
    default="",
    callback=_numbers,
    metavar="N,N,...",
    help="Other numbers of levels, for the figure of accuracy against levels.",
)
@click.option(
    "--more-images",
    default="",
    callback=_numbers,
    metavar="N,N,...",
    help="Other numbers of images, for the figure of accuracy against images.",
)
@click.option("--seed", default=0, show_default=True, help="Draws the images and orders and augments them.")
@click.option("--per-channel", is_flag=True, help="One scale for each output channel.")
@click.option("--update/--no-update", default=True, show_default=True, help="Update the weights (step 4).")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Of each update, in place of the methods' own; the most of those that end by themselves.",
)
@dtype_option
@json_option
def compare(
    model_file: Path,
    data: str,
    folder: Path,
    methods: str,
    levels: int,
    images: int,
    more_levels: tuple[int, ...],
    more_images: tuple[int, ...],
    seed: int,
    per_channel: bool,
    update: bool,
    epochs: int | None,
    dtype: Any,
    json_file: Path | None,
) -> None:
    """Quantize MODEL.h5 by several methods and write a page of tables and figures.

    All runs take the same images of the training split, or parts and more of them. The test split, if there
    is one, is classified at the ends and guides nothing.
    """
    from refldnq.codebook import powers_of_two
    from refldnq.data import load_dataset, load_test
    from refldnq.experiments.comparison import tables
    from refldnq.experiments.comparison.figures import all_figures
    from refldnq.experiments.comparison.methods import method_settings
    from refldnq.experiments.comparison.page import page_html
    from refldnq.experiments.comparison.problems import layer_problems
    from refldnq.experiments.comparison.runs import cells, run_cell
    from refldnq.experiments.drawing import draw
    from refldnq.experiments.record import plain
    from refldnq.experiments.run import QuantizeRequest, calibration_images
    from refldnq.formats.atomic import atomic_path
    from refldnq.formats.h5 import load_model
    from refldnq.solvers.base import SOLVERS

    names = tuple(dict.fromkeys(methods.split(",")))
    planned = cells(names, levels, images, more_levels=more_levels, more_images=more_images)
    requests = {
        cell: QuantizeRequest(
            settings=method_settings(
                cell.method, cell.levels, per_channel=per_channel, update=update, epochs=epochs
            ),
            images=cell.images,
            seed=seed,
            dtype=dtype,
            certificates=True,
        )
        for cell in planned
    }
    draw(lambda axes: None)  # without matplotlib it is refused here, not after the runs
    model, calibration, test = load_model(model_file), load_dataset(data, "train"), load_test(data)
    for cell in planned:  # before the first run, not after some
        requests[cell].settings.check(model.network, cell.images)
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for cell in planned:
        say(f"{cell.method}, {cell.levels} levels, {cell.images} images", Path("-"))
        with progress() as tell:
            runs.append(
                run_cell(cell, model, calibration, requests[cell], folder, test=test, on_progress=tell)
            )
    x = calibration_images(model, calibration, requests[planned[0]])
    problems = layer_problems(
        model.network.astype(dtype),
        x,
        powers_of_two(levels),
        [name for name in names if name in SOLVERS],
        per_channel=per_channel,
    )
    figures = all_figures(runs, problems, model, levels, images)
    for name, (_, png) in figures.items():
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(png)
    run_rows, problem_rows = tables.run_rows(runs), tables.problem_rows(problems)
    lines = [
        f"{model_file.name} on {calibration.name}, seed {seed}, {dtype}.",
        "Layer error (8): relative to zero weights, the layers' geometric mean. Methods that follow the "
        "original network, such as the profile best, do not minimize it; their output error, relative to the "
        "output's squared norm, shows what they gain.",
        "Certified gap: by how much the objective of a layer's own problem exceeds its optimum at most, by a "
        "lower bound; the median of the layers that have a certificate. The bound is weak: a wide gap need "
        "not mean a poor result, and for best, whose channels have Hessians of their own, weaker still: the "
        "best diagonal is not looked for there.",
        "Where a method moves codes after its last layer, as best does, layer errors and gaps are of the "
        "codes before that; the output error and the accuracy are of the final ones.",
    ]
    page = page_html(
        f"{model_file.stem}: methods compared",
        lines,
        [
            ("The runs.", tables.RUN_COLUMNS, run_rows),
            (tables.PROBLEM_NOTE, tables.PROBLEM_COLUMNS, problem_rows),
        ],
        figures,
    )
    with atomic_path(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    record = {
        "runs": [{**plain(run.cell), **run.record} for run in runs],
        "problems": [plain(problem) for problem in problems],
    }
    write_json(json_file, plain(record))
    say_table(tables.RUN_COLUMNS, run_rows, json_file)
    say("", json_file)
    say(tables.PROBLEM_NOTE, json_file)
    say_table(tables.PROBLEM_COLUMNS, problem_rows, json_file)
    say(f"Wrote {folder / 'index.html'}.", json_file)
