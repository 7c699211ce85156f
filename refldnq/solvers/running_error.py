"""The layer error (10) of codes of which few change from one call to the next, as those of ADMM do."""

from __future__ import annotations

import numpy as np

from refldnq._kernels.threads import run_kernel, worth
from refldnq._typing import Float64Array, Int8Array

CANCELLED = 1e-3
"""Up to this share of ½ Σ h w², H's diagonal alone, the error is computed from G - W: the short way has lost
two digits there, or all of them. W may lie in the null space of H, so f(0) would not tell."""

FEW = 1 / 8
"""Share of changed codes up to which the product with H is kept up to date (chosen here: 1/128 to 1/8 make no
difference, 174 to 190 ms for 100 iterations of ADMM at d = 576 and 2.2 s for 20 at d = 2304; with a new
product in every iteration 268 ms and 3.1 s)."""


class RunningError:
    """f(G) = ½ <G - W, (G - W) H>, with Q H kept for the codes Q of G = αQ.

    Parameters
    ----------
    H : Array, shape (g, d, d)
        The Hessian's blocks.
    W, HW : Array, shape (g, m, d)
        The weight, one output a row, and its product with H.

    Examples
    --------
    >>> H, W = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0, 0.25]]])
    >>> error = RunningError(H, W, W @ H)
    >>> values, G = np.array([-1.0, 0.0, 1.0]), np.array([[[0.5, 0.5]]])
    >>> error.of(np.array([[[2, 2]]], np.int8), np.array([0.5]), values, G), error.direct(G)
    (0.1875, 0.1875)
    """

    def __init__(self, H: Float64Array, W: Float64Array, HW: Float64Array) -> None:
        self.H, self.W, self.HW = H, W, HW
        self._cancelled = CANCELLED * 0.5 * float(np.einsum("gmd,gmd,gdd->", W, W, H))
        self._codes = np.empty((0, 0, 0), np.int8)
        self._values, self._HQ = np.empty(0), np.empty(0)
        self._changes = 0

    def direct(self, G: Float64Array) -> float:
        """f(G) by its definition."""
        difference = G - self.W
        return 0.5 * float(np.vdot(difference, difference @ self.H))  # [LDNQ] (10)

    def of(self, codes: Int8Array, alpha: Float64Array, values: Float64Array, G: Float64Array) -> float:
        """f(G), G being ``alpha * values[codes]``.

        Parameters
        ----------
        codes : Array, shape (g, m, d), int8
            Indices of `values`; not to be changed afterwards.
        alpha : Array, shape (1,) or (g m,)
            The scale, or one an output.
        values : Array, shape (k,)
            The levels.
        G : Array, shape (g, m, d)
            The point.
        """
        from refldnq._kernels import products

        self._follow(codes, values)
        own, w, HQ, HW = (a.reshape(-1, a.shape[2]) for a in (G, self.W, self._HQ, self.HW))
        sums = np.empty(len(own))
        run_kernel(products.errors, (own, w, alpha, HQ, HW, sums), len(own), grain=worth(4 * own.shape[1]))
        error = 0.5 * float(sums.sum())  # [LDNQ] (10)
        return error if error > self._cancelled else self.direct(G)

    def _follow(self, codes: Int8Array, values: Float64Array) -> None:
        from refldnq._kernels import products

        changes = codes.size
        if np.array_equal(values, self._values):
            changes = int(products.count_changes(codes.reshape(-1), self._codes.reshape(-1)))
        self._changes += changes
        # Rounding errors add up with the changes: a new product when as many changed as there are codes.
        if changes <= FEW * codes.size and self._changes <= codes.size:
            products.update(self.H, self._codes, codes, values, self._HQ)
        else:
            self._HQ, self._changes = values[codes] @ self.H, 0
        self._codes, self._values = codes, values
