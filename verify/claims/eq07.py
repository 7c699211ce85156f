r"""(7): the objective of (6) is at most the Quantization term plus the Weights Update term, all squared.

False: the triangle inequality holds for norms, not for their squares; 9 <= 4 + 1 fails already for one
neuron. True are the root form, the same with the factor 2, and (1 + t), (1 + 1/t) in general. The
intermediate network must have the updated weights Θ^new, which the algorithm quantizes; any intermediate
network will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from refldnq.layers.conv import Conv2d
from refldnq.layers.flatten import Flatten
from refldnq.layers.linear import Linear
from refldnq.layers.relu import ReLU
from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, stated, survives
from refldnq.verify.claims._networks import certified, networks, output, strategy, three_evaluations
from refldnq.verify.claims._rational import Exact, exact, inner, squares
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, rationals

FORMS = (Fraction(0), Fraction(1), Fraction(5, 3))
"""The t of the forms that are certified; 0 stands for the root form."""


def terms(instance: Instance, arithmetic: Arithmetic, middle: str) -> tuple[Any, Any]:
    """The differences whose norms (7) compares, a of Quantization and b of Weights Update.

    An instance may hold them as they are, ``a`` and ``b``, in place of a network.
    """
    if "a" in instance:
        return arithmetic.array(instance["a"]), arithmetic.array(instance["b"])
    quantized = output(instance["Y_hat"], instance["hat"], arithmetic)
    between = output(instance["Y_hat"], instance[middle], arithmetic)
    reference = output(instance["Y"], instance["bar"], arithmetic)
    return quantized - between, between - reference


def printed_sides(instance: Instance, arithmetic: Arithmetic, *, factor: int = 1) -> tuple[Any, Any]:
    """‖a + b‖² and ‖a‖² + ‖b‖²."""
    a, b = terms(instance, arithmetic, "bar")
    right = arithmetic.squares(a) + arithmetic.squares(b)
    return arithmetic.squares(a + b), factor * right  # [LDNQ] (7)


def corrected_sides(
    instance: Instance, arithmetic: Arithmetic, *, middle: str = "new", loss: Fraction = Fraction(0)
) -> tuple[Any, Any]:
    """‖a + b‖² and (1 + t)‖a‖² + (1 + 1/t)‖b‖²; for t = 0 the norms ‖a + b‖ and ‖a‖ + ‖b‖."""
    a, b = terms(instance, arithmetic, middle)
    t = Fraction(instance["t"])
    less = arithmetic.number(1 - loss)
    if t == 0:
        return arithmetic.frobenius(a + b), less * (arithmetic.frobenius(a) + arithmetic.frobenius(b))
    first, second = arithmetic.number(1 + t), arithmetic.number(1 + 1 / t)
    right = first * arithmetic.squares(a) + second * arithmetic.squares(b)
    return arithmetic.squares(a + b), less * right


def swapped_sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """1/t where t belongs: an error."""
    a, b = terms(instance, arithmetic, "new")
    t = Fraction(instance["t"]) or Fraction(1)
    return arithmetic.squares(a + b), arithmetic.number(1 + t) * (
        arithmetic.squares(a) + arithmetic.squares(b)
    )


def identity(claim: Claim) -> Finding:
    """Printed (7) holds exactly where the inner product of a and b is not positive."""
    count = violated = 0
    assert claim.printed.sides is not None
    for instance in networks(701, 300):
        left, right = claim.printed.sides(instance, EXACT)
        a, b = terms(instance, EXACT, "bar")
        product = inner(a, b)
        count += 1
        violated += left > right
        cauchy = product <= 0 or product**2 <= squares(a) * squares(b)
        if not (left == right + 2 * product and (left <= right) == (product <= 0) and cauchy):
            return Finding(ok=False, text=f"the identity fails at network {count}")
    text = f"‖a+b‖² = ‖a‖² + ‖b‖² + 2⟨a,b⟩ on {count} networks; (7) as printed fails on {violated}"
    return Finding(ok=0 < violated < count, text=text, numbers={"networks": count, "violated": violated})


def convolution_output(x: Any, kernel: Any, weight: Any) -> Exact:
    """Convolution, ReLU and a fully connected layer with ReLU by the package, float64."""
    conv = Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], padding=1, stride=2, bias=False)
    y, _ = conv.forward({"weight": kernel}, x)
    y, _ = ReLU().forward({}, y)
    y, _ = Flatten().forward({}, y)
    y, _ = Linear(weight.shape[1], weight.shape[0], bias=False).forward({"weight": weight}, y)
    return exact(ReLU().forward({}, y)[0])


def convolutions() -> Iterator[Instance]:
    """The differences a and b of random convolutional networks of integers."""
    rng = np.random.default_rng(702)

    def integers(*shape: int) -> Any:
        return rng.integers(-3, 4, shape).astype(np.float64)

    for k in range(24):
        x, x_hat = integers(2, 2, 4, 4), integers(2, 2, 4, 4)
        bar, new, hat = ((integers(2, 2, 3, 3), integers(2, 8)) for _ in range(3))
        between = convolution_output(x_hat, *new)
        a = convolution_output(x_hat, *hat) - between
        b = between - convolution_output(x, *bar)
        yield {"a": a, "b": b, "t": FORMS[k % 3]}


def sharp(claim: Claim) -> Finding:
    """Equality for a = b with t = 1 and, in the root form, for parallel a and b."""
    sides = stated(claim, "corrected").sides
    assert sides is not None
    a = exact([[3], [4]])
    twice = sides({"a": a, "b": a, "t": Fraction(1)}, EXACT)
    root = sides({"a": a, "b": 2 * a, "t": Fraction(0)}, EXACT)
    text = (
        f"a = b = (3, 4): {twice[0]} = {twice[1]} with factor 2; a, 2a: {root[0]} = {root[1]} for the roots"
    )
    return Finding(ok=twice[0] == twice[1] and root[0] == root[1], text=text)


def cases() -> Iterator[Instance]:
    """Networks in every form of the correction; the roots only where the sides differ."""
    drawn = ({**instance, "t": FORMS[k % 3]} for k, instance in enumerate(networks(703, 90, dyadic=True)))
    for instance in chain(drawn, convolutions()):
        a, b = terms(instance, EXACT, "new")
        parallel = inner(a, b) ** 2 == squares(a) * squares(b)
        yield {**instance, "t": Fraction(1)} if parallel else instance


def roots() -> Space:
    """Networks of two layers and one neuron each, in the root form."""
    return Space(lambda: strategy(2, t=rationals(0, (1,))), fixed=("t",))


def squared(depth: int) -> Space:
    """Networks of one neuron a layer with any t > 0."""

    def admits(instance: Instance) -> bool:
        return bool(instance["t"] > 0)

    return Space(lambda: strategy(depth, t=rationals(4, (1, 2), least=1)), admits=admits)


PRINTED = Statement(
    latex=r"\|f(\hat Y;\hat\Theta)-f(Y;\bar\Theta)\|_F^2\le\|f(\hat Y;\hat\Theta)-f(\hat Y;\bar\Theta)\|_F^2"
    r"+\|f(\hat Y;\bar\Theta)-f(Y;\bar\Theta)\|_F^2",
    words="the objective is at most Quantization + Weights Update, all squared",
    sides=printed_sides,
)

CORRECTED = Statement(
    latex=r"\|f(\hat Y;\hat\Theta)-f(Y;\bar\Theta)\|_F\le\|f(\hat Y;\hat\Theta)-f(\hat Y;\bar\Theta^{new})"
    r"\|_F"
    r"+\|f(\hat Y;\bar\Theta^{new})-f(Y;\bar\Theta)\|_F,\qquad"
    r"\|a+b\|^2\le(1+t)\|a\|^2+(1+\tfrac1t)\|b\|^2\ (t>0),\ \ t=1:\ 2\|a\|^2+2\|b\|^2",
    words="the triangle inequality for norms; for squares with 1 + t and 1 + 1/t, so with the factor 2",
    sides=corrected_sides,
)

_ONE, _TWO = (exact([[1]]),), (exact([[2]]),)

EXAMPLE = Counterexample(
    instance={
        "Y": exact([[1]]),
        "Y_hat": exact([[2]]),
        "bar": _ONE,
        "new": _ONE,
        "hat": _TWO,
        "t": Fraction(0),
    },
    shown="n = 1, Y = 1, Ŷ = 2, W = 1, Ŵ = 2: (4 - 1)² = 9 <= (4 - 2)² + (2 - 1)² = 5 is false; 3 <= 2 + 1 "
    "is true",
)

CLAIM = Claim(
    id="eq07",
    title="The upper bound by two terms",
    source="(7)",
    printed=PRINTED,
    verdict="false",
    reason="a triangle inequality on squares: 9 <= 4 + 1; the factor 2 is missing",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Let $a=f(\hat Y;\hat\Theta)-f(\hat Y;\Theta')$ and $b=f(\hat Y;\Theta')-f(Y;\bar\Theta)$ with any $\Theta'$,
for the algorithm $\Theta'=\bar\Theta^{new}$. Then $a+b=f(\hat Y;\hat\Theta)-f(Y;\bar\Theta)$ and
$$\|a+b\|_F^2=\|a\|_F^2+\|b\|_F^2+2\langle a,b\rangle.$$
So the printed inequality holds **if and only if** $\langle a,b\rangle\le0$.

*Roots.* By Cauchy and Schwarz $\langle a,b\rangle\le\|a\|\|b\|$, hence $\|a+b\|\le\|a\|+\|b\|$.

*Squares.* $2\langle a,b\rangle\le t\|a\|^2+\frac1t\|b\|^2$ for $t>0$, since $\|\sqrt t\,a-b/\sqrt t\|^2\ge0$.
This gives $\|a+b\|^2\le(1+t)\|a\|^2+(1+\frac1t)\|b\|^2$; $t=1$ is the factor 2, with equality for $a=b$, so
no smaller factor serves; the least right side, at $t=\|b\|/\|a\|$, is $(\|a\|+\|b\|)^2$. $\square$

Minimizing both terms still minimizes an upper bound of (6), twice the printed one.
""",
    checks=(
        by_hand(),
        Check(name="when it holds: the sign of ⟨a, b⟩", kind="exact", run=identity),
        three_evaluations(704),
        refuted(squared(1), seed=705, seconds=30.0, tries=600),
        replace(survives(roots(), seed=706, tries=200), name="search for violations of the root form"),
        replace(survives(squared(2), seed=707, tries=200), name="search for violations of the forms with t"),
        certified("balls: roots, factor 2, t = 5/3; convolutional networks too", cases),
        Check(name="sharp", kind="exact", run=sharp),
    ),
    mutations=(
        Mutation(
            name="corrected: 0.99 times the right side",
            changes={"corrected": replace(CORRECTED, sides=partial(corrected_sides, loss=Fraction(1, 100)))},
        ),
        Mutation(
            name="corrected: 1 + t at both terms",
            changes={"corrected": replace(CORRECTED, sides=swapped_sides)},
        ),
        Mutation(
            name="printed: with the factor 2",
            changes={"printed": replace(PRINTED, sides=partial(printed_sides, factor=2))},
        ),
        Mutation(
            name="counterexample: Ŷ = Y",
            changes={
                "counterexample": replace(EXAMPLE, instance={**EXAMPLE.instance, "Y_hat": exact([[1]])})
            },
        ),
    ),
)
