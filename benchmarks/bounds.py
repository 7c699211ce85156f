"""How tight the bounds of Theorem 1 are, and that no valid one is violated: random networks and ResNets.

    python benchmarks/bounds.py --networks 500
    python benchmarks/bounds.py --data DIR --resnets resnet20,resnet32,resnet56
    python benchmarks/bounds.py --markdown FILE

The first draws so many random networks of each kind and depth: 500 of 4 kinds and 5 depths are 10,000. DIR
holds ``cifar-10-batches-bin/`` and ``weights/``. Every block of networks, and every ResNet, is a row of the
store and is never run again; several processes may share the store with `--kinds` or `--depths`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from options import stored
from published import WEIGHTS, published_model
from store import Store, markdown_table

from refldnq.bounds.ladder import bound_ladder
from refldnq.bounds.results import TITLES, Ladder
from refldnq.codebook import powers_of_two
from refldnq.data import load_dataset
from refldnq.experiments.run import direct_settings, required_preprocess
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.verify.random_networks import KINDS, random_pair

DEPTHS = (2, 4, 6, 10, 20)

BLOCK = 50
"""Random networks a row."""

METHODS = ("dq", "ldnq-")
"""How the ResNets are quantized: direct quantization, and Algorithm 1 without its update; 3 levels."""


def random_row(kind: Any, depth: int, first: int) -> dict[str, Any]:
    """Tightness of every rung on a block of random networks, and what was violated.

    Examples
    --------
    >>> row = random_row("fc", 2, 0)
    >>> row["networks"], row["unsound"], len(row["tightness"]["hybrid"].split())
    (50, [], 50)
    """
    began = time.perf_counter()
    tightness: dict[str, list[str]] = {key: [] for key in TITLES}
    violated = dict.fromkeys(TITLES, 0)
    unsound: list[str] = []
    for seed in range(first, first + BLOCK):
        rng = np.random.default_rng([KINDS.index(kind), depth, seed])
        ladder = bound_ladder(*random_pair(kind, depth, rng))
        if not ladder.sound:
            unsound.append(f"{seed}: {'; '.join(ladder.violated)}")
        for rung in ladder.rungs:
            tightness[rung.key].append(f"{rung.tightness:.3g}")
            violated[rung.key] += not rung.holds
    return {
        "networks": BLOCK,
        "tightness": {key: " ".join(values) for key, values in tightness.items()},
        "violated": violated,
        "unsound": unsound,
        "seconds": round(time.perf_counter() - began, 1),
    }


def resnet_row(data: Path, name: str, method: str, images: int) -> dict[str, Any]:
    """The ladder of a published network, quantized from 100 training images, on test images."""
    began = time.perf_counter()
    model = published_model(data, name)
    preprocess = required_preprocess(model)
    train, test = load_dataset(data, "train"), load_dataset(data, "test")
    settings = LdnqSettings(codebook=powers_of_two(3), update=None)
    settings = direct_settings(settings) if method == "dq" else settings
    calibration = preprocess(train.images[train.sample(100, np.random.default_rng(0))], np.float32)
    quantized = ldnq(model.network, calibration, settings, np.random.default_rng(0)).network
    x = preprocess(test.images[test.sample(images, np.random.default_rng(1))], np.float64)
    ladder = bound_ladder(model.network, quantized, x, batch_size=8)
    return {**ladder_row(ladder), "seconds": round(time.perf_counter() - began, 1)}


def ladder_row(ladder: Ladder) -> dict[str, Any]:
    """What is kept of one ladder."""
    return {
        "true_error": ladder.true_error,
        "output_norm": ladder.output_norm,
        "residual": ladder.residual,
        "sound": ladder.sound,
        "violated": list(ladder.violated),
        "tightness": {rung.key: rung.tightness for rung in ladder.rungs},
        "valid": {rung.key: rung.valid for rung in ladder.rungs},
        "slack": {rung.key: rung.slack / rung.value for rung in ladder.rungs if rung.value > 0},
        "layers": [
            {"name": layer.name, "e": layer.parallel, "c": layer.cascade, "hybrid": layer.hybrid}
            for layer in ladder.layers
        ],
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Both tables: medians of bound over true error by depth, and the ResNets.

    Examples
    --------
    >>> numbers = {key: "2 4 3" for key in TITLES}
    >>> result = {"networks": 3, "tightness": numbers, "violated": dict.fromkeys(TITLES, 0), "unsound": []}
    >>> text = markdown([{"key": {"kind": "fc", "depth": 2, "first": 0}, "result": result}])
    >>> text.splitlines()[2]
    '| secant slopes, exact terms | 3 |'
    """
    random = [row for row in rows if "kind" in row["key"]]
    resnets = [row for row in rows if "network" in row["key"]]
    parts = []
    for kind in (*KINDS, None):
        chosen = [row for row in random if kind in (None, row["key"]["kind"])]
        if not chosen or (kind is None and len({row["key"]["kind"] for row in chosen}) == 1):
            continue
        count = sum(row["result"]["networks"] for row in chosen)
        unsound = sum(len(row["result"]["unsound"]) for row in chosen)
        off = sum(row["result"]["tightness"]["secant"].split().count("nan") for row in chosen)
        title = f"{kind or 'all kinds'}: {count:,} networks, {unsound} with a violated bound or order"
        title += f", {off} without any error" if off else ""
        parts.append(f"{_medians(chosen)}\n\n*{title}; median of bound / true error, by depth.*")
    if resnets:
        headings = ["bound / true error", *(_label(row["key"]) for row in resnets)]
        body = [[title, *(_number(row["result"], key) for row in resnets)] for key, title in TITLES.items()]
        body.append(
            ["all valid bounds hold", *("yes" if row["result"]["sound"] else "NO" for row in resnets)]
        )
        parts.append(
            f"{markdown_table(headings, body)}\n\n*Real images; in parentheses bounds that no proof covers.*"
        )
    return "\n\n".join(parts)


def _medians(rows: Sequence[dict[str, Any]]) -> str:
    depths = sorted({row["key"]["depth"] for row in rows})
    body = []
    for key, title in TITLES.items():
        cells = [title]
        for depth in depths:
            values = [
                float(value)
                for row in rows
                if row["key"]["depth"] == depth
                for value in row["result"]["tightness"][key].split()
            ]
            violated = sum(row["result"]["violated"][key] for row in rows if row["key"]["depth"] == depth)
            # Where the true error and the bound are 0 there is no quotient: all units are off.
            cells.append(f"{np.nanmedian(values):.3g}" + (f" ({violated} violated)" if violated else ""))
        body.append(cells)
    return markdown_table(["", *(f"depth {depth}" for depth in depths)], body)


def _label(key: dict[str, Any]) -> str:
    return f"{key['network']}, {key['method']}, {key['images']} images"


def _number(result: dict[str, Any], key: str) -> str:
    value = result["tightness"][key]
    text = "overflow" if value is None else f"{value:.3g}"
    return text if result["valid"][key] else f"({text})"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stored("bounds", markdown, needs_data=False)
@click.option("--networks", default=0, show_default=True, help="Random networks of each kind and depth.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="Some of them.")
@click.option("--depths", default=",".join(map(str, DEPTHS)), show_default=True, help="Some of them.")
@click.option("--resnets", default="", help=f"Some of {','.join(WEIGHTS)}; needs --data.")
@click.option("--images", default=64, show_default=True, help="Test images for the ResNets.")
def main(
    networks: int,
    kinds: str,
    depths: str,
    store: Store,
    data: Path | None,
    resnets: str,
    images: int,
) -> None:
    """Measure the ladder of bounds and keep what came out."""
    for first in range(0, networks, BLOCK):
        for kind in kinds.split(","):
            for depth in map(int, depths.split(",")):
                key = {"kind": kind, "depth": depth, "first": first}
                row = store.run(key, lambda key=key: random_row(*key.values()))
                note = "; ".join(row["result"]["unsound"]) or "sound"
                click.echo(f"{kind}, depth {depth}, from {first}: {note} ({row['result']['seconds']} s)")
    for name in filter(None, resnets.split(",")):
        if data is None or name not in WEIGHTS:
            raise ValueError(f"`--resnets` needs --data and one of {', '.join(WEIGHTS)}, got {name!r}.")
        for method in METHODS:
            known = {"network": name, "method": method, "images": images}
            work = lambda n=name, m=method: resnet_row(data, n, m, images)  # noqa: E731
            row = store.run(known, work)
            best = min(row["result"]["tightness"]["secant"], row["result"]["tightness"]["hybrid"])
            click.echo(f"{name}, {method}: sound {row['result']['sound']}, best bound {best:.3g} times")
    if store.rows():
        click.echo(markdown(store.rows()))


if __name__ == "__main__":
    main()
