"""Errors and bounds of fully connected networks, in any number system, for the claims about Theorems 1 and 2.

An instance holds ``X`` (a column a sample) and the weights ``bar`` (full precision) and ``hat`` (quantized)
as tuples of matrices. All layers have ReLU and no bias: Y^l = σ(W_lᵀ Y^{l-1}). Two layer errors are kept
apart:

* parallel, e_k = ‖(Ŵ_k - W̄_k)ᵀ Y^{k-1}‖ / √n, what the proof of Theorem 1 needs;
* cascade, c_k = ‖(Ŵ_k - W̄_k)ᵀ Ŷ^{k-1}‖ / √n, the root of (8), what the algorithm minimizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import Arithmetic
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Instance, Sides
from refldnq.verify.falsifier import instances, matrices

Norm = Callable[[Any, Arithmetic], Any]
"""A norm of a matrix in a number system."""


def spectral(W: Any, arithmetic: Arithmetic) -> Any:
    """The largest singular value."""
    return arithmetic.spectral(W)


def frobenius(W: Any, arithmetic: Arithmetic) -> Any:
    """The Frobenius norm."""
    return arithmetic.frobenius(W)


def per_sample(M: Any, n: int, arithmetic: Arithmetic) -> Any:
    """(1/√n) ‖M‖_F.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> per_sample(exact([[1, 1, 1, 1]]), 4, EXACT)
    Fraction(1, 1)
    """
    return arithmetic.sqrt(arithmetic.squares(M) / arithmetic.number(n))


def minimum(x: Any, y: Any, arithmetic: Arithmetic) -> Any:
    """The smaller of two numbers."""
    return -arithmetic.maximum(-x, -y)


def activations(X: Any, weights: Sequence[Any], arithmetic: Arithmetic) -> list[Any]:
    """Y^0, Y^1, ..., Y^L.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> [str(Y[0, 0]) for Y in activations(exact([[1]]), exact([[[2]], [[-1]]]), EXACT)]
    ['1', '2', '0']
    """
    return forward(arithmetic.array(X), stack(weights, arithmetic), arithmetic)


def forward(X: Any, weights: Sequence[Any], arithmetic: Arithmetic) -> list[Any]:
    """`activations` of what is in the number system already."""
    Y = [X]
    for W in weights:
        Y.append(arithmetic.relu(W.T @ Y[-1]))
    return Y


def layer_errors(
    instance: Instance, arithmetic: Arithmetic, *, cascade: bool, reference: str = "bar"
) -> list[Any]:
    """The parallel errors e_k, or with `cascade` the c_k of (8), against the weights named `reference`.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> half = {"X": exact([[1]]), "bar": exact([[[1]], [[1]]]), "hat": exact([[["1/2"]], [["1/2"]]])}
    >>> [str(c) for c in layer_errors(half, EXACT, cascade=True)]
    ['1/2', '1/4']
    """
    inputs = activations(instance["X"], instance["hat" if cascade else "bar"], arithmetic)
    hat, bar = (stack(instance[name], arithmetic) for name in ("hat", reference))
    return errors_at(inputs, hat, bar, arithmetic)


def stack(weights: Sequence[Any], arithmetic: Arithmetic) -> list[Any]:
    """Matrices of fractions in a number system."""
    return [arithmetic.array(W) for W in weights]


def errors_at(
    inputs: Sequence[Any], hat: Sequence[Any], bar: Sequence[Any], arithmetic: Arithmetic
) -> list[Any]:
    """‖(Ŵ_k - W_k)ᵀ Y^{k-1}‖ / √n of every layer, for given inputs of the layers."""
    n = inputs[0].shape[1]
    return [
        per_sample((W_hat - W).T @ Y, n, arithmetic) for W_hat, W, Y in zip(hat, bar, inputs, strict=False)
    ]


def final_error(instance: Instance, arithmetic: Arithmetic) -> Any:
    """ε̂^L = (1/√n) ‖Ŷ^L - Y^L‖_F.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> half = {"X": exact([[1]]), "bar": exact([[[1]], [[1]]]), "hat": exact([[["1/2"]], [["1/2"]]])}
    >>> final_error(half, EXACT)
    Fraction(3, 4)
    """
    Y = activations(instance["X"], instance["bar"], arithmetic)[-1]
    Y_hat = activations(instance["X"], instance["hat"], arithmetic)[-1]
    return per_sample(Y_hat - Y, np.shape(instance["X"])[1], arithmetic)


def propagated(errors: Sequence[Any], factors: Sequence[Any]) -> Any:
    """Σ_k (Π_{l>k} factors_l) errors_k, by b ← factor·b + error.

    Examples
    --------
    >>> propagated([1, 10], [5, 3])
    13
    """
    bound = errors[0]
    for factor, error in zip(factors[1:], errors[1:], strict=True):
        bound = factor * bound + error
    return bound


def norms(weights: Sequence[Any], arithmetic: Arithmetic, norm: Norm) -> list[Any]:
    """The norm of every matrix; that of the first, which no bound uses, is left 0."""
    return [arithmetic.number(0), *(norm(W, arithmetic) for W in weights[1:])]


def bound(
    instance: Instance,
    arithmetic: Arithmetic,
    *,
    cascade: bool,
    weights: str,
    norm: Norm = spectral,
    reference: str = "bar",
) -> Any:
    """Σ_k (Π_{l>k} ‖W_l‖) error_k with the weights named `weights`.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> half = {"X": exact([[1]]), "bar": exact([[[1]], [[1]]]), "hat": exact([[["1/2"]], [["1/2"]]])}
    >>> pairs = [(False, "hat"), (True, "bar"), (True, "hat")]
    >>> [str(bound(half, EXACT, cascade=cascade, weights=weights)) for cascade, weights in pairs]
    ['3/4', '3/4', '1/2']
    """
    errors = layer_errors(instance, arithmetic, cascade=cascade, reference=reference)
    return propagated(errors, norms(stack(instance[weights], arithmetic), arithmetic, norm))


def bounded_by(*, cascade: bool, weights: str, norm: Norm = spectral, reference: str = "bar") -> Sides:
    """ε̂^L and one of the bounds."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        right = bound(instance, arithmetic, cascade=cascade, weights=weights, norm=norm, reference=reference)
        return final_error(instance, arithmetic), right

    return sides


def both_bounds(
    instance: Instance, arithmetic: Arithmetic, *, norm: Norm = spectral, loss: Fraction = Fraction(0)
) -> tuple[Any, Any]:
    """ε̂^L and (1 - loss) times the smaller of (P), parallel errors and ‖Ŵ‖, and (C), cascade and ‖W̄‖."""
    X, (bar, hat) = (
        arithmetic.array(instance["X"]),
        (stack(instance[name], arithmetic) for name in ("bar", "hat")),
    )
    Y, Y_hat = (forward(X, weights, arithmetic) for weights in (bar, hat))
    P = propagated(errors_at(Y, hat, bar, arithmetic), norms(hat, arithmetic, norm))
    C = propagated(errors_at(Y_hat, hat, bar, arithmetic), norms(bar, arithmetic, norm))
    left = per_sample(Y_hat[-1] - Y[-1], Y[0].shape[1], arithmetic)
    return left, arithmetic.number(1 - loss) * minimum(P, C, arithmetic)


def literal(instance: Instance, arithmetic: Arithmetic, *, cascade: bool = True) -> tuple[Any, Any]:
    """(19) letter by letter: the root of ε^k = E^k is inside the product, so raised to the power L-k."""
    errors = layer_errors(instance, arithmetic, cascade=cascade)
    factors = norms(stack(instance["hat"], arithmetic), arithmetic, frobenius)
    right = errors[-1]
    for k in range(len(errors) - 1):
        right = right + arithmetic.product([factor * errors[k] for factor in factors[k + 1 :]])
    return final_error(instance, arithmetic), right


def scalars(bar: Sequence[Any], hat: Sequence[Any], **more: Any) -> dict[str, Any]:
    """A network of one neuron a layer and the input 1."""
    own = {"bar": bar, "hat": hat, **more}
    return {
        "X": exact([[1]]),
        **{name: tuple(exact([[w]]) for w in weights) for name, weights in own.items()},
    }


def random_networks(
    seed: int, count: int, *, depths: Sequence[int] = (2, 3, 4, 6, 10), most: int = 4, samples: int = 2
) -> Iterator[dict[str, Any]]:
    """Random networks of rational weights; every other one with ternary quantized weights.

    Parameters
    ----------
    seed, count : int
        Of the generator; how many.
    depths : sequence of int
        Depths, in turn.
    most : int
        The widest layer, at least 2.
    samples : int
        Columns of X.

    Examples
    --------
    >>> sorted(next(random_networks(0, 1)))
    ['X', 'bar', 'hat']
    """
    rng = np.random.default_rng(seed)
    for k in range(count):
        widths = rng.integers(2, most + 1, depths[k % len(depths)] + 1).tolist()
        bar, hat = [], []
        for pair in pairwise(widths):
            eighths = rng.integers(-5, 10, pair)  # a positive mean, so that some ReLU stay open
            eighths[0, 0] = max(eighths[0, 0], 4)
            bar.append(exact(eighths) / 8)
            hat.append(
                exact(_ternary(eighths) if k % 2 == 0 else 2 * eighths + rng.integers(-3, 4, pair)) / 16
            )
        X = exact(rng.integers(-2, 7, (widths[0], samples))) / 2
        yield {"X": X, "bar": tuple(bar), "hat": tuple(hat)}


def _ternary(eighths: Any) -> Any:
    """Sixteenths: {-α, 0, α} by one pass of the alternation, α rounded to a sixteenth."""
    large = np.abs(eighths) > np.abs(eighths).mean() / 2
    return np.rint(2 * np.abs(eighths[large]).mean()).astype(int) * np.sign(eighths) * large


def strategy(depth: int, width: int, samples: int, *stacks: str) -> Any:
    """A hypothesis strategy of instances for the search.

    Parameters
    ----------
    depth, width, samples : int
        Layers, neurons in each, columns of X.
    *stacks : str
        Names of further stacks of weights beside ``bar`` and ``hat``.
    """
    from hypothesis import strategies as st

    weights = st.tuples(*[matrices(width, width)] * depth)
    return instances(X=matrices(width, samples), **dict.fromkeys(("bar", "hat", *stacks), weights))
