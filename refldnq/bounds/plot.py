"""The ladder as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refldnq.bounds.results import Ladder

VALID, INVALID, TRUE = "#0072b2", "#d55e00", "#000000"
"""Colours that the colour-blind can tell apart (Okabe and Ito)."""

MOST = 1e300
"""Bars end here: a printed bound may overflow."""


def plot_ladder(ladder: Ladder, file: Path, title: str = "") -> None:
    """Draw the bounds as bars on a logarithmic axis, and each layer's contribution beside them.

    Parameters
    ----------
    ladder : Ladder
        What is drawn.
    file : Path
        Written as its ending says: ``.png``, ``.pdf``, ``.svg``.
    title : str, optional
        Above the picture.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install 'refldnq[plot]'.") from None
    # A figure of its own, without pyplot: no window system, no global state.
    height = max(4.5, 1.5 + 0.28 * max(len(ladder.rungs), len(ladder.layers)))
    figure = Figure(figsize=(12.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1.0))
    true = ladder.true_error

    shown = [rung for rung in ladder.rungs if rung.value > 0]
    places = np.arange(len(shown))[::-1]
    values = [min(rung.value, MOST) for rung in shown]
    floor = 0.5 * min([true, *values]) if true > 0 else 0.5 * min(values, default=1.0)
    colours = [VALID if rung.valid else INVALID for rung in shown]
    left.barh(places, np.array(values) - floor, left=floor, color=colours, height=0.7)
    for place, rung, value in zip(places, shown, values, strict=True):
        note = f" {rung.tightness:.3g}×" if rung.holds else f" {rung.tightness:.3g}× violated"
        left.text(value, place, note, va="center", fontsize=8)
    if true > 0:
        left.axvline(true, color=TRUE, linestyle="--", linewidth=1)
        left.text(true, len(shown) - 0.4, " true error", fontsize=8, va="bottom")
    left.set_xscale("log")
    top = np.log10(max(values, default=1.0))
    # A fifth of the width more, for the last number.
    left.set_xlim(floor, 10.0 ** min(top + 0.2 * (top - np.log10(floor)) + 0.5, 307.0))
    left.set_ylim(-0.6, len(shown) + 0.3)
    left.set_yticks(places, [rung.title for rung in shown], fontsize=8)
    left.set_xlabel("bound on the final error (logarithmic)")
    left.set_title("the ladder: valid (blue), no proof here (orange)", fontsize=9)

    rows = np.arange(len(ladder.layers))[::-1]
    right.barh(
        rows + 0.2,
        [layer.hybrid for layer in ladder.layers],
        0.38,
        color="#009e73",
        label="hybrid, $H_k - H_{k-1}$",
    )
    right.barh(
        rows - 0.2,
        [layer.secant for layer in ladder.layers],
        0.38,
        color="#cc79a7",
        label="secant, $J_k r_k$",
    )
    right.set_yticks(rows, [layer.name for layer in ladder.layers], fontsize=8)
    right.set_xlabel("contribution to the final error")
    right.set_title("what each layer's quantization does to the output", fontsize=9)
    if ladder.layers:
        right.legend(fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=130)
