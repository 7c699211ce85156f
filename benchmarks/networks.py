"""Every network of the paper through Algorithm 1 in full size: time and peak memory.

    python benchmarks/networks.py --data DIR [--networks resnet18,lenet5] [--images 32] [--epochs 1]

DIR holds ``mnist/``, ``cifar-10-batches-bin/``, ``imagenet-sample/`` and ``weights/``; each network gets the
images that it is made for. Weights are made here, He-normal with batch normalization's statistics from the
calibration images, so accuracy means nothing; SqueezeNet 1.1 with ``--trained`` has its real weights, is
calibrated on one half of the ImageNet sample and scored on the other.

Every run is a process of its own, whose largest resident memory the system tells. A killed run goes on from
its last layer; a finished one is never run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import click
import machine
import numpy as np
from options import stored
from store import Key, Store, markdown_table, settings_hash

from refldnq import __version__, models
from refldnq.codebook import powers_of_two
from refldnq.data import Dataset, load_dataset, load_test, preprocess_from
from refldnq.experiments.report import evaluation_json
from refldnq.experiments.run import QuantizeRequest, at_a_time, quantize_model
from refldnq.formats.h5 import load_model, save_model
from refldnq.layers.base import LinearMap
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.network import Network
from refldnq.reestimate import reestimate_statistics
from refldnq.solvers.admm_settings import AdmmSettings
from refldnq.update import UpdateSettings

NETWORKS = (
    "lenet5",
    "resnet20",
    "resnet20-b",
    "resnet32",
    "resnet56",
    "vgg-distilquant",
    "cifarnet",
    "wrn28-10",
    "wrn28-20",
    "squeezenet1.1",
    "resnet18",
    "resnet34",
    "resnet50",
    "alexnet-bn",
)
"""The paper's networks and three more, small ones first."""

FOLDERS = {(1, 28, 28): "mnist", (3, 32, 32): "cifar-10-batches-bin", (3, 224, 224): "imagenet-sample"}
"""Images by the network's input."""

TRAINED = {"squeezenet1.1": ("squeezenet1.1.onnx", "imagenet-bgr255")}
"""Real weights and their preprocessing."""


def largest(network: Network) -> int:
    """The largest number of rows of a layer's weight: H has its square of float64 numbers."""
    layers = [network[name] for name in network.weighted]
    return max(
        node.layer.pack(network.params[node.name]).shape[1]
        for node in layers
        if isinstance(node.layer, LinearMap)
    )


def settings_of(network: Network, *, levels: int, epochs: int, iterations: int) -> LdnqSettings:
    """The paper's profile; with an update of few epochs without augmentation, in batches that fit memory."""
    few = at_a_time(network, most=100)
    update = UpdateSettings(epochs=epochs, batch_size=max(2, few // 4), copies=1, pool=1) if epochs else None
    return LdnqSettings(
        codebook=powers_of_two(levels),
        solver_settings=AdmmSettings.profile("paper", iterations=iterations),
        update=update,
        batch_size=few,
    )


def prepared(name: str, data: Path, images: int, trained: bool) -> tuple[Model, Dataset]:
    """A model and the data set that it is calibrated on."""
    network = models.build(name, np.random.default_rng(0), dtype=np.float32)
    dataset = load_dataset(data / FOLDERS[network.input_shape], "train")  # type: ignore[index]
    if trained:
        from refldnq.formats.onnx import assign_onnx, load_onnx

        file, preset = TRAINED[name]
        network = assign_onnx(network, load_onnx(data / "weights" / file))
        return Model(network=network, preprocess=preprocess_from(preset)), dataset
    how = models.preprocess(name)
    model = Model(network=network, preprocess=how)
    if network.groups["statistics"]:
        places = dataset.sample(images, np.random.default_rng(1))
        x = how(dataset.pixels(places, how.resize), np.float32)
        model = replace(model, network=reestimate_statistics(network, x, at_a_time(network, most=100)))
    return model, dataset


def same_bits(one: Model, two: Model) -> bool:
    """Whether two models have the same arrays and codes bit for bit."""
    arrays = (one.network.params, two.network.params)
    same = all(
        arrays[0][name][key].tobytes() == arrays[1][name][key].tobytes()
        for name, own in arrays[0].items()
        for key in own
    )
    codes = (one.quantized, two.quantized)
    return (
        same
        and set(codes[0]) == set(codes[1])
        and all(
            getattr(codes[0][name], key).tobytes() == getattr(codes[1][name], key).tobytes()
            for name in codes[0]
            for key in ("codes", "alpha", "values")
        )
    )


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """One run in this process; the result as JSON values."""
    data, trained = Path(task["data"]), bool(task["trained"])
    began = time.perf_counter()
    model, dataset = prepared(task["network"], data, task["images"], trained)
    network = model.network
    settings = settings_of(
        network, levels=task["levels"], epochs=task["epochs"], iterations=task["iterations"]
    )
    asked = QuantizeRequest(settings=settings, images=task["images"], seed=task["seed"])

    def tell(event: Any) -> None:
        elapsed = time.perf_counter() - began
        click.echo(f"[{100 * event.fraction:3.0f} %, {elapsed:.0f} s] {event.message}", err=True)

    test = load_test(data / FOLDERS[network.input_shape]) if trained else None  # type: ignore[index]
    outcome = quantize_model(
        model,
        dataset,
        asked,
        test=test,
        on_progress=tell,
        checkpoint=Path(task["checkpoint"]),
        resume=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "quantized.h5"
        save_model(file, outcome.model)
        same, size = same_bits(outcome.model, load_model(file)), file.stat().st_size
    return {
        "parameters": sum(
            network.params[name][key].size
            for group in ("weights", "biases", "affine")
            for name, key in network.groups[group]
        ),
        "layers": len(outcome.reports),
        "input_shape": list(network.input_shape),
        "largest_d": largest(network),
        "hessian_mb": 8 * largest(network) ** 2 / 1e6,
        "seconds": outcome.seconds,
        "layer_seconds": {report.name: report.seconds for report in outcome.reports},
        "relative_output_error": outcome.reports[-1].relative_output_error,
        "before": evaluation_json(outcome.before) if outcome.before else None,
        "after": evaluation_json(outcome.after) if outcome.after else None,
        "same_bits": same,
        "file_mb": size / 1e6,
        "resumed_layers": outcome.resumed_layers,
        "settings": settings,
        "activations_mb": 4 * max(prod(shape) for shape in network.shapes.values()) * task["images"] / 1e6,
        "version": __version__,
        "machine": machine.describe(),
    }


@contextmanager
def _task_file(task: Mapping[str, Any]) -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "task.json", Path(folder) / "result.json"
        given.write_text(json.dumps(dict(task)), encoding="utf-8")
        yield given, found


def run(task: Mapping[str, Any]) -> dict[str, Any]:
    """One run in a process of its own; its largest resident memory is that of the whole process.

    Raises
    ------
    ChildProcessError
        If it fails, for want of memory, say.
    """
    from refldnq.experiments.record import plain

    with _task_file(task) as (given, found):
        words = [sys.executable, str(Path(__file__).resolve()), "--task", str(given), "--result", str(found)]
        process = subprocess.Popen(words)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise ChildProcessError(
                f"`{task['network']}` must come to its end, got exit code {process.returncode}."
            )
        result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    unit = 1 if sys.platform == "darwin" else 1024
    return {**plain(result), "peak_rss_mb": usage.ru_maxrss * unit / 1e6}


HEADINGS = (
    "network",
    "input",
    "parameters, million",
    "layers",
    "largest d",
    "H, MB",
    "images",
    "epochs",
    "levels",
    "ADMM iterations",
    "minutes",
    "peak memory, MB",
    "output error",
    "file as read",
)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown, and below it the accuracies of those with real weights."""

    def cells(row: dict[str, Any]) -> list[str]:
        key, result = row["key"], row["result"]
        return [
            key["network"] + (" (trained)" if key["trained"] else ""),
            "×".join(map(str, result["input_shape"])),
            f"{result['parameters'] / 1e6:.2f}",
            str(result["layers"]),
            str(result["largest_d"]),
            f"{result['hessian_mb']:.1f}",
            str(key["images"]),
            str(key["epochs"]),
            str(key["levels"]),
            str(key["iterations"]),
            f"{result['seconds'] / 60:.1f}",
            f"{result['peak_rss_mb']:.0f}",
            f"{result['relative_output_error']:.3g}",
            "the same bits" if result["same_bits"] else "OTHER BITS",
        ]

    order = {name: index for index, name in enumerate(NETWORKS)}
    rows = sorted(rows, key=lambda row: (order[row["key"]["network"]], *map(str, row["key"].values())))
    text = markdown_table(HEADINGS, [cells(row) for row in rows])
    scored = [accuracy(row) for row in rows if row["result"]["after"] is not None]
    if not scored:
        return text
    headings = ("network", "levels", "images", "epochs", "scored on", "top-1 before, %", "top-1 after, %")
    headings += ("top-5 before, %", "top-5 after, %")
    return f"{text}\n\n{markdown_table(headings, scored)}"


def accuracy(row: dict[str, Any]) -> list[str]:
    """The cells of a row with real weights: shares with their 95 % intervals."""
    key, result = row["key"], row["result"]

    def share(score: dict[str, Any], name: str, interval: str) -> str:
        low, high = score[interval]
        return f"{score[name]:.1f} ({low:.1f} to {high:.1f})"

    names = (("accuracy", "interval"), ("top5", "interval_top5"))
    shares = [share(result[when], *pair) for pair in names for when in ("before", "after")]
    counts = [str(key[name]) for name in ("levels", "images", "epochs")]
    return [key["network"], *counts, f"{result['after']['total']} other images", *shares]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("networks", markdown, needs_data=False)
@click.option("--networks", default=",".join(NETWORKS), metavar="NAMES", help="Which.  [default: all]")
@click.option("--images", default=32, show_default=True, help="Calibration images.")
@click.option("--epochs", default=0, show_default=True, help="Of the update after each layer; 0 is none.")
@click.option("--levels", default=3, show_default=True, help="Levels of every layer.")
@click.option("--iterations", default=100, show_default=True, help="ADMM's.")
@click.option("--seed", default=0, show_default=True, help="Draws the images.")
@click.option("--trained", is_flag=True, help=f"Real weights: {', '.join(TRAINED)}.")
@click.option("--task", type=click.Path(exists=True, dir_okay=False, path_type=Path), hidden=True)
@click.option("--result", "result_file", type=click.Path(dir_okay=False, path_type=Path), hidden=True)
def main(
    store: Store,
    data: Path | None,
    networks: str,
    images: int,
    epochs: int,
    levels: int,
    iterations: int,
    seed: int,
    trained: bool,
    task: Path | None,
    result_file: Path | None,
) -> None:
    """Quantize the paper's networks in full size and keep what it took."""
    if task is not None and result_file is not None:
        from refldnq.experiments.record import plain

        result = plain(measure(json.loads(task.read_text(encoding="utf-8"))))
        result_file.write_text(json.dumps(result), encoding="utf-8")
        return
    if data is None:
        raise ValueError("`--data` must be given, got nothing.")
    names = networks.split(",")
    known = tuple(TRAINED) if trained else NETWORKS
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"`--networks` must be among {', '.join(known)}, got {unknown[0]!r}.")
    for name in names:
        key: Key = {
            "network": name,
            "trained": int(trained),
            "images": images,
            "epochs": epochs,
            "levels": levels,
            "iterations": iterations,
            "seed": seed,
        }
        store.path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = store.path.with_name(f"{store.path.stem}-{settings_hash(key)}.checkpoint.h5")
        given = {**key, "data": str(data), "checkpoint": str(checkpoint)}
        row = store.run(key, partial(run, given))
        checkpoint.unlink(missing_ok=True)
        result = row["result"]
        click.echo(
            f"{name}: {result['seconds']:.0f} s, {result['peak_rss_mb']:.0f} MB, "
            f"output error {result['relative_output_error']:.3g}"
        )


if __name__ == "__main__":
    main()
