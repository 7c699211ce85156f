"""An exhibit as a picture with error bars, the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from refldnq.experiments.drawing import COLOURS, draw, style
from refldnq.experiments.reproduce.plan import paper_row
from refldnq.experiments.reproduce.summary import Entry
from refldnq.experiments.reproduce.tables import correlation_words, correlations, kind_of, points_of

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
        return draw(lambda axes: _bars(axes, entries))
    if kind == "fig2c":
        return draw(lambda axes: _scatter(axes, entries))
    return draw(lambda axes: _curves(axes, exhibit, entries, totals or {}))


def _bars(axes: Axes, entries: Sequence[Entry]) -> None:
    names = [f"{entry.cell.network}, {entry.cell.method}, {entry.cell.levels}" for entry in entries]
    for place, entry in enumerate(entries):
        change = entry.values.get("change")
        if change is not None:
            axes.errorbar([place], [change.mean], yerr=[change.error or 0.0], **style(0), capsize=3)
        if entry.paper is not None:
            axes.plot([place], [entry.paper.change[0]], "D", color="#555555", markerfacecolor="none")
    axes.plot([], [], linestyle="none", label="ours, ± standard error", **style(0))
    axes.plot([], [], "D", color="#555555", markerfacecolor="none", label="the paper's")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_ylabel("change of top-1 accuracy, points")
    axes.legend(frameon=False)


def _curves(axes: Axes, exhibit: str, entries: Sequence[Entry], totals: Mapping[str, int]) -> None:
    done = [entry for entry in entries if entry.n]
    shares = all(entry.cell.network in totals for entry in done)
    series = dict.fromkeys((entry.cell.network, entry.cell.method, entry.cell.levels) for entry in done)
    for index, (network, method, levels) in enumerate(series):
        own = [
            entry
            for entry in done
            if (entry.cell.network, entry.cell.method, entry.cell.levels) == (network, method, levels)
        ]
        points = []
        for entry in own:
            assert isinstance(entry.cell.images, int)
            x = 100 * entry.cell.images / totals[network] if shares else float(entry.cell.images)
            change = entry.values["change"]
            points.append((x, change.mean, change.error or 0.0))
        points.sort()
        x_values, means, errors = (list(column) for column in zip(*points, strict=True))
        label = f"{network}, {method}, {levels}"
        axes.errorbar(x_values, means, yerr=errors, label=label, capsize=3, **style(index))
        printed = paper_row(exhibit, own[0].cell)
        if printed is not None and shares:  # the tables': at 1 % of the training images
            axes.plot(
                [1.0], [printed.change[0]], "D", color=COLOURS[index % len(COLOURS)], markerfacecolor="none"
            )
    axes.set_xscale("log")
    axes.set_xlabel("calibration images, % of the training images" if shares else "calibration images")
    axes.set_ylabel("change of top-1 accuracy, points")
    if done:
        axes.legend(frameon=False, fontsize=8, title="hollow: the paper's tables", title_fontsize=8)


def _scatter(axes: Axes, entries: Sequence[Entry]) -> None:
    done = [entry for entry in entries if entry.n]
    found = correlations(done)
    for index, (network, method) in enumerate(
        dict.fromkeys((entry.cell.network, entry.cell.method) for entry in done)
    ):
        own = [entry for entry in done if (entry.cell.network, entry.cell.method) == (network, method)]
        axes.plot(*points_of(own), linestyle="none", label=f"{network}, {method}", **style(index))
    axes.set_xscale("log")
    axes.set_xlabel("output error on the test images, relative")
    axes.set_ylabel("test error, %")
    axes.set_title("\n".join(f"{name}: {correlation_words(one)}" for name, one in found.items()), fontsize=8)
    if done:
        axes.legend(frameon=False, fontsize=8)
