"""How near the optimum of (10) a published network's layers are: ADMM's objective, a lower bound, the gap.

    python benchmarks/certificates.py --data DIR --networks resnet20 --levels 3,5
    python benchmarks/certificates.py --markdown FILE

DIR holds ``cifar-10-batches-bin/`` and ``weights/``. The layers' problems are those of the original network:
no layer before is quantized and no weights are updated, so that all of them are there in minutes. A finished
network is a row of the store and is never run again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from layer_problems import layer_problems
from options import stored
from published import WEIGHTS, published_model
from store import Key, Store, markdown_table, settings_hash

from refldnq import __version__
from refldnq._kernels.threads import thread_count
from refldnq._typing import Float64Array
from refldnq.codebook import powers_of_two
from refldnq.data import Dataset, load_dataset
from refldnq.experiments.reproduce.amounts import numbers
from refldnq.model import Model
from refldnq.solvers.admm import AdmmSettings, solve
from refldnq.solvers.lower_bound import BoundSettings, gap, lower_bound


def certify(H: Float64Array, W: Float64Array, levels: int) -> dict[str, Any]:
    """One layer: ADMM as in the profile ``paper``, the bounds, and what both cost."""
    codebook = powers_of_two(levels)
    began = time.perf_counter()
    solution = solve(H, W, codebook, AdmmSettings.profile("paper"))
    solved = time.perf_counter()
    bound = lower_bound(H, W, codebook, BoundSettings())
    return {
        "objective": solution.objective,
        "bounds": bound.bounds,
        "lower_bound": bound.value,
        "method": bound.method,
        "gap": gap(solution.objective, bound.value),
        "slack": bound.slack,
        "steps": bound.steps,
        "solver_seconds": solved - began,
        "seconds": time.perf_counter() - solved,
    }


def run(
    model: Model, data: Dataset, *, images: int, levels: int, seed: int, layers: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """All layers of a network, or some."""
    problems = layer_problems(model, data, images=images, seed=seed, layers=layers)
    found = [{"name": name, "rows": int(H.shape[1]), **certify(H, W, levels)} for name, H, W in problems]
    return {"layers": found, "version": __version__, "threads": thread_count()}


def key_of(network: str, data: Dataset, *, images: int, levels: int, seed: int) -> Key:
    """What a run is known by."""
    settings = settings_hash([AdmmSettings.profile("paper"), BoundSettings(), data.fingerprint()])
    return {"network": network, "images": images, "levels": levels, "seed": seed, "settings": settings}


HEADINGS = (
    "layer",
    "inputs",
    "levels",
    "ADMM",
    "eigenvalue",
    "Jacobi",
    "split",
    "bound / ADMM",
    "within, %",
    "s",
)


def cells(layer: dict[str, Any], key: dict[str, Any]) -> list[str]:
    """The cells of a layer, in the order of `HEADINGS`."""
    bounds = [layer["bounds"].get(name, 0.0) for name in ("eigenvalue", "jacobi", "split")]
    certified = layer["lower_bound"] > 0
    return [
        f"{key['network']} {layer['name']}",
        str(layer["rows"]),
        str(key["levels"]),
        f"{layer['objective']:.4g}",
        *(f"{value:.4g}" for value in bounds),
        f"{layer['lower_bound'] / layer['objective']:.3f}" if certified else "no certificate",
        f"{100 * layer['gap']:.0f}" if certified else "no certificate",
        f"{layer['seconds']:.2f}",
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The layers of all rows as a table in Markdown."""
    return markdown_table(
        HEADINGS, [cells(layer, row["key"]) for row in rows for layer in row["result"]["layers"]]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("certificates", markdown)
@click.option("--networks", default="resnet20", show_default=True, help=f"Some of {','.join(WEIGHTS)}.")
@click.option("--levels", default="3,5", show_default=True, help="Levels of every layer, such as 3,5.")
@click.option("--images", default=500, show_default=True, help="Calibration images.")
@click.option("--seed", default=0, show_default=True, help="Draws the images.")
def main(
    store: Store,
    data: Path,
    networks: str,
    levels: str,
    images: int,
    seed: int,
) -> None:
    """Bound the optimum of every layer's problem from below and keep what came out."""
    names = networks.split(",")
    unknown = [name for name in names if name not in WEIGHTS]
    if unknown:
        raise ValueError(f"`--networks` must be among {', '.join(WEIGHTS)}, got {unknown[0]!r}.")
    train = load_dataset(data, "train")
    for name in names:
        model = published_model(data, name)
        for count in numbers(levels):
            how = {"images": images, "levels": count, "seed": seed}
            row = store.run(key_of(name, train, **how), lambda how=how: run(model, train, **how))  # noqa: B023
            for layer in row["result"]["layers"]:
                click.echo("  ".join(cells(layer, row["key"])))


if __name__ == "__main__":
    main()
