"""The layer error that every solver reaches, on the layers of a published network.

    python benchmarks/solvers.py --data DIR [--network resnet20] [--levels 3,5] [--only anneal]
    python benchmarks/solvers.py --markdown FILE

DIR holds ``cifar-10-batches-bin/`` and ``weights/``. A finished solver is a row of the store and is never run
again. The errors are relative: f(G) / f(0), the squared error of the pre-activation over its square.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from layer_problems import layer_problems
from options import stored
from published import WEIGHTS, published_model
from store import Key, Store, markdown_table, settings_hash
from timing import geometric_mean

from refldnq import __version__
from refldnq._kernels.threads import thread_count
from refldnq._typing import Float64Array
from refldnq.codebook import Codebook, powers_of_two
from refldnq.data import load_dataset
from refldnq.hessian import layer_error
from refldnq.solvers.admm_plus import AdmmPlusSettings
from refldnq.solvers.admm_settings import AdmmSettings
from refldnq.solvers.anneal import AnnealSettings
from refldnq.solvers.base import Solution, default_settings, get_solver
from refldnq.solvers.blocks import BlocksSettings
from refldnq.solvers.coordinate import CoordinateSettings, polish
from refldnq.solvers.direct import DirectSettings
from refldnq.solvers.greedy import GreedySettings
from refldnq.solvers.lower_bound import BoundSettings, lower_bound

REFERENCE = "admm, the profile paper"

Problems = list[tuple[str, Float64Array, Float64Array]]


@dataclass(frozen=True)
class Contestant:
    """A solver with its settings, those that it has by itself for None.

    Parameters
    ----------
    solver : str
        Its name.
    settings : object, optional
        Its own.
    descent : bool, optional
        Whether its result is improved by coordinate descent.
    """

    solver: str
    settings: Any = None
    descent: bool = False

    def __call__(self, H: Float64Array, W: Float64Array, codebook: Codebook) -> Solution:
        """Solve a problem."""
        found = get_solver(self.solver)(H, W, codebook, self.settings)
        return polish(H, W, codebook, found) if self.descent else found

    def reach(self, H: Float64Array, W: Float64Array, codebook: Codebook) -> float:
        """What it reaches, and not what it says of itself."""
        return layer_error(H, W, self(H, W, codebook).G)

    @property
    def hash(self) -> str:
        """Of all that is set, defaults included."""
        own = self.settings or default_settings(self.solver)
        return settings_hash([self.solver, own, self.descent and CoordinateSettings()])


@dataclass(frozen=True)
class Bound:
    """What no solver's error can be below."""

    settings: BoundSettings = field(default_factory=BoundSettings)

    def reach(self, H: Float64Array, W: Float64Array, codebook: Codebook) -> float:
        """The certified lower bound."""
        return lower_bound(H, W, codebook, self.settings).value

    @property
    def hash(self) -> str:
        """Of its settings."""
        return settings_hash(self.settings)


SOLVERS: Mapping[str, Contestant] = {
    "direct, mean": Contestant("direct"),
    "direct, exact": Contestant("direct", DirectSettings(variant="exact")),
    REFERENCE: Contestant("admm", AdmmSettings.profile("paper")),
    "admm + descent": Contestant("admm", AdmmSettings.profile("paper"), descent=True),
    "coordinate": Contestant("coordinate"),
    "gpfq": Contestant("gpfq"),
    "gpfq, by diagonal": Contestant("gpfq", GreedySettings(damping=0.0, order="diagonal")),
    "gptq": Contestant("gptq"),
    "gptq, by diagonal": Contestant("gptq", GreedySettings(order="diagonal")),
    "ldlq": Contestant("ldlq"),
    "ldlq, by diagonal": Contestant("ldlq", GreedySettings(order="diagonal")),
    "gptq, by diagonal + descent": Contestant("gptq", GreedySettings(order="diagonal"), descent=True),
    "admm_plus": Contestant("admm_plus"),
    "admm_plus, 300 steps": Contestant("admm_plus", AdmmPlusSettings(iterations=300)),
    "admm_plus, from 0.1 to 10": Contestant("admm_plus", AdmmPlusSettings(rho_first=0.1, rho_last=10.0)),
    "anneal": Contestant("anneal"),
    "anneal, no explorations": Contestant("anneal", AnnealSettings(explorations=0)),
    "anneal, 2000 sweeps": Contestant("anneal", AnnealSettings(sweeps=2000)),
    "blocks": Contestant("blocks"),
    "blocks, 5000 nodes": Contestant("blocks", BlocksSettings(nodes=5000)),
    "blocks of 24": Contestant("blocks", BlocksSettings(size=24)),
    "blocks, 300 sweeps": Contestant("blocks", BlocksSettings(sweeps=300)),
}
"""What is compared; all with one scale a layer."""

BOUND = "certified lower bound"

REACHES: Mapping[str, Contestant | Bound] = {**SOLVERS, BOUND: Bound()}
"""All rows."""


def measure(problems: Problems, given: Contestant | Bound, levels: int) -> dict[str, Any]:
    """Every layer's relative error and the processor's seconds for them all."""
    codebook = powers_of_two(levels)
    errors, seconds = [], 0.0
    for _, H, W in problems:
        began = time.process_time()  # of all threads: other programs do not count
        error = given.reach(H, W, codebook)
        seconds += time.process_time() - began
        errors.append(error / layer_error(H, W, np.zeros_like(W)))
    return {
        "layers": [name for name, _, _ in problems],
        "relative_errors": errors,
        "seconds": seconds,
        "version": __version__,
        "threads": thread_count(),
    }


def key_of(network: str, solver: str, levels: int, images: int) -> Key:
    """What a row is known by: the hash is of the settings that the solver has today."""
    hashed = REACHES[solver].hash
    return {"network": network, "solver": solver, "levels": levels, "images": images, "settings": hashed}


def todays(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of solvers as they are today; those with other settings or names are left out."""
    hashes = {name: given.hash for name, given in REACHES.items()}
    return [row for row in rows if row["key"]["settings"] == hashes.get(str(row["key"]["solver"]))]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The geometric means over the layers, then the relative error of every layer by every solver.

    Raises
    ------
    ValueError
        If the reference has no row.
    """
    found = {(r["key"]["network"], r["key"]["levels"], r["key"]["solver"]): r["result"] for r in todays(rows)}
    cells = []
    for (network, levels, solver), result in found.items():
        if (network, levels, REFERENCE) not in found:
            raise ValueError(f"`rows` must hold {REFERENCE!r} for {network}, {levels} levels, got none.")
        errors = result["relative_errors"]
        ratios = _ratios(errors, found[network, levels, REFERENCE]["relative_errors"])
        bound = found.get((network, levels, BOUND))
        above = [] if bound is None else _ratios(errors, bound["relative_errors"])
        own = [f"{_mean(errors):.4f}", f"{_mean(ratios):.3f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}"]
        own.append(f"{_mean(above):.2f}" if above else "")
        cells.append([network, str(levels), solver, *own, f"{result['seconds']:.1f}"])
    order = sorted(cells, key=lambda row: (row[0], int(row[1]), -float(row[4])))
    headings = "network,levels,solver,relative error,ratio to admm,least,most,over the bound,CPU s".split(",")
    tables = [markdown_table(headings, order)]
    for network, levels in sorted({(row[0], int(row[1])) for row in cells}):
        names = [row[2] for row in order if row[:2] == [network, str(levels)]]
        tables.append(_by_layer(network, levels, {name: found[network, levels, name] for name in names}))
    return "\n\n".join(tables)


def _by_layer(network: str, levels: int, results: Mapping[str, Mapping[str, Any]]) -> str:
    layers = next(iter(results.values()))["layers"]
    rows = [
        [layer, *(f"{result['relative_errors'][place]:.4f}" for result in results.values())]
        for place, layer in enumerate(layers)
    ]
    return markdown_table([f"{network}, {levels} levels", *results], rows)


def _ratios(errors: Sequence[float], others: Sequence[float]) -> list[float]:
    return [own / other for own, other in zip(errors, others, strict=True) if other > 0]


def _mean(errors: Sequence[float]) -> float:
    """The geometric mean of the positive ones: a bound may be 0; 0 if there is none."""
    positive = [error for error in errors if error > 0]
    return geometric_mean(positive) if positive else 0.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("solvers", markdown)
@click.option("--network", type=click.Choice(tuple(WEIGHTS)), default="resnet20", show_default=True)
@click.option("--levels", default="3,5", show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(tuple(REACHES)), help="Some rows; repeatable.")
def main(
    store: Store,
    data: Path,
    network: str,
    levels: str,
    images: int,
    only: tuple[str, ...],
) -> None:
    """Compare solvers on the layers of a published network."""
    model = published_model(data, network)
    problems = layer_problems(model, load_dataset(data, "train"), images=images, seed=0)
    for count in (int(text) for text in levels.split(",")):
        for name in only or tuple(REACHES):
            key = key_of(network, name, count, images)
            row = store.run(key, partial(measure, problems, REACHES[name], count))
            errors = row["result"]["relative_errors"]
            click.echo(f"{network}, {count} levels, {name}: {geometric_mean(errors):.4f}")


if __name__ == "__main__":
    main()
