"""Rounding entry by entry with the errors pushed to the later entries (Frantar et al. 2023, "GPTQ")."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from refldnq._typing import Array, Float64Array
from refldnq.codebook import Codebook
from refldnq.solvers.base import Solution, pick_settings
from refldnq.solvers.greedy import GreedySettings, quantize
from refldnq.solvers.problem import Problem


def inverse_factor(H: Float64Array) -> Float64Array:
    r"""The upper Cholesky factors U of the inverses, :math:`H^{-1} = U^\top U`, (g, d, d).

    Parameters
    ----------
    H : Array, shape (g, d, d)
        Positive definite blocks.

    Returns
    -------
    Array, shape (g, d, d)
        Row i of U over :math:`U_{ii}` is what the optimal answer of the later entries to an error in entry i
        is, once the entries before it stand.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a block is not positive definite.

    Examples
    --------
    >>> inverse_factor(np.array([[[4.0, 0.0], [0.0, 1.0]]]))
    array([[[0.5, 0. ],
            [0. , 1. ]]])
    """
    identity = np.eye(H.shape[1])
    factors = []
    for block in H:
        inverse = cho_solve(cho_factor(block, check_finite=False), identity, check_finite=False)
        factors.append(np.linalg.cholesky(0.5 * (inverse + inverse.T)).T)
    return np.ascontiguousarray(factors)


DEFAULT = GreedySettings()
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: GreedySettings | None = None,
    *,
    column_weights: Array | None = None,
) -> Solution:
    """Quantize a weight as GPTQ does, at the best of a grid of scales.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : GreedySettings, optional
        How.
    column_weights : Array, shape (g, m), optional
        Weights of the columns' errors; they matter for a shared scale alone.

    Returns
    -------
    Solution
        At the same scale and no damping the codes of `refldnq.solvers.ldlq`.

    Raises
    ------
    ValueError
        If the shapes do not fit or an entry is not finite.
    TypeError
        If H is not float64, W not float or the settings are another solver's.
    numpy.linalg.LinAlgError
        If H is singular and there is no damping.

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

    return quantize("gptq", problem, chosen, kernels.push, inverse_factor)
