"""An exhibit as a picture with error bars, the paper's numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from refldnq.experiments.drawing import COLOURS, draw, line_of, style
from refldnq.experiments.reproduce.paper import paper
from refldnq.experiments.reproduce.plan import SHARES, paper_row
from refldnq.experiments.reproduce.summary import Entry
from refldnq.experiments.reproduce.tables import TITLES, correlation_words, correlations, kind_of, points_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def picture_of(exhibit: str, entries: Sequence[Entry], totals: Mapping[str, int] | None = None) -> bytes:
    """A PNG: ours with standard errors, hollow diamonds for the paper's numbers.

    Parameters
    ----------
    exhibit : str
        Which.
    entries : sequence of Entry
        Its entries.
    totals : mapping of str to int, optional
        Training images by network; with them Fig. 2a and 2b are over shares, as in the paper.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    kind = kind_of(exhibit)
    if kind == "table":
        return draw(lambda axes: _bars(axes, exhibit, entries), max(3.0, 1.4 + 0.2 * len(entries)))
    series = len(dict.fromkeys((entry.cell.network, entry.cell.method) for entry in entries))
    height = max(4.5, 1.0 + 0.2 * series)
    if kind == "fig2c":
        return draw(lambda axes: _scatter(axes, entries), height)
    return draw(lambda axes: _curves(axes, exhibit, entries, totals or {}), height)


def _bars(axes: Axes, exhibit: str, entries: Sequence[Entry]) -> None:
    # From the top; a network's name stands where its rows begin.
    entries = [entry for entry in entries if entry.n or entry.paper is not None]
    names, before = [], ""
    for place, entry in enumerate(entries):
        cell, change = entry.cell, entry.values.get("change")
        network = cell.network + (" (ends kept)" if cell.keep_ends else "")
        names.append(f"{network if network != before else ''}   {label_of(entry)}, {cell.levels}")
        if network != before and place:
            axes.axhline(place - 0.5, color="#bbbbbb", linewidth=0.8)
        before = network
        if change is not None:
            own = style(_kind(entry))
            axes.errorbar([change.mean], [place], xerr=_error([change.error]), **own, capsize=3)
        if entry.paper is not None:
            axes.plot([entry.paper.change[0]], [place], "D", color="#555555", markerfacecolor="none")
    kinds = {_kind(entry) for entry in entries if entry.n}
    for kind, words in enumerate(("the paper's methods, run here", "variants of them", "our own")):
        if kind in kinds:
            axes.plot([], [], linestyle="none", label=words, **style(kind))
    if any(entry.paper for entry in entries):
        axes.plot([], [], "D", color="#555555", markerfacecolor="none", label="the paper's numbers")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("change of top-1 accuracy, points; bars: ± standard error over the runs")
    axes.set_title(TITLES[exhibit], fontsize=9)
    _legend(axes)


def _kind(entry: Entry) -> int:
    return 0 if entry.origin.startswith("the paper's") else 2 if entry.origin == "ours" else 1


def label_of(entry: Entry) -> str:
    """A method's name, and whether it is ours.

    Examples
    --------
    >>> from refldnq.experiments.reproduce.plan import PlannedCell
    >>> label_of(Entry(cell=PlannedCell("resnet20", "best", 3), values={}, facts={}))
    'best (ours)'
    """
    return entry.cell.method + (" (ours)" if entry.origin == "ours" else "")


def _error(errors: Sequence[float | None]) -> list[float]:
    # NaN draws no bar: a single run has an error that nobody knows, not none.
    return [math.nan if error is None else error for error in errors]


def _legend(axes: Axes, **how: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), **how)


def _curves(axes: Axes, exhibit: str, entries: Sequence[Entry], totals: Mapping[str, int]) -> None:
    done = [entry for entry in entries if entry.n]
    known = {one.cell.network: totals.get(one.cell.network) or one.facts.get("train_total") for one in done}
    shares = bool(known) and all(known.values())
    series = dict.fromkeys((entry.cell.network, entry.cell.method, entry.cell.levels) for entry in done)
    data = next(figure.data for figure in paper().figures if figure.name == exhibit)
    usual, printed_there = paper().images[data], False
    for index, (network, method, levels) in enumerate(series):
        own = [
            entry
            for entry in done
            if (entry.cell.network, entry.cell.method, entry.cell.levels) == (network, method, levels)
        ]
        points = []
        for entry in own:
            assert isinstance(entry.cell.images, int)
            x = 100 * entry.cell.images / (known[network] or 1) if shares else float(entry.cell.images)
            change = entry.values["change"]
            points.append((x, change.mean, change.error))
        points.sort(key=lambda point: point[0])
        x_values, means, errors = (list(column) for column in zip(*points, strict=True))
        label = ", ".join(([network] if len(known) > 1 else []) + [label_of(own[0]), str(levels)])
        how = {**style(index), "linestyle": line_of(index), "linewidth": 1.2}
        axes.errorbar(x_values, means, yerr=_error(errors), label=label, capsize=3, **how)
        printed = paper_row(exhibit, own[0].cell)
        # The tables' number stands where ours are of as many images, which is 1 % if all images are there.
        place = 100 * usual / (known[network] or 1) if shares else float(usual)
        if printed is not None and not (shares and place > 100):
            printed_there = True
            axes.plot(
                [place], [printed.change[0]], "D", color=COLOURS[index % len(COLOURS)], markerfacecolor="none"
            )
    axes.set_xscale("log")
    counts = sorted({entry.cell.images for entry in done if entry.cell.images is not None})
    ticks = [100 * share for share in SHARES] if shares else counts
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    every = " and ".join(f"{total:,}" for total in dict.fromkeys(known.values()) if total)
    axes.set_xlabel(
        f"calibration images, % of the {every} training images" if shares else "calibration images"
    )
    axes.set_ylabel("change of top-1 accuracy, points; bars: ± standard error", fontsize=8)
    axes.set_title(f"{TITLES[exhibit]}\n{', '.join(known)}", fontsize=9)
    _legend(
        axes,
        title=f"hollow: the paper's tables,\n{usual} images" if printed_there else None,
        title_fontsize=7,
    )


def _scatter(axes: Axes, entries: Sequence[Entry]) -> None:
    done = [entry for entry in entries if entry.n]
    found = correlations(done)
    for index, (network, method) in enumerate(
        dict.fromkeys((entry.cell.network, entry.cell.method) for entry in done)
    ):
        own = [entry for entry in done if (entry.cell.network, entry.cell.method) == (network, method)]
        label = ", ".join(([network] if len(found) > 1 else []) + [label_of(own[0])])
        points = points_of(own)
        bars = [[max(0.0, one.y - one.low) for one in points], [max(0.0, one.high - one.y) for one in points]]
        places = [one.x for one in points], [one.y for one in points]
        axes.errorbar(*places, yerr=bars, linestyle="none", label=label, capsize=2, **style(index))
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "125" else "")
    axes.set_xlabel("output error on the test images, relative")
    axes.set_ylabel("test error, %; bars: 95 % interval over the test images", fontsize=8)
    words = [f"{name}: {correlation_words(one)}" for name, one in found.items()]
    axes.set_title("\n".join([TITLES["fig2c"], *words]), fontsize=8)
    _legend(axes)
