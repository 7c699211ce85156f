"""What batch normalization takes over from a layer: factors, constants, and other terms of a sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_drift import LAYERS, apply, setup
from test_ldnq import SETTINGS, residual_network, run, same

from refldnq import follower as module
from refldnq import layer_problem as problem_module
from refldnq._typing import Array
from refldnq.codebook import scaled
from refldnq.drift import drift_problem
from refldnq.follower import follower, normalization, take_over, wanted_branch
from refldnq.formats.h5 import load_model, save_model
from refldnq.hessian import layer_error
from refldnq.layers import BatchNorm
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.network import Network
from refldnq.progress import Progress
from refldnq.solvers.admm_plus import AdmmPlusSettings
from refldnq.solvers.anneal import AnnealSettings
from refldnq.solvers.base import get_solver

ABSORB = replace(SETTINGS, solver="admm_plus", target="drift", absorb=True)
BARE = replace(ABSORB, update=None)
"""Without an update: what the layers give is what was solved for."""


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).standard_normal((24, 2, 4, 4))


def sharp(network: Network) -> Network:
    """The network with batch normalizations whose epsilon does not count."""
    nodes = tuple(
        replace(node, layer=replace(node.layer, eps=1e-14)) if isinstance(node.layer, BatchNorm) else node
        for node in network.nodes
    )
    return Network(nodes, network.params, network.input_shape)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_centred_problem_has_the_best_constants(kind: str) -> None:
    layer, x_hat, z, W_new, rng = setup(kind, False)
    problem = drift_problem(layer, [(x_hat[:7], z[:7]), (x_hat[7:], z[7:])], W_new, ridge=0.03, centred=True)
    differences = []
    for _ in range(4):
        G = rng.standard_normal(W_new.shape)
        left = z - apply(layer, G, x_hat, False)
        mean = left.mean(axis=(0, *range(2, z.ndim)), keepdims=True)
        assert np.allclose(problem.constant(G).ravel(), mean.ravel(), rtol=0, atol=1e-12)
        drift = float(((left - mean) ** 2).sum()) / len(z)
        assert problem.error(G) == pytest.approx(drift, rel=1e-11)
        whole = drift + 0.5 * problem.epsilon * float(((G - W_new) ** 2).sum())
        differences.append(whole - layer_error(problem.H, problem.W, G))
    if not np.ptp(differences) <= 1e-10 * abs(differences[0]):
        raise AssertionError(differences)


def test_a_centred_problem_has_no_bias_row() -> None:
    layer, x_hat, z, W_new, _ = setup("conv", True)
    with pytest.raises(ValueError, match="`centred` must be False"):
        drift_problem(layer, [(x_hat, z)], W_new, bias=True, centred=True)


def take_over_error(name: str, mode: Any) -> float:
    """How far the normalization of a changed pre-activation is from the reference's of the right one."""
    network = sharp(residual_network())
    norm = follower(network, name).norm
    assert norm is not None
    rng = np.random.default_rng(3)
    own = network.params[name].get("bias", np.zeros(4))
    ratio, constant = rng.uniform(0.3, 3.0, 4), rng.standard_normal(4)
    z = rng.standard_normal((10, 4, 4, 4))
    axes = (1, -1, 1, 1)
    bias, r, s = (array.reshape(axes) for array in (own, ratio, constant))
    changed = network.replace(take_over(network, network, name, ratio, constant, norm=norm))
    layer = network[norm].layer
    right = layer.forward(network.params[norm], z, mode=mode)[0]
    stored = r * (z - bias - s) + bias  # what the layer gives where z is right
    found = layer.forward(changed.params[norm], stored, mode=mode)[0]
    return float(np.abs(found - right).max() / np.abs(right).max())


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["conv1", "conv2"])  # without and with a bias
def test_normalization_takes_over_factors_and_constants(name: str, mode: Any) -> None:
    if not take_over_error(name, mode) <= 1e-11:
        raise AssertionError


def test_a_wrong_mean_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.take_over

    def wrong(*words: Any, **options: Any) -> Any:
        changes = {name: dict(own) for name, own in right(*words, **options).items()}
        for own in changes.values():
            own["running_mean"] = own["running_mean"] * 1.01
        return changes

    monkeypatch.setitem(globals(), "take_over", wrong)
    assert take_over_error("conv2", "eval") > 1e-4


def test_the_wanted_pre_activation_gives_the_output() -> None:
    network = residual_network()
    network = network.replace({"bn2": {"weight": np.array([0.5, -2.0, 0.0, 1.0])}})
    rng = np.random.default_rng(0)
    z, output = rng.standard_normal((2, 6, 4, 4, 4))
    wanted = wanted_branch(network, "bn2", output, z)
    given = network["bn2"].layer.forward(network.params["bn2"], wanted)[0]
    assert np.allclose(given[:, [0, 1, 3]], output[:, [0, 1, 3]], rtol=0, atol=1e-11)
    assert np.array_equal(wanted[:, 2], z[:, 2])  # switched off: nothing it is given matters
    scale, shift = normalization(network, "bn2")
    axes = (1, -1, 1, 1)
    by_hand = scale.reshape(axes) * z + shift.reshape(axes)
    assert np.allclose(network["bn2"].layer.forward(network.params["bn2"], z)[0], by_hand, rtol=0, atol=1e-12)


def at(network: Network, images: Array, name: str) -> Array:
    return network.advance(network.start(images), 0, network.position(name) + 1)[name]


def test_the_layers_have_one_scale_and_give_what_was_solved_for(images: Array) -> None:
    teacher = sharp(residual_network())
    result = run(teacher, images, BARE)
    Model(network=result.network, quantized=result.quantized)
    for name in ("conv1", "conv2", "fc"):
        assert result.quantized[name].alpha.ndim == 0
        assert len(np.unique(result.network.params[name]["weight"])) == 3
    # What the normalization gives has no constant error: the problem's constants were the best.
    for norm in ("bn1", "bn2"):
        difference = at(result.network, images, norm) - at(teacher, images, norm)
        assert np.abs(difference.mean(axis=(0, 2, 3))).max() < 1e-10
    difference = result.network.forward(images) - teacher.forward(images)
    assert np.abs(difference.mean(axis=0)).max() < 1e-10
    # The report's accumulated error is that of the pre-activation which the normalization stands for, without
    # and with a bias of the layer's own.
    axes = (1, -1, 1, 1)
    for place, (name, norm) in enumerate((("conv1", "bn1"), ("conv2", "bn2"))):
        scale, shift = normalization(teacher, norm)
        meant = (at(result.network, images, norm) - shift.reshape(axes)) / scale.reshape(axes)
        error = float(((meant - at(teacher, images, name)) ** 2).sum()) / len(images)
        assert result.reports[place].accumulated_error == pytest.approx(error, rel=1e-9)
    assert result.reports[0].alpha == float(result.quantized["conv1"].alpha)


def test_a_set_without_zero_behind_a_normalization(images: Array, tmp_path: Path) -> None:
    """One scale a layer is left; two values are a choice of the budget of bits."""
    settings = replace(BARE, target="block", levels={"conv1": scaled([-1.0, 1.0]), "fc": scaled([-1.0, 1.0])})
    teacher = sharp(residual_network())
    result = run(teacher, images, settings)
    model = Model(network=result.network, quantized=result.quantized)
    assert [report.levels for report in result.reports] == [2, 3, 2]
    for name in ("conv1", "fc"):
        assert result.quantized[name].alpha.ndim == 0
        assert len(np.unique(result.network.params[name]["weight"])) == 2
    difference = at(result.network, images, "bn1") - at(teacher, images, "bn1")
    assert np.abs(difference.mean(axis=(0, 2, 3))).max() < 1e-10
    save_model(tmp_path / "two.h5", model)
    loaded = load_model(tmp_path / "two.h5")
    assert np.array_equal(loaded.quantized["conv1"].values, [-1.0, 1.0])
    assert np.array_equal(loaded.network.forward(images), result.network.forward(images))


def test_each_freedom_brings_the_output_nearer(images: Array) -> None:
    teacher = residual_network()

    def error(settings: LdnqSettings, name: str) -> float:
        student = run(teacher, images, settings).network
        return float(((at(student, images, name) - at(teacher, images, name)) ** 2).sum())

    drift, absorbed = replace(BARE, absorb=False), BARE
    block = replace(BARE, target="block")
    assert error(absorbed, "bn1") < error(drift, "bn1")
    assert error(block, "add") < error(absorbed, "add") < error(drift, "add")


def test_the_block_target_knows_the_other_terms(images: Array) -> None:
    # If a branch could be anything, the sum would be the reference's: levels enough to be near it.
    fine = scaled(np.arange(-60.0, 61.0))
    teacher = residual_network()
    coarse_first = {"conv2": fine, "fc": fine}
    sums = {}
    for target in ("drift", "block"):
        settings = replace(BARE, solver="coordinate", target=target, levels=coarse_first, ridge=1e-9)
        student = run(teacher, images, settings).network
        sums[target] = float(((at(student, images, "add") - at(teacher, images, "add")) ** 2).mean())
    assert sums["block"] < 0.8 * sums["drift"]


def test_a_channel_without_weights_is_zero(images: Array) -> None:
    network = residual_network()
    weight = network.params["conv1"]["weight"].copy()
    weight[2] = 0.0
    network = network.replace({"conv1": {"weight": weight}})
    result = run(network, images, BARE)
    assert not result.network.params["conv1"]["weight"][2].any()
    assert result.network.params["conv1"]["weight"][[0, 1, 3]].any()
    assert all(np.isfinite(array).all() for own in result.network.params.values() for array in own.values())


def test_a_channel_without_a_scale_is_zero_whatever_its_codes(
    images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = get_solver

    def without(name: str) -> Any:
        def solve(*words: Any, **options: Any) -> Any:
            found = right(name)(*words, **options)
            if found.alpha.ndim:
                found.alpha[0, 0], found.codes[0, :, 0] = 0.0, len(found.values) - 1
            return found

        return solve

    monkeypatch.setattr(problem_module, "get_solver", without)
    result = run(residual_network(), images, BARE)
    weight = result.network.params["conv1"]["weight"]
    assert not weight[0].any() and weight[1:].any() and result.quantized["conv1"].alpha.ndim == 0


@pytest.mark.parametrize("per_channel", [False, True])
def test_two_values_and_a_channel_without_a_scale(
    images: Array, per_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set has no code for 0: one scale for all channels, or every channel's own if that was asked for."""
    right, asked = get_solver, list[bool]()

    def without(name: str) -> Any:
        def solve(*words: Any, **options: Any) -> Any:
            found = right(name)(*words, **options)
            asked.append(found.alpha.ndim > 0)
            if found.alpha.ndim:
                found.alpha[0, 0] = 0.0
            return found

        return solve

    monkeypatch.setattr(problem_module, "get_solver", without)
    own = replace(AdmmPlusSettings(), per_channel=per_channel)
    settings = replace(BARE, codebook=scaled([-1.0, 1.0]), solver_settings=own)
    code = run(residual_network(), images, settings).quantized["conv1"]
    assert asked[:2] == [True, per_channel]
    assert code.alpha.ndim == (2 if per_channel else 0)
    assert bool(code.weight()[0, :, 0].any()) != per_channel


def test_channels_keep_their_scales_where_no_normalization_can_take_them_over(images: Array) -> None:
    """The last layer has a bias, which takes the constants, but nothing for factors."""
    base = replace(BARE, solver="anneal")  # close to the optimum, so that the scales tell
    own = AnnealSettings(per_channel=True)
    result = run(residual_network(), images, replace(base, solver_settings=own))
    assert result.quantized["conv1"].alpha.ndim == 0
    assert result.quantized["fc"].alpha.ndim == 2
    single = run(residual_network(), images, base)
    assert result.reports[-1].objective < single.reports[-1].objective
    assert result.reports[-1].output_error < single.reports[-1].output_error


@pytest.mark.parametrize("target", ["drift", "block"])
def test_it_resumes_exactly(images: Array, target: Any) -> None:
    settings, states = replace(ABSORB, target=target, final_epochs=1), list[Progress]()
    whole = run(residual_network(), images, settings, on_layer=states.append)
    assert same(run(residual_network(), images, settings, resume=states[1]), whole)


def test_single_precision_and_few_images(images: Array) -> None:
    network = residual_network(np.float32)
    result = ldnq(
        network, images[:3].astype(np.float32), replace(BARE, target="block"), np.random.default_rng(0)
    )
    assert result.network.dtype == np.float32
    Model(network=result.network, quantized=result.quantized)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "weights", "absorb": True},
        {"target": "block", "absorb": False},
        {"target": "drift", "absorb": True, "bias": True},
        {"target": "drift", "absorb": True, "channel_weights": "batchnorm", "solver": "anneal"},
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`absorb`"):
        LdnqSettings(**changes)
