"""Direct quantization: round the weights to the nearest point of Ω and ignore the data.

It is the baseline DQ, and with the exact projection the most that any method without data can do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from refldnq._checks import check_choice, check_float, check_shape
from refldnq._typing import Array, Float64Array
from refldnq.codebook import TIES, Codebook, Ties
from refldnq.hessian import layer_error
from refldnq.projection import project
from refldnq.solvers.base import Solution, check_problem, pick_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectSettings:
    """How weights are rounded.

    Parameters
    ----------
    variant : {'mean', 'alternating', 'exact'}, optional
        ``mean``: α = mean|W| and the nearest levels, as in the released code of L-DNQ (the default, the
        paper's DQ). ``alternating``: the paper's projection (17), started there. ``exact``: the least ‖W -
        G‖.
    per_channel : bool, optional
        One α for each output channel in place of one a layer.
    ties : {'smaller', 'larger', 'zero'}, optional
        Where a value halfway between two levels goes.

    Raises
    ------
    ValueError
        If a setting is not among its choices.

    Examples
    --------
    >>> DirectSettings(variant="exact").per_channel
    False
    """

    variant: Literal["mean", "alternating", "exact"] = "mean"
    per_channel: bool = False
    ties: Ties = "smaller"

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, ("mean", "alternating", "exact"))
        check_choice("ties", self.ties, TIES)


DEFAULT = DirectSettings()
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array | None, W: Array, codebook: Codebook, settings: DirectSettings | None = None
) -> Solution:
    r"""Quantize a weight without looking at the data.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64, or None
        The Hessian's blocks; used for the reported objective only.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : DirectSettings, optional
        How.

    Returns
    -------
    Solution
        With f(G) as objective, or NaN without H. If H has eigenvalues :math:`h_{\min}` to :math:`h_{\max}`,
        the exact variant's objective is at most :math:`h_{\max}/h_{\min}` times the optimum of (10).

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is not finite, or the mean of a free set is asked for.
    TypeError
        If H is not float64, W not float or the settings are another solver's.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.codebook import powers_of_two
    >>> W = np.array([[[4.0], [1.0], [1.0], [1.0]]])
    >>> for variant in ("mean", "exact"):
    ...     solution = solve(np.eye(4)[None], W, powers_of_two(3), DirectSettings(variant=variant))
    ...     print(solution.G.ravel(), solution.objective)
    [1.75 1.75 1.75 1.75] 3.375
    [4. 0. 0. 0.] 1.5
    """
    chosen: DirectSettings = pick_settings(settings, DirectSettings, DEFAULT)
    check_shape("W", check_float("W", W), (None, None, None))
    if H is not None:
        check_problem(H, W)
    if chosen.variant == "mean" and codebook.kind == "free":
        raise ValueError("`variant` must be 'alternating' or 'exact' for a free set, got 'mean'.")
    found = project(
        W,
        codebook,
        method="exact" if chosen.variant == "exact" else "alternating",
        max_passes=0 if chosen.variant == "mean" else None,
        per_channel=chosen.per_channel,
        ties=chosen.ties,
    )
    return Solution(
        codes=found.codes,
        alpha=found.alpha,
        values=found.values,
        objective=float("nan") if H is None else layer_error(H, W, found.G),
        solver="direct",
        settings=chosen,
    )
