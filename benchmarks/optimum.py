"""How often every solver finds the optimum, on parts of a published network's layers that can be enumerated.

    python benchmarks/optimum.py --data DIR [--network resnet20] [--only anneal]
    python benchmarks/optimum.py --markdown FILE

DIR holds ``cifar-10-batches-bin/`` and ``weights/``. A part is one column of a layer's weight, cut down to
some consecutive rows, with the same rows and columns of H: the layer error if these weights alone are
quantized. Its scale is free. All points of the set are tried, so the optimum is known without any solver.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from layer_problems import layer_problems
from options import stored
from published import WEIGHTS, published_model
from solvers import REFERENCE, SOLVERS, Contestant
from store import Key, Store, markdown_table

from refldnq import __version__
from refldnq._kernels.threads import thread_count
from refldnq._typing import Float64Array
from refldnq.codebook import powers_of_two
from refldnq.data import load_dataset
from refldnq.hessian import layer_error
from refldnq.solvers.anneal import AnnealSettings

ROWS: Mapping[int, int] = {3: 12, 5: 8}
"""Rows of a part by the number of levels: some 500,000 points each."""

COLUMNS = 10
"""Parts of every layer."""

HIT = 1e-9
"""Objectives that exceed the optimum by no more than this share of it count as the optimum (chosen here: far
above rounding, far below the distance of two points)."""

EVERY: Mapping[str, Contestant] = {
    **SOLVERS,
    "anneal, 10 explorations": Contestant("anneal", AnnealSettings(explorations=1)),
    "exact": Contestant("exact"),
}
"""What is compared: annealing also with 10 explorations, as many as on whole layers (small problems get ten
times as many by themselves); and the branch and bound, which must always hit."""


@dataclass(frozen=True, eq=False)
class Part:
    """A problem (10) of one column with its least objective over all points of the set."""

    layer: str
    H: Float64Array
    W: Float64Array
    optimum: float


def enumerated(H: Float64Array, W: Float64Array, levels: int) -> Float64Array:
    """The least objective of (10) for every column by itself, each with the scale that is best for its codes.

    Parameters
    ----------
    H : Array, shape (d, d)
        The block.
    W : Array, shape (d, m)
        The columns.
    levels : int
        Of the set; levels^d points are tried.

    Returns
    -------
    Array, shape (m,)

    Notes
    -----
    For codes Q the best scale, not negative, leaves ½ wᵀHw - max(0, QᵀHw)² / (2 QᵀHQ).

    Examples
    --------
    >>> enumerated(np.eye(2), np.array([[3.0], [1.0]]), 3)
    array([0.5])
    """
    values = powers_of_two(levels).values
    Q = values[np.indices((levels,) * len(H)).reshape(len(H), -1)].T
    A = np.einsum("kd,kd->k", Q @ H, Q)
    C = np.maximum(Q @ (H @ W), 0.0)
    gain = np.divide(C**2, 2 * A[:, None], out=np.zeros_like(C), where=A[:, None] > 0).max(axis=0)
    least: Float64Array = 0.5 * np.einsum("dm,dm->m", W, H @ W) - gain
    return least


def parts(
    problems: Sequence[tuple[str, Float64Array, Float64Array]],
    levels: int,
    rows: int,
    columns: int,
    seed: int,
) -> list[Part]:
    """Some columns of every layer, cut down to rows that stand next to each other."""
    rng = np.random.default_rng(seed)
    found = []
    for name, H, W in problems:
        first = int(rng.integers(0, H.shape[1] - rows + 1))
        chosen = np.sort(rng.choice(W.shape[2], columns, replace=False))
        block, weight = H[0, first : first + rows, first : first + rows], W[0, first : first + rows, chosen].T
        for place, optimum in enumerate(enumerated(block, weight, levels)):
            found.append(Part(name, block[None], weight[None, :, place, None], float(optimum)))
    return found


def measure(given: Sequence[Part], solve: Contestant, levels: int) -> dict[str, Any]:
    """How often a solver hits the optimum, and by how much it misses it.

    Returns
    -------
    dict
        ``hits``, percent; ``layers``, the same by layer; ``median`` and ``worst`` of objective over optimum;
        ``seconds`` of the processor.

    Raises
    ------
    ValueError
        If a solver is below the optimum: one of the two is wrong.
    """
    codebook, ratios = powers_of_two(levels), []
    began = time.process_time()
    for part in given:
        ratio = layer_error(part.H, part.W, solve(part.H, part.W, codebook).G) / part.optimum
        if not ratio >= 1 - HIT:
            raise ValueError(f"`solve` must not be below the optimum, got {ratio} of it in {part.layer}.")
        ratios.append(ratio)
    seconds, hit = time.process_time() - began, np.array(ratios) <= 1 + HIT
    names = np.array([part.layer for part in given])
    return {
        "parts": len(given),
        "hits": 100 * float(hit.mean()),
        "layers": {name: 100 * float(hit[names == name].mean()) for name in dict.fromkeys(names.tolist())},
        "median": float(np.median(ratios)),
        "worst": float(np.max(ratios)),
        "seconds": seconds,
        "version": __version__,
        "threads": thread_count(),
    }


def key_of(network: str, solver: str, levels: int, images: int) -> Key:
    """What a row is known by: the hash is of the settings that the solver has today."""
    key: Key = {"network": network, "solver": solver, "levels": levels, "images": images}
    return {**key, "rows": ROWS[levels], "columns": COLUMNS, "settings": EVERY[solver].hash}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows of solvers as they are today, those of most hits last."""
    hashes = {name: given.hash for name, given in EVERY.items()}
    own = [row for row in rows if row["key"]["settings"] == hashes.get(str(row["key"]["solver"]))]
    order = sorted(own, key=lambda row: (row["key"]["network"], row["key"]["levels"], row["result"]["hits"]))
    cells = [
        [
            row["key"]["network"],
            str(row["key"]["levels"]),
            str(row["key"]["rows"]),
            row["key"]["solver"],
            str(row["result"]["parts"]),
            f"{row['result']['hits']:.1f}",
            f"{row['result']['median']:.3f}",
            f"{row['result']['worst']:.3f}",
            f"{row['result']['seconds']:.1f}",
        ]
        for row in order
    ]
    headings = [
        "network",
        "levels",
        "rows",
        "solver",
        "columns",
        "optimum hit, %",
        "median",
        "worst",
        "CPU s",
    ]
    return markdown_table(headings, cells)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("optimum", markdown)
@click.option("--network", type=click.Choice(tuple(WEIGHTS)), default="resnet20", show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(tuple(EVERY)), help="Some solvers; repeatable.")
def main(
    store: Store,
    data: Path,
    network: str,
    images: int,
    only: tuple[str, ...],
) -> None:
    """Compare solvers with the enumerated optimum."""
    problems = layer_problems(
        published_model(data, network), load_dataset(data, "train"), images=images, seed=0
    )
    for levels, rows in ROWS.items():
        given = parts(problems, levels, rows, COLUMNS, seed=0)
        measure(given[:1], EVERY[REFERENCE], levels)  # compiles what is timed
        for name in only or tuple(EVERY):
            work = partial(measure, given, EVERY[name], levels)
            result = store.run(key_of(network, name, levels, images), work)["result"]
            click.echo(f"{network}, {levels} levels, {name}: {result['hits']:.1f} % hits")


if __name__ == "__main__":
    main()
