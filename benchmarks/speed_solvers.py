"""Contests of step 2 and step 3 of Algorithm 1: the Hessian with its patches, and ADMM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as tf
from speed_projection import numpy_alternation, steps, torch_alternation
from timing import Contest, Outputs

from refldnq._typing import Array, Float64Array
from refldnq.codebook import powers_of_two
from refldnq.hessian import accumulate_hessian
from refldnq.layers import Conv2d
from refldnq.solvers.admm import solve
from refldnq.solvers.admm_settings import AdmmSettings

BATCH = 100
"""Images at a time in a Hessian, as in Algorithm 1's defaults."""

ITERATIONS = 100
"""Of ADMM, the paper's profile."""

TOLERANCE = 1e-11
"""Of a sum of 10^5 products in float64, as a share of the largest entry."""

SHAPES = {16: 32, 32: 16, 64: 8}
"""Channels and rows of ResNet-20's three stages; d = 9 channels."""


def _input(channels: int, images: int, dtype: str, rng: np.random.Generator) -> Array:
    size = SHAPES[channels]
    x: Array = np.maximum(rng.standard_normal((images, channels, size, size)), 0).astype(dtype)
    return x


def hessian_contests(channels: Sequence[int], images: int, rng: np.random.Generator) -> Iterator[Contest]:
    """The Hessian of a 3×3 convolution from `images` images; sums are in float64 on both sides."""
    for c in channels:
        layer = Conv2d(c, c, 3, padding=1, bias=False)
        for dtype in ("float32", "float64"):
            x = _input(c, images, dtype, rng)
            batches = [x[i : i + BATCH] for i in range(0, images, BATCH)]
            parts = [torch.tensor(batch) for batch in batches]
            yield Contest(
                group="hessian",
                name=f"d = {9 * c}, {images} images of {c}×{SHAPES[c]}×{SHAPES[c]}",
                dtype=dtype,
                ours=partial(_our_hessian, layer, batches),
                others={"torch": partial(_torch_hessian, parts)},
                tolerance=TOLERANCE,
            )


def _our_hessian(layer: Conv2d, batches: Sequence[Array]) -> Outputs:
    return (accumulate_hessian(layer, batches).blocks[0],)


def _torch_hessian(batches: Sequence[torch.Tensor]) -> Outputs:
    d, images = 9 * batches[0].shape[1], sum(len(batch) for batch in batches)
    total = torch.zeros((d, d), dtype=torch.float64)
    for batch in batches:
        patches = tf.unfold(batch.double(), 3, padding=1).transpose(0, 1).reshape(d, -1)
        total += patches @ patches.T
    return (2.0 / images * total,)  # [LDNQ] (8)-(10)


def admm_contests(channels: Sequence[int], rng: np.random.Generator) -> Iterator[Contest]:
    """100 iterations of ADMM, the paper's profile, for a 3×3 convolution with as many outputs as inputs."""
    for c in channels:
        layer = Conv2d(c, c, 3, padding=1, bias=False)
        H = accumulate_hessian(layer, [_input(c, BATCH, "float64", rng)]).blocks
        W = rng.normal(0, np.sqrt(2 / (9 * c)), (1, 9 * c, c))
        yield Contest(
            group="admm",
            name=f"d = {9 * c}, m = {c}, {ITERATIONS} iterations",
            dtype="float64",
            ours=partial(_our_admm, H, W),
            others={
                "torch": partial(torch_admm, torch.tensor(H[0]), torch.tensor(W[0])),
                "numpy solve": partial(numpy_admm, H[0], W[0]),
            },
            tolerance=1e-9,  # of f, a difference of two close numbers; codes are equal or differ by much more
        )


def _our_admm(H: Float64Array, W: Float64Array) -> Outputs:
    solution = solve(H, W, powers_of_two(3), AdmmSettings.profile("paper"))
    return solution.objective, solution.alpha, solution.values[solution.codes[0]]


def numpy_admm(H: Float64Array, W: Float64Array) -> tuple[float, float, Float64Array]:
    """A loop around numpy.linalg.solve: the least objective, its scale and its signed levels."""
    ladder = steps(powers_of_two(3))
    rho = float(np.trace(H)) / len(H)
    matrix, HW = H + rho * np.eye(len(H)), H @ W
    alpha, Q = numpy_alternation(W, ladder)
    G, lam = alpha * Q, np.zeros_like(W)
    best = (0.5 * float(np.vdot(G - W, H @ (G - W))), alpha, Q)
    for _ in range(ITERATIONS):
        theta = np.linalg.solve(matrix, HW + rho * (G - lam))  # [LDNQ] (15)
        V = theta + lam
        alpha, Q = numpy_alternation(V, ladder, alpha)
        G = alpha * Q
        lam = V - G  # [LDNQ] (18)
        objective = 0.5 * float(np.vdot(G - W, H @ (G - W)))  # [LDNQ] (10)
        if objective < best[0]:
            best = (objective, alpha, Q)
    return best


def torch_admm(H: torch.Tensor, W: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """As `numpy_admm`, with one Cholesky factor for all iterations."""
    ladder = steps(powers_of_two(3))
    rho = float(torch.trace(H)) / len(H)
    factor, HW = torch.linalg.cholesky(H + rho * torch.eye(len(H), dtype=H.dtype)), H @ W
    alpha, Q = torch_alternation(W, ladder)
    G, lam = alpha * Q, torch.zeros_like(W)
    best = (0.5 * float(torch.sum((G - W) * (H @ (G - W)))), alpha, Q)
    for _ in range(ITERATIONS):
        theta = torch.cholesky_solve(HW + rho * (G - lam), factor)  # [LDNQ] (15)
        V = theta + lam
        alpha, Q = torch_alternation(V, ladder, alpha)
        G = alpha * Q
        lam = V - G  # [LDNQ] (18)
        objective = 0.5 * float(torch.sum((G - W) * (H @ (G - W))))  # [LDNQ] (10)
        if objective < best[0]:
            best = (objective, alpha, Q)
    return best
