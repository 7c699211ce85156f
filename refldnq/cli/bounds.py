"""``refldnq bounds``: Theorem 1 on a pair of model files."""

from __future__ import annotations

from pathlib import Path

import click

from refldnq.cli.options import data_option, in_a_folder, json_option, model_argument
from refldnq.cli.output import say, say_table, write_json


@click.command()
@model_argument
@click.argument(
    "quantized_file", metavar="QUANTIZED.h5", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@data_option()
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    help="Which images.  [default: test, or train where there is no other]",
)
@click.option("--images", default=64, show_default=True, help="How many, drawn at random.")
@click.option("--seed", default=0, show_default=True, help="Draws the images.")
@click.option("--batch-size", default=16, show_default=True, help="Images at a time; bounds memory.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    callback=in_a_folder,
    help="Draw the ladder.",
)
@json_option
def bounds(
    model_file: Path,
    quantized_file: Path,
    data: str,
    split: str | None,
    images: int,
    seed: int,
    batch_size: int,
    plot_file: Path | None,
    json_file: Path | None,
) -> None:
    """Bound the final output error of QUANTIZED.h5 against MODEL.h5, layer by layer.

    The networks must be the same graph; no labels are used. Exit code 1 if a bound that is a theorem fails.
    """
    import numpy as np

    from refldnq.bounds.ladder import bound_ladder
    from refldnq.bounds.report import (
        LAYER_COLUMNS,
        RUNG_COLUMNS,
        layer_rows,
        rung_rows,
        summary,
    )
    from refldnq.bounds.update_aware import update_aware
    from refldnq.data import load_dataset
    from refldnq.data.load import has_split
    from refldnq.experiments.record import plain
    from refldnq.experiments.run import required_preprocess
    from refldnq.formats.h5 import load_model

    model, quantized = load_model(model_file), load_model(quantized_file)
    preprocess = required_preprocess(model)
    if quantized.preprocess != preprocess:
        raise ValueError(f"{quantized_file} must have the preprocessing of {model_file}; it differs.")
    split = split or ("test" if has_split(data, "test") else "train")
    dataset = load_dataset(data, split)
    chosen = dataset.sample(images, np.random.default_rng(seed))
    x = preprocess(dataset.pixels(chosen, preprocess.resize), np.float64)
    ladder = bound_ladder(model.network, quantized.network, x, batch_size=batch_size)
    update = update_aware(quantized.network, quantized.provenance)
    sound = ladder.sound and update.sound
    if plot_file is not None:
        from refldnq.bounds.plot import plot_ladder

        plot_ladder(ladder, plot_file, f"{quantized_file.name} against {model_file.name}")
    record = {
        "data": {"name": dataset.name, "split": split, "indices": chosen},
        "seed": seed,
        **plain(ladder),
        "best": ladder.best.key,
        "sound": sound,
        "update_aware": {**plain(update), "tightness": update.tightness},
    }
    write_json(json_file, plain(record))
    say_table(LAYER_COLUMNS, layer_rows(ladder.layers), json_file)
    say("", json_file)
    say_table(RUNG_COLUMNS, rung_rows(ladder.rungs), json_file)
    say("", json_file)
    say(summary(ladder, update), json_file)
    if not sound:
        raise SystemExit(1)
