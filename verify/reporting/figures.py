"""Figures as inline SVG in the colours of the page around them."""

from __future__ import annotations

import io
import re

from refldnq.verify.claims.base import Figure

INK = "#010203"
"""Stands for the colour of the page's text, which the page knows."""

COLOURS = ("#3b7dd8", "#d9822b", "#2e9e6b", "#b5499e", "#8a6d3b", "#c0392b", "#5f6f7f")
"""Of the curves, in order: legible on white and on black; chosen here."""

MARKERS = "os^Dv<>"


def figure_svg(figure: Figure, prefix: str) -> str:
    """A figure as an ``<svg>`` element, without its title, which the page can set better.

    Parameters
    ----------
    figure : Figure
        Curves.
    prefix : str
        Begins the names of its parts, so that two figures of a page do not share any.

    Returns
    -------
    str
        Equal figures give equal text.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError as missing:
        raise ImportError("the page's figures need matplotlib: pip install 'refldnq[plot]'.") from missing

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": prefix,
        "font.size": 10,
        "font.family": "sans-serif",
        "axes.unicode_minus": False,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
        ),
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=(6.4, 3.8), layout="constrained")
        axes = canvas.add_subplot()
        for index, (name, (x, y)) in enumerate(figure.curves.items()):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axes.plot(x, y, color=colour, marker=marker if len(x) <= 40 else None, markersize=4, label=name)
        axes.set(xlabel=figure.x, ylabel=figure.y)
        if "x" in figure.log:
            axes.set_xscale("log")
        if "y" in figure.log:
            axes.set_yscale("log")
        axes.grid(True, color=INK, alpha=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        if len(figure.curves) > 1:
            axes.legend(frameon=False)
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), prefix)


def _inline(document: str, prefix: str) -> str:
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    return svg.replace(INK, "currentColor")
