"""The target ``drift``: its objective is the drift and the ridge, exactly, for every layer with a weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refldnq.drift import drift_problem
from refldnq.hessian import layer_error
from refldnq.layers import Conv2d, Linear

LAYERS = {
    "linear": (Linear(5, 3), (5,)),
    "conv": (Conv2d(2, 4, 3, stride=2, padding=1), (2, 5, 5)),
    "groups": (Conv2d(4, 4, 3, padding=1, groups=2, bias=False), (4, 4, 4)),
}


def setup(kind: str, bias: bool) -> tuple[Any, ...]:
    layer, shape = LAYERS[kind]
    rng = np.random.default_rng(len(kind))
    params = {name: rng.standard_normal(own) for name, own in layer.parameter_shapes().items()}
    x = rng.standard_normal((20, *shape))
    x_hat = x + 0.5 * rng.standard_normal(x.shape)
    z = layer.forward(params, x)[0]
    if "bias" in params and not bias:
        z = z - params["bias"].reshape((1, -1) + (1,) * (z.ndim - 2))
    W_new = layer.pack(params, bias=bias) + 0.1 * rng.standard_normal(layer.pack(params, bias=bias).shape)
    return layer, x_hat, z, W_new, rng


def apply(layer: Any, G: Any, x: Any, bias: bool) -> Any:
    params = {name: np.zeros(own) for name, own in layer.parameter_shapes().items()}
    return layer.forward({**params, **layer.unpack(G, bias=bias)}, x)[0]


@pytest.mark.parametrize(
    ("kind", "bias"), [("linear", False), ("linear", True), ("conv", True), ("groups", False)]
)
def test_the_objective_is_drift_and_ridge_up_to_a_constant(kind: str, bias: bool) -> None:
    layer, x_hat, z, W_new, rng = setup(kind, bias)
    batches = [(x_hat[a:b], z[a:b]) for a, b in ((0, 7), (7, 20))]
    problem = drift_problem(layer, batches, W_new, ridge=0.03, bias=bias)
    constants = []
    for _ in range(5):
        G = rng.standard_normal(W_new.shape)
        drift = float(((z - apply(layer, G, x_hat, bias)) ** 2).sum()) / 20
        assert problem.error(G) == pytest.approx(drift, rel=1e-12)
        whole = drift + 0.5 * problem.epsilon * float(((G - W_new) ** 2).sum())
        constants.append(whole - layer_error(problem.H, problem.W, G))
    if not np.ptp(constants) <= 1e-11 * abs(constants[0]):
        raise AssertionError(constants)
    # The free optimum is W*: nothing near it is better.
    assert problem.epsilon == pytest.approx(0.03 * np.einsum("gii->gi", problem.gram).mean(), rel=1e-15)


def test_a_wrong_cross_term_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x_hat, z, W_new, rng = setup("linear", False)
    problem = drift_problem(layer, [(x_hat, z)], W_new)
    wrong = drift_problem(layer, [(x_hat, z[::-1])], W_new)
    G = rng.standard_normal(W_new.shape)
    drift = float(((z - apply(layer, G, x_hat, False)) ** 2).sum()) / 20
    assert problem.error(G) == pytest.approx(drift, rel=1e-12) and wrong.error(G) != pytest.approx(
        drift, rel=1e-3
    )


def test_without_drift_the_target_is_the_weight() -> None:
    layer, x_hat, _, W_new, _ = setup("conv", True)
    problem = drift_problem(layer, [(x_hat, apply(layer, W_new, x_hat, True))], W_new, bias=True)
    assert np.allclose(problem.W, W_new, rtol=0, atol=1e-12)


def test_a_layer_that_sees_nothing_keeps_its_weight() -> None:
    layer, x_hat, z, W_new, _ = setup("linear", False)
    problem = drift_problem(layer, [(0 * x_hat, z)], W_new)
    assert np.array_equal(problem.W, W_new) and problem.epsilon == 0.0


def test_bad_input_is_named() -> None:
    layer, x_hat, z, W_new, _ = setup("linear", False)
    for arguments, message in (
        (([(x_hat, z)], W_new, 0.0), "`ridge`"),
        (([], W_new, 0.1), "`batches`"),
        (([(x_hat, z * np.nan)], W_new, 0.1), "`z`"),
        (([(x_hat, z)], W_new * np.inf, 0.1), "`W_new`"),
    ):
        with pytest.raises(ValueError, match=message):
            drift_problem(layer, arguments[0], arguments[1], ridge=arguments[2])
