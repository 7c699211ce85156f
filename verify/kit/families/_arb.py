"""Irrational answers as balls: what python-flint proves, to be written down once in `_balls`.

``python -m refldnq.verify.kit.families._arb`` writes that module again. Only this one needs python-flint.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array

Inputs = Mapping[str, Any]

BITS = 256
"""Precision of the balls: radii come out below 2**-200 of the values."""


def balls(op: str, inputs: Inputs) -> dict[str, Array]:
    """The answers to one question as arrays of Arb's balls.

    Examples
    --------
    >>> given = {"kind": "cross_entropy", "y": np.zeros((1, 2)), "labels": np.array([0])}
    >>> round(float(balls("loss", given)["loss"].item().mid()), 12)  # log 2
    0.69314718056
    """
    import flint

    before, flint.ctx.prec = flint.ctx.prec, BITS
    try:
        return _loss(inputs) if op == "loss" else _normalized(inputs, backward=op == "backward")
    finally:
        flint.ctx.prec = before


def rounded(ball: Any) -> tuple[float, float]:
    """The one float64 that every number of the ball rounds to, and the ball's relative radius.

    Raises
    ------
    ValueError
        If there are two.
    """
    middle, radius = _fraction(ball.mid()), _fraction(ball.rad())
    ends = float(middle - radius), float(middle + radius)
    if ends[0] != ends[1]:
        raise ValueError(f"`ball` must round to one number, got {ball}.")
    return ends[0], float(radius / abs(middle)) if middle else 0.0


def _fraction(exact: Any) -> Fraction:
    mantissa, exponent = exact.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _balls(array: Any) -> Array:
    import flint

    given = np.asarray(array, dtype=np.float64)
    found = np.empty(given.shape, dtype=object)
    found.ravel()[:] = [flint.arb(value) for value in given.ravel().tolist()]  # float64 exactly
    return found


def _each(array: Array, of: str) -> Array:
    found = np.empty(array.shape, dtype=object)
    found.ravel()[:] = [getattr(one, of)() for one in array.ravel()]
    return found


def _normalized(inputs: Inputs, *, backward: bool) -> dict[str, Array]:
    # Batch normalization and its gradients, by the formulas of the textbooks.
    x, scale, shift = (_balls(inputs[name]) for name in ("x", "weight", "bias"))
    train = inputs["mode"] == "train"
    axes, count = (0, *range(2, x.ndim)), x.size // x.shape[1]
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, variance = (_balls(inputs[f"running_{name}"]) for name in ("mean", "var"))
    kept = mean, variance
    if train:
        mean = x.sum(axis=axes) / count
        variance = ((x - mean.reshape(shape)) ** 2).sum(axis=axes) / count
    root = _each(variance + _balls(inputs["eps"]), "sqrt")
    hat = (x - mean.reshape(shape)) / root.reshape(shape)
    if not backward:
        found = {"y": hat * scale.reshape(shape) + shift.reshape(shape)}
        if train:
            new = _balls(inputs["momentum"])
            unbiased = variance * count / (count - 1)
            for name, old, value in zip(("mean", "var"), kept, (mean, unbiased), strict=True):
                found[f"new_running_{name}"] = old * (1 - new) + value * new
        return found
    dy = _balls(inputs["dy"])
    dweight, dbias = (dy * hat).sum(axis=axes), dy.sum(axis=axes)
    inner = dy
    if train:
        inner = dy - (dbias / count).reshape(shape) - hat * (dweight / count).reshape(shape)
    return {"dx": inner * (scale / root).reshape(shape), "dweight": dweight, "dbias": dbias}


def _loss(inputs: Inputs) -> dict[str, Array]:
    y, kind = _balls(inputs["y"]), inputs["kind"]
    n = len(y)
    if kind == "cross_entropy":
        logs = _log_softmax(y)
        hot = np.eye(y.shape[1])[np.asarray(inputs["labels"])]
        value = -(logs * _balls(hot)).sum() / n
        return {"loss": np.array(value, dtype=object), "dy": (_each(logs, "exp") - _balls(hot)) / n}
    temperature = _balls(inputs["temperature"]).item()
    logs, wanted = _log_softmax(y / temperature), _log_softmax(_balls(inputs["target"]) / temperature)
    p = _each(wanted, "exp")
    value = (p * (wanted - logs)).sum() * temperature**2 / n
    return {"loss": np.array(value, dtype=object), "dy": (_each(logs, "exp") - p) * temperature / n}


def _log_softmax(z: Array) -> Array:
    return z - _each(_each(z, "exp").sum(axis=1, keepdims=True), "log")


def text() -> str:
    """The module `_balls`: the one float64 in every ball, in hexadecimal."""
    from refldnq.verify.kit.families.irrational import questions

    lines = [
        '"""Answers that are no fractions, as proved by balls; written by `_arb`, not by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "",
        "BALLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {",
    ]
    for id_, inputs in questions().items():
        lines.append(f'    "{id_}": {{')
        for name, array in balls(id_.partition("/")[0], inputs).items():
            lines.append(f'        "{name}": (')
            lines += [f'            "{rounded(ball)[0].hex()}",' for ball in array.ravel()]
            lines.append("        ),")
        lines.append("    },")
    lines += [
        "}",
        '"""By case and answer: float64 in C order, each the only one that its ball rounds to."""',
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("_balls.py")).write_text(
        text(), "utf-8"
    )
