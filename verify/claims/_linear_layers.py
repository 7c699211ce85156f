"""Layers beyond fully connected ones as matrices of fractions: convolution, pooling, and what bounds them.

A convolution of images (c, h, w) is the matrix T with vec(K * x) = T vec(x); its operator norm ‖T‖₂, not a
norm of the reshaped kernel, is what passes on errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import Arithmetic
from refldnq.verify.claims._rational import Exact, exact


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> list[list[int]]:
    """The pixels of every window along one axis; those in the padding are left out.

    Examples
    --------
    >>> windows(3, 3, 1, 1)
    [[0, 1], [0, 1, 2], [1, 2]]
    """
    count = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    places = [[o * stride - padding + i * dilation for i in range(kernel)] for o in range(count)]
    return [[p for p in own if 0 <= p < size] for own in places]


def overlap(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """The largest number of windows along one axis that contain the same pixel.

    Examples
    --------
    >>> overlap(5, 3, 2, 0), overlap(5, 3, 1, 1), overlap(4, 2, 2, 0)
    (2, 3, 1)
    """
    counts = [0] * size
    for window in windows(size, kernel, stride, padding, dilation):
        for pixel in window:
            counts[pixel] += 1
    return max(counts)


def overlap_formula(kernel: int, stride: int, dilation: int = 1) -> int:
    """⌈k·gcd(s, d)/s⌉, at least `overlap` for every size and padding.

    Examples
    --------
    >>> overlap_formula(3, 2), overlap_formula(3, 1), overlap_formula(2, 2)
    (2, 3, 1)
    """
    return -(-kernel * math.gcd(stride, dilation) // stride)


def convolution(
    K: Any, size: tuple[int, int], *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Any:
    """The matrix T of a convolution, (out·h'·w') × (c·h·w).

    Parameters
    ----------
    K : Array, shape (out, c, kh, kw)
        The kernel, of any numbers.
    size : tuple of int
        (h, w) of the input.
    stride, padding, dilation : int, optional
        Of both axes.

    Examples
    --------
    >>> convolution(exact([[[[1, 2]]]]), (1, 3)).astype(int)
    array([[1, 2, 0],
           [0, 1, 2]])
    """
    out, channels, *kernel = K.shape
    h, w = size
    counts = [
        (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(size, kernel, strict=True)
    ]
    T = np.full((out, *counts, channels, h, w), 0 * K.flat[0], dtype=K.dtype)
    for a, b in np.ndindex(*counts):
        for i, j in np.ndindex(*kernel):
            row, column = a * stride - padding + i * dilation, b * stride - padding + j * dilation
            if 0 <= row < h and 0 <= column < w:
                T[:, a, b, :, row, column] = K[:, :, i, j]
    return T.reshape(out * math.prod(counts), channels * h * w)


def reshaped(K: Any) -> Any:
    """The kernel as the matrix (c·kh·kw) × out that the paper's norm sees."""
    return K.reshape(len(K), -1).T


def max_pool(x: Any, size: tuple[int, int], kernel: int, stride: int, arithmetic: Arithmetic) -> Any:
    """Maxima over windows of one image, a vector.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> max_pool(exact([1, 5, 2, 3]), (1, 4), 1, 2, EXACT).tolist() == [1, 2]
    True
    """
    image = x.reshape(size)
    rows, columns = (windows(n, kernel, stride, 0) for n in size)
    found = []
    for row in rows:
        for column in columns:
            best = image[row[0], column[0]]
            for i in row:
                for j in column:
                    best = arithmetic.maximum(best, image[i, j])
            found.append(best)
    pooled = np.empty(len(found), dtype=object)
    pooled[:] = found
    return pooled


def average_pool(size: tuple[int, int], kernel: int, stride: int) -> Exact:
    """The matrix of means over windows."""
    K = np.empty((1, 1, kernel, kernel), dtype=object)
    K[...] = Fraction(1, kernel * kernel)
    matrix: Exact = convolution(K, size, stride=stride)
    return matrix


def ones(*shape: int) -> Exact:
    """An array of the fraction 1."""
    return exact(np.ones(shape, dtype=int))


def integers(rng: np.random.Generator, shape: Sequence[int], most: int = 3) -> Exact:
    """Random integers from -most to most."""
    return exact(rng.integers(-most, most + 1, shape))
