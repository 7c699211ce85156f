"""When a run ends: rules on objectives and scales, each decision with its distance from the other way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._make import CLEAR, refuse
from refldnq.verify.kit.families._numbers import fractions

Inputs = Mapping[str, Any]

COUNTS = "stop-early-by-one stop-late-by-one"
CHANGES = f"{COUNTS} stop-wrong-quantity"


def stops(inputs: Inputs) -> tuple[int, int, float, tuple[int, int]]:
    """Iterations done, the kept point, the least relative distance of a decision, and the other way's answer.

    Examples
    --------
    >>> stops(asked("patience", [8, 6, 6, 6, 6, 1], tolerance=1.0))[:2]
    (4, 1)
    """
    iterations, best, margins = _followed(inputs, turned=False)
    return iterations, best, min(margins, default=float("inf")), _followed(inputs, turned=True)[:2]


def _followed(inputs: Inputs, *, turned: bool) -> tuple[int, int, list[float]]:
    # Follow the rule; if `turned`, decisions that are nearly made the other way are.
    E, alpha = fractions(inputs["E"]), fractions(inputs["alpha"])
    tolerance, most = Fraction(inputs["tolerance"]), int(inputs["most"])
    rule, relative = str(inputs["rule"]), bool(inputs["relative"])
    margins: list[float] = []
    best, idle = 0, 0

    def exceeds(gain: Fraction, unit: Fraction, sizes: Fraction) -> bool:
        limit = tolerance * (unit if relative else 1)
        margins.append(float(abs(gain - limit) / (sizes + limit)))
        return bool(gain > limit) != (turned and 0 < margins[-1] < CLEAR)

    for k in range(1, most + 1):
        if rule == "patience":
            better = exceeds(E[best] - E[k], abs(E[best]), abs(E[best]) + abs(E[k]))
            best, idle = (k, 0) if better else (best, idle + 1)
            if idle == int(inputs["patience"]):
                return k, best, margins
        if rule in ("objective", "alpha") and k > (rule == "alpha"):
            old, new = (E[k - 1], E[k]) if rule == "objective" else (alpha[k - 2], alpha[k - 1])
            change, sizes = abs(new - old), abs(new) + abs(old)
            limit = tolerance * (abs(old) if relative else 1)
            margins.append(float(abs(change - limit) / (sizes + limit)))
            if (change < limit) != (turned and 0 < margins[-1] < CLEAR):
                return k, _least(E, k), margins
    return most, best if rule == "patience" else _least(E, most), margins


def _least(E: Array, k: int) -> int:
    return min(range(k + 1), key=lambda i: E[i])  # the first of equals


def asked(
    rule: str,
    E: Any,
    alpha: Any = None,
    *,
    tolerance: float = 0.25,
    patience: int = 3,
    relative: bool = False,
    most: int | None = None,
) -> dict[str, Any]:
    """Inputs of a question: all iterations that there are, unless `most` says less."""
    objectives = np.array(E, dtype=np.float64)
    count = len(objectives) - 1
    scales = np.linspace(4.0, 4.0 + count - 1, count) if alpha is None else np.array(alpha, dtype=np.float64)
    return {
        "rule": rule,
        "E": objectives,
        "alpha": scales,
        "most": count if most is None else most,
        "patience": patience,
        "tolerance": tolerance,
        "relative": relative,
    }


def make_stop(
    name: str,
    comment: str,
    inputs: dict[str, Any],
    catches: str,
    *,
    tier: str = "certified",
    near: bool = False,
) -> Case:
    """A case; a decision may be near only if that is the point.

    Raises
    ------
    ValueError
        If a decision is nearly made the other way.
    """
    iterations, best, margin, other = stops(inputs)
    if not near and not margin >= CLEAR:
        raise ValueError(f"`inputs` of stop/{name} must have margins of {CLEAR}, got {margin}.")
    right = {"iterations": iterations, "best": best}
    both = dict(zip(right, other, strict=True))
    return Case(
        op="stop",
        id=f"stop/{name}",
        comment=comment,
        tier=tier,
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={key: np.array(value, dtype=np.int64) for key, value in right.items()},
        compare=dict.fromkeys(right, "code"),
        margin={key: np.array(margin) for key in right},
        # Of a tie that of the rule; else, where a narrow type cannot tell, either way.
        allowed={
            key: np.array(1 << value | (1 << both[key] if margin else 0)) for key, value in right.items()
        },
        scored=bool(iterations or best),
    )


def cases() -> Iterator[Case]:
    """Rules by count, patience, objective and scale; absolute and relative; on thresholds and beside them."""
    slow = [8.0, 6.0, 6.5, 5.875, 5.8125, 5.75, 5.5, 3.0, 2.0]
    yield make_stop(
        "count",
        "all iterations, whatever happens",
        asked("count", slow, most=6),
        f"{COUNTS} stop-best-of-all",
    )
    yield make_stop(
        "patience",
        "three iterations in a row that do not improve on the best by more than 1/4",
        asked("patience", slow),
        f"{COUNTS} stop-against-previous stop-patience-off stop-best-is-least stop-best-of-all",
    )
    reset = [8.0, 7.9375, 7.875, 6.0, 5.9375, 5.875, 4.0, 3.9375, 3.875, 3.8125, 1.0]
    yield make_stop(
        "patience-starts-again",
        "an improvement ends the row: five iterations without one before, three at the end",
        asked("patience", reset),
        f"{COUNTS} stop-counts-in-total stop-best-is-least stop-patience-off",
    )
    yield make_stop(
        "patience-one",
        "a patience of one iteration",
        asked("patience", [8.0, 6.0, 4.0, 5.0, 1.0], patience=1),
        f"{COUNTS} stop-patience-off stop-best-of-all",
    )
    yield make_stop(
        "patience-relative",
        "small objectives: an absolute 1/8 would never be reached",
        asked(
            "patience",
            np.array([*reset[:7], 3.0, 2.0, 1.9375, 1.875, 1.8125, 1.0]) / 1024,
            tolerance=0.125,
            relative=True,
        ),
        f"{COUNTS} stop-absolute",
    )
    yield make_stop(
        "patience-never",
        "every iteration improves: all are done",
        asked("patience", [64.0, 32.0, 16.0, 8.0, 4.0, 2.0]),
        "stop-early-by-one",
    )
    yield make_stop(
        "patience-exactly",
        "an improvement of exactly the tolerance is none: it must be more",
        asked("patience", [2.0, 1.75, 1.75, 1.75, 0.5, 0.25]),
        "stop-takes-equals",
        tier="exact-dyadic",
        near=True,
    )
    fall = [16.0, 12.0, 9.0, 10.0, 8.5, 8.375, 7.0, 6.9375, 2.0]
    yield make_stop(
        "objective",
        "the objective changes by less than 1/4; a rise by 1 is a change",
        asked("objective", fall),
        f"{CHANGES} stop-signed-change stop-relative stop-best-of-all",
    )
    yield make_stop(
        "objective-relative",
        "it changes by less than 1/8 of itself",
        asked("objective", [512.0, 256.0, 300.0, 200.0, 190.0, 10.0, 9.0], tolerance=0.125, relative=True),
        f"{CHANGES} stop-absolute stop-signed-change",
    )
    yield make_stop(
        "objective-exactly",
        "a change of exactly the tolerance is one: it must be less",
        asked("objective", [2.0, 1.75, 1.5, 1.375, 1.0]),
        "stop-takes-equals",
        tier="exact-dyadic",
        near=True,
    )
    scales = [1.0, 1.5, 1.25, 1.15625, 1.140625, 1.125, 1.125]
    yield make_stop(
        "alpha",
        "the scale changes by less than 1/16, from the second iteration on",
        asked("alpha", [9.0, 8.0, 7.0, 6.0, 8.0, 4.0, 3.0, 2.0], scales, tolerance=0.0625),
        f"{CHANGES} stop-signed-change",
    )
    yield make_stop(
        "alpha-relative",
        "small scales: 1/1000 in absolute terms would end it at once",
        asked(
            "alpha",
            [9.0, 8.0, 7.0, 6.0, 8.0, 4.0, 3.0, 2.0],
            np.array(scales) / 4096,
            tolerance=0.0625,
            relative=True,
        ),
        f"{CHANGES} stop-absolute",
    )
    yield make_stop(
        "scale-free",
        "weights of size 2**-8: an absolute tolerance of 1/1000 stops while much is left to gain",
        asked("patience", np.array([8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125]) * 2.0**-16, tolerance=2.0**-10),
        "stop-relative stop-best-is-least stop-patience-off",
        tier="degenerate",
    )
    edge = 0.75 - 2.0**-38
    yield make_stop(
        "beside-threshold",
        "better than the tolerance by 2**-38: double precision must see it, single may not",
        asked("patience", [1.0, edge, edge, edge, edge, 0.25]),
        "stop-patience-off stop-best-rounded",
        near=True,
    )
    edge = 0.75 - 2.0**-52
    yield make_stop(
        "beside-threshold-double",
        "better than the tolerance by 2**-52: either way is right, but with its own end and its own point",
        asked("patience", [1.0, edge, edge, edge, edge, 0.25]),
        f"{COUNTS} stop-patience-off stop-best-rounded",
        near=True,
    )
    bad = asked("patience", slow)
    yield refuse(
        "stop",
        "nan",
        "one objective is NaN",
        {**bad, "E": np.where(bad["E"] == 6.5, np.nan, bad["E"])},
        "non-finite-accepted",
    )
