"""Entries that count differently: weighted least squares, with weights that are what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_drift import LAYERS, apply, setup
from test_ldnq import SETTINGS, residual_network, run, same

from refldnq import importance as module
from refldnq import ldnq as ldnq_module
from refldnq._plain import plain
from refldnq._typing import Array
from refldnq.drift import drift_problem
from refldnq.hessian import layer_error
from refldnq.importance import open_entries, row_weights, weighted_drift_problem
from refldnq.layers import Linear, ReLU
from refldnq.ldnq import LdnqSettings, Progress
from refldnq.network import Network, Node
from refldnq.solvers.base import get_solver
from refldnq.update import UpdateSettings


def weighted_setup(kind: str) -> tuple[Any, ...]:
    layer, x_hat, z, W_new, rng = setup(kind, False)
    return layer, x_hat, z, rng.uniform(0.0, 2.0, z.shape) * (rng.random(z.shape) < 0.7), W_new, rng


def by_column(W: Array) -> Array:
    g, d, m = W.shape
    return W.transpose(0, 2, 1).reshape(g * m, d, 1)


def objective_gap(kind: str, centred: bool) -> float:
    """By how much the problem's objective and weighted least squares differ by more than a constant."""
    layer, x_hat, z, weights, W_new, rng = weighted_setup(kind)
    batches = [(x_hat[a:b], z[a:b], weights[a:b]) for a, b in ((0, 7), (7, 20))]
    problem = weighted_drift_problem(layer, batches, W_new, ridge=0.03, centred=centred)
    differences = []
    for _ in range(4):
        G = rng.standard_normal(W_new.shape)
        left = z - apply(layer, G, x_hat, False)
        if centred:
            axes = (0, *range(2, z.ndim))
            left = left - (weights * left).sum(axes, keepdims=True) / weights.sum(axes, keepdims=True)
        whole = float((weights * left**2).sum()) / 20
        assert problem.error(by_column(G)) == pytest.approx(whole, rel=1e-10)
        whole += 0.5 * problem.epsilon * float(((G - W_new) ** 2).sum())
        differences.append(whole - layer_error(problem.H, problem.W, by_column(G)))
    return float(np.ptp(differences)) / abs(differences[0])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_objective_is_weighted_least_squares(
    kind: str, centred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gap = objective_gap(kind, centred)
    if not gap <= 1e-10:
        raise AssertionError(gap)
    monkeypatch.setattr(module, "ROWS", 30)  # sums over blocks of a few images, which do not divide 7
    if not objective_gap(kind, centred) <= 1e-10:
        raise AssertionError


def test_a_wrong_weight_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "sqrt", lambda count: count)  # the Hessian's weights squared
    with pytest.raises(AssertionError):
        assert objective_gap("conv", False) <= 1e-10


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_equal_weights_are_the_problem_without(kind: str, centred: bool) -> None:
    layer, x_hat, z, _, W_new, _ = weighted_setup(kind)
    ones = weighted_drift_problem(layer, [(x_hat, z, np.ones_like(z))], W_new, centred=centred)
    plain = drift_problem(layer, [(x_hat, z)], W_new, centred=centred)
    m = W_new.shape[2]
    assert ones.epsilon == pytest.approx(plain.epsilon, rel=1e-12)
    assert np.allclose(ones.H, np.repeat(plain.H, m, axis=0), rtol=1e-11, atol=1e-11)
    assert np.allclose(ones.W, by_column(plain.W), rtol=1e-9, atol=1e-9)
    G = np.random.default_rng(0).standard_normal(W_new.shape)
    assert np.allclose(ones.constant(by_column(G)).ravel(), plain.constant(G).ravel(), rtol=0, atol=1e-11)


def test_rows_without_weight_say_nothing() -> None:
    layer, x_hat, z, weights, W_new, rng = weighted_setup("conv")
    other = np.where(weights == 0, 100 * rng.standard_normal(z.shape), z)
    one, two = (weighted_drift_problem(layer, [(x_hat, t, weights)], W_new, centred=True) for t in (z, other))
    assert np.array_equal(one.H, two.H) and np.allclose(one.W, two.W, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, z, w: (x, z, w[:, :1]), "`weights` must have shape"),
        (lambda x, z, w: (x, z[:, :1], w), "`z` must have shape"),
        (lambda x, z, w: (x, z, -w), "`weights` must not be negative"),
        (lambda x, z, w: (x, z, np.full_like(w, np.nan)), "`weights`"),
        (lambda x, z, w: (x, np.full_like(z, np.inf), w), "`z`"),
        (lambda x, z, w: (x, z, 0 * w), "`weights` must be positive somewhere in every channel"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    layer, x_hat, z, weights, W_new, _ = weighted_setup("conv")
    with pytest.raises(ValueError, match=message):
        weighted_drift_problem(layer, [change(x_hat, z, weights)], W_new, centred=True)
    with pytest.raises(ValueError, match="at least one image"):
        weighted_drift_problem(layer, [], W_new)


# ---------------------------------------------------------------------- what counts


def chain() -> Network:
    """A residual sum in front of a ReLU, three outputs."""
    network = residual_network()
    network = network.replace({"bn2": {"bias": np.full(4, -0.5)}})
    nodes = list(network.nodes)
    nodes[6:6] = [Node("relu2", ReLU(), ("add",))]
    nodes[7] = replace(nodes[7], inputs=("relu2",))
    return Network(tuple(nodes), network.params, network.input_shape)


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).standard_normal((24, 2, 4, 4))


def test_open_entries_are_those_that_the_relu_lets_through(images: Array) -> None:
    network = chain()
    live = network.start(images)
    opened = open_entries(network, live, 0, "add")
    assert opened is not None and 0 < opened.mean() < 1
    stop = network.position("relu2") + 1
    through = network.advance(live, 0, stop)["relu2"]
    assert np.array_equal(opened, through > 0)
    assert open_entries(network, live, 0, "bn2") is None  # a sum takes it
    assert open_entries(network, live, 0, "relu1") is None  # two take it
    assert open_entries(network, live, 0, "fc") is None  # none


def test_row_weights_have_mean_one_in_every_channel(images: Array) -> None:
    network = chain()
    parts = [network.start(images[:10]), network.start(images[10:])]
    weights, opened = (
        row_weights(network, parts, 0, "add", closed=0.25),
        open_entries(network, network.start(images), 0, "add"),
    )
    assert weights is not None and opened is not None and weights.shape == (24, 4, 4, 4)
    assert np.allclose(weights.mean(axis=(0, 2, 3)), 1.0, rtol=1e-5)
    for own, on in zip(weights.transpose(1, 0, 2, 3), opened.transpose(1, 0, 2, 3), strict=True):
        assert len(np.unique(own)) == 2
        assert own[~on].max() == pytest.approx(0.25 * own[on].min(), rel=1e-6)


def test_without_a_relu_or_a_difference_there_are_no_weights(images: Array) -> None:
    network = chain()
    assert row_weights(network, [network.start(images)], 0, "fc", closed=0.5) is None
    assert row_weights(network, [network.start(images)], 0, "add", closed=1.0) is None
    for closed, message in ((0.0, "`closed`"), (1.5, "`closed` must be at most 1"), (np.nan, "`closed`")):
        with pytest.raises(ValueError, match=message):
            row_weights(network, [], 0, "add", closed=closed)


# ---------------------------------------------------------------------- in Algorithm 1

BARE = replace(SETTINGS, update=None, solver="coordinate", target="drift", closed_weight=0.2)


def weighted_drift(network: Network, images: Array, weights: Array, G: Array) -> float:
    """The first layer's, with its packed weight G."""
    layer = network["conv1"].layer
    left = layer.forward(network.params["conv1"], images)[0] - apply(layer, G, images, False)
    return float((weights * left**2).sum()) / len(images)


def test_the_objective_is_the_weighted_drift(images: Array) -> None:
    network = chain()
    result = run(network, images, replace(BARE, ridge=1e-12, closed_weight=0.5))
    weights = np.where(network.advance(network.start(images), 0, 2)["bn1"] > 0, 1.0, 0.5)
    weights = weights / weights.mean(axis=(0, 2, 3), keepdims=True)
    G = result.quantized["conv1"].weight()
    error = weighted_drift(network, images, weights, G)
    # The layer's own weight is without drift, so the constant is zero.
    assert result.reports[0].objective == pytest.approx(error, rel=1e-6)
    assert result.reports[0].objective != pytest.approx(
        weighted_drift(network, images, np.ones_like(weights), G), rel=1e-3
    )


def test_every_channel_gets_the_codes_of_its_own_problem(
    images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Array, Array, Any]] = []
    solve = get_solver("coordinate")

    def spy(H: Array, W: Array, codebook: Any, how: Any) -> Any:
        seen.append((H, W, how))
        return solve(H, W, codebook, how)

    settings = replace(BARE, target="block", absorb=True)
    monkeypatch.setattr(ldnq_module, "get_solver", lambda name: spy)
    result = run(chain(), images, settings)
    for name, (H, W, how) in zip(("conv1", "conv2"), seen, strict=False):
        g, d, m = result.quantized[name].codes.shape
        assert H.shape == (g * m, d, d) and W.shape == (g * m, d, 1) and how.per_channel
        for column in range(g * m):
            alone = solve(H[column : column + 1], W[column : column + 1], settings.codebook, how)
            own = result.quantized[name].codes[column // m, :, column % m]
            assert np.array_equal(alone.codes[0, :, 0], own), (name, column)


def test_what_counts_less_is_followed_less(images: Array) -> None:
    network = chain()
    errors = []
    for closed in (1.0, 0.01):
        settings = replace(BARE, solver="anneal", closed_weight=closed)
        result = run(network, images, settings)
        z, z_hat = (net.advance(net.start(images), 0, 2)["bn1"] for net in (network, result.network))
        errors.append([float(((z_hat - z) ** 2)[where].sum()) for where in (z > 0, z <= 0)])
    assert errors[1][0] < errors[0][0] and errors[1][1] > errors[0][1]


def test_versions_that_change_nothing_change_nothing(images: Array) -> None:
    network, still = chain(), UpdateSettings(epochs=1, copies=1, pool=1, crop=0, flip=False)
    errors = []
    for count, crop in ((1, 0), (3, 0), (3, 1)):
        how = replace(BARE, update=replace(still, crop=crop), hessian_versions=count)
        errors.append(run(network, images, how).reports[0].error)
    assert errors[1] == pytest.approx(errors[0], rel=1e-12)
    assert errors[2] != pytest.approx(errors[0], rel=1e-6)


def test_reports_speak_of_the_images_as_they_are(images: Array) -> None:
    network = chain()
    result = run(network, images, replace(BARE, hessian_versions=3))
    z, z_hat = (net.advance(net.start(images), 0, 1)["conv1"] for net in (network, result.network))
    error = float(((z_hat - z) ** 2).sum()) / 24
    assert result.reports[0].accumulated_error == pytest.approx(error, rel=1e-9)
    output = float(((result.network.forward(images) - network.forward(images)) ** 2).sum()) / 24
    assert result.reports[-1].output_error == pytest.approx(output, rel=1e-9)


def test_a_resumed_run_is_the_uninterrupted_one(images: Array) -> None:
    settings = replace(
        SETTINGS, solver="coordinate", target="block", absorb=True, closed_weight=0.2, hessian_versions=2
    )
    states: list[Progress] = []
    network = chain()
    complete = run(network, images, settings, on_layer=states.append)
    for state in states[:-1]:
        assert same(run(network, images, settings, resume=state), complete)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"closed_weight": 0.5}, "`closed_weight` must be 1 for the target 'weights'"),
        ({"target": "drift", "closed_weight": 0.5, "bias": True}, "`closed_weight` must be 1"),
        ({"closed_weight": 0.0}, "`closed_weight`"),
        ({"closed_weight": 1.5}, "`closed_weight` must be at most 1"),
        ({"hessian_versions": 0}, "`hessian_versions`"),
        ({"hessian_versions": 2, "hessian_images": 5}, "`hessian_versions` must be 1"),
        ({"hessian_versions": 2, "profile": "released-2019"}, "`hessian_versions` must be 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LdnqSettings(**changes)


def test_versions_need_images() -> None:
    network = Network(
        (Node("fc", Linear(2, 2, bias=False), ("input",)),), {"fc": {"weight": np.eye(2)}}, (2,)
    )
    with pytest.raises(ValueError, match="`hessian_versions` must be 1 for inputs that are not images"):
        run(network, np.ones((3, 2)), LdnqSettings(update=None, hessian_versions=2))


def test_settings_younger_than_results_leave_their_identity_alone() -> None:
    assert not {"closed_weight", "hessian_versions"} & set(plain(SETTINGS))
    assert plain(replace(SETTINGS, hessian_versions=2))["hessian_versions"] == 2
