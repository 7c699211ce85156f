"""``refldnq inspect``: what a model file holds."""

from __future__ import annotations

from pathlib import Path

import click

from refldnq.cli.options import json_option, model_argument
from refldnq.cli.output import say, write_json


@click.command()
@model_argument
@json_option
def inspect(model_file: Path, json_file: Path | None) -> None:
    """Show what MODEL.h5 holds: layers, codes, preprocessing, how it was made."""
    from refldnq.experiments.summary import model_json, model_text
    from refldnq.formats.h5 import load_model

    model = load_model(model_file)
    write_json(json_file, model_json(model))
    say(model_text(model), json_file)
