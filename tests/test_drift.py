"""The target ``drift``: its objective is the drift and the ridge, exactly, for every layer with a weight."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from refldnq import cascade
from refldnq._typing import Array, Float64Array
from refldnq.drift import drift_problem
from refldnq.hessian import layer_error
from refldnq.layer_report import LayerReport
from refldnq.layers import Conv2d, Linear, ReLU
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network, Node
from refldnq.progress import Progress
from refldnq.solvers.base import SOLVERS

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


# ------------------------------------------------------------------ in Algorithm 1, with every solver

NETWORKS = {
    "linear": (Linear(6, 8), Linear(8, 4), (6,)),
    "conv": (Conv2d(1, 2, 3), Conv2d(2, 3, 2, stride=2), (1, 6, 6)),
}
"""A layer that is quantized already, the one that follows the reference, and the input."""

RIDGE = 0.02

DESCENDED = ("admm_plus", "anneal", "blocks", "coordinate", "exact")
"""Solvers at whose results no single code can lower the objective: the last of what they do is a descent, or
nothing can. The others promise no such thing."""


@dataclass(frozen=True, eq=False)
class Given:
    """What the second layer's problem is made of, rows by rows: nothing of it is the package's own."""

    X: Float64Array
    W: Float64Array
    bias: Float64Array
    X_hat: Float64Array
    W_new: Float64Array
    bias_new: Float64Array
    images: int

    @property
    def epsilon(self) -> float:
        return RIDGE * float(np.mean(2 / self.images * (self.X_hat**2).sum(axis=0)))

    def drift(self, G: Float64Array) -> float:
        difference = self.X @ self.W + self.bias - self.X_hat @ G - self.bias_new
        return float((difference**2).sum()) / self.images

    def objective(self, G: Float64Array) -> float:
        """The drift and the ridge above their least value, which a weight without levels has."""
        free = self.drift_and_ridge(self.least())
        return self.drift_and_ridge(G) - free

    def drift_and_ridge(self, G: Float64Array) -> float:
        return self.drift(G) + 0.5 * self.epsilon * float(((G - self.W_new) ** 2).sum())

    def least(self) -> Float64Array:
        pull = np.sqrt(0.5 * self.epsilon * self.images) * np.eye(len(self.W))
        wanted = np.concatenate([self.X @ self.W + self.bias - self.bias_new, pull @ self.W_new])
        found: Float64Array = np.linalg.lstsq(np.concatenate([self.X_hat, pull]), wanted)[0]
        return found


def rows_of(kind: str, x: Array) -> Array:
    if kind == "linear":
        return x
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3))[:, :, ::2, ::2]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 8)


def columns_of(network: Network) -> tuple[Array, Array]:
    own = network.params["last"]
    return own["weight"].reshape(len(own["weight"]), -1).T, own["bias"]


@cache
def begun(kind: str) -> tuple[Network, Array, Progress, Given]:
    """A network whose first layer has 3 levels and whose second one an update has moved."""
    first, last, shape = NETWORKS[kind]
    rng = np.random.default_rng(5)
    nodes = (
        Node("first", first, ("input",)),
        Node("relu", ReLU(), ("first",)),
        Node("last", last, ("relu",)),
    )
    params = {
        name: {key: rng.standard_normal(own) for key, own in layer.parameter_shapes().items()}
        for name, layer in (("first", first), ("last", last))
    }
    network, images = Network(nodes, params, shape), rng.standard_normal((20, *shape))
    states: list[Progress] = []
    ldnq(network, images, LdnqSettings(solver="direct", update=None), rng, on_layer=states.append)
    moved = {key: own + 0.2 * rng.standard_normal(own.shape) for key, own in params["last"].items()}
    state = replace(states[0], network=states[0].network.replace({"last": moved}))
    X, X_hat = (
        rows_of(kind, net.advance(net.start(images), 0, 2)["relu"]) for net in (network, state.network)
    )
    given = Given(X, *columns_of(network), X_hat, *columns_of(state.network), images=20)
    return network, images, state, given


def quantize(kind: str, solver: str, target: Any) -> tuple[Float64Array, LayerReport]:
    """The second layer's new weight and its report."""
    network, images, state, _ = begun(kind)
    settings = LdnqSettings(solver=solver, target=target, ridge=RIDGE, update=None)
    result = ldnq(network, images, settings, np.random.default_rng(0), resume=state)
    return columns_of(result.network)[0], result.reports[1]


quantized = cache(quantize)
"""The same, once."""


def agree(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-9 * (1 + abs(one))


def follows_the_reference(solver: str, given: Given, G: Float64Array, report: LayerReport) -> None:
    assert agree(report.accumulated_error, given.drift(G))
    assert agree(report.objective, given.objective(G))
    error = float(((given.X_hat @ (G - given.W_new)) ** 2).sum()) / given.images  # [LDNQ] (8)
    assert agree(report.error, error)
    (note,) = [note for note in report.notes if "epsilon" in note]
    epsilon, drift = (float(number) for number in re.findall(r"is (\S+)", note))
    assert epsilon == pytest.approx(given.epsilon, rel=1e-8) and drift == pytest.approx(
        given.drift(G), rel=1e-8
    )
    levels = np.unique(G)
    assert len(levels) == 3 and levels[1] == 0 and levels[0] == -levels[2]
    if solver not in DESCENDED:
        return
    least = given.objective(G)
    for place in np.ndindex(G.shape):
        for level in levels:
            other = G.copy()
            other[place] = level
            assert given.objective(other) >= least - 1e-9


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_solver_follows_the_reference(kind: str, solver: str) -> None:
    """What is minimized and what is reported is the drift, and the ridge, of the rows themselves.

    That the target makes the drift smaller is a theorem for the optimum alone, and with the ridge added. On
    these networks it is so for every solver, and without the ridge.
    """
    *_, given = begun(kind)
    (best, optimum), (own, report) = quantized(kind, "exact", "drift"), quantized(kind, solver, "drift")
    aside, _ = quantized(kind, solver, "weights")
    follows_the_reference(solver, given, own, report)
    assert optimum.guarantee == "optimal"
    assert all(given.objective(best) <= given.objective(G) + 1e-9 for G in (own, aside))
    assert given.drift(own) < 0.8 * given.drift(aside)


@pytest.mark.parametrize(
    "changes",
    [{"target": "weights"}, {"target": "block", "absorb": True}, {"target": "drift", "closed_weight": 0.5}],
    ids=["weights", "block", "closed"],
)
def test_reports_name_the_ridge_where_there_is_one(changes: dict[str, Any]) -> None:
    network, images, *_ = begun("conv")
    settings = LdnqSettings(solver="coordinate", update=None, **changes)
    for report in ldnq(network, images, settings, np.random.default_rng(0)).reports:
        assert sum("epsilon" in note for note in report.notes) == (changes["target"] != "weights")


def _centred_elsewhere(right: Any) -> Any:
    return lambda layer, pairs, W_new, **how: right(layer, pairs, 1.01 * W_new, **how)


def _with_the_bias(right: Any) -> Any:
    bias = columns_of(begun("linear")[2].network)[1]
    return lambda layer, pairs, W_new, **how: right(layer, ((x, z + bias) for x, z in pairs), W_new, **how)


def _with_another_ridge(right: Any) -> Any:
    return lambda layer, pairs, W_new, **how: right(layer, pairs, W_new, **{**how, "ridge": 0.01})


@pytest.mark.parametrize("planted", [_centred_elsewhere, _with_the_bias, _with_another_ridge])
@pytest.mark.parametrize("solver", ["admm", "coordinate", "gptq"])
def test_a_problem_of_something_else_is_seen(
    solver: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "drift_problem", planted(drift_problem))
    with pytest.raises(AssertionError):
        follows_the_reference(solver, begun("linear")[3], *quantize("linear", solver, "drift"))
