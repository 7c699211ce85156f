r"""The function that ADMM (13)-(18) brings down in every iteration if ρ exceeds all eigenvalues of H.

The theorem is about the paper's own order of updates, Θ, G, λ, with any projection that does not move away
from V. With :math:`V^k = \hat\Theta^{k+1} + \lambda^k` put

.. math::

    u^k = (\rho I - H)^{-1} (\rho V^k - H W), \qquad
    \mathcal L_k = f(G^k) + \tfrac12 \|u^k - G^k\|^2_{\rho I - H}.

Then for every k, if :math:`G^0` lies in Ω, with :math:`\Delta u = u^{k+1} - u^k`,

.. math::

    \mathcal L_{k+1} \le \mathcal L_k
    - \tfrac12\,\Delta u^\top \bigl(H + \rho I - \tfrac2\rho H^2\bigr)\Delta u,

where the matrix has the eigenvalues (ρ + 2h)(ρ - h)/ρ > 0. As :math:`f(G^k) \le \mathcal L_k`, no iterate is
worse than :math:`\mathcal L_0`; from :math:`\lambda^0 = -H(G^0 - W)/\rho` that is :math:`f(G^0)`.

A run that is not what it should be, such as one with a wrong sign of the dual, breaks the inequality: that
makes it a check at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from refldnq._checks import check_finite, check_float, check_number, check_shape
from refldnq._typing import Array, Float64Array
from refldnq.hessian import UNIT, check_blocks
from refldnq.hessian import certified_above as certainly_exceeds

__all__ = ["Descent", "Level", "Lyapunov", "certified_above", "check_run"]


def certified_above(rho: float, H: Float64Array) -> bool:
    r"""Whether ρ certainly exceeds every eigenvalue of H, so that the theorem applies.

    Parameters
    ----------
    rho : float
        The penalty.
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.

    Returns
    -------
    bool
        True is a proof, False says nothing.

    Raises
    ------
    ValueError
        If H is misshapen, not finite or not symmetric, or ρ is not positive.
    TypeError
        If H is not float64.

    Notes
    -----
    The proof is a Cholesky factorization of A = (ρ - s)I - H that runs through in float64. Then
    :math:`A + \Delta = R^\top R \succeq 0` with :math:`|\Delta| \le \gamma |R^\top| |R|`, γ = (d+1)u/(1 -
    (d+1)u) (Higham 2002, theorem 10.3), whatever the order of the sums. The columns of R have
    :math:`\|r_i\|^2 \le a_{ii}/(1 - \gamma)`, so :math:`\|\Delta\|_2 \le \gamma\,\mathrm{tr} A/(1 -
    \gamma)`. The diagonal of A is rounded twice, by at most :math:`2u(|\rho| + s + h_{ii})`. The shift
    :math:`s = 4(d+2)u\,(d|\rho| + \mathrm{tr}|H|)` exceeds both together for (d + 2)u < 1/100. The arithmetic
    is `refldnq.hessian.certified_above`, which takes (H, ρ).

    Examples
    --------
    >>> H = np.array([[[2.0, 1.0], [1.0, 2.0]]])
    >>> certified_above(3.001, H), certified_above(3.0, H)
    (True, False)
    """
    check_blocks("H", H)
    return certainly_exceeds(0.5 * (H + H.transpose(0, 2, 1)), check_number("rho", rho, above=0))


@dataclass(frozen=True, eq=False)
class Level:
    """Where a run stands before a projection.

    Parameters
    ----------
    value : float
        The Lyapunov function, at least f(G).
    objective : float
        f(G).
    u : Array, shape (g, d, m)
        The point u.
    slack : float
        A bound of the rounding errors of `value` and of the projection that follows.
    """

    value: float
    objective: float
    u: Float64Array
    slack: float


@dataclass(frozen=True, eq=False)
class Descent:
    """The Lyapunov function along a run.

    Parameters
    ----------
    values : Array, shape (K,)
        L_0, ..., L_{K-1}.
    objectives : Array, shape (K,)
        f(G^0), ..., f(G^{K-1}).
    decreases : Array, shape (K - 1,)
        The guaranteed decrease from each value to the next.
    slacks : Array, shape (K - 1,)
        What rounding may add.

    Examples
    --------
    >>> zeros = np.zeros(1)
    >>> Descent(np.array([2.0, 1.0]), np.array([1.0, 1.0]), np.array([0.5]), zeros).holds
    True
    >>> Descent(np.array([2.0, 1.8]), np.array([1.0, 1.0]), np.array([0.5]), zeros).first_failure
    0
    """

    values: Float64Array
    objectives: Float64Array
    decreases: Float64Array
    slacks: Float64Array

    @property
    def margins(self) -> Float64Array:
        """By how much each step falls more than it must, (K - 1,); negative where the theorem is violated."""
        margins: Float64Array = self.values[:-1] - self.decreases - self.values[1:] + self.slacks
        return margins

    @property
    def first_failure(self) -> int | None:
        """The first k for which L_{k+1} is above what the theorem allows; None if there is none."""
        failed = np.flatnonzero(~(self.margins >= 0))
        return int(failed[0]) if failed.size else None

    @property
    def holds(self) -> bool:
        """Whether every step falls as it must."""
        return self.first_failure is None


class Lyapunov:
    r"""The Lyapunov function of a problem: factors ρI - H once, then measures any state.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    rho : float
        The penalty; above all eigenvalues of H, with proof.

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is not finite, or ρ is not certified to exceed the eigenvalues.
    TypeError
        If H is not float64 or W not float.

    Notes
    -----
    With :math:`r = \rho(V - G) + H(G - W)` the second term is :math:`\frac12 r^\top(\rho I - H)^{-1}r` and
    :math:`u = G + (\rho I - H)^{-1}r`, which avoids the differences of the definition.

    The slack. With g(d) = 8(d + 8)u, u the unit roundoff: sums of d products are off by at most (d + 2)u
    times the sum of the products of magnitudes, for which :math:`|h_{ij}| \le \sqrt{h_{ii}h_{jj}}` gives
    :math:`\sum|\delta_i h_{ij}\delta_j| \le (\sum\sqrt{h_{ii}}|\delta_i|)^2`, a column at a time. Solves with
    ρI - H and H + ρI are backward stable: they perturb the matrices by less than g(d)ρ and move a quadratic
    form by that times the squares of what stands in it, ‖u - G‖ and ‖V - G‖ against the norms of V, G and W.
    The constant 8 is chosen here, to cover the three products and two solves of an iteration.

    Examples
    --------
    >>> H, W = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0], [0.4]]])
    >>> lyapunov = Lyapunov(H, W, 3.3)
    >>> G = np.array([[[0.7], [0.7]]])
    >>> level = lyapunov.level(G, V=G - H @ (G - W) / 3.3)
    >>> bool(np.allclose(level.u, G)), round(level.value, 12) == round(level.objective, 12) == 0.09
    (True, True)
    """

    def __init__(self, H: Float64Array, W: Array, rho: float) -> None:
        check_blocks("H", H)
        check_shape("W", check_float("W", W), (H.shape[0], H.shape[1], None))
        check_finite("W", W)
        if not certified_above(rho, H):
            raise ValueError(f"`rho` must certainly exceed every eigenvalue of H, got {rho}.")
        self.H = 0.5 * (H + H.transpose(0, 2, 1))
        self.W = np.asarray(W, dtype=np.float64)
        self.rho = float(rho)
        self.rounding = 8 * (H.shape[1] + 8) * UNIT
        eye = np.eye(H.shape[1])
        self._factors = [cho_factor(self.rho * eye - block, lower=True) for block in self.H]
        self._roots = np.sqrt(np.einsum("gii->gi", self.H))[:, :, None]
        self._size = float(np.linalg.norm(self.W))

    def level(self, G: Float64Array, V: Float64Array) -> Level:
        r"""Measure the state from which ADMM projects next.

        Parameters
        ----------
        G : Array, shape (g, d, m)
            :math:`G^k`, the last projection.
        V : Array, shape (g, d, m)
            :math:`V^k = \hat\Theta^{k+1} + \lambda^k`, what is projected next.

        Returns
        -------
        Level
            :math:`\mathcal L_k` and what `decrease` needs.

        Raises
        ------
        ValueError
            If the shapes do not fit.
        """
        check_shape("G", G, self.W.shape)
        check_shape("V", V, self.W.shape)
        difference = G - self.W
        slope = self.H @ difference
        objective = 0.5 * float(np.vdot(difference, slope))  # [LDNQ] (10)
        r = self.rho * (V - G) + slope
        offset = np.stack(
            [
                cho_solve(factor, block, check_finite=False)
                for factor, block in zip(self._factors, r, strict=True)
            ]
        )
        magnitudes = float(((self._roots * np.abs(difference)).sum(axis=1) ** 2).sum())
        away, gap, size = (float(np.linalg.norm(x)) for x in (offset, V - G, V))
        sizes = away + gap + size + float(np.linalg.norm(G)) + self._size
        return Level(
            value=objective + 0.5 * float(np.vdot(offset, r)),
            objective=objective,
            u=G + offset,
            slack=self.rounding * (0.5 * magnitudes + self.rho * (away + gap) * sizes),
        )

    def decrease(self, before: Level, after: Level) -> float:
        r"""The decrease that the theorem guarantees between two states in a row.

        .. math:: \tfrac12\,\Delta u^\top \bigl(H + \rho I - \tfrac2\rho H^2\bigr)\Delta u

        Parameters
        ----------
        before, after : Level
            Of iterations k and k + 1.

        Returns
        -------
        float
            At least 0 but for rounding.
        """
        step = after.u - before.u
        image = self.H @ step
        return 0.5 * float(
            np.vdot(step, image) + self.rho * np.vdot(step, step) - 2 / self.rho * np.vdot(image, image)
        )

    def descent(self, levels: list[Level]) -> Descent:
        """The Lyapunov function along the measured states of a run.

        Parameters
        ----------
        levels : list of Level
            One an iteration, in order; at least one.

        Returns
        -------
        Descent
            Values, guaranteed decreases and slacks.

        Raises
        ------
        ValueError
            If the list is empty.

        Examples
        --------
        >>> H, W, G = np.eye(2)[None], np.array([[[4.0], [1.0]]]), np.array([[[4.0], [0.0]]])
        >>> lyapunov = Lyapunov(H, W, 1.5)
        >>> still = lyapunov.level(G, G - H @ (G - W) / 1.5)
        >>> lyapunov.descent([still, still]).holds
        True
        """
        if not levels:
            raise ValueError("`levels` must hold at least one state, got none.")
        pairs = list(pairwise(levels))
        return Descent(
            values=np.array([level.value for level in levels]),
            objectives=np.array([level.objective for level in levels]),
            decreases=np.array([self.decrease(*pair) for pair in pairs]),
            slacks=np.array([before.slack + after.slack for before, after in pairs]),
        )


def check_run(
    H: Float64Array, W: Array, rho: float, theta: Float64Array, G: Float64Array, lam: Float64Array
) -> Descent:
    r"""Hold a recorded run of ADMM against the theorem.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    rho : float
        The penalty; above all eigenvalues of H, with proof.
    theta : Array, shape (K, g, d, m)
        :math:`\hat\Theta^1, \dots, \hat\Theta^K`.
    G, lam : Array, shape (K + 1, g, d, m)
        :math:`G^0, \dots, G^K`, all of Ω, and :math:`\lambda^0, \dots, \lambda^K`; the last are not used.

    Returns
    -------
    Descent
        K values; its `holds` says whether every step falls as the theorem says.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is no iteration, or ρ is not certified to exceed the eigenvalues.
    TypeError
        If H is not float64 or W not float.

    Examples
    --------
    Ternary ADMM on H = I; V is always nearest to a multiple of (1, 0).

    >>> H, W, G = np.eye(2)[None], np.array([[[4.0], [1.0]]]), np.array([[[1.0], [1.0]]])
    >>> lam, thetas, Gs, lams = 0 * W, [], [G], [0 * W]
    >>> for k in range(5):
    ...     theta = (W + 2.0 * (G - lam)) / 3.0
    ...     V = theta + lam
    ...     G = np.array([[[V[0, 0, 0]], [0.0]]])
    ...     lam = V - G
    ...     thetas, Gs, lams = [*thetas, theta], [*Gs, G], [*lams, lam]
    >>> descent = check_run(H, W, 2.0, np.array(thetas), np.array(Gs), np.array(lams))
    >>> descent.holds, descent.values.round(2)
    (True, array([5.  , 2.78, 1.49, 0.94, 0.7 ]))
    """
    lyapunov = Lyapunov(H, W, rho)
    check_shape("theta", theta, (None, *lyapunov.W.shape))
    check_shape("G", G, (len(theta) + 1, *lyapunov.W.shape))
    check_shape("lam", lam, G.shape)
    levels = [lyapunov.level(G[k], theta[k] + lam[k]) for k in range(len(theta))]
    return lyapunov.descent(levels)
