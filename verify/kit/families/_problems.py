"""Layers as the solver sees them: H, a weight, and states of ADMM, in numbers that float32 holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.families._numbers import draws

POWERS: Mapping[int, Array] = {
    3: np.array([-1.0, 0.0, 1.0]),
    5: np.array([-2.0, -1.0, 0.0, 1.0, 2.0]),
    7: np.array([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]),
    9: np.array([-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0]),
    11: np.array([-16.0, -8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0]),
}
"""Ω/α of the paper by its number of levels."""


def correlated(seed: int, n: int, d: int) -> Array:
    """A Hessian (2/n) XᵀX of n correlated rows; n is a power of two, so that no entry rounds.

    Examples
    --------
    >>> correlated(3, 8, 1)
    array([[4.421875]])
    """
    mixed = draws(seed, (n, d), -8, 8, 4) @ (2 * np.eye(d) + draws(seed + 1, (d, d), -2, 2)) / 2
    return np.asarray(mixed.T @ mixed * (2 / n))


def weight(seed: int, d: int, m: int) -> Array:
    """Entries between -2 and 2, of 12 bits."""
    return draws(seed, (d, m), -(2**10), 2**10, 2**9)


def state(seed: int, H: Array, m: int, rho: float) -> dict[str, Any]:
    """The inputs of a proximal step: a weight, a G off its projection, and a λ."""
    d = len(H)
    return {
        "H": H,
        "W_bar": weight(seed, d, m),
        "G": draws(seed + 1, (d, m), -2, 2, 1) * 0.75,
        "lam": draws(seed + 2, (d, m), -(2**9), 2**9, 2**10),
        "rho": rho,
    }
