"""``refldnq quickstart``: the main job without any file."""

from __future__ import annotations

from pathlib import Path

import click

from refldnq.cli.options import json_option, output_option
from refldnq.cli.output import progress, say, write_json
from refldnq.cli.quantize import say_outcome

ARCH = "cnn-digits"


@click.command()
@click.option("--images", default=100, show_default=True, help="Unlabelled calibration images.")
@click.option("--levels", default=3, show_default=True, help="Levels of every layer: 3, 5, 7, ...")
@click.option("--seed", default=0, show_default=True, help="Draws the images and orders and augments them.")
@output_option(required=False, default="digits-cnn-3levels.h5, by the levels")
@json_option
def quickstart(images: int, levels: int, seed: int, output: Path | None, json_file: Path | None) -> None:
    """Quantize the shipped digits network to 3 levels from 100 unlabelled images, in under a minute.

    The images are real handwritten digits. The 500 test images are classified before and after, and once
    more by the network whose weights were rounded directly, without looking at data.
    """
    from refldnq import models
    from refldnq.data import load_dataset
    from refldnq.experiments.digits import digits_request
    from refldnq.experiments.report import outcome_json
    from refldnq.experiments.run import quantize_model
    from refldnq.formats.h5 import load_model, save_model

    request = digits_request(images=images, levels=levels, seed=seed)
    model = load_model(models.shipped(ARCH))
    with progress() as tell:
        outcome = quantize_model(
            model,
            load_dataset("digits", "train"),
            request,
            test=load_dataset("digits", "test"),
            on_progress=tell,
        )
    output = output or Path(f"digits-cnn-{levels}levels.h5")
    save_model(output, outcome.model)
    write_json(json_file, outcome_json(outcome))
    say(f"{ARCH}: all layers to {levels} levels, {images} unlabelled images, no labels used.", json_file)
    say_outcome(outcome, json_file)
    say(f"Wrote {output}; look into it with: refldnq inspect {output}", json_file)
