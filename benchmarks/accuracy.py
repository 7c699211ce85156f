"""The paper's main experiment: the drop in accuracy on CIFAR-10 from 500 unlabelled images.

    python benchmarks/accuracy.py --data DIR --networks resnet20,resnet32,resnet56 --seeds 0-4
    python benchmarks/accuracy.py --data DIR --networks resnet20 --method ldnq-
    python benchmarks/accuracy.py --data DIR --networks resnet20 --method best --levels 5
    python benchmarks/accuracy.py --markdown FILE

DIR holds ``cifar-10-batches-bin/`` and ``weights/``. A finished run is a row of the store and is never run
again; an interrupted one goes on from its last finished layer. The test images guide nothing: all settings
are chosen before.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click
from options import stored
from published import (
    OUTER,
    PAPER_DROPS,
    WEIGHTS,
    changes_from_defaults,
    ldnq_settings,
    published_model,
    solver_changes,
)
from store import Key, Store, markdown_table, plain, settings_hash

from refldnq import __version__, allocation
from refldnq._kernels.threads import thread_count
from refldnq.codebook import powers_of_two
from refldnq.data import Dataset, load_dataset
from refldnq.experiments.profiles import profile_settings
from refldnq.experiments.reproduce.amounts import numbers
from refldnq.experiments.run import QuantizeOutcome, QuantizeRequest, direct_settings, quantize_model
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.solvers.base import default_settings

METHODS = ("ldnq", "ldnq-", "dq", "best")
"""Algorithm 1; without its step 4; direct quantization, which ignores the images; the profile ``best``."""


def request(
    method: str,
    settings: LdnqSettings,
    *,
    seed: int,
    images: int,
    levels: int,
    dtype: Literal["float32", "float64"],
    per_channel: bool = False,
    mean_bits: float | None = None,
) -> QuantizeRequest:
    """What a run is asked to do: every layer, the settings as they are but for the levels and the method.

    Examples
    --------
    >>> asked = request("ldnq-", LdnqSettings(), seed=0, images=500, levels=3, dtype="float32")
    >>> asked.settings.update is None
    True
    """
    settings = replace(settings, codebook=powers_of_two(levels))
    if per_channel:
        settings = replace(settings, solver_settings=replace(settings.resolved, per_channel=True))
    settings = _by(method, settings)
    return QuantizeRequest(settings=settings, images=images, seed=seed, dtype=dtype, mean_bits=mean_bits)


def base_of(method: str) -> LdnqSettings:
    """The settings that a method starts from."""
    return profile_settings("best" if method == "best" else "paper")


def _by(method: str, settings: LdnqSettings) -> LdnqSettings:
    if method == "ldnq-":
        return replace(settings, update=None)
    return direct_settings(settings) if method == "dq" else settings


def allocating() -> list[Any]:
    """What decides how a budget of bits is spread."""
    return [default_settings(allocation.SOLVER), allocation.CANDIDATES, allocation.IMAGES]


def key_of(network: str, method: str, asked: QuantizeRequest, data: Dataset) -> Key:
    """What a run is known by: the hash covers all settings, solvers' defaults included, the type, and the
    images that are drawn from.
    """
    decides = [asked.settings.explicit, asked.dtype, asked.stratified, data.fingerprint()]
    if asked.mean_bits is not None:
        decides += [asked.mean_bits, *allocating()]
    settings = settings_hash(decides)
    return {
        "network": network,
        "method": method,
        "seed": asked.seed,
        "images": asked.images,
        "levels": asked.settings.codebook.levels,
        "settings": settings,
    }


def changes_of(result: dict[str, Any], method: str) -> str:
    """In what a row's settings differ from today's of its method, which may be younger than the row."""
    changes = changes_from_defaults(result["settings"], _by(method, base_of(method)))
    if result["mean_bits"] is None:
        return changes
    own, *rest = result["allocation"]
    words = [f"{result['mean_bits']} bits in the mean", *solver_changes(allocation.SOLVER, own)]
    words += ["another choice of levels"] if rest != plain(allocating())[1:] else []
    return ",".join([*words, *([] if changes == "defaults" else [changes])])


def result_of(outcome: QuantizeOutcome, asked: QuantizeRequest) -> dict[str, Any]:
    """A finished run's result."""
    assert outcome.before is not None and outcome.after is not None
    layer_fields = (
        "name",
        "levels",
        "alpha",
        "zero_fraction",
        "relative_error",
        "relative_output_error",
        "seconds",
    )
    return {
        "correct_before": outcome.before.correct,
        "correct_after": outcome.after.correct,
        "total": outcome.after.total,
        "drop": outcome.drop,
        "seconds": outcome.seconds,
        "update_images": sum(report.update_images for report in outcome.reports),
        "updates": sum(report.update_images > 0 for report in outcome.reports),
        "layers": [{name: getattr(report, name) for name in layer_fields} for report in outcome.reports],
        "settings": asked.settings.explicit,
        "mean_bits": asked.mean_bits,
        "allocation": None if asked.mean_bits is None else allocating(),
        "dtype": asked.dtype,
        "version": __version__,
        "threads": thread_count(),
    }


def run(
    store: Store, key: Key, model: Model, data: Dataset, test: Dataset, asked: QuantizeRequest
) -> dict[str, Any]:
    """The stored row of a run, or a new one."""
    checkpoint = store.path.with_name(f"{store.path.stem}-{settings_hash(key)}.checkpoint.h5")

    def work() -> dict[str, Any]:
        began = time.monotonic()

        def tell(event: Any) -> None:
            elapsed = time.monotonic() - began
            click.echo(f"[{100 * event.fraction:3.0f} %, {elapsed:.0f} s] {event.message}", err=True)

        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        outcome = quantize_model(
            model, data, asked, test=test, on_progress=tell, checkpoint=checkpoint, resume=True
        )
        return result_of(outcome, asked)

    row = store.run(key, work)
    checkpoint.unlink(missing_ok=True)
    return row


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for every network, method and settings: n, the mean drop, its error, the paper's drop.

    Those of a network, method and number of images and levels stand together, today's settings first.
    Settings of which not all seeds were run are compared with others at seed 0, ``first``. The error is the
    standard error of the mean over seeds, None for a single run.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        own = row["key"]
        mark = tuple(own[name] for name in ("network", "method", "images", "levels", "settings"))
        groups.setdefault(mark, []).append({**row["result"], "seed": own["seed"]})
    found = []
    for (network, method, images, levels, settings), results in groups.items():
        drops = [result["drop"] for result in results]
        usual = (images, levels) == (500, 3)
        found.append(
            {
                "network": network,
                "method": method,
                "images": images,
                "levels": levels,
                "changes": changes_of(results[0], method),
                "settings": settings,
                "n": len(drops),
                "before": statistics.fmean(100 * r["correct_before"] / r["total"] for r in results),
                "after": statistics.fmean(100 * r["correct_after"] / r["total"] for r in results),
                "drop": statistics.fmean(drops),
                "first": next((result["drop"] for result in results if result["seed"] == 0), None),
                "error": statistics.stdev(drops) / len(drops) ** 0.5 if len(drops) > 1 else None,
                "paper": PAPER_DROPS.get((network, method)) if usual else None,
                "update_images": round(statistics.fmean(r["update_images"] for r in results)),
                "updates": results[0]["updates"],
                "seconds": statistics.fmean(r["seconds"] for r in results),
            }
        )
    return sorted(found, key=_place)


def _place(entry: dict[str, Any]) -> tuple[Any, ...]:
    own = tuple(entry[name] for name in ("network", "method", "images", "levels"))
    return (*own, entry["changes"] != "defaults", entry["changes"], entry["settings"])


def cells(entry: dict[str, Any]) -> list[str]:
    """The cells of a summary, in the order of `HEADINGS`."""
    passes = f"{entry['update_images'] // entry['updates']} × {entry['updates']}" if entry["updates"] else "0"
    return [
        entry["network"],
        entry["method"],
        str(entry["images"]),
        str(entry["levels"]),
        entry["changes"],
        str(entry["n"]),
        f"{entry['before']:.2f}",
        f"{entry['after']:.2f}",
        f"{entry['drop']:.2f}",
        "" if entry["first"] is None else f"{entry['first']:.2f}",
        "" if entry["error"] is None else f"{entry['error']:.2f}",
        "" if entry["paper"] is None else f"{entry['paper']:.2f}",
        passes,
        f"{entry['seconds'] / 60:.1f}",
    ]


HEADINGS = (
    "network",
    "method",
    "images",
    "levels",
    "changed settings",
    "n",
    "before, %",
    "after, %",
    "drop, points",
    "of seed 0",
    "standard error",
    "paper's drop",
    "image passes × layers",
    "minutes",
)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The summaries as a table in Markdown."""
    return markdown_table(HEADINGS, [cells(entry) for entry in summaries(rows)])


def show(rows: list[dict[str, Any]]) -> None:
    """Print the summaries."""
    for entry in summaries(rows):
        error = "" if entry["error"] is None else f", standard error {entry['error']:.2f}"
        paper = "" if entry["paper"] is None else f"; the paper's: {entry['paper']:.2f}"
        click.echo(
            f"{entry['network']}, {entry['method']}, {entry['levels']} levels, {entry['images']} images "
            f"({entry['changes']}): n = {entry['n']}, mean drop {entry['drop']:.2f} points{error}{paper}"
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("accuracy", markdown)
@click.option("--networks", default="resnet20", show_default=True, help=f"Some of {','.join(WEIGHTS)}.")
@click.option(
    "--seeds", default="0-4", show_default=True, help="Such as 0-4 or 0,2; direct quantization needs one."
)
@click.option("--method", type=click.Choice(METHODS), default="ldnq", show_default=True)
@click.option("--images", default=500, show_default=True, help="Calibration images.")
@click.option("--levels", default=3, show_default=True, help="Levels of every layer.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--per-channel", is_flag=True, help="One scale for each output channel.")
@click.option(
    "--mean-bits", type=float, help="In place of --levels: a budget of log2(levels) for all weights."
)
@click.option("--epochs", type=int, help="Of the update of each layer.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help=f"Another setting: a field of the update, or one of {', '.join(OUTER)}; repeatable.",
)
def main(
    store: Store,
    data: Path,
    networks: str,
    seeds: str,
    method: str,
    images: int,
    levels: int,
    dtype: Literal["float32", "float64"],
    per_channel: bool,
    mean_bits: float | None,
    epochs: int | None,
    changes: tuple[str, ...],
) -> None:
    """Quantize published CIFAR-10 networks from a few images and keep what came out."""
    names = networks.split(",")
    unknown = [name for name in names if name not in WEIGHTS]
    if unknown:
        raise ValueError(f"`--networks` must be among {', '.join(WEIGHTS)}, got {unknown[0]!r}.")
    more = [f"epochs={epochs}"] if epochs is not None else []
    settings = ldnq_settings([*changes, *more], base_of(method))
    train, test = load_dataset(data, "train"), load_dataset(data, "test")
    for name in names:
        model = published_model(data, name)
        for seed in numbers(seeds)[: 1 if method == "dq" else None]:
            asked = request(
                method,
                settings,
                seed=seed,
                images=images,
                levels=levels,
                dtype=dtype,
                per_channel=per_channel,
                mean_bits=mean_bits,
            )
            row = run(store, key_of(name, method, asked, train), model, train, test, asked)
            click.echo(f"{name}, {method}, seed {seed}: drop {row['result']['drop']:.2f} points")
    show(store.rows())


if __name__ == "__main__":
    main()
