"""Numbers for cases: the same on every machine and for ever, few bits each, exact as fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from refldnq._typing import Array, Float64Array

_MASK = 2**64 - 1


def draws(seed: int, shape: tuple[int, ...], low: int, high: int, denominator: int = 1) -> Float64Array:
    """Integers of [low, high], each as likely, over a power of two.

    NumPy does not promise that its generators give the same numbers in later versions; cases never change.
    This is splitmix64 (Steele, Lea and Flood 2014); the remainder's bias, below 2**-50, does not matter.
    The next seed gives the same sequence without its first term.

    Examples
    --------
    >>> draws(0, (4,), -8, 8, 4)
    array([-2.  ,  1.5 ,  2.  , -1.75])
    """
    state, found = (seed * 0x9E3779B97F4A7C15 + 0x1234567) & _MASK, []
    for _ in range(int(np.prod(shape))):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        found.append(low + _mixed(state) % (high - low + 1))
    return np.array(found, dtype=np.float64).reshape(shape) / denominator


def _mixed(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def hadamard(order: int) -> Float64Array:
    """Sylvester's matrix of an order that is a power of two: entries ±1, orthogonal columns.

    Examples
    --------
    >>> hadamard(4).T @ hadamard(4)
    array([[4., 0., 0., 0.],
           [0., 4., 0., 0.],
           [0., 0., 4., 0.],
           [0., 0., 0., 4.]])
    """
    H = np.ones((1, 1))
    while len(H) < order:
        H = np.block([[H, H], [H, -H]])
    return H


def fractions(array: Any) -> Array:
    """An array of floats as fractions.

    Examples
    --------
    >>> fractions(np.array([0.75]))
    array([Fraction(3, 4)], dtype=object)
    """
    given = np.asarray(array)
    exact = np.empty(given.shape, dtype=object)
    exact.ravel()[:] = [Fraction(value) for value in given.ravel().tolist()]
    return exact


def rounded(array: Any) -> Array:
    """An array of fractions as float64, each to the nearest; arrays of other types stay as they are.

    Examples
    --------
    >>> rounded(np.array([Fraction(1, 3)]))
    array([0.33333333])
    """
    given = np.asarray(array)
    if given.dtype != object:
        return given
    return np.array([float(value) for value in given.ravel()], dtype=np.float64).reshape(given.shape)
