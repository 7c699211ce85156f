"""Patches: copies of numbers, so every answer is exact; the faults are in which number goes where."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._geometry import layers
from refldnq.verify.kit.families._make import make, refuse


def cases() -> Iterator[Case]:
    """One case a geometry, and what must be refused."""
    for layer in layers():
        catches = layer.catches.get("patches", "")
        flags = () if catches else ("smoke",)
        yield make(
            "patches", layer.name, layer.comment, layer.inputs, tier=layer.tier, catches=catches, flags=flags
        )
    good = next(layers()).inputs
    for name, value in (("nan", np.nan), ("infinity", -np.inf)):
        X = good["X"].copy()
        X[1, 2, 3, 4] = value
        yield refuse("patches", name, f"one pixel is {value}", {**good, "X": X}, "non-finite-accepted")
    yield refuse("patches", "channels", "2 channels where the weight has 3", {**good, "X": good["X"][:, :2]})
    yield refuse(
        "patches",
        "small-image",
        "the window is larger than the padded image",
        {**good, "X": good["X"][:, :, :2], "padding": np.array((0, 0, 1, 1))},
    )
