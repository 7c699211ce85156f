"""The projection step (16)-(17): the point of Ω nearest to V, by the paper's alternation or exactly.

Minimizing ‖V - αQ‖² over α and Q together is not convex. The paper alternates between the two; that ends in a
local optimum which can be arbitrarily bad. The exact method finds the global one at the cost of a sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_finite, check_float, check_number, check_shape
from refldnq._rows import Method, Rule, project_rows
from refldnq._typing import Array, Float64Array, Int8Array
from refldnq.codebook import Codebook, Ties


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A point of Ω and how it was found.

    Parameters
    ----------
    codes : Array, shape of V, int8
        Indices into `values`.
    alpha : Array, shape () or (g, m), float64
        The scale; 1 for fixed and free sets, 0 if G = 0.
    values : Array, shape (k,), float64
        The set's values, ascending.
    residual : float
        Σ w (V - G)², all weights 1 by default.
    passes : int
        Updates that changed the scale (or a free set's values); the most over all channels.
    converged : bool
        Whether the result is a fixed point of the alternation, up to `alpha_tolerance` if that was given.
    guarantee : {'global', 'local'}
        Whether no point of Ω is nearer, up to rounding, or nothing is proved beyond the descent of the
        alternation.
    """

    codes: Int8Array
    alpha: Float64Array
    values: Float64Array
    residual: float
    passes: int
    converged: bool
    guarantee: Literal["global", "local"]

    @property
    def G(self) -> Float64Array:  # noqa: N802 - the paper's symbol
        """The point itself, alpha * values[codes], float64 in the shape of V."""
        alpha = self.alpha[:, None, :] if self.alpha.ndim else self.alpha
        result: Float64Array = alpha * self.values[self.codes]
        return result


def project(
    V: Array,
    codebook: Codebook,
    *,
    method: Method = "alternating",
    alpha0: float | Array | None = None,
    max_passes: int | None = None,
    alpha_tolerance: float | None = None,
    keep_best_pass: bool = False,
    per_channel: bool = False,
    weights: Array | None = None,
    ties: Ties = "smaller",
) -> Projection:
    r"""The point of Ω nearest to V, (16)-(17).

    .. math:: \min_{\alpha \ge 0,\,Q} \sum_i w_i (V_i - \alpha Q_i)^2

    Parameters
    ----------
    V : Array, any shape, float32 or float64
        What is projected; with `per_channel` (g, d, m).
    codebook : Codebook
        The set.
    method : {'alternating', 'exact'}, optional
        The paper's alternation Q = nearest(V/α), α = VᵀQ/QᵀQ, or the global optimum. For free sets: Lloyd's
        alternation from quantiles, or the best partition by dynamic programming. Fixed sets need neither.
    alpha0 : float or Array, shape (g, m), optional
        Where the alternation starts; by default at the mean of \|V\| (over the least non-zero magnitude of
        the set, 1 in the paper's sets). Scaled sets only; the exact method does not use it.
    max_passes : int, optional
        Most updates of α; 0 rounds at `alpha0` and leaves α there. Without it the alternation goes on to its
        fixed point, which in sets with 0 takes at most N updates a level.
    alpha_tolerance : float, optional
        Stop when an update changes α by less than this, an absolute number. The released code has 1e-3.
    keep_best_pass : bool, optional
        Of all passes and the start, α0 nearest(V/α0), return the one of least residual, as the released code
        does.
    per_channel : bool, optional
        One α for each of the g·m output channels in place of one for all.
    weights : Array, shape of V, optional
        Non-negative weights w; all 1 by default.
    ties : {'smaller', 'larger', 'zero'}, optional
        Where a value halfway between two levels goes; see `refldnq.codebook.Ties`.

    Returns
    -------
    Projection
        Codes, scale, residual and what is known about them.

    Raises
    ------
    ValueError
        If an argument is out of range, not finite or misshapen, or does not fit the kind of the codebook.
    TypeError
        If `V` is not a float array or a number has the wrong type.

    Notes
    -----
    (17) is printed with a minimum over G and α; the variables are α and Q. α = VᵀQ/QᵀQ needs Q ≠ 0: if Q is
    0, the alternation starts over at the mean, from where that cannot happen in sets symmetric about 0; with
    `keep_best_pass` it ends there with G = 0, which is what the released code returns. A value is compared
    with α times the midpoint, never divided by α. The alternation has reached its fixed point when an update
    returns α to the last bit; in sets with 0 the exact sequence of α is monotone, so a step back is rounding
    and ends it too.

    The exact method moves every element from level to level as α falls from infinity, in the order of its
    breakpoints \|V\|/midpoint, and keeps the best VᵀQ²/QᵀQ on the way. That holds for every finite set: for
    fixed Q the optimal α gives ‖V‖² - (VᵀQ)²/QᵀQ, rounding at the optimal α costs no more than the optimal Q,
    and the sweep passes that rounding. At the optimum no element lies halfway between two levels (moving it
    would keep the cost at that α and change the best α), so `ties` has no effect there.

    Examples
    --------
    The alternation can be arbitrarily bad: (n+1, 1, ..., 1) is rounded to equal entries.

    >>> import numpy as np
    >>> from refldnq.codebook import powers_of_two
    >>> V = np.array([4.0, 1.0, 1.0, 1.0])
    >>> result = project(V, powers_of_two(3))
    >>> result.G, result.residual
    (array([1.75, 1.75, 1.75, 1.75]), 6.75)
    >>> result = project(V, powers_of_two(3), method="exact")
    >>> result.G, result.residual, result.guarantee
    (array([4., 0., 0., 0.]), 3.0, 'global')
    """
    rule = Rule(
        method=method,
        max_passes=max_passes,
        alpha_tolerance=alpha_tolerance,
        keep_best_pass=keep_best_pass,
        ties=ties,
    )
    rule.check(codebook, per_channel=per_channel)
    check_finite("V", check_float("V", V))
    if per_channel:
        check_shape("V", V, (None, None, None))
    if V.size == 0:
        raise ValueError(f"`V` must hold at least one value, got shape {V.shape}.")
    if weights is not None:
        check_shape("weights", weights, V.shape)
        check_finite("weights", check_float("weights", weights))
        if (weights < 0).any():
            raise ValueError(f"`weights` must not be negative, got {weights.min()}.")
    channels = (V.shape[0], V.shape[2]) if per_channel else ()
    start = None if alpha0 is None else _start(alpha0, codebook, channels)
    found = project_rows(
        to_rows(V, per_channel),
        codebook,
        rule,
        start,
        None if weights is None else to_rows(weights, per_channel),
    )
    codes = found.codes.reshape(V.shape)
    if per_channel:
        codes = np.ascontiguousarray(found.codes.reshape(*channels, V.shape[1]).transpose(0, 2, 1))
    return Projection(
        codes=codes,
        alpha=found.alpha.reshape(channels),
        values=found.values,
        residual=float(found.residual.sum()),
        passes=int(found.passes.max()),
        converged=bool(found.converged.all()),
        guarantee="global" if rule.is_global(codebook) else "local",
    )


def to_rows(V: Array, per_channel: bool) -> Float64Array:
    """V in float64 with one row for every scale, (1, V.size) or, from (g, d, m), (g·m, d).

    Examples
    --------
    >>> to_rows(np.array([[[1.0, 2.0], [3.0, 4.0]]]), per_channel=True)
    array([[1., 3.],
           [2., 4.]])
    """
    if per_channel:
        V = V.transpose(0, 2, 1).reshape(-1, V.shape[1])
    else:
        V = V.reshape(1, -1)
    return np.ascontiguousarray(V, dtype=np.float64)


def _start(alpha0: float | Array, codebook: Codebook, channels: tuple[int, ...]) -> Float64Array:
    if codebook.kind != "scaled":
        raise ValueError(f"`alpha0` must be None for a {codebook.kind} set, got {alpha0!r}.")
    if not isinstance(alpha0, np.ndarray):
        return np.full(channels, check_number("alpha0", alpha0, above=0)).reshape(-1)
    check_shape("alpha0", alpha0, channels)
    check_finite("alpha0", check_float("alpha0", alpha0))
    if not (alpha0 > 0).all():
        raise ValueError(f"`alpha0` must be greater than 0, got {alpha0.min()}.")
    return alpha0.astype(np.float64).reshape(-1)
