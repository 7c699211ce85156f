"""Claims about equations (1)-(10): their checks notice errors of the package, not of the statements only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refldnq.layers.batchnorm import BatchNorm
from refldnq.layers.conv import Conv2d
from refldnq.layers.linear import Linear
from refldnq.verify import falsifier
from refldnq.verify.arithmetic import EXACT, has_flint
from refldnq.verify.claims import (
    _networks,
    eq07,
    eq08,
    eq09,
    eq10,
    hessian_batchnorm,
    hessian_bias,
    hessian_block,
    quantization_term,
)
from refldnq.verify.claims._networks import agree, networks
from refldnq.verify.claims._splitting import problem, slope, splittings
from refldnq.verify.claims.base import Claim, Finding


def scaled(method: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """A method whose result is too large by a factor."""
    return lambda *args, **options: factor * method(*args, **options)


def scaled_output(method: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """A forward pass whose output is too large by a factor."""

    def forward(*args: Any, **options: Any) -> Any:
        y, tape = method(*args, **options)
        return factor * y, tape

    return forward


PLANTED = [
    pytest.param(Conv2d, "gram", scaled, hessian_block, hessian_block.by_package, id="Gram matrix"),
    pytest.param(Conv2d, "gram", scaled, hessian_bias, hessian_bias.by_package, id="Gram matrix with a bias"),
    pytest.param(Conv2d, "forward", scaled_output, hessian_block, hessian_block.by_package, id="convolution"),
    pytest.param(Linear, "hessian", scaled, eq10, eq10.by_package, id="block of (10)"),
    pytest.param(Linear, "forward", scaled_output, eq09, eq09.by_package, id="layer error of (9)"),
    pytest.param(Linear, "forward", scaled_output, eq08, eq08.by_package, id="layer error of (8)"),
    pytest.param(
        BatchNorm, "hessian", scaled, hessian_batchnorm, hessian_batchnorm.by_package, id="scale and shift"
    ),
]


@pytest.mark.parametrize(("layer", "method", "wrong", "module", "check"), PLANTED)
def test_an_error_of_the_package_is_noticed(
    layer: type, method: str, wrong: Any, module: Any, check: Callable[[Claim], Finding], monkeypatch: Any
) -> None:
    assert check(module.CLAIM).ok
    monkeypatch.setattr(layer, method, wrong(getattr(layer, method), 1 + 2.0**-20))
    assert not check(module.CLAIM).ok


def test_three_evaluations_of_a_network_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = next(networks(1, 1, dyadic=True))
    assert agree(instance)
    for name in ("by_loops", "by_library"):
        right = getattr(_networks, name)
        with monkeypatch.context() as patch:
            patch.setattr(_networks, name, lambda Y, weights, right=right: right(Y, weights) + 1)
            assert not agree(instance)


@pytest.mark.parametrize("module", [eq07, quantization_term], ids=["eq07", "quantization-term"])
def test_without_balls_nothing_irrational_counts_as_certified(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (check,) = (check for check in module.CLAIM.checks if check.kind == "certified")
    if has_flint():
        assert check.run(module.CLAIM).certified
    for place in (_networks, falsifier):
        monkeypatch.setattr(place, "has_flint", lambda: False)
    finding = check.run(module.CLAIM)
    assert finding.ok
    assert not finding.certified
    assert finding.numbers["uncertified"] > 0


def test_the_steps_zero_the_slopes_of_the_lagrangian() -> None:
    for instance in splittings(5, 12):
        own = problem(instance, EXACT)
        z, lam = instance["z"], instance["lam"]
        x = own.x_step(z, lam)

        def penalized(v: Any, own: Any = own, z: Any = z, lam: Any = lam) -> Any:
            shifted = own.h(v, z) + lam
            return own.f(v) + own.rho / 2 * (shifted * shifted).sum()

        assert (slope(penalized, x) == 0).all()
        assert not (slope(penalized, x + 1) == 0).all()


def test_the_printed_form_of_7_fails_on_a_minority_of_networks() -> None:
    """So a few random networks would not refute it; the search has something to do."""
    violated = []
    for instance in networks(2, 200):
        left, right = eq07.printed_sides(instance, EXACT)
        violated.append(left > right)
    assert 0 < np.mean(violated) < 0.5
