"""Rounding with linear feedback from the LDL factorization of H (Chee et al. 2023, "QuIP")."""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array, Float64Array
from refldnq.codebook import Codebook
from refldnq.solvers.base import Solution, pick_settings
from refldnq.solvers.greedy import GreedySettings, quantize
from refldnq.solvers.problem import Problem


def feedback(H: Float64Array) -> Float64Array:
    r"""How later entries answer to the errors of earlier ones, (g, d, d), strictly lower triangular.

    Parameters
    ----------
    H : Array, shape (g, d, d)
        Positive definite blocks.

    Returns
    -------
    Array, shape (g, d, d)
        A with :math:`H = (I + A)^\top D (I + A)`, D diagonal.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a block is not positive definite.

    Notes
    -----
    With it :math:`\delta^\top H\delta = \sum_i D_i (\delta_i + \sum_{j<i} A_{ij}\delta_j)^2`. If entries are
    rounded from the first to the last, entry i can only lower its own term without regard to those after it;
    the best that it can do is to round :math:`w_i + \sum_{j<i} A_{ij}(w_j - g_j)`.

    Examples
    --------
    >>> feedback(np.array([[[2.0, 1.0], [1.0, 4.0]]]))
    array([[[0.  , 0.  ],
            [0.25, 0.  ]]])
    """
    # Cholesky from the last row upwards: H = U Uᵀ with U upper triangular, so I + A = diag(U)⁻¹ Uᵀ.
    upper = np.linalg.cholesky(H[:, ::-1, ::-1])[:, ::-1, ::-1]
    unit: Float64Array = upper.transpose(0, 2, 1) / np.einsum("gii->gi", upper)[:, :, None]
    return np.ascontiguousarray(np.tril(unit, -1))


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
    """Quantize a weight by rounding with linear feedback.

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
        At the same scale and no damping the codes of `refldnq.solvers.gptq`.

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

    return quantize("ldlq", problem, chosen, kernels.pull, feedback)
