"""The study behind the settings of Algorithm 1. It sees training images only.

    python benchmarks/study.py --data DIR                              all variants
    python benchmarks/study.py --data DIR --variant epochs=8,copies=8  one more
    python benchmarks/study.py --markdown FILE

A published network is quantized from 500 training images and scored on 5,000 *other* training images. The
published networks were trained on all of them, so the accuracies here are higher than on test images; what is
compared is the variants. The test images are not opened: the process refuses to.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import ArrayLike
from options import stored
from published import (
    WEIGHTS,
    changes_from_defaults,
    flat,
    ldnq_settings,
    published_model,
    solver_changes,
)
from store import Key, Store, markdown_table, settings_hash

from refldnq import __version__
from refldnq._kernels.threads import thread_count
from refldnq._typing import Int64Array
from refldnq.data import Dataset, load_dataset
from refldnq.experiments.profiles import profile_settings
from refldnq.experiments.reproduce.amounts import numbers
from refldnq.experiments.run import (
    QuantizeRequest,
    calibration_images,
    calibration_indices,
    required_preprocess,
)
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.progress import Progress

BASE = "epochs=8,copies=8,pool=64"
"""A short update, so that many variants can be compared."""

DRIFT = f"{BASE},solver=anneal,target=drift"

BLOCK = f"{BASE},solver=anneal,target=block,absorb=true,weights=false"
"""Beyond the paper: the layers follow the original network."""

BEST = changes_from_defaults(profile_settings("best"))
"""The profile; what follows it in a variant changes it."""

STILL = changes_from_defaults(replace(profile_settings("best"), code_epochs=0))
"""The profile without the part in which codes move."""

VARIANTS = (
    BASE,
    "epochs=8,copies=8,pool=8",
    "epochs=8,copies=1,pool=1",
    f"{BASE},statistics=running",
    f"{BASE},batch_size=25",
    f"{BASE},batch_size=100",
    f"{BASE},learning_rate=0.0005",
    f"{BASE},learning_rate=0.003",
    f"{BASE},optimizer=sgd,learning_rate=0.0001",
    f"{BASE},loss=distillation",
    f"{BASE},weights=false",
    f"{BASE},flip=false",
    f"{BASE},mix=0.25",
    f"{BASE},mix=0.5",
    f"{BASE},solver=admm_plus",
    f"{BASE},solver=anneal",
    f"{BASE},target=drift",
    DRIFT,
    f"{DRIFT},ridge=0.1",
    f"{DRIFT},intermediate=1",
    f"{DRIFT},channel_weights=batchnorm",
    f"{DRIFT},weights=false",
    f"{DRIFT},weights=false,final_epochs=32",
    f"{DRIFT},weights=false,absorb=true",
    BLOCK,
    f"{BLOCK},cascades=2",
    f"{BLOCK},final_epochs=32",
    f"{BLOCK},final_epochs=32,mix=0.5",
    f"{BLOCK},final_epochs=32,intermediate=1",
    f"{BLOCK},final_epochs=32,ridge=0.001",
    f"{BLOCK},final_epochs=32,ridge=0.1",
    "epochs=16,copies=16,pool=96",
    "epochs=16,copies=16,pool=96,final_epochs=96",
    "epochs=16,copies=16,pool=96,final_epochs=96,final_scales=false",
    "epochs=32,copies=32,pool=192",
    STILL,
    f"{STILL},closed_weight=1",
    f"{STILL},hessian_versions=1",
    f"{STILL},hessian_versions=8,final_epochs=192",
    f"{STILL},epochs=8,copies=8",
    f"{STILL},final_epochs=32",
    f"{STILL},mix=0.5",
    BEST,
    BEST.replace("solver=anneal", "solver=blocks"),
    f"{BEST},code_epochs=48",
    f"{BEST},code_rate=0.005",
    f"{BEST},code_rate=0.03",
    f"{BEST},code_mix=0",
    f"{BEST},code_intermediate=0",
    f"{BEST},code_intermediate=0.015",
    f"{BEST},code_intermediate=0.15",
)
"""What is compared; every variant is a change of the defaults."""

IMAGES, HELD_OUT = 500, 5000


def held_out(size: int, chosen: ArrayLike, seed: int, count: int = HELD_OUT) -> Int64Array:
    """Indices of `count` images, ascending, none of them among the `chosen`.

    Raises
    ------
    ValueError
        If too few are left.

    Examples
    --------
    >>> held_out(5, (0, 3), seed=0, count=3)
    array([1, 2, 4])
    """
    rest = np.setdiff1d(np.arange(size), chosen)
    if rest.size < count:
        raise ValueError(f"`count` must be at most {rest.size}, the images that are left, got {count}.")
    return np.sort(np.random.default_rng([seed, 1]).choice(rest, count, replace=False))


def refuse_test_images(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook under which no file of test images can be opened.

    Raises
    ------
    PermissionError
        If one is about to be.
    """
    if event == "open" and Path(str(arguments[0])).name.startswith("test_batch"):
        raise PermissionError(f"`{arguments[0]}` must not be opened: the study sees training images only.")


CODES = ("code_rate", "code_mix", "code_intermediate")
"""Settings without effect where codes do not move."""

LAST = ("final_epochs", "final_scales", "code_epochs", *CODES)
"""Settings without effect before the last updates."""


def quantized(
    model: Model, data: Dataset, settings: LdnqSettings, seed: int, starts: dict[str, Progress]
) -> tuple[Progress, Int64Array]:
    """What `refldnq.experiments.run.quantize_model` gives, and the places of its images.

    A run whose settings differ from an earlier one's by those in `LAST` alone goes on from that one's state
    before the last updates, if it had some, to the same bits as from the beginning.

    Parameters
    ----------
    starts : dict
        These states, all of one model; a new one is added.
    """
    asked = QuantizeRequest(settings=settings, images=IMAGES, seed=seed)
    _, running = np.random.default_rng(seed).spawn(2)  # the streams of `quantize_model`
    before = replace(settings, **{name: getattr(LdnqSettings(), name) for name in LAST})
    key = settings_hash([before, seed, data.fingerprint()])

    def keep(progress: Progress) -> None:
        if progress.pending:
            starts[key] = progress

    images = calibration_images(model, data, asked)
    network = model.network.astype(images.dtype)
    resume = starts.get(key) if settings.ends_later else None
    final = ldnq(network, images, settings, running, on_layer=keep, resume=resume)
    return final, calibration_indices(data, asked)


def score(
    model: Model, data: Dataset, settings: LdnqSettings, seed: int, starts: dict[str, Progress]
) -> dict[str, Any]:
    """Quantize with these settings and score on held-out training images.

    Parameters
    ----------
    starts : dict
        For `quantized`.

    Returns
    -------
    dict
        ``accuracy``, ``teacher`` (the original network's) and ``agreement`` of the two, percent;
        ``output_error`` (6), squared units per image; ``seconds`` of all layers and the last updates, those
        of the state that it went on from included; ``update_images``, the settings.
    """
    final, chosen = quantized(model, data, settings, seed, starts)
    places = held_out(len(data), chosen, seed)
    assert data.labels is not None and not np.intersect1d(places, chosen).size
    x, labels = required_preprocess(model)(data.images[places], final.network.dtype), data.labels[places]
    teacher, student = model.network.astype(x.dtype).forward(x), final.network.forward(x)
    guesses, wanted = student.argmax(axis=1), teacher.argmax(axis=1)
    return {
        "changes": changes_from_defaults(settings),
        "accuracy": 100 * float(np.mean(guesses == labels)),
        "teacher": 100 * float(np.mean(wanted == labels)),
        "agreement": 100 * float(np.mean(guesses == wanted)),
        "output_error": float(np.sum((student - teacher).astype(np.float64) ** 2)) / len(x),  # [LDNQ] (6)
        "seconds": sum(report.seconds for report in final.reports),
        "update_images": sum(report.update_images for report in final.reports),
        "settings": flat(settings),
        "solver_settings": settings.resolved,
        "version": __version__,
        "threads": thread_count(),
    }


def key_of(network: str, settings: LdnqSettings, data: Dataset, seed: int) -> Key:
    """What a run is known by: the hash covers all settings, the solver's defaults included, and the images
    that are drawn from.
    """
    return {
        "network": network,
        "seed": seed,
        "images": IMAGES,
        "held_out": HELD_OUT,
        "settings": settings_hash([settings.explicit, data.fingerprint()]),
    }


def complete(row: dict[str, Any]) -> dict[str, Any]:
    """A row's settings, with the defaults of those that are younger than the row or have no effect in it.

    The solver is named with those of its own settings that are not its defaults of today.
    """
    defaults = flat(LdnqSettings())
    own = {**defaults, **row["result"]["settings"]}
    idle = () if own["code_epochs"] else CODES
    solver = ",".join([own["solver"], *solver_changes(own["solver"], row["result"]["solver_settings"])])
    return {**own, **{name: defaults[name] for name in idle}, "solver": solver}


def markdown(rows: list[dict[str, Any]]) -> str:
    """All rows as a table in Markdown, with columns for the settings that differ, then `choices`."""
    settings = [complete(row) for row in rows]
    names = list(flat(LdnqSettings()))
    varied = [name for name in names if any(own[name] != settings[0][name] for own in settings)]
    headings = [
        "network",
        "seed",
        *varied,
        "accuracy, %",
        "agreement, %",
        "output error",
        "original, %",
        "minutes",
    ]
    order = sorted(rows, key=lambda row: (row["key"]["network"], row["result"]["output_error"]))
    cells = [
        [
            row["key"]["network"],
            str(row["key"]["seed"]),
            *(f"{complete(row)[name]}" for name in varied),
            f"{row['result']['accuracy']:.2f}",
            f"{row['result']['agreement']:.2f}",
            f"{row['result']['output_error']:.2f}",
            f"{row['result']['teacher']:.2f}",
            f"{row['result']['seconds'] / 60:.1f}",
        ]
        for row in order
    ]
    return f"{markdown_table(headings, cells)}\n\n{choices(rows)}"


TOGETHER = {"epochs": ("epochs", "copies", "pool")}
"""Settings that are varied as one: how long an update is."""

IDLE = ("temperature", "momentum", "patience", "tolerance", "copies", "pool", "correct_bias")
"""Not asked about: without effect in the profile ``best``, or settled by another one."""


def choices(rows: list[dict[str, Any]]) -> str:
    """Every setting of the profile ``best`` with the rows that compare it: pairs that differ in it alone."""
    best = flat(profile_settings("best"))
    cells = []
    for name, value in best.items():
        if name in IDLE:
            continue
        fields = TOGETHER.get(name, (name,))
        pairs = [
            " against ".join(_outcome(row, fields) for row in (one, other))
            for place, one in enumerate(rows)
            for other in rows[place + 1 :]
            if _differ(one, other) and _differ(one, other) <= set(fields)
        ]
        chosen = ", ".join(f"{field} {best[field]}" for field in fields) if len(fields) > 1 else str(value)
        cells.append([f"`{name}`", chosen, "; ".join(pairs) or "no pair of rows"])
    headings = ["setting", "profile best", "output error (agreement, %) of runs that differ in it alone"]
    return markdown_table(headings, cells)


def _differ(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """The settings in which two rows differ; those of other networks or images are not compared."""
    if any(one["key"][name] != other["key"][name] for name in one["key"] if name != "settings"):
        return {"key"}
    mine, theirs = complete(one), complete(other)
    return {name for name in mine if mine[name] != theirs[name]}


def _outcome(row: dict[str, Any], fields: tuple[str, ...]) -> str:
    values = ", ".join(str(complete(row)[field]) for field in fields)
    return f"{values}: {row['result']['output_error']:.2f} ({row['result']['agreement']:.2f})"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("study", markdown)
@click.option("--network", type=click.Choice(tuple(WEIGHTS)), default="resnet20", show_default=True)
@click.option("--seeds", default="0", show_default=True, help="Such as 0-4 or 0,2.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="FIELD=VALUE,...",
    help="Run these changes of the defaults in place of all variants; repeatable.",
)
def main(
    store: Store,
    data: Path,
    network: str,
    seeds: str,
    variants: tuple[str, ...],
) -> None:
    """Compare settings of the weights update on training images."""
    sys.addaudithook(refuse_test_images)
    chosen = [ldnq_settings(text.split(",")) for text in variants or VARIANTS]
    train, model = load_dataset(data, "train"), published_model(data, network)
    starts: dict[str, Progress] = {}
    for seed in numbers(seeds):
        for settings in chosen:
            key = key_of(network, settings, train, seed)
            result = store.run(key, partial(score, model, train, settings, seed, starts))["result"]
            click.echo(
                f"{network}, seed {seed}, {result['changes']}: accuracy {result['accuracy']:.2f} %, "
                f"agreement {result['agreement']:.2f} %, output error {result['output_error']:.2f}, "
                f"{result['seconds']:.0f} s"
            )


if __name__ == "__main__":
    main()
