"""Hessians of the layer error (10): sums that are judged by the sum of the magnitudes of their terms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._geometry import layers
from refldnq.verify.kit.families._make import make, refuse


def cases() -> Iterator[Case]:
    """One case a geometry, and what must be refused."""
    for layer in layers():
        catches = layer.catches["hessian"]
        yield make("hessian", layer.name, layer.comment, layer.inputs, tier=layer.tier, catches=catches)
    good = next(layers()).inputs
    for name, value in (("nan", np.nan), ("infinity", np.inf)):
        X = good["X"].copy()
        X[2, 0, 0, 0] = value
        yield refuse("hessian", name, f"one pixel is {value}", {**good, "X": X}, "non-finite-accepted")
    yield refuse(
        "hessian", "no-images", "a mean over no images", {**good, "X": good["X"][:0]}, "nothing-accepted"
    )
    yield refuse("hessian", "channels", "2 channels where the weight has 3", {**good, "X": good["X"][:, :2]})
