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
    "--split", type=click.Choice(["test", "train"]), default="test", show_default=True, help="Which images."
)
@click.option("--limit", type=int, metavar="N", help="Only the first N images.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Arithmetic.  [default: the file's]")
@json_option
def evaluate(
    model_file: Path, data: str, split: str, limit: int | None, dtype: str | None, json_file: Path | None
) -> None:
    """Classify labelled images with MODEL.h5."""
    from refldnq.data import load_dataset
    from refldnq.experiments.report import evaluation_json
    from refldnq.experiments.run import evaluate_model
    from refldnq.formats.h5 import load_model

    model = load_model(model_file)
    if dtype is not None:
        model = replace(model, network=model.network.astype(dtype), quantized={})
    score = evaluate_model(model, load_dataset(data, split), limit)
    write_json(json_file, evaluation_json(score))
    say(f"accuracy: {score.accuracy:.2f} %  ({score.correct} of {score.total})", json_file)
    if score.top5 is not None:
        say(f"top-5:    {score.top5:.2f} %", json_file)
