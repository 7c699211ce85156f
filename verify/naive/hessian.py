"""The layer error (8) and its Hessian (10) by their definitions: loops over a design matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def hessian(X: Array, images: int) -> Array:
    """The Hessian block (2/n) Σ x xᵀ over the rows of X.

    Parameters
    ----------
    X : Array, shape (N, d)
        Samples, or the patches of all images.
    images : int
        n, which is N only where an image gives one row.

    Returns
    -------
    Array, shape (d, d)
        The block.

    Examples
    --------
    >>> hessian(np.array([[1.0, 2.0], [0.0, 1.0]]), images=2)
    array([[1., 2.],
           [2., 5.]])
    """
    d = X.shape[1]
    H = np.zeros((d, d), dtype=X.dtype)
    for i in range(d):
        for j in range(d):
            for row in X:
                H[i, j] += row[i] * row[j]
            H[i, j] = 2 * H[i, j] / images  # [LDNQ] (10)
    return H


def layer_error(X: Array, W: Array, G: Array, images: int) -> Any:
    """The error (8), (1/n) ‖XG - XW‖², entry by entry.

    Parameters
    ----------
    X : Array, shape (N, d)
        Samples or patches.
    W, G : Array, shape (d, m)
        The weight and its replacement.
    images : int
        n.

    Returns
    -------
    number
        The error per image.

    Examples
    --------
    >>> float(layer_error(np.array([[1.0, 2.0]]), np.zeros((2, 1)), np.ones((2, 1)), images=1))
    9.0
    """
    total = 0 * X[0, 0]
    for row in X:
        for o in range(W.shape[1]):
            z = sum(row[i] * W[i, o] for i in range(len(row)))
            z_hat = sum(row[i] * G[i, o] for i in range(len(row)))
            total += (z_hat - z) ** 2  # [LDNQ] (8)
    return total / images


def objective(H: Array, W: Array, G: Array) -> Any:
    """The objective (10), ½ Σ over columns of δᵀHδ.

    Parameters
    ----------
    H : Array, shape (d, d)
        The block.
    W, G : Array, shape (d, m)
        The weight and its replacement.

    Returns
    -------
    number
        f(G).

    Examples
    --------
    >>> float(objective(np.array([[2.0, 0.0], [0.0, 4.0]]), np.zeros((2, 1)), np.ones((2, 1))))
    3.0
    """
    total = 0 * H[0, 0]
    for o in range(W.shape[1]):
        delta = [G[i, o] - W[i, o] for i in range(W.shape[0])]
        for i in range(len(delta)):
            for j in range(len(delta)):
                total += delta[i] * H[i, j] * delta[j]
    return total / 2  # [LDNQ] (10)
