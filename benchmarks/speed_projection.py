"""Contests of the projection (16)-(17) with vectorised NumPy and PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from timing import Contest, Outputs

from refldnq._rows import Method
from refldnq._typing import Float64Array
from refldnq.codebook import Codebook, powers_of_two
from refldnq.projection import project

TOLERANCE = 1e-11
"""Of the scale, a quotient of sums of 10^6 numbers of one sign; codes are equal or differ by much more."""

MOST_PASSES = 10_000


def steps(codebook: Codebook) -> list[tuple[float, float, float]]:
    """For neighbouring magnitudes a < b of a symmetric set with 0: ((a + b) / 2, b - a, b² - a²).

    Examples
    --------
    >>> steps(powers_of_two(5))
    [(0.5, 1.0, 1.0), (1.5, 1.0, 3.0)]
    """
    levels = [float(value) for value in codebook.values if value >= 0]
    return [((a + b) / 2, b - a, b * b - a * a) for a, b in pairwise(levels)]


def numpy_alternation(
    V: Float64Array, ladder: list[tuple[float, float, float]], alpha: float | None = None
) -> tuple[float, Float64Array]:
    """The scale and the signed levels Q at the alternation's fixed point, from `alpha` or the mean of |V|."""
    a = np.abs(V).ravel()
    alpha = float(a.mean()) if alpha is None else alpha
    for _ in range(MOST_PASSES):
        q = np.zeros_like(a)
        for midpoint, step, _square in ladder:
            q += step * (a > alpha * midpoint)
        last, alpha = alpha, float(a @ q) / float(q @ q)  # [LDNQ] (17)
        if alpha == last:
            return alpha, np.copysign(q, V.ravel()).reshape(V.shape)
    raise ValueError(f"`V` must let the alternation end within {MOST_PASSES} passes.")


def torch_alternation(
    V: torch.Tensor, ladder: list[tuple[float, float, float]], alpha: float | None = None
) -> tuple[float, torch.Tensor]:
    """As `numpy_alternation`."""
    a = V.abs().ravel()
    alpha = float(a.mean()) if alpha is None else alpha
    for _ in range(MOST_PASSES):
        q = torch.zeros_like(a)
        for midpoint, step, _square in ladder:
            q += step * (a > alpha * midpoint).to(a.dtype)
        last, alpha = alpha, float(a @ q) / float(q @ q)  # [LDNQ] (17)
        if alpha == last:
            return alpha, torch.copysign(q, V.ravel()).reshape(V.shape)
    raise ValueError(f"`V` must let the alternation end within {MOST_PASSES} passes.")


def numpy_exact(V: Float64Array, ladder: list[tuple[float, float, float]]) -> tuple[float, Float64Array]:
    """The scale and the signed levels of the global optimum: sort the breakpoints, sum, take the best."""
    a = np.sort(np.abs(V))[::-1]
    moments = np.concatenate([step * a for _, step, _ in ladder])
    squares = np.repeat([square for _, _, square in ladder], a.size)
    if len(ladder) > 1:
        order = np.argsort(-np.concatenate([a / midpoint for midpoint, _, _ in ladder]))
        moments, squares = moments[order], squares[order]
    top, bottom = np.cumsum(moments), np.cumsum(squares)
    best = int(np.argmax(top * top / bottom))
    alpha = float(top[best] / bottom[best])
    magnitude = np.abs(V)
    q = np.zeros_like(V)
    for midpoint, step, _ in ladder:
        q += step * (magnitude > alpha * midpoint)
    return alpha, np.copysign(q, V)


def torch_exact(V: torch.Tensor, ladder: list[tuple[float, float, float]]) -> tuple[float, torch.Tensor]:
    """As `numpy_exact`."""
    magnitude = V.abs()
    a = torch.sort(magnitude, descending=True).values
    moments = torch.cat([step * a for _, step, _ in ladder])
    squares = torch.cat([torch.full_like(a, square) for _, _, square in ladder])
    if len(ladder) > 1:
        order = torch.argsort(torch.cat([a / midpoint for midpoint, _, _ in ladder]), descending=True)
        moments, squares = moments[order], squares[order]
    top, bottom = torch.cumsum(moments, 0), torch.cumsum(squares, 0)
    best = int(torch.argmax(top * top / bottom))
    alpha = float(top[best] / bottom[best])
    q = torch.zeros_like(V)
    for midpoint, step, _ in ladder:
        q += step * (magnitude > alpha * midpoint).to(V.dtype)
    return alpha, torch.copysign(q, V)


METHODS: tuple[tuple[Method, Callable[..., Outputs], Callable[..., Outputs]], ...] = (
    ("alternating", numpy_alternation, torch_alternation),
    ("exact", numpy_exact, torch_exact),
)


def projection_contests(count: int, rng: np.random.Generator) -> Iterator[Contest]:
    """The alternation and the exact projection of `count` Gaussian numbers to 3 and 5 levels."""
    V = rng.standard_normal(count)
    tensor = torch.tensor(V)
    for levels in (3, 5):
        codebook = powers_of_two(levels)
        ladder = steps(codebook)
        for method, by_numpy, by_torch in METHODS:
            yield Contest(
                group="projection",
                name=f"{method}, {levels} levels, N = {count}",
                dtype="float64",
                ours=partial(_ours, V, codebook, method),
                others={
                    "torch": partial(by_torch, tensor, ladder),
                    "numpy": partial(by_numpy, V, ladder),
                },
                tolerance=TOLERANCE,
            )


def _ours(V: Float64Array, codebook: Codebook, method: Method) -> Outputs:
    found = project(V, codebook, method=method)
    return found.alpha, found.values[found.codes]
