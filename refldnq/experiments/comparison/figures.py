"""The comparison as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from refldnq.experiments.comparison.problems import ComparedProblem
from refldnq.experiments.comparison.runs import ComparedRun
from refldnq.experiments.drawing import COLOURS, draw, style
from refldnq.model import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def all_figures(
    runs: Sequence[ComparedRun], problems: Sequence[ComparedProblem], model: Model, levels: int, images: int
) -> dict[str, tuple[str, bytes]]:
    """Every figure of a comparison: its caption and its PNG, by the name of its file.

    Parameters
    ----------
    runs : sequence of ComparedRun
        All of them.
    problems : sequence of ComparedProblem
        Of the base's levels.
    model : Model
        The original network.
    levels, images : int
        The base.

    Returns
    -------
    dict of str to (str, bytes)
    """
    base = [run for run in runs if (run.cell.levels, run.cell.images) == (levels, images)]
    return {
        "layer-error": (
            "Layer error (8): how far each layer by itself is from its own weights, with the quantized "
            "prefix's inputs. Methods that follow the original network, such as the profile best, do not "
            "minimize it: they leave their weights to make up for the layers before.",
            draw(lambda axes: _by_layer(axes, base, "relative_error", "layer error / error of zero weights")),
        ),
        "accumulated-error": (
            "Accumulated error: each layer's pre-activation against the original network's, with all that "
            "the layers before it have changed.",
            draw(
                lambda axes: _by_layer(
                    axes, base, "relative_accumulated_error", "accumulated error / squared norm"
                )
            ),
        ),
        "objective": (
            "The paper's ADMM: the objective (10) of each layer after each iteration, on the original "
            "network's inputs; the best iterate is kept.",
            draw(lambda axes: _objective(axes, problems)),
        ),
        "histogram": (
            f"Weights of {_largest(model)}, the largest layer, and the levels that each method gives it.",
            draw(lambda axes: _histogram(axes, base, model)),
        ),
        "images": (
            f"Accuracy against the number of calibration images, {levels} levels.",
            draw(lambda axes: _against(axes, runs, "images", {"levels": levels})),
        ),
        "levels": (
            f"Accuracy against the number of levels, {images} images.",
            draw(lambda axes: _against(axes, runs, "levels", {"images": images})),
        ),
    }


def _by_layer(axes: Axes, runs: Sequence[ComparedRun], field: str, label: str) -> None:
    names = [layer["name"] for layer in runs[0].record["layers"]]
    for index, run in enumerate(runs):
        axes.plot(
            names, [layer[field] for layer in run.record["layers"]], label=run.cell.method, **style(index)
        )
    axes.set_yscale("log")
    axes.set_xlabel("layer, from the first to the last")
    axes.set_ylabel(label)
    axes.tick_params(axis="x", rotation=90, labelsize=7)
    axes.legend(frameon=False)


def _objective(axes: Axes, problems: Sequence[ComparedProblem]) -> None:
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.0, 0.9, max(1, len(problems))))
    for problem, shade in zip(problems, shades, strict=True):
        axes.plot(problem.trace, color=shade, linewidth=1, label=problem.layer)
    axes.set_yscale("log")
    axes.set_xlabel("iteration of ADMM")
    axes.set_ylabel("objective f(G) / f(0)")
    axes.legend(frameon=False, fontsize=6, ncols=2 + len(problems) // 20, loc="upper right")


def _largest(model: Model) -> str:
    return max(model.network.weighted, key=lambda name: model.network.params[name]["weight"].size)


def _histogram(axes: Axes, runs: Sequence[ComparedRun], model: Model) -> None:
    name = _largest(model)
    weight = model.network.params[name]["weight"]
    axes.hist(weight.ravel(), bins=120, color="#bbbbbb", label="original weights")
    for index, run in enumerate(runs):
        code = run.model().quantized.get(name)
        # Methods stand above each other: levels of several may coincide.
        low, high = index / len(runs), (index + 0.9) / len(runs)
        for level in () if code is None else np.unique(np.multiply.outer(code.alpha, code.values)):
            axes.axvline(level, low, high, color=COLOURS[index % len(COLOURS)], linewidth=1.5)
        axes.plot([], [], color=COLOURS[index % len(COLOURS)], label=run.cell.method)
    axes.set_xlabel(f"weight of {name}")
    axes.set_ylabel("number of weights")
    axes.legend(frameon=False)


def _against(axes: Axes, runs: Sequence[ComparedRun], field: str, fixed: Mapping[str, int]) -> None:
    chosen = [run for run in runs if all(getattr(run.cell, key) == value for key, value in fixed.items())]
    for index, method in enumerate(dict.fromkeys(run.cell.method for run in chosen)):
        points = sorted(
            (getattr(run.cell, field), run.record["accuracy_after"])
            for run in chosen
            if run.cell.method == method and run.record["accuracy_after"] is not None
        )
        axes.plot(*zip(*points, strict=True) if points else ([], []), label=method, **style(index))
    before = chosen[0].record["accuracy_before"]
    if before is not None:
        axes.axhline(before, color="#777777", linestyle="--", linewidth=1, label="original")
    values = sorted({getattr(run.cell, field) for run in chosen})
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.set_xlabel({"images": "calibration images", "levels": "levels of every layer"}[field])
    axes.set_ylabel("accuracy on the test split, %")
    axes.legend(frameon=False)
