"""Entries that count differently: weighted least squares, with weights that are what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_drift import LAYERS, apply, setup
from test_ldnq import SETTINGS, residual_network, run, same

from refldnq import cascade as cascade_module
from refldnq import layer_problem as problem_module
from refldnq import open_drift as module
from refldnq._plain import plain
from refldnq._typing import Array
from refldnq.drift import drift_problem
from refldnq.follower import relu_behind
from refldnq.hessian import layer_error
from refldnq.layers import Linear, ReLU
from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network, Node
from refldnq.open_drift import open_drift_problem
from refldnq.progress import Progress
from refldnq.solvers.base import get_solver
from refldnq.update import UpdateSettings

CLOSED = 0.25


def open_setup(kind: str) -> tuple[Any, ...]:
    layer, x_hat, z, W_new, rng = setup(kind, False)
    return layer, x_hat, z, rng.random(z.shape) < 0.4, W_new, rng


def by_column(W: Array) -> Array:
    g, d, m = W.shape
    return W.transpose(0, 2, 1).reshape(g * m, d, 1)


def weights_of(opened: Array, closed: float = CLOSED) -> Array:
    weights = np.where(opened, 1.0, closed)
    return np.asarray(weights / weights.mean(axis=(0, *range(2, opened.ndim)), keepdims=True))


def objective_gap(kind: str, centred: bool) -> float:
    """By how much the problem's objective and weighted least squares differ by more than a constant."""
    layer, x_hat, z, opened, W_new, rng = open_setup(kind)
    batches = [(x_hat[a:b], z[a:b], opened[a:b]) for a, b in ((0, 7), (7, 20))]
    problem = open_drift_problem(layer, batches, W_new, closed=CLOSED, ridge=0.03, centred=centred)
    weights, differences, axes = weights_of(opened), [], (0, *range(2, z.ndim))
    for _ in range(4):
        G = rng.standard_normal(W_new.shape)
        left = z - apply(layer, G, x_hat, False)
        if centred:
            best = (weights * left).sum(axes, keepdims=True) / weights.sum(axes, keepdims=True)
            assert np.allclose(problem.constant(by_column(G)).ravel(), best.ravel(), rtol=0, atol=1e-11)
            left = left - best
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


def test_other_rows_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    compress = np.compress
    monkeypatch.setattr(np, "compress", lambda which, a, axis: compress(which[::-1], a, axis=axis))
    with pytest.raises(AssertionError):
        assert objective_gap("conv", False) <= 1e-10


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_what_counts_alike_is_the_problem_without(kind: str, centred: bool) -> None:
    layer, x_hat, z, opened, W_new, _ = open_setup(kind)
    plain_problem = drift_problem(layer, [(x_hat, z)], W_new, centred=centred)
    m = W_new.shape[2]
    every, none = np.ones_like(opened), np.zeros_like(opened)
    for mask, closed in ((opened, 1.0), (every, 0.3), (none, 0.3), (none, 1e-6)):
        same_rows = open_drift_problem(layer, [(x_hat, z, mask)], W_new, closed=closed, centred=centred)
        assert same_rows.epsilon == pytest.approx(plain_problem.epsilon, rel=1e-12)
        assert np.allclose(same_rows.H, np.repeat(plain_problem.H, m, axis=0), rtol=1e-11, atol=1e-11)
        assert np.allclose(same_rows.W, by_column(plain_problem.W), rtol=1e-9, atol=1e-9)


def test_closed_rows_say_little() -> None:
    layer, x_hat, z, opened, W_new, rng = open_setup("conv")
    other = np.where(opened, z, z + rng.standard_normal(z.shape))
    changes = []
    for closed in (1.0, 1e-9):
        one, two = (
            open_drift_problem(layer, [(x_hat, t, opened)], W_new, closed=closed, centred=True)
            for t in (z, other)
        )
        assert np.array_equal(one.H, two.H)
        changes.append(float(np.abs(one.W - two.W).max()))
    assert changes[1] <= 1e-6 * changes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, z, o: (x, z, o[:, :1]), "`opened` must have shape"),
        (lambda x, z, o: (x, z[:, :1], o), "`z` must have shape"),
        (lambda x, z, o: (np.full_like(x, np.nan), z, o), "`x`"),
        (lambda x, z, o: (x, np.full_like(z, np.inf), o), "`z`"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    layer, x_hat, z, opened, W_new, _ = open_setup("conv")
    with pytest.raises(ValueError, match=message):
        open_drift_problem(layer, [change(x_hat, z, opened)], W_new, closed=0.5)
    with pytest.raises(ValueError, match="at least one image"):
        open_drift_problem(layer, [], W_new, closed=0.5)
    for closed, message in ((0.0, "`closed`"), (1.5, "`closed` must be at most 1"), (np.nan, "`closed`")):
        with pytest.raises(ValueError, match=message):
            open_drift_problem(layer, [(x_hat, z, opened)], W_new, closed=closed)


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


def test_a_relu_counts_where_it_alone_takes_the_output() -> None:
    network = chain()
    found = {name: relu_behind(network, name) for name in ("bn1", "add", "bn2", "relu1", "fc")}
    # A sum takes bn2; two nodes, none of them a ReLU, take relu1; nothing takes fc.
    assert found == {"bn1": True, "add": True, "bn2": False, "relu1": False, "fc": False}


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
    weights = weights_of(network.advance(network.start(images), 0, 2)["bn1"] > 0, 0.5)
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
    monkeypatch.setattr(problem_module, "get_solver", lambda name: spy)
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
    for target in ("weights", "drift"):
        objectives = []
        for count, crop in ((1, 0), (3, 0), (3, 1)):
            how = replace(BARE, target=target, closed_weight=1.0 if target == "weights" else 0.2)
            how = replace(how, update=replace(still, crop=crop), hessian_versions=count)
            first = run(network, images, how).reports[0]
            objectives.append(first.objective)
        assert objectives[1] == pytest.approx(objectives[0], rel=1e-9), target
        assert objectives[2] != pytest.approx(objectives[0], rel=1e-6), target


def test_reports_speak_of_the_images_as_they_are(images: Array) -> None:
    network = chain()
    result = run(network, images, replace(BARE, hessian_versions=3))
    z, z_hat = (net.advance(net.start(images), 0, 1)["conv1"] for net in (network, result.network))
    error = float(((z_hat - z) ** 2).sum()) / 24
    assert result.reports[0].accumulated_error == pytest.approx(error, rel=1e-9)
    assert result.reports[0].error == pytest.approx(error, rel=1e-9)
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


def test_the_reference_says_where_relus_are_closed(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Array]] = []
    make = open_drift_problem

    def spy(layer: Any, batches: Any, *args: Any, **options: Any) -> Any:
        given = list(batches)
        seen.append([part[2] for part in given])
        return make(layer, given, *args, **options)

    monkeypatch.setattr(cascade_module, "open_drift_problem", spy)
    network = chain()
    student = run(network, images, replace(BARE, target="block", absorb=True)).network
    live = network.start(images)
    for name, opened in zip(("bn1", "add"), seen, strict=True):  # behind fc there is no ReLU
        stop = network.position(name) + 1
        wanted = network.advance(live, 0, stop)[name] > 0
        assert np.array_equal(np.concatenate(opened), wanted)
        assert not np.array_equal(student.advance(live, 0, stop)[name] > 0, wanted)


def test_channels_can_be_weighted_too(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    solve = get_solver("coordinate")

    def spy(H: Array, W: Array, codebook: Any, how: Any, **weighted: Any) -> Any:
        seen.append((W.shape, weighted.get("column_weights")))
        return solve(H, W, codebook, how, **weighted)

    monkeypatch.setattr(problem_module, "get_solver", lambda name: spy)
    network = chain()
    run(network, images, replace(BARE, channel_weights="batchnorm"))
    for (shape, weights), norm in zip(seen, ("bn1", "bn2"), strict=False):
        scale = network.params[norm]["weight"] / np.sqrt(network.params[norm]["running_var"] + 1e-5)
        assert shape[::2] == (4, 1)
        assert np.allclose(weights[:, 0], scale**2, rtol=1e-9)


def test_hessians_that_would_be_too_large_are_not_made(
    images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = chain()
    alike = run(network, images, replace(BARE, closed_weight=1.0))
    monkeypatch.setattr(problem_module, "CHANNEL_HESSIANS", 18 * 18 * 4)
    mixed = run(network, images, BARE)  # conv1 has as many entries as are allowed, and so has conv2
    assert not any("too large" in note for report in mixed.reports for note in report.notes)
    monkeypatch.setattr(problem_module, "CHANNEL_HESSIANS", 18 * 18 * 4 - 1)
    whole = run(network, images, BARE)
    noted = [any("too large" in note for note in report.notes) for report in whole.reports]
    assert noted == [True, True, False]
    assert all(np.array_equal(whole.quantized[n].codes, alike.quantized[n].codes) for n in alike.quantized)
    assert any(
        not np.array_equal(mixed.quantized[n].codes, alike.quantized[n].codes) for n in alike.quantized
    )


def test_every_problem_has_a_certificate(images: Array) -> None:
    for report in run(chain(), images, BARE, certificates=True).reports:
        assert report.lower_bound is not None and 0 <= report.lower_bound <= report.objective


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
