"""A certified upper bound of a matrix's largest singular value."""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array

_UNIT = 2.0**-53
"""Unit roundoff u of float64."""

_RAISES = 60
"""Largest number of attempts; the shift grows fourfold each time, up to the Frobenius norm."""


def _gamma(count: int) -> float:
    # gamma_m = m u / (1 - m u): relative error of a sum of m products in any order (Higham 2002, 3.1).
    return count * _UNIT / (1.0 - count * _UNIT)


def spectral_norm_upper(matrix: Array) -> float:
    r"""An upper bound of :math:`\|A\|_2` that holds with all rounding errors counted.

    If floating-point Cholesky of :math:`cI - A^\top A` runs through, then
    :math:`\lambda_{\max}(A^\top A) \le c` up to the errors of the factorization, of the product and of the
    subtraction, each of which has an a priori bound and is added.

    Parameters
    ----------
    matrix : Array, shape (p, q)
        Finite float32 or float64 numbers, taken as exact.

    Returns
    -------
    float
        At least :math:`\|A\|_2`; relatively above it by 1e-13 for small matrices, 1e-9 for thousands of rows.

    Notes
    -----
    A computed singular value is not a bound: its error may have either sign. The backward error of Cholesky
    is :math:`|\Delta| \le \gamma_{k+1} |R^\top| |R|` (Higham 2002, theorem 10.3), hence
    :math:`\|\Delta\|_2 \le \frac{\gamma_{k+1}}{1-\gamma_{k+1}} \mathrm{tr}`.

    Examples
    --------
    >>> import numpy as np
    >>> bound = spectral_norm_upper(np.array([[3.0, 0.0], [4.0, 0.0]]))
    >>> 5.0 <= bound <= 5.0 * (1 + 1e-12)
    True
    """
    a = np.asarray(matrix, dtype=np.float64)
    a = a.T if a.shape[0] < a.shape[1] else a
    largest = float(np.abs(a).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    # A power of two: exact, and neither overflow nor underflow can matter in the products.
    exponent = int(np.frexp(largest)[1])
    a = np.ldexp(a, -exponent)
    m, k = a.shape
    product = a.T @ a
    product = (product + product.T) / 2
    frobenius = float(np.sum(a * a)) * (1.0 + 2.0 * _gamma(m * k + 2))
    top = float(np.linalg.eigvalsh(product)[-1])
    for attempt in range(_RAISES):
        c = top * (1.0 + 1e-13 * 4.0**attempt)
        if not c < frobenius:
            break
        slack = (_gamma(m) + 4 * _UNIT) * frobenius  # of the product
        slack += 4 * _UNIT * (c + frobenius)  # of the subtraction
        slack += _gamma(k + 1) / (1.0 - _gamma(k + 1)) * k * c * (1.0 + 1e-10)  # of the factorization
        try:
            np.linalg.cholesky(c * np.eye(k) - product)
        except np.linalg.LinAlgError:
            continue
        return float(np.ldexp(np.sqrt(c + slack) * (1.0 + 4 * _UNIT), exponent))
    return float(np.ldexp(np.sqrt(frobenius) * (1.0 + 4 * _UNIT), exponent))
