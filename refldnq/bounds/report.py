"""The ladder in words: tables for terminals and as text."""

from __future__ import annotations

from collections.abc import Sequence

from refldnq.bounds.results import Ladder, LayerBounds, Rung
from refldnq.bounds.update_aware import UpdateAware

LAYER_COLUMNS = ("layer", "e", "c", "block", "at the end", "secant", "norm", "gain")
"""Headings: parallel and cascade layer error, the error behind the block, both contributions to the final
error, the certified operator norm, the most by which an error here can grow."""

RUNG_COLUMNS = ("bound", "value", "bound/true", "valid", "holds")
"""Headings of the ladder."""

Rows = list[tuple[str, ...]]


def layer_rows(layers: Sequence[LayerBounds]) -> Rows:
    """The cells of the layers, in the order of `LAYER_COLUMNS`."""
    return [
        (
            layer.name,
            *(
                f"{value:.4g}"
                for value in (layer.parallel, layer.cascade, layer.block, layer.hybrid, layer.secant)
            ),
            f"{layer.norm:.4g}",
            f"{layer.gain:.3g}",
        )
        for layer in layers
    ]


def rung_rows(rungs: Sequence[Rung]) -> Rows:
    """The cells of the ladder, in the order of `RUNG_COLUMNS`.

    Examples
    --------
    >>> numbers = {"value": 2.0, "tightness": 0.5, "slack": 0.0}
    >>> rung_rows([Rung(key="printed", valid=False, reasons=("x",), holds=False, **numbers)])
    [('(19) as printed', '2', '0.5', 'no', 'VIOLATED')]
    """
    return [
        (
            rung.title,
            f"{rung.value:.4g}",
            f"{rung.tightness:.3g}",
            "yes" if rung.valid else "no",
            "yes" if rung.holds else "VIOLATED",
        )
        for rung in rungs
    ]


def summary(ladder: Ladder, update: UpdateAware) -> str:
    """What the tables do not say: the true error, objections to invalid bounds, rounding, the update."""
    relative = ladder.true_error / ladder.output_norm if ladder.output_norm > 0 else float("nan")
    lines = [
        f"true final error: {ladder.true_error:.6g} (root of the mean squared norm over {ladder.images} "
        f"images), {100 * relative:.1f} % of the output's {ladder.output_norm:.4g}",
        f"best valid bound: {ladder.best.title}, {ladder.best.value:.6g}",
        f"telescoping identity: residual {ladder.residual:.1e}",
    ]
    for reason in ladder.rung("printed").reasons:
        lines.append(f"(19) as printed does not apply here: {reason}")
    slack = max(rung.slack / rung.value if rung.value > 0 else 0.0 for rung in ladder.rungs if rung.valid)
    lines.append(f"float64: rounding is at most {slack:.1e} of each valid bound")
    if update.available:
        verb = "bounds" if update.holds else "does not bound"
        lines.append(
            f"with the weights update, on the run's calibration images: {update.value:.6g} {verb} "
            f"{update.true_error:.6g} ({update.tightness:.3g} times)"
        )
    else:
        lines.append(f"bound with the weights update: not available, {update.reason}")
    if not update.sound:
        lines.append("NOT SOUND: the bound with the weights update is violated")
    lines += [f"NOT SOUND: {pair}" for pair in ladder.violated]
    lines += [
        f"NOT SOUND: {rung.title} is violated" for rung in ladder.rungs if rung.valid and not rung.holds
    ]
    return "\n".join(lines)
