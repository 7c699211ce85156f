"""Losses against finite differences and closed forms; optimizers against their published recursions."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from refldnq._typing import Array, NetworkParams
from refldnq.loss import LOSSES, LossName, cross_entropy, distillation, output_error, squared_hinge
from refldnq.optim import SGD, Adam, Optimizer, learning_rate


def central_difference(f: Callable[[Array], float], y: Array, step: float = 1e-6) -> Array:
    gradient = np.zeros_like(y)
    for index in np.ndindex(*y.shape):
        up, down = y.copy(), y.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (f(up) - f(down)) / (2 * step)
    return gradient


def close(a: Array, b: Array, tolerance: float) -> bool:
    return bool(np.max(np.abs(a - b)) <= tolerance)


def test_output_error_gradient() -> None:
    rng = np.random.default_rng(0)
    y, target = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    value, dy = output_error(y, target)
    assert math.isclose(value, float(((y - target) ** 2).sum()) / 3, rel_tol=1e-14)
    assert close(dy, central_difference(lambda z: output_error(z, target)[0], y), 1e-8)
    # A planted bug, the factor 2 forgotten, is seen by the same comparison.
    assert not close(dy / 2, central_difference(lambda z: output_error(z, target)[0], y), 1e-8)


def test_cross_entropy_gradient_and_large_logits() -> None:
    rng = np.random.default_rng(1)
    y, labels = rng.standard_normal((5, 3)), np.array([0, 1, 2, 1, 0])
    _, dy = cross_entropy(y, labels)
    assert close(dy, central_difference(lambda z: cross_entropy(z, labels)[0], y), 1e-8)
    value, dy = cross_entropy(np.array([[1e4, 0.0]]), np.array([1]))
    assert value == 1e4 and np.isfinite(dy).all()
    assert dy.dtype == np.float64 and cross_entropy(y.astype(np.float32), labels)[1].dtype == np.float32


def test_squared_hinge_is_its_formula_and_gradient() -> None:
    rng = np.random.default_rng(4)
    y, labels = 2 * rng.standard_normal((5, 3)), np.array([0, 1, 2, 1, 0])
    value, dy = squared_hinge(y, labels)
    loops = sum(
        max(0.0, 1 - (1 if k == label else -1) * y[i, k]) ** 2
        for i, label in enumerate(labels)
        for k in range(3)
    )
    assert math.isclose(value, loops / 5, rel_tol=1e-14)
    difference = central_difference(lambda z: squared_hinge(z, labels)[0], y)
    assert close(dy, difference, 1e-8)
    # Planted bugs, the hinge not squared and the other sign, are seen by the same comparison.
    assert not close(np.sign(dy) / 5, difference, 1e-8) and not close(-dy, difference, 1e-8)
    assert 0 < np.sum(dy == 0) < dy.size  # both sides of the hinge are there
    single, slope = squared_hinge(y.astype(np.float32), labels)
    assert slope.dtype == np.float32 and math.isclose(single, value, rel_tol=1e-5)
    assert squared_hinge(np.where(np.eye(3)[labels] > 0, 2.0, -1.0), labels)[0] == 0


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_labels_refuse_other_classes(name: LossName) -> None:
    with pytest.raises(ValueError, match=r"`labels` must lie in 0\.\.1, got -1\.\.1"):
        LOSSES[name](np.zeros((2, 2)), np.array([-1, 1]))
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\), got \(1,\)"):
        LOSSES[name](np.zeros((2, 2)), np.array([1]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_gradient_and_limits(temperature: float) -> None:
    rng = np.random.default_rng(2)
    y, target = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    value, dy = distillation(y, target, temperature=temperature)

    def loss(z: Array) -> float:
        return distillation(z, target, temperature=temperature)[0]

    assert close(dy, central_difference(loss, y), 1e-8)
    assert not close(dy / temperature, central_difference(loss, y), 1e-8) or temperature == 1
    assert value > 0 and distillation(target + 7, target, temperature=temperature)[0] <= 1e-14
    assert np.isfinite(distillation(1e4 * y, -1e4 * target, temperature=temperature)[0])
    assert (
        distillation(y.astype(np.float32), target.astype(np.float32), temperature=2.0)[1].dtype == np.float32
    )
    # Far above all logits only their differences from the mean count.
    centred = [z - z.mean(axis=1, keepdims=True) for z in (y, target)]
    limit = output_error(*centred)[0] / (2 * 3)
    assert math.isclose(distillation(y, target, temperature=1e4)[0], limit, rel_tol=1e-3)


def test_losses_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="`temperature`"):
        distillation(np.zeros((2, 2)), np.zeros((2, 2)), temperature=0.0)
    with pytest.raises(ValueError, match=r"`y` must have shape \(2, 3\), got \(2, 2\)"):
        output_error(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"`labels` must lie in 0\.\.1, got 0\.\.2"):
        cross_entropy(np.zeros((2, 2)), np.array([0, 2]))


def run(rule: Optimizer, gradient: Callable[[Array], Array], start: Array, steps: int, rate: float) -> Array:
    arrays: NetworkParams = {"layer": {"weight": start}}
    state = rule.start(arrays)
    for count in range(1, steps + 1):
        arrays, state = rule.step(
            arrays, {"layer": {"weight": gradient(arrays["layer"]["weight"])}}, state, rate=rate, count=count
        )
    return arrays["layer"]["weight"]


def test_sgd_follows_the_heavy_ball_recursion() -> None:
    x, v = 1.0, 0.0
    for _ in range(5):
        v = 0.9 * v + 3 * x + 0.01 * x
        x -= 0.1 * v
    got = run(SGD(momentum=0.9, weight_decay=0.01), lambda w: 3 * w, np.array([1.0]), 5, 0.1)
    assert math.isclose(got[0], x, rel_tol=1e-13)


def test_nesterov_steps_from_where_the_momentum_leads() -> None:
    x, v = 1.0, 0.0
    for _ in range(5):
        g = 3 * x + 0.01 * x
        v = 0.9 * v + g
        x -= 0.1 * (g + 0.9 * v)
    rule = SGD(momentum=0.9, weight_decay=0.01, nesterov=True)
    assert math.isclose(run(rule, lambda w: 3 * w, np.array([1.0]), 5, 0.1)[0], x, rel_tol=1e-13)
    plain = run(SGD(momentum=0.9, weight_decay=0.01), lambda w: 3 * w, np.array([1.0]), 5, 0.1)
    assert not math.isclose(plain[0], x, rel_tol=1e-3)


def test_adam_follows_algorithm_1() -> None:
    x, m, v = 1.0, 0.0, 0.0
    for t in range(1, 6):
        g = 3 * x
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        x -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    got = run(Adam(), lambda w: 3 * w, np.array([1.0]), 5, 0.1)
    assert math.isclose(got[0], x, rel_tol=1e-12)
    assert run(Adam(), lambda w: 3 * w, np.array([1.0], np.float32), 2, 0.1).dtype == np.float32


@pytest.mark.parametrize("rule", [SGD(), Adam()])
def test_a_step_changes_no_array_in_place(rule: Optimizer) -> None:
    start = np.ones(3)
    run(rule, lambda w: w, start, 3, 0.1)
    assert np.array_equal(start, np.ones(3))


def test_cosine_falls_from_peak_to_zero() -> None:
    rates = [learning_rate("cosine", 2.0, t, 10) for t in range(10)]
    assert rates[0] == 2.0 and all(a > b for a, b in pairwise(rates)) and rates[-1] > 0
    assert {learning_rate("constant", 2.0, t, 10) for t in range(10)} == {2.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=-0.1), "`momentum`"),
        (lambda: Adam(beta1=1.0), "`beta1` must be below 1"),
        (lambda: Adam(eps=0.0), "`eps`"),
        (lambda: learning_rate("linear", 1.0, 0, 1), "`schedule` must be one of"),
        (lambda: learning_rate("cosine", 1.0, 0, 0), "`steps`"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
