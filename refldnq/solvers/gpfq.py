"""Greedy path following (Lybrand & Saab 2021): the running error of the pre-activation guides every entry.

The method follows the original network's inputs X with the quantized prefix's X̃. A solver of (10) sees X̃
alone, as H; with the target ``drift`` X enters by the weights W* to be followed (module `refldnq.drift`).
"""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array, Float64Array
from refldnq.codebook import Codebook
from refldnq.solvers.base import Solution, pick_settings
from refldnq.solvers.greedy import GreedySettings, quantize
from refldnq.solvers.problem import Problem


def correlations(H: Float64Array) -> Float64Array:
    r"""The answers of greedy path following, :math:`A_{ij} = H_{ij}/H_{ii}` for j < i, (g, d, d).

    Parameters
    ----------
    H : Array, shape (g, d, d)
        Blocks with a positive diagonal.

    Returns
    -------
    Array, shape (g, d, d)
        Strictly lower triangular.

    Notes
    -----
    With the columns :math:`X_t` of the design matrix and the running error :math:`U = \sum_{s<t} (w_s - g_s)
    X_s`, entry t is rounded from :math:`\langle U + w_t X_t, X_t\rangle / \|X_t\|^2`; the inner products
    of columns are the entries of H up to a factor, so H is all that is needed.

    Examples
    --------
    >>> correlations(np.array([[[2.0, 1.0], [1.0, 4.0]]]))
    array([[[0.  , 0.  ],
            [0.25, 0.  ]]])
    """
    return np.ascontiguousarray(np.tril(H, -1) / np.einsum("gii->gi", H)[:, :, None])


DEFAULT = GreedySettings(damping=0.0)
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: GreedySettings | None = None,
    *,
    column_weights: Array | None = None,
) -> Solution:
    """Quantize a weight by greedy path following, at the best of a grid of scales.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : GreedySettings, optional
        How; by default without damping, which the method does not need.
    column_weights : Array, shape (g, m), optional
        Weights of the columns' errors; they matter for a shared scale alone.

    Returns
    -------
    Solution
        Depends on the order of the entries.

    Raises
    ------
    ValueError
        If the shapes do not fit or an entry is not finite.
    TypeError
        If H is not float64, W not float or the settings are another solver's.

    Examples
    --------
    >>> from refldnq.codebook import fixed
    >>> H = np.array([[[2.0, 1.9], [1.9, 2.0]]])
    >>> solve(H, np.array([[[0.4], [0.4]]]), fixed([-1, 0, 1])).G.ravel()
    array([0., 1.])
    """
    chosen: GreedySettings = pick_settings(settings, GreedySettings, DEFAULT)
    problem = Problem(H, W, codebook, per_channel=chosen.per_channel, column_weights=column_weights)
    from refldnq._kernels import greedy as kernels

    return quantize("gpfq", problem, chosen, kernels.pull, correlations)
