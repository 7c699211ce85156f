"""``refldnq evaluate``: the accuracy of a model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from refldnq.cli.options import data_option, json_option, model_argument
from refldnq.cli.output import say, write_json


@click.command()
@model_argument
@data_option()
@click.option(
    "--split",
    type=click.Choice(["test", "train", "all"]),
    default="test",
    show_default=True,
    help="Which images; all is both splits.",
)
@click.option("--limit", type=int, metavar="N", help="Only the first N images.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Arithmetic.  [default: the file's]")
@json_option
def evaluate(
    model_file: Path, data: str, split: str, limit: int | None, dtype: str | None, json_file: Path | None
) -> None:
    """Classify labelled images with MODEL.h5."""
    from refldnq.data import has_split, load_dataset
    from refldnq.experiments.report import evaluation_json
    from refldnq.experiments.run import evaluate_model
    from refldnq.formats.h5 import load_model

    model = load_model(model_file)
    if dtype is not None:
        model = replace(model, network=model.network.astype(dtype), quantized={})
    if split == "all":
        if limit is not None:
            raise ValueError(f"--limit must go with --split train or test, got --split all and {limit}.")
        parts = [name for name in ("train", "test") if has_split(data, name)]
    else:
        parts = [split]
    scores = [evaluate_model(model, load_dataset(data, part), limit) for part in parts]
    score = sum(scores[1:], start=scores[0])
    write_json(json_file, evaluation_json(score))
    low, high = score.interval
    counts = f"({score.correct} of {score.total}; 95 % interval {low:.2f} to {high:.2f})"
    say(f"accuracy: {score.accuracy:.2f} %  {counts}", json_file)
    if score.top5 is not None and score.interval_top5 is not None:
        low, high = score.interval_top5
        counts = f"({score.correct_top5} of {score.total}; 95 % interval {low:.2f} to {high:.2f})"
        say(f"top-5:    {score.top5:.2f} %  {counts}", json_file)
