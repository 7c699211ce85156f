"""What all figures have in common: matplotlib if it is there, colours, markers, PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours that the colour-blind can tell apart (Okabe and Ito)."""

MARKERS = "os^Dv<>"


LINES = ("-", "--", ":")


def draw(paint: Callable[[Axes], None], height: float = 4.5) -> bytes:
    """A PNG of one set of axes.

    Parameters
    ----------
    paint : callable
        Draws into the axes it is given.
    height : float, optional
        In inches; the width is 8.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Figures need matplotlib: pip install 'refldnq[plot]'.") from None
    figure = Figure(figsize=(8.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, alpha=0.2)
    paint(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def style(index: int) -> dict[str, Any]:
    """Colour and marker of the series number `index`; no two of 49 share both.

    Examples
    --------
    >>> style(0) == style(7), style(0)["color"] == style(7)["color"]
    (False, True)
    """
    round_, place = divmod(index, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[(place + round_) % len(MARKERS)], "markersize": 4}


def line_of(index: int) -> str:
    """Line of the series number `index`: another one when the colours begin again."""
    return LINES[index // len(COLOURS) % len(LINES)]
