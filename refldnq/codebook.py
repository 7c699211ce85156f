"""The finite sets of values that quantized weights are taken from.

A layer's quantized weight is G = alpha * values[codes]. Three kinds of sets differ in what is free:

``scaled``  Ω = α·C with a free scale α ≥ 0: the paper's sets, C = {0, ±1, ±2, ..., ±2^b}.
``fixed``   Ω = C as it stands, α = 1.
``free``    any set of a given size; its values are found together with the codes, α = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_integer
from refldnq._typing import Float64Array

Kind = Literal["scaled", "fixed", "free"]

Ties = Literal["smaller", "larger", "zero"]
"""Where a value exactly halfway between two levels goes.

- ``smaller``: to the level of smaller magnitude (the default of this package).
- ``larger``: to the level of larger magnitude.
- ``zero``: as in the authors' released code, whose inequalities are strict on both sides: to 0 in sets of up
  to 9 levels, although 0 is not nearest; sets of 11 levels (and, here, of more) round as ``smaller`` does.

Halfway between -c and c it goes to c by every rule.
"""

TIES: tuple[Ties, ...] = ("smaller", "larger", "zero")

MOST_LEVELS = 128
"""Codes are int8 indices, 0 to 127."""


@dataclass(frozen=True)
class Codebook:
    """A finite set of values, up to what its kind leaves free.

    Made by `powers_of_two`, `scaled`, `fixed` or `free`; equal codebooks compare and hash equal.

    Parameters
    ----------
    kind : {'scaled', 'fixed', 'free'}
        What is free: the scale, nothing, or the values.
    points : tuple of float
        The values, ascending and distinct; empty for a free set.
    levels : int
        Number of values. The paper calls a set of 2b+3 values "(2b+3)-bit".

    Raises
    ------
    ValueError
        If the points are not finite, ascending and distinct, or their number is not `levels`, or there are
        fewer than two or more than 128 of them.
    TypeError
        If `levels` is not an integer.

    Examples
    --------
    >>> codebook = powers_of_two(5)
    >>> codebook.values
    array([-2., -1.,  0.,  1.,  2.])
    >>> codebook.midpoints
    array([-1.5, -0.5,  0.5,  1.5])
    >>> codebook.bits, codebook.symmetric, codebook.has_zero
    (3, True, True)
    """

    kind: Kind
    points: tuple[float, ...]
    levels: int

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("scaled", "fixed", "free"))
        if check_integer("levels", self.levels, at_least=2) > MOST_LEVELS:
            raise ValueError(f"`levels` must be at most {MOST_LEVELS}, got {self.levels}.")
        points = np.asarray(self.points, dtype=np.float64)
        check_finite("points", points)
        if self.kind == "free":
            if self.points:
                raise ValueError(f"`points` must be empty for a free set, got {self.points}.")
        elif len(self.points) != self.levels or not (np.diff(points) > 0).all():
            raise ValueError(f"`points` must be {self.levels} ascending values, got {self.points}.")

    @cached_property
    def values(self) -> Float64Array:
        """The values, ascending, read-only: Ω/α for a scaled set, Ω for a fixed one.

        Raises
        ------
        ValueError
            For a free set, whose values belong to the result of a projection.
        """
        if self.kind == "free":
            raise ValueError(
                "`codebook` must not be free: its values belong to a projection's result, got 'free'."
            )
        values = np.array(self.points, dtype=np.float64)
        values.setflags(write=False)
        return values

    @cached_property
    def midpoints(self) -> Float64Array:
        """The points halfway between neighbouring values, shape (levels - 1,), read-only."""
        midpoints = 0.5 * self.values[:-1] + 0.5 * self.values[1:]
        midpoints.setflags(write=False)
        return midpoints

    @property
    def bits(self) -> int:
        """Bits of a code of fixed length, the least integer that is at least log2(levels)."""
        return math.ceil(math.log2(self.levels))

    @cached_property
    def symmetric(self) -> bool:
        """Whether the set equals its negative; False for a free set."""
        return self.kind != "free" and bool(np.array_equal(self.values, -self.values[::-1]))

    @property
    def has_zero(self) -> bool:
        """Whether 0 is a value; False for a free set."""
        return 0.0 in self.points

    @cached_property
    def least_code(self) -> int:
        """The code of the value of least magnitude: of 0 where 0 is a value, of c if it is -c and c."""
        return self.levels - 1 - int(np.argmin(np.abs(self.values[::-1])))


def powers_of_two(levels: int) -> Codebook:
    r"""The paper's sets :math:`\alpha\{0, \pm2^0, \pm2^1, \dots, \pm2^b\}` of 2b+3 values.

    Parameters
    ----------
    levels : int
        Number of values: 3, 5, 7, ..., 15. (The paper writes "3-bit" for 3 values.)

    Returns
    -------
    Codebook
        A scaled set.

    Raises
    ------
    ValueError
        If `levels` is even, less than 3 or more than 15. Beyond 15 the integer 2^b does not fit in int8.
    TypeError
        If `levels` is not an integer.

    Examples
    --------
    >>> powers_of_two(3).values
    array([-1.,  0.,  1.])
    >>> powers_of_two(4)
    Traceback (most recent call last):
        ...
    ValueError: `levels` must be an odd number from 3 to 15 (the set has 2b+3 values), got 4.
    """
    if check_integer("levels", levels, at_least=3) not in range(3, 16, 2):
        raise ValueError(
            f"`levels` must be an odd number from 3 to 15 (the set has 2b+3 values), got {levels}."
        )
    b = (levels - 3) // 2
    powers = [2.0**k for k in range(b + 1)]
    return Codebook("scaled", tuple([-p for p in reversed(powers)] + [0.0] + powers), int(levels))


def scaled(values: Iterable[float]) -> Codebook:
    """Any finite set times a free scale α ≥ 0.

    Parameters
    ----------
    values : iterable of float
        The set, in any order; at least two values.

    Returns
    -------
    Codebook
        A scaled set.

    Raises
    ------
    ValueError
        If values repeat, are not finite, or are fewer than two or more than 128.

    Examples
    --------
    >>> scaled([1, -1]).values
    array([-1.,  1.])
    >>> scaled([0, 1, 2, 3]).symmetric
    False
    """
    return _explicit("scaled", values)


def fixed(values: Iterable[float]) -> Codebook:
    """A finite set as it stands: α = 1.

    Parameters
    ----------
    values : iterable of float
        The set, in any order; at least two values.

    Returns
    -------
    Codebook
        A fixed set.

    Raises
    ------
    ValueError
        If values repeat, are not finite, or are fewer than two or more than 128.

    Examples
    --------
    >>> fixed([0.5, 0.0, -0.25]).values
    array([-0.25,  0.  ,  0.5 ])
    """
    return _explicit("fixed", values)


def free(levels: int) -> Codebook:
    """The set of `levels` values that suits the weights best, such as {α, β, γ}.

    Parameters
    ----------
    levels : int
        Number of values, 2 to 128.

    Returns
    -------
    Codebook
        A free set, with neither zero nor symmetry prescribed.

    Raises
    ------
    ValueError
        If `levels` is out of range.
    TypeError
        If `levels` is not an integer.

    Examples
    --------
    >>> free(3).kind, free(3).bits
    ('free', 2)
    """
    return Codebook("free", (), check_integer("levels", levels, at_least=2))


def _explicit(kind: Kind, values: Iterable[float]) -> Codebook:
    points = sorted(float(value) + 0.0 for value in values)  # + 0.0 turns -0.0 into 0.0
    check_finite("values", np.array(points))
    if not 2 <= len(points) <= MOST_LEVELS or len(set(points)) < len(points):
        raise ValueError(f"`values` must be 2 to {MOST_LEVELS} distinct numbers, got {points}.")
    return Codebook(kind, tuple(points), len(points))
