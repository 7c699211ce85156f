"""A run's results: the table of the layers, for terminals and as text, and the JSON record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refldnq.experiments.record import plain
from refldnq.experiments.run import Evaluation, QuantizeOutcome
from refldnq.layer_report import MOVED, RIDGE, LayerReport

COLUMNS = ("layer", "levels", "α", "zeros", "error", "accum.", "output", "iter.", "time")
"""Headings of the table; the three errors are relative to the squared norm of what they compare with."""

HELD_OUT, WITHIN = "held out", "within"
"""Headings that are there if a layer has an error on held-out images, or a certificate was asked for."""


def columns(reports: Sequence[LayerReport]) -> tuple[str, ...]:
    """The headings for some layers.

    Examples
    --------
    >>> columns([]) == COLUMNS
    True
    """
    headings = list(COLUMNS)
    if any(report.relative_held_out_error is not None for report in reports):
        headings.insert(headings.index("error") + 1, HELD_OUT)
    if any(report.lower_bound is not None for report in reports):
        headings.insert(headings.index("time"), WITHIN)
    return tuple(headings)


def within(report: LayerReport) -> str:
    """How near the optimum a layer's objective is, in words; empty if no certificate was asked for."""
    if report.lower_bound is None:
        return ""
    if report.guarantee == "optimal":
        return "optimal"
    return "no certificate" if report.gap is None else f"{100 * report.gap:.3g} %"


def layer_row(report: LayerReport, headings: Sequence[str] = COLUMNS) -> tuple[str, ...]:
    """The cells of one layer, in the order of `headings`."""
    if isinstance(report.alpha, tuple):
        scales = np.asarray(report.alpha)
        alpha = f"{scales.min():.3g}..{scales.max():.3g}"
    else:
        alpha = f"{report.alpha:.4g}"
    held_out = report.relative_held_out_error
    cells = {
        "layer": report.name,
        "levels": str(report.levels),
        "α": alpha,
        "zeros": f"{100 * report.zero_fraction:.1f} %",
        "error": f"{report.relative_error:.4f}",
        HELD_OUT: "" if held_out is None else f"{held_out:.4f}",
        "accum.": f"{report.relative_accumulated_error:.4f}",
        "output": f"{report.relative_output_error:.4f}",
        "iter.": str(report.iterations),
        WITHIN: within(report),
        "time": f"{report.seconds:.1f} s",
    }
    return tuple(cells[heading] for heading in headings)


def remarks(reports: Sequence[LayerReport]) -> list[str]:
    """What the table does not tell: singular Hessians, dead inputs, notes but for the ridges' numbers.

    Parameters
    ----------
    reports : sequence of LayerReport
        Of a run.

    Returns
    -------
    list of str
        A line each, equal ones of several layers in one.
    """
    found: dict[str, list[str]] = {}
    for report in reports:
        if report.rank < report.size:
            own = f"{report.name} ({report.rank} of {report.size})"
            found.setdefault("the images' H has a rank less than its rows", []).append(own)
        if report.dead_inputs:
            own = f"{report.name} ({report.dead_inputs})"
            found.setdefault("inputs that are 0 in all images", []).append(own)
        for note in report.notes:
            if note.startswith(RIDGE):  # every layer has one of its own: they stand in the JSON
                continue
            if note.startswith(MOVED):
                found.setdefault(MOVED, []).append(f"{report.name} ({note.rpartition(' ')[2]})")
            else:
                found.setdefault(note, []).append(report.name)
    return [f"{what}: {', '.join(layers)}" for what, layers in found.items()]


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON values.

    Returns
    -------
    dict
        ``accuracy`` and its ``interval`` (95 %), ``correct``, ``total``, ``top5`` and its ``interval_top5``;
        shares in percent, null where there is no top-5 accuracy.

    Examples
    --------
    >>> evaluation_json(Evaluation(correct=9, total=10, correct_top5=None))["accuracy"]
    90.0
    """
    top5 = evaluation.interval_top5
    return {
        "interval": list(evaluation.interval),
        "interval_top5": None if top5 is None else list(top5),
        "accuracy": evaluation.accuracy,
        "correct": evaluation.correct,
        "total": evaluation.total,
        "top5": evaluation.top5,
    }


def outcome_json(outcome: QuantizeOutcome) -> dict[str, Any]:
    """A run as JSON values.

    Parameters
    ----------
    outcome : QuantizeOutcome
        The run.

    Returns
    -------
    dict
        ``accuracy_before``, ``accuracy_after`` (percent), ``drop`` (before - after, points): null without a
        test split; ``seconds``, ``peak_rss_mb``, ``layers`` (every field of `LayerReport`, NaN as null; among
        them ``lower_bound`` and ``gap``, ``error`` and ``held_out_error``), ``update_images`` (image passes
        of all updates), the two evaluations, direct quantization beside them, and what the run was made with
        (``provenance``).
    """
    return {
        "accuracy_before": outcome.before.accuracy if outcome.before else None,
        "accuracy_after": outcome.after.accuracy if outcome.after else None,
        "drop": outcome.drop,
        "seconds": outcome.seconds,
        "peak_rss_mb": plain(outcome.peak_rss_mb),
        "layers": [plain(report) for report in outcome.reports],
        "update_images": sum(report.update_images for report in outcome.reports),
        "resumed_layers": outcome.resumed_layers,
        "before": evaluation_json(outcome.before) if outcome.before else None,
        "after": evaluation_json(outcome.after) if outcome.after else None,
        "direct": _direct_json(outcome),
        "provenance": plain(outcome.model.provenance),
    }


def _direct_json(outcome: QuantizeOutcome) -> dict[str, Any] | None:
    if not outcome.direct_reports:
        return None
    return {
        **(evaluation_json(outcome.direct) if outcome.direct else {"accuracy": None}),
        "layers": [plain(report) for report in outcome.direct_reports],
    }
