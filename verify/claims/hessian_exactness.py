r"""E^l = ½ δΘᵀHδΘ, printed for (8), used for a layer's *output*: (20) has ε̂¹ = ε¹ = √δE¹.

The exactness of (9) ends at the pre-activation. After ReLU the error is no quadratic form; it is at most the
one before, always. After a batch normalization with the batch's own statistics it is no quadratic form
either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.layers.batchnorm import BatchNorm
from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import by_library, by_loops, certified
from refldnq.verify.claims._rational import Exact, draw, exact, squares
from refldnq.verify.claims._single_layer import floats
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Figure,
    Finding,
    Instance,
    Mutation,
    Statement,
)
from refldnq.verify.falsifier import Space, instances, matrices

TIMES = (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))
"""The t at which E(tδ) is compared with its second-order prediction."""


def errors(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """NE after and before ReLU, for one layer."""
    Y, W, delta = (arithmetic.array(instance[name]) for name in ("Y", "W", "delta"))
    before, after = W.T @ Y, (W + delta).T @ Y
    outputs = arithmetic.relu(after) - arithmetic.relu(before)
    return arithmetic.squares(outputs), arithmetic.squares(after - before)  # [LDNQ] (8)


def as_large(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Before <= after: one half of "the error of the output is E"."""
    return errors(instance, arithmetic)[::-1]


def as_small(instance: Instance, arithmetic: Arithmetic, *, factor: int = 1) -> tuple[Any, Any]:
    """After <= before; a `factor` on the left is an error to be noticed."""
    after, before = errors(instance, arithmetic)
    return factor * after, before


def drawn(rng: np.random.Generator) -> dict[str, Exact]:
    """One layer of halves of integers, up to three inputs, neurons and samples."""
    d, m, n = rng.integers(1, 4, 3).tolist()
    shapes = {"Y": (d, n), "W": (d, m), "delta": (d, m)}
    return {name: exact(rng.integers(-6, 7, shape)) / 2 for name, shape in shapes.items()}


def by_package(claim: Claim) -> Finding:
    """Outputs by the package's layers and by loops; the error is equal where no sign changes."""
    assert claim.corrected is not None and claim.corrected.sides is not None
    rng = np.random.default_rng(1501)
    less = count = 0
    for _ in range(120):
        instance = drawn(rng)
        Y, W, G = instance["Y"], instance["W"], instance["W"] + instance["delta"]
        left, right = claim.corrected.sides(instance, EXACT)
        values = {squares(f(Y, [G]) - f(Y, [W])) for f in (by_library, by_loops)}
        kept = bool(((W.T @ Y >= 0) & (G.T @ Y >= 0)).all())
        count += 1
        less += left < right
        if not (values == {left} and left <= right and (left == right or not kept)):
            return Finding(ok=False, text=f"fails on layer {count}: after {left}, before {right}")
    text = f"{count} layers bit for bit: smaller after ReLU in {less}, never larger"
    return Finding(ok=0 < less < count, text=text, numbers={"layers": count, "smaller": less})


def normalized(z: Exact, eps: Any) -> Exact:
    """Batch normalization of one channel with the batch's own mean and variance, exactly."""
    centred = z - z.sum() / len(z)
    result: Exact = centred / EXACT.sqrt(squares(centred) / len(z) + eps)
    return result


def batch_statistics(claim: Claim) -> Finding:
    """Y = (-1, 1), W = 0, ε = 1: E at δ = 3/4 and 4/3, where the roots are rational."""
    Y, layer = exact([-1, 1]), BatchNorm(1, eps=1.0)
    params = {name: np.ones(1) for name in layer.parameter_shapes()} | {"bias": np.zeros(1)}
    values = []
    for delta in (Fraction(3, 4), Fraction(4, 3)):
        x_hat = normalized(delta * Y, Fraction(1))
        values.append(squares(x_hat) / 2)
        own, _ = layer.forward(params, floats(delta * Y)[:, None], mode="train")
        if not np.abs(own[:, 0] - floats(x_hat)).max() <= 1e-15:
            return Finding(ok=False, text=f"the package's batch normalization differs at δ = {delta}")
    predicted = values[0] * Fraction(16, 9) ** 2
    text = (
        f"train-mode BN: E(3/4) = {values[0]}, E(4/3) = {values[1]}; a quadratic form would have {predicted}"
    )
    ok = values == [Fraction(9, 25), Fraction(16, 25)] and predicted > values[1]
    return Finding(ok=ok and claim.verdict == "false", text=text)


def curves(claim: Claim) -> Finding:
    """E(tδ) over its second-order prediction, before and after ReLU and train-mode batch normalization."""
    assert claim.corrected is not None and claim.corrected.sides is not None
    rng = np.random.default_rng(1502)
    Y, W, delta = (exact(rng.integers(-20, 21, shape)) / 8 for shape in ((3, 40), (3, 1), (3, 1)))
    z, dz = (W.T @ Y)[0], (delta.T @ Y)[0]
    relu_second = sum(b * b for a, b in zip(z, dz, strict=True) if a > 0)
    layer = BatchNorm(1)
    params = {name: np.ones(1) for name in layer.parameter_shapes()} | {"bias": np.zeros(1)}
    base, tape = layer.forward(params, floats(z)[:, None], mode="train")
    bn_second = float((layer.jvp(params, tape, (floats(dz)[:, None],), {}) ** 2).sum())
    table: dict[str, list[float]] = {"before": [], "after ReLU": [], "after train-mode BN": []}
    for t in TIMES:
        after, before = claim.corrected.sides({"Y": Y, "W": W, "delta": t * delta}, EXACT)
        moved, _ = layer.forward(params, floats(z + t * dz)[:, None], mode="train")
        table["before"].append(float(before / (t * t * squares(dz))))
        table["after ReLU"].append(float(after / (t * t * relu_second)))
        table["after train-mode BN"].append(float(((moved - base) ** 2).sum()) / (float(t) ** 2 * bn_second))
    forth, back = (
        claim.corrected.sides({"Y": Y, "W": W, "delta": sign * delta}, EXACT)[0] for sign in (1, -1)
    )
    odd = float((forth - back) / (forth + back))
    exact_before = all(v == 1 for v in table["before"])
    inexact = (
        max(abs(v - 1) for v in table["after ReLU"]),
        max(abs(v - 1) for v in table["after train-mode BN"]),
    )
    shown = "; ".join(f"{name}: {', '.join(f'{v:.3f}' for v in row)}" for name, row in table.items())
    figure = Figure(
        title="Layer error over its second-order prediction",
        x="t",
        y="E(tδ) / (t²E''/2)",
        curves={name: (tuple(map(float, TIMES)), tuple(row)) for name, row in table.items()},
        log="x",
    )
    return Finding(
        ok=exact_before and min(inexact) > 0.01 and odd != 0,
        text=f"at t = 1/8 to 4, {shown}; odd part after ReLU {odd:.2f}",
        numbers={**table, "odd": odd},
        figures=(figure,),
    )


def cases() -> Iterator[Instance]:
    """Random layers of fractions."""
    rng = np.random.default_rng(1503)
    for _ in range(100):
        d, m, n = rng.integers(1, 4, 3).tolist()
        yield {"Y": draw(rng, (d, n)), "W": draw(rng, (d, m)), "delta": draw(rng, (d, m))}


def space() -> Space:
    """Layers of one neuron with two inputs and one sample."""
    return Space(lambda: instances(Y=matrices(2, 1), W=matrices(2, 1), delta=matrices(2, 1)))


PRINTED = Statement(
    latex=r"\tfrac1n\|\hat Y^l-Y^l\|_F^2=\tfrac12\,\delta\Theta_l^\top H_l\,\delta\Theta_l",
    words="the squared error of the layer's output, after the activation, is half of dTheta' H dTheta",
    sides=as_large,
)

CORRECTED = Statement(
    latex=r"\tfrac1n\|\sigma(\hat Z^l)-\sigma(Z^l_*)\|_F^2\le\tfrac1n\|\hat Z^l-Z_*^l\|_F^2"
    r"=\tfrac12\,\delta\Theta_l^\top H_l\,\delta\Theta_l",
    words="the error after the activation is at most the one before it, which is half of dTheta' H dTheta",
    sides=as_small,
)

EXAMPLE = Counterexample(
    instance={"Y": exact([[1]]), "W": exact([[-1]]), "delta": exact([[1]])},
    shown="n = 1, Y = 1, W = -1, δ = 1: Z moves from -1 to 0, ½δHδ = 1, the output stays 0: 1 <= 0 is false",
)

CLAIM = Claim(
    id="hessian-exactness",
    title="Where the quadratic form ends",
    source="(9), (20)",
    printed=PRINTED,
    verdict="false",
    reason="exact before the activation only; after it the error is smaller or equal, and not quadratic",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
*At most.* $|\max(a,0)-\max(b,0)|\le|a-b|$ for all $a,b$; square and sum. Any 1-Lipschitz activation will do.
For ReLU there is equality exactly where no entry of $\hat Z$ or $Z_*$ that changes is negative. $\square$

*No quadratic form.* In the counterexample $E$ after ReLU is $0$ for $\delta\le1$ and $(\delta-1)^2$ beyond:
neither even nor homogeneous.

*Batch statistics.* One channel, $Y=(-1,1)$, $W=0$, $\epsilon=1$: $z=(-\delta,\delta)$ has variance
$\delta^2$, so the normalized values are $\pm\delta/\sqrt{\delta^2+1}$ and $E(\delta)=\delta^2/(\delta^2+1)$,
bounded by $1$: $E(\frac34)=\frac9{25}$, $E(\frac43)=\frac{16}{25}$, where a quadratic form would have
$\frac9{25}(\frac{16}9)^2=\frac{256}{225}$. With the statistics of eval mode the map is affine, and (9) is
exact.
""",
    checks=(
        by_hand(),
        Check(name="after and before, by the package's layers", kind="exact", run=by_package),
        refuted(space(), seed=1504, seconds=30.0, tries=300),
        survives(space(), seed=1505, tries=300),
        certified("smaller after ReLU, by balls or fractions", cases),
        Check(name="batch statistics", kind="exact", run=batch_statistics),
        Check(name="how far from quadratic", kind="measured", run=curves),
    ),
    mutations=(
        Mutation(
            name="corrected: at most half",
            changes={"corrected": replace(CORRECTED, sides=partial(as_small, factor=2))},
        ),
        Mutation(name="corrected: at least", changes={"corrected": replace(CORRECTED, sides=as_large)}),
        Mutation(name="printed: at most", changes={"printed": replace(PRINTED, sides=as_small)}),
        Mutation(
            name="counterexample: no sign changes",
            changes={"counterexample": replace(EXAMPLE, instance={**EXAMPLE.instance, "W": exact([[1]])})},
        ),
        Mutation(name="verdict: true", changes={"verdict": "true"}),
    ),
)
