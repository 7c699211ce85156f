"""Fully connected networks for the claims about (6)-(8): three evaluations of f(Y; Θ), and instances.

The paper's conventions: samples are the columns of Y, Z = WᵀY, the activation is ReLU in every layer, there
are no biases. An instance holds ``Y`` and ``Y_hat``, the inputs Y^{l-1} of the reference and of the quantized
network, and the weights of the layers l, ..., L as tuples of matrices: ``bar`` (the original ones), ``new``
(updated), ``hat`` (quantized).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from refldnq.layers.linear import Linear
from refldnq.layers.relu import ReLU
from refldnq.verify.arithmetic import EXACT, Arithmetic, ball, has_flint, proved_at_most
from refldnq.verify.claims._examined import brief, stated
from refldnq.verify.claims._rational import Exact, draw, exact
from refldnq.verify.claims.base import Check, Claim, Finding, Instance
from refldnq.verify.falsifier import decide, instances, matrices
from refldnq.verify.naive import layers as naive


def output(Y: Any, weights: Sequence[Any], arithmetic: Arithmetic) -> Any:
    """f(Y; Θ) in a number system: Y ← σ(WᵀY), layer by layer.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> output(exact([[1], [2]]), [exact([[3], [-1]]), exact([[2, -2]])], EXACT).tolist() == [[2], [0]]
    True
    """
    Y = arithmetic.array(Y)
    for W in weights:
        Y = arithmetic.relu(arithmetic.array(W).T @ Y)
    return Y


def by_loops(Y: Exact, weights: Sequence[Exact]) -> Exact:
    """f(Y; Θ) by loops over images, outputs and inputs.

    Examples
    --------
    >>> by_loops(exact([[1], [2]]), [exact([[3], [-1]]), exact([[2, -2]])]).tolist() == [[2], [0]]
    True
    """
    x = Y.T
    for W in weights:
        x = naive.relu(naive.linear(x, W.T))
    return exact(x.T)


def by_library(Y: Exact, weights: Sequence[Exact]) -> Exact:
    """f(Y; Θ) by the package's layers in float64; exact where all values are small dyadic fractions.

    Examples
    --------
    >>> by_library(exact([[1], [2]]), [exact([[3], [-1]]), exact([[2, -2]])]).tolist() == [[2], [0]]
    True
    """
    x = np.ascontiguousarray(Y.T.astype(np.float64))
    for W in weights:
        layer = Linear(W.shape[0], W.shape[1], bias=False)
        x, _ = layer.forward({"weight": np.ascontiguousarray(W.T.astype(np.float64))}, x)
        x, _ = ReLU().forward({}, x)
    return exact(x.T)


def networks(seed: int, count: int, *, dyadic: bool = False) -> Iterator[dict[str, Any]]:
    """Random instances: one to three layers, one to three neurons and samples.

    Parameters
    ----------
    seed, count : int
        Of the generator; how many.
    dyadic : bool
        Whether all numbers are integers over 2, so that float64 represents all results.

    Examples
    --------
    >>> sorted(next(networks(0, 1)))
    ['Y', 'Y_hat', 'bar', 'hat', 'new']
    """
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Exact:
        return exact(rng.integers(-6, 7, shape)) / 2 if dyadic else draw(rng, shape, most=5, parts=4)

    for k in range(count):
        n, widths = 1 + k % 3, rng.integers(1, 4, 2 + (k // 3) % 3).tolist()
        pairs = list(itertools.pairwise(widths))
        weights = {name: tuple(numbers(*pair) for pair in pairs) for name in ("bar", "new", "hat")}
        yield {"Y": numbers(widths[0], n), "Y_hat": numbers(widths[0], n), **weights}


def strategy(depth: int, **entries: Any) -> Any:
    """A hypothesis strategy of instances for the search: one sample, one neuron in each layer.

    Parameters
    ----------
    depth : int
        Number of layers.
    **entries : SearchStrategy
        Further entries.
    """
    from hypothesis import strategies as st

    one = matrices(1, 1)
    stack = st.tuples(*[one] * depth)
    return instances(Y=one, Y_hat=one, bar=stack, new=stack, hat=stack, **entries)


def agree(instance: Instance) -> bool:
    """Whether the three evaluations of f agree exactly, for both inputs and all three sets of weights.

    Examples
    --------
    >>> all(map(agree, networks(1, 3, dyadic=True)))
    True
    """
    for Y in (instance["Y"], instance["Y_hat"]):
        for weights in (instance["bar"], instance["new"], instance["hat"]):
            own = output(Y, weights, EXACT)
            if not ((own == by_loops(Y, weights)).all() and (own == by_library(Y, weights)).all()):
                return False
    return True


def three_evaluations(seed: int) -> Check:
    """A check that matrices, loops and the package's layers give the same network outputs, exactly."""

    def run(claim: Claim) -> Finding:
        own = list(networks(seed, 40, dyadic=True))
        wrong = sum(not agree(instance) for instance in own)
        return Finding(ok=wrong == 0, text=f"equal on {len(own) - wrong} of {len(own)} networks, bit for bit")

    return Check(name="network outputs: fractions, loops, float64 layers", kind="exact", run=run)


def certified(name: str, instances: Callable[[], Iterable[Instance]]) -> Check:
    """A check that the corrected inequality is certified on given instances: disjoint balls, or fractions.

    Parameters
    ----------
    name : str
        Of the check.
    instances : callable
        Makes the instances, at least one, none with equal irrational sides.

    Returns
    -------
    Check
        Uncertified where a ball is needed and python-flint is missing.
    """

    def run(claim: Claim) -> Finding:
        sides = stated(claim, "corrected").sides
        assert sides is not None
        count = balls = equal = 0
        for instance in instances():
            count += 1
            known = proved_at_most(*sides(instance, ball())) if has_flint() else None
            balls += known is True
            if known is None:
                known = decide(sides, instance)
                equal += known is True
            if known is False:
                return Finding(ok=False, text=f"violated: {brief(instance)}")
        missing = count - balls - equal
        text = f"of {count}: {balls} by disjoint balls, {equal} by fractions, {missing} not certified"
        return Finding(
            ok=count > 0 and (missing == 0 or not has_flint()),
            certified=missing == 0,
            text=text,
            numbers={"balls": balls, "fractions": equal, "uncertified": missing},
        )

    return Check(name=name, kind="certified", run=run)
