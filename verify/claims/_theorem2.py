"""One layer of two networks, for (22) and Theorem 2: weights ``W_hat``, inputs ``Y`` and ``Y_hat``."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import Arithmetic
from refldnq.verify.claims._networks_fc import Norm, per_sample, spectral
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Instance, Sides
from refldnq.verify.falsifier import Space, instances, matrices


def difference(instance: Instance, arithmetic: Arithmetic) -> Any:
    """Ỹ^{l+1} - Ŷ^{l+1}, the outputs of the quantized layer for Y and Ŷ."""
    W = arithmetic.array(instance["W_hat"])
    Y, Y_hat = (arithmetic.relu(W.T @ arithmetic.array(instance[name])) for name in ("Y", "Y_hat"))
    return Y - Y_hat


def incoming(instance: Instance, arithmetic: Arithmetic) -> Any:
    """ε̂^l = ‖Ŷ^l - Y^l‖_F / √n."""
    Y, Y_hat = (arithmetic.array(instance[name]) for name in ("Y", "Y_hat"))
    return per_sample(Y_hat - Y, Y.shape[1], arithmetic)


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """(22): the square of the left side against ε̂ to the first power."""
    W = arithmetic.array(instance["W_hat"])
    root = arithmetic.sqrt(arithmetic.number(instance["Y"].shape[1]))
    right = root * arithmetic.squares(W) * incoming(instance, arithmetic)
    return arithmetic.squares(difference(instance, arithmetic)), right


def corrected(norm: Norm = spectral, factor: Fraction = Fraction(1)) -> Sides:
    """‖Ỹ - Ŷ‖_F ≤ √n ‖Ŵ‖ ε̂, divided by √n on both sides."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        W = arithmetic.array(instance["W_hat"])
        n = instance["Y"].shape[1]
        right = arithmetic.number(factor) * norm(W, arithmetic) * incoming(instance, arithmetic)
        return per_sample(difference(instance, arithmetic), n, arithmetic), right

    return sides


def squared_definition(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """(22) with the square in the last display's ε̂ = ‖Ŷ - Y‖²_F / √n."""
    W = arithmetic.array(instance["W_hat"])
    gap = arithmetic.array(instance["Y_hat"]) - arithmetic.array(instance["Y"])
    return arithmetic.squares(difference(instance, arithmetic)), arithmetic.squares(W) * arithmetic.squares(
        gap
    )


def layers(seed: int, count: int, most: int = 4) -> Iterator[Instance]:
    """Random layers of eighths; activations are not negative, as those of a ReLU."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        d, m, n = rng.integers(2, most + 1, 3)
        W = exact(rng.integers(-8, 9, (d, m))) / 8
        W[:2, :2] += exact([[1, 0], [0, 1]])
        Y, Y_hat = (exact(rng.integers(0, 9, (d, n))) / 2 for _ in range(2))
        yield {"W_hat": W, "Y": Y, "Y_hat": Y_hat}


def space(d: int, m: int, n: int) -> Space:
    """Layers of d inputs and m outputs, n samples."""
    return Space(lambda: instances(W_hat=matrices(d, m), Y=matrices(d, n), Y_hat=matrices(d, n)))


def one(W_hat: Any, Y: Any, Y_hat: Any) -> Instance:
    """A layer of nested lists."""
    return {"W_hat": exact(W_hat), "Y": exact(Y), "Y_hat": exact(Y_hat)}
