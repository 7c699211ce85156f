r"""The last display of the proof of Theorem 1: from layer l to layer l + 1, with squares everywhere.

Four separate errors, each with a counterexample of its own on which the others do no harm: the triangle
inequality on squares, the missing √n, a square against a root, and indices that are one too large. Without
the squares, with 1/√n inside the error and the right indices, all is as in (P) of Theorem 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import on_all, refuted, satisfies, stated, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import propagated
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices, vectors

TRIANGLE, SAMPLES, ROOT, INDEX = 1, 2, 3, 4
"""The steps of the display; an instance names one as ``step``."""


def outputs(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any, Any]:
    """Y^{l+1}, Ỹ^{l+1} and Ŷ^{l+1} from Y^l and Ŷ^l."""
    W, W_hat, Y, Y_hat = (arithmetic.array(instance[name]) for name in ("W", "W_hat", "Y", "Y_hat"))
    return arithmetic.relu(W.T @ Y), arithmetic.relu(W_hat.T @ Y), arithmetic.relu(W_hat.T @ Y_hat)


def layer_root(instance: Instance, arithmetic: Arithmetic) -> Any:
    """√(δE^{l+1}), the root of the parallel error."""
    W, W_hat, Y = (arithmetic.array(instance[name]) for name in ("W", "W_hat", "Y"))
    return arithmetic.sqrt(arithmetic.squares((W_hat - W).T @ Y) / arithmetic.number(Y.shape[1]))


def two_layers(instance: Instance, arithmetic: Arithmetic) -> tuple[list[Any], list[Any], Any]:
    """Errors √δE^h and norms of three scalar layers, two of them run; and the outputs' difference."""
    w, w_hat = ([arithmetic.number(v) for v in instance[name]] for name in ("w", "w_hat"))
    y = y_hat = arithmetic.number(1)
    errors = []
    for a, b in zip(w[:2], w_hat[:2], strict=True):
        errors.append(arithmetic.maximum((b - a) * y, (a - b) * y))
        y, y_hat = (arithmetic.maximum(v, arithmetic.number(0)) for v in (a * y, b * y_hat))
    return errors, [arithmetic.maximum(v, -v) for v in w_hat], arithmetic.maximum(y - y_hat, y_hat - y)


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """One step of the display, as printed."""
    if instance["step"] == INDEX:
        errors, factors, distance = two_layers(instance, arithmetic)
        return distance * distance, factors[2] * factors[2] * errors[0] + errors[1]
    Y, Y_tilde, Y_hat = outputs(instance, arithmetic)
    if instance["step"] == TRIANGLE:
        right = arithmetic.squares(Y_tilde - Y_hat) + arithmetic.squares(Y_tilde - Y)
        return arithmetic.squares(Y_hat - Y), right
    root = arithmetic.sqrt(arithmetic.number(Y.shape[1]))
    return arithmetic.squares(Y_tilde - Y) / root, layer_root(instance, arithmetic)


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The same step with norms that are not squared, and the indices h+1 to l+1."""
    if instance["step"] == INDEX:
        errors, factors, distance = two_layers(instance, arithmetic)
        return distance, propagated(errors, factors[:2])
    Y, Y_tilde, Y_hat = outputs(instance, arithmetic)
    if instance["step"] == TRIANGLE:
        return arithmetic.frobenius(Y_hat - Y), arithmetic.frobenius(Y_tilde - Y_hat) + arithmetic.frobenius(
            Y_tilde - Y
        )
    n = arithmetic.number(Y.shape[1])
    return arithmetic.sqrt(arithmetic.squares(Y_tilde - Y) / n), layer_root(instance, arithmetic)


def layer(step: int, W: Any, W_hat: Any, Y: Any, Y_hat: Any) -> Instance:
    """One layer of nested lists."""
    return {"step": step, "W": exact(W), "W_hat": exact(W_hat), "Y": exact(Y), "Y_hat": exact(Y_hat)}


def chain(w: Any, w_hat: Any) -> Instance:
    """Three scalar layers, of which the display's l + 1 = 2 are run."""
    return {"step": INDEX, "w": exact(w), "w_hat": exact(w_hat)}


EXAMPLES: Mapping[str, tuple[Instance, str]] = {
    "triangle inequality on squares": (
        layer(TRIANGLE, [[1]], [[2]], [[1]], [[2]]),
        "n = 1, Y = 1, Ŷ = 2, W = 1, Ŵ = 2: (4 - 1)² = 9 <= (2 - 4)² + (2 - 1)² = 5 is false",
    ),
    "missing root of n": (
        layer(SAMPLES, [[1]], [[2]], [[1, 1, 1, 1]], [[1, 1, 1, 1]]),
        "n = 4, W = 1, Ŵ = 2, Y = (1, 1, 1, 1): 4/√4 = 2 <= √E = √(4/4) = 1 is false",
    ),
    "a square against a root": (
        layer(ROOT, [[1]], [[4]], [[1]], [[1]]),
        "n = 1, Y = 1, W = 1, Ŵ = 4: (4 - 1)² = 9 <= √E = 3 is false",
    ),
    "indices one too large": (
        chain((1, 10, "1/10"), ("1/2", 10, "1/10")),
        "W = (1, 10, 1/10), Ŵ = (1/2, 10, 1/10), l + 1 = 2: (5 - 10)² = 25 <= (1/10)²·1/2 + 0 = 1/200 is "
        "false",
    ),
}
"""The four errors, each with an instance and what is computed from it."""


def each_error(name: str) -> Check:
    """A check that one error shows, and that the correction repairs it."""
    instance, text = EXAMPLES[name]

    def run(claim: Claim) -> Finding:
        fails = not satisfies(claim.printed, instance)
        repaired = satisfies(stated(claim, "corrected"), instance)
        return Finding(ok=fails and repaired, text=text)

    return Check(name=name, kind="exact", run=run)


def given(claim: Claim) -> Finding:
    """The claim's own counterexample."""
    example = claim.counterexample
    assert example is not None
    return Finding(ok=not satisfies(claim.printed, example.instance), text=example.shown)


def no_layer(claim: Claim) -> Finding:
    """For l + 1 = L the printed product speaks of layer L + 1."""
    depth, l = 3, 2  # noqa: E741
    printed_layers = [k + 1 for k in range(l, l + 2)]
    return Finding(
        ok=max(printed_layers) == depth + 1,
        text=f"L = {depth}, l + 1 = {l + 1}, h = {l - 1}: ‖Θ^(k+1)‖ for k = h+1..l+1 are layers "
        f"{printed_layers}",
    )


def keeps(step: int) -> Any:
    """The printed display with one step repaired."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        own = corrected if instance["step"] == step else printed
        return own(instance, arithmetic)

    return sides


def chains() -> Iterator[Instance]:
    """Random chains of quarters, with errors in the first layer, in the second or in both."""
    rng = np.random.default_rng(3104)
    for k in range(150):
        w, w_hat = (exact(rng.integers(-4, 13, 3)) / 4 for _ in range(2))
        if k % 3 < 2:
            w_hat[k % 3] = w[k % 3]
        yield chain(w, w_hat)


def closed_chains() -> Iterator[Instance]:
    """Of these the ones where the sides differ, so that balls can tell them apart."""
    for own in chains():
        left, right = corrected(own, EXACT)
        if left < right:
            yield own


def without_last(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Corrected, but without e_{l+1}: an error."""
    if instance["step"] == INDEX:
        errors, factors, distance = two_layers(instance, arithmetic)
        return distance, factors[1] * errors[0]
    return corrected(instance, arithmetic)


def reference_norms(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Corrected, but with the norms of the original weights: an error."""
    if instance["step"] == INDEX:
        errors, _, distance = two_layers(instance, arithmetic)
        w = [arithmetic.number(v) for v in instance["w"]]
        return distance, propagated(errors, [arithmetic.maximum(v, -v) for v in w[:2]])
    return corrected(instance, arithmetic)


def wrong_factor(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Corrected, but the indices still one too large: an error."""
    if instance["step"] == INDEX:
        errors, factors, distance = two_layers(instance, arithmetic)
        return distance, factors[2] * errors[0] + errors[1]
    return corrected(instance, arithmetic)


def layers() -> Iterator[Instance]:
    """Random layers for the first three steps; ones where the sides differ."""
    rng = np.random.default_rng(3101)
    for k in range(150):
        d, m, n = rng.integers(2, 4, 3)
        W = exact(rng.integers(-4, 7, (d, m))) / 4
        W_hat = W + exact(rng.integers(-2, 3, (d, m))) / 4
        Y, Y_hat = (exact(rng.integers(0, 6, (d, n))) / 2 for _ in range(2))
        instance = {"step": 1 + k % 3, "W": W, "W_hat": W_hat, "Y": Y, "Y_hat": Y_hat}
        first, tilde, second = outputs(instance, EXACT)
        if k % 3 == 0:
            a, b = (second - tilde).ravel(), (tilde - first).ravel()
            gap = (a * b).sum() < 0 or (a * b).sum() ** 2 < (a * a).sum() * (b * b).sum()
        else:
            gap = EXACT.squares(tilde - first) < EXACT.squares((W_hat - W).T @ Y)
        if gap:
            yield instance


def space() -> Space:
    """Single layers of one neuron and one sample, the first step or the third."""

    def strategy() -> Any:
        from hypothesis import strategies as st

        one = matrices(1, 1)
        return instances(step=st.sampled_from((TRIANGLE, ROOT)), W=one, W_hat=one, Y=one, Y_hat=one)

    return Space(strategy, fixed=("step",))


def chain_space() -> Space:
    """Chains of three scalar layers."""

    def strategy() -> Any:
        from hypothesis import strategies as st

        return instances(step=st.just(INDEX), w=vectors(3), w_hat=vectors(3))

    return Space(strategy, fixed=("step",))


PRINTED = Statement(
    latex=r"\tfrac1{\sqrt n}\|\hat Y^{l+1}-Y^{l+1}\|_F^2\le\tfrac1{\sqrt n}\|\tilde Y^{l+1}-\hat "
    r"Y^{l+1}\|_F^2"
    r"+\tfrac1{\sqrt n}\|\tilde Y^{l+1}-Y^{l+1}\|_F^2"
    r"\le\sum_{h=1}^l\Big(\prod_{k=h+1}^{l+1}\|\hat\Theta^{k+1}\|_F^2\sqrt{\delta E^h}\Big)+\sqrt{\delta "
    r"E^{l+1}}",
    words="both steps of the display, and each of their four parts",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\tfrac1{\sqrt n}\|\hat Y^{l+1}-Y^{l+1}\|_F\le\tfrac1{\sqrt n}\|\tilde Y^{l+1}-\hat Y^{l+1}\|_F"
    r"+\tfrac1{\sqrt n}\|\tilde Y^{l+1}-Y^{l+1}\|_F"
    r"\le\sum_{h=1}^l\Big(\prod_{k=h+1}^{l+1}\|\hat W_k\|_2\Big)e_h+e_{l+1}",
    words="the same without squares, with the layers h+1 to l+1",
    sides=corrected,
)

_FIRST = EXAMPLES["triangle inequality on squares"]

CLAIM = Claim(
    id="proof-last-display",
    title="The last display of the proof",
    source="proof of Theorem 1, last display",
    printed=PRINTED,
    verdict="false",
    reason="four errors: 9 <= 5, 2 <= 1, 9 <= 3, 25 <= 1/200",
    corrected=CORRECTED,
    counterexample=Counterexample(instance=_FIRST[0], shown=_FIRST[1]),
    proof=r"""
For norms, the triangle inequality with $\tilde Y^{l+1}=\sigma(\hat W_{l+1}^\top Y^l)$ is the first step.
Theorem 2 (corrected) bounds its first term by $\|\hat W_{l+1}\|_2\hat\varepsilon^l$, ReLU the second by
$e_{l+1}=\sqrt{\delta E^{l+1}}$ with the input $Y^l$. Inserting the hypothesis for $\hat\varepsilon^l$
multiplies every product over $k=h+1..l$ with $\|\hat W_{l+1}\|_2$: it now runs over $k=h+1..l+1$, with the
norms of just these layers; $\|\hat\Theta^{k+1}\|$ would be those of $h+2..l+2$, and for $l+1=L$ there is no
layer $L+1$.

Each printed part fails by itself: (1) squares do not satisfy the triangle inequality; (2)
$\frac1{\sqrt n}\|\tilde Y-Y\|_F^2$ is $\sqrt n$ times the mean square; (3) for $n=1$ it is the square of
$\sqrt{\delta E}$; (4) the indices. Besides, $\hat Y^{l+1}$ is $f(Y^0;\hat\Theta_{[1..l+1]})$, not
$f(Y^0;\hat\Theta_{[1..l]})$. $\square$
""",
    checks=(
        Check(name="counterexample", kind="exact", run=given),
        *(each_error(name) for name in EXAMPLES),
        Check(name="the layer that does not exist", kind="count", run=no_layer),
        refuted(space(), seed=3102, tries=300),
        survives(space(), seed=3103, tries=200),
        on_all("random chains of layers", chains, which="corrected"),
        survives(chain_space(), seed=3105, tries=200),
        certified("balls: random layers", layers),
        certified("balls: random chains", closed_chains),
    ),
    mutations=(
        *(
            Mutation(
                name=f"printed: repaired, {name}",
                changes={"printed": replace(PRINTED, sides=keeps(instance["step"]))},
            )
            for name, (instance, _) in EXAMPLES.items()
        ),
        Mutation(
            name="corrected: indices one too large",
            changes={"corrected": replace(CORRECTED, sides=wrong_factor)},
        ),
        Mutation(
            name="corrected: without the last error",
            changes={"corrected": replace(CORRECTED, sides=without_last)},
        ),
        Mutation(
            name="corrected: the norms of the original weights",
            changes={"corrected": replace(CORRECTED, sides=reference_norms)},
        ),
    ),
)
