"""The study behind the quickstart's update settings. It sees the digits' training split only.

    python benchmarks/study_digits.py

The shipped network is quantized from 100 images of the training split and scored on the other 1,197, which it
was trained on: the variants are compared, the accuracies are not those of new images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import numpy as np
from store import markdown_table

from refldnq import models
from refldnq.data import load_dataset
from refldnq.experiments.digits import digits_request, digits_update
from refldnq.experiments.run import quantize_model, required_preprocess
from refldnq.formats.h5 import load_model

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"pool": 16},
    {"pool": 1, "copies": 1},
    {"learning_rate": 1e-3},
    {"statistics": "running"},
    {"crop": 0},
)
"""Changes of the quickstart's settings."""

SEEDS = (0, 1, 2, 3)


def score(change: dict[str, Any], seed: int) -> tuple[float, float]:
    """Accuracy on the other training images, percent, and relative output error there."""
    model, data = load_model(models.shipped("cnn-digits")), load_dataset("digits", "train")
    request = digits_request(seed=seed)
    settings = replace(request.settings, update=replace(digits_update(), **change))
    outcome = quantize_model(model, data, replace(request, settings=settings, direct=False))
    others = np.setdiff1d(np.arange(len(data)), outcome.indices)
    x = required_preprocess(model)(data.images[others], outcome.model.network.dtype)
    teacher, student = model.network.astype(x.dtype).forward(x), outcome.model.network.forward(x)
    assert data.labels is not None
    accuracy = 100 * float(np.mean(student.argmax(axis=1) == data.labels[others]))
    error = float(np.sum((student - teacher) ** 2.0) / np.sum(teacher**2.0))
    return accuracy, error


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Print the table of all variants."""
    rows = []
    for change in VARIANTS:
        scores = np.array([score(change, seed) for seed in SEEDS])
        name = ", ".join(f"{key} = {value}" for key, value in change.items()) or "the settings"
        rows.append([name, f"{scores[:, 0].mean():.2f}", f"{scores[:, 1].mean():.4f}"])
    click.echo(markdown_table(["change", "accuracy, %", "relative output error"], rows))


if __name__ == "__main__":
    main()
