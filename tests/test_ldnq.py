"""Algorithm 1 on small networks: what it leaves alone, what it reports, and that it resumes exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from refldnq._typing import Array
from refldnq.cascade import Cascade
from refldnq.codebook import powers_of_two, scaled
from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, Linear, LinearMap, ReLU
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network, Node
from refldnq.progress import Progress
from refldnq.reestimate import reestimate_statistics
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.coordinate import CoordinateSettings
from refldnq.solvers.lower_bound import BoundSettings, lower_bound
from refldnq.update import UpdateSettings

UPDATE = UpdateSettings(epochs=2, batch_size=8, copies=2, crop=1)
SETTINGS = LdnqSettings(update=UPDATE, batch_size=10)


def residual_network(dtype: npt.DTypeLike = np.float64) -> Network:
    rng = np.random.default_rng(0)
    nodes = (
        Node("conv1", Conv2d(2, 4, 3, padding=1, bias=False), ("input",)),
        Node("bn1", BatchNorm(4), ("conv1",)),
        Node("relu1", ReLU(), ("bn1",)),
        Node("conv2", Conv2d(4, 4, 3, padding=1, groups=2), ("relu1",)),
        Node("bn2", BatchNorm(4), ("conv2",)),
        Node("add", Add(), ("bn2", "relu1")),
        Node("flatten", Flatten(), ("add",)),
        Node("fc", Linear(64, 3), ("flatten",)),
    )
    params: dict[str, dict[str, Array]] = {}
    for node in nodes:
        shapes = node.layer.parameter_shapes()
        if shapes:
            params[node.name] = {key: 0.3 * rng.standard_normal(shape) for key, shape in shapes.items()}
    for name in ("bn1", "bn2"):
        params[name]["running_var"] = rng.uniform(0.5, 2.0, 4)
    return Network(nodes, params, (2, 4, 4)).astype(dtype)


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).standard_normal((24, 2, 4, 4))


def run(
    network: Network, images: Array, settings: LdnqSettings = SETTINGS, seed: int = 0, **options: Any
) -> Progress:
    return ldnq(network, images, settings, np.random.default_rng(seed), **options)


def same(a: Progress, b: Progress) -> bool:
    arrays = all(
        np.array_equal(a.network.params[n][k], b.network.params[n][k])
        for n in a.network.params
        for k in a.network.params[n]
    )
    # As text: a report's NaN (no update behind the last layer) equals itself there.
    return arrays and [str(replace(r, seconds=0.0)) for r in a.reports] == [
        str(replace(r, seconds=0.0)) for r in b.reports
    ]


def test_every_layer_becomes_ternary_and_the_codes_say_so(images: Array) -> None:
    network = residual_network()
    before = {n: {k: a.copy() for k, a in own.items()} for n, own in network.params.items()}
    result = run(network, images)
    assert [report.name for report in result.reports] == ["conv1", "conv2", "fc"]
    for name in network.weighted:
        layer = result.network[name].layer
        assert isinstance(layer, LinearMap)
        packed = layer.pack(result.network.params[name])
        assert len(np.unique(packed)) <= 3
        assert np.array_equal(packed, result.quantized[name].weight())
    for n, own in before.items():
        for k, array in own.items():
            assert np.array_equal(network.params[n][k], array), "the teacher moved"


def test_reports_are_what_they_say(images: Array) -> None:
    network = residual_network()
    states: list[Progress] = []
    run(network, images, on_layer=states.append)
    end = len(network.nodes)
    teacher = network.forward(images)
    for index, state in enumerate(states):
        report, name = state.reports[-1], state.reports[-1].name
        student = state.network
        norm = float((teacher**2).sum()) / 24
        error = float(((student.forward(images) - teacher) ** 2).sum()) / 24
        assert report.output_error == pytest.approx(error, rel=1e-9)
        assert report.relative_output_error == pytest.approx(error / norm, rel=1e-9)
        stop = network.position(name) + 1
        z = network.advance(network.start(images), 0, stop)[name]
        z_hat = student.advance(student.start(images), 0, stop)[name]
        assert report.accumulated_error == pytest.approx(float(((z_hat - z) ** 2).sum()) / 24, rel=1e-9)
        # (8): against the weights before this layer was quantized, with the quantized prefix's inputs.
        previous = network if index == 0 else states[index - 1].network
        mixed = student.replace({name: previous.params[name]})
        z_star = mixed.advance(mixed.start(images), 0, stop)[name]
        assert report.error == pytest.approx(float(((z_hat - z_star) ** 2).sum()) / 24, rel=1e-9)
        assert stop <= end


def test_a_resumed_run_is_the_uninterrupted_one(images: Array) -> None:
    network = residual_network(np.float32)
    images = images.astype(np.float32)
    states: list[Progress] = []
    whole = run(network, images, on_layer=states.append)
    for state in states[:-1]:
        assert same(run(network, images, resume=state), whole)
    # The comparison sees one wrong bit in the state that is resumed.
    array = states[0].network.params["fc"]["weight"].copy()
    array.flat[0] = np.nextafter(array.flat[0], np.float32(9))
    spoiled = replace(states[0], network=states[0].network.replace({"fc": {"weight": array}}))
    assert not same(run(network, images, resume=spoiled), whole)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(images: Array) -> None:
    network = residual_network()
    assert same(run(network, images), run(network, images))
    assert not same(run(network, images), run(network, images, seed=1))


def test_without_the_update_only_quantized_weights_change(images: Array) -> None:
    network = residual_network()
    result = run(network, images, replace(SETTINGS, update=None))
    for name, own in network.params.items():
        for key, array in own.items():
            if (name, key) not in {("conv1", "weight"), ("conv2", "weight"), ("fc", "weight")}:
                assert np.array_equal(result.network.params[name][key], array)


def test_the_update_lowers_the_output_error(images: Array) -> None:
    network = residual_network()
    settings = replace(SETTINGS, update=replace(UPDATE, epochs=60, copies=1, pool=1, statistics="running"))
    with_update = run(network, images, settings).reports[-1].output_error
    without = run(network, images, replace(SETTINGS, update=None)).reports[-1].output_error
    assert with_update < 0.8 * without


def test_layers_in_and_out_by_option(images: Array) -> None:
    network = residual_network()
    assert SETTINGS.chosen(network) == ("conv1", "conv2", "fc")
    assert replace(SETTINGS, first=False).chosen(network) == ("conv2", "fc")
    assert replace(SETTINGS, last=False, skip=("*2",)).chosen(network) == ("conv1",)
    with pytest.raises(ValueError, match="must leave a layer to quantize"):
        replace(SETTINGS, skip=("*",)).chosen(network)
    with pytest.raises(ValueError, match=r"`levels` must name quantized layers, got \['conv9'\]"):
        replace(SETTINGS, levels={"conv9": powers_of_two(5)}).chosen(network)
    result = run(network, images, replace(SETTINGS, levels={"fc": powers_of_two(5)}, first=False))
    assert [report.levels for report in result.reports] == [3, 5]


def test_a_bias_becomes_a_row_by_option(images: Array) -> None:
    result = run(residual_network(), images, replace(SETTINGS, bias=True))
    fc = result.network.params["fc"]
    assert len(np.unique(np.concatenate([fc["weight"].ravel(), fc["bias"]]))) <= 3
    assert result.quantized["fc"].codes.shape == (1, 65, 3)


def test_statistics_are_reestimated_exactly(images: Array) -> None:
    network = reestimate_statistics(residual_network(), images, batch_size=7)
    for name in ("bn1", "bn2"):
        source = network[name].inputs[0]
        z = network.advance(network.start(images), 0, network.position(name))[source]
        assert np.allclose(
            network.params[name]["running_mean"], z.mean(axis=(0, 2, 3)), rtol=1e-12, atol=1e-12
        )
        assert np.allclose(network.params[name]["running_var"], z.var(axis=(0, 2, 3), ddof=1), rtol=1e-12)
    result = run(residual_network(), images, replace(SETTINGS, reestimate="end"))
    assert not np.array_equal(
        result.network.params["bn1"]["running_mean"],
        run(residual_network(), images).network.params["bn1"]["running_mean"],
    )


def test_released_profile_runs_and_differs(images: Array) -> None:
    network = residual_network()
    solver = AdmmSettings.profile("released-2019")
    released = replace(SETTINGS, profile="released-2019", solver_settings=solver)
    result = run(network, images, released)
    assert result.quantized["fc"].codes.shape == (1, 65, 3), "the bias of a linear layer is a row"
    assert result.quantized["conv2"].codes.shape == (2, 18, 2)
    assert not same(result, run(network, images))
    assert same(result, run(network, images, released))


def test_bad_input_is_named(images: Array) -> None:
    network = residual_network()
    spoiled = images.copy()
    spoiled[3, 0, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"`images` must be finite, got nan at index \(3, 0, 1, 2\)"):
        run(network, spoiled)
    with pytest.raises(ValueError, match="`images` must hold at least one image"):
        run(network, images[:0])
    with pytest.raises(TypeError, match="`x` must have the network's type float64, got float32"):
        run(network, images.astype(np.float32))
    with pytest.raises(ValueError, match="`resume` must come from a run over the layers"):
        state = run(network, images, replace(SETTINGS, first=False))
        run(network, images, resume=state)


def test_dead_inputs_an_empty_layer_and_too_few_images_are_reported(images: Array) -> None:
    network = residual_network()
    images[:, 1] = 0.0  # a dead input channel of conv1
    network = network.replace({"conv2": {"weight": np.zeros((4, 2, 3, 3))}})
    result = run(network, images, replace(SETTINGS, update=None))
    conv1, conv2, fc = result.reports
    assert conv1.dead_inputs == 9 and conv1.rank == 9 and conv1.size == 18
    assert conv2.zero_fraction == 1.0 and conv2.error == 0.0 and conv2.alpha == 0.0
    assert fc.rank <= 24 < fc.size  # n < d: fewer images than inputs


@pytest.mark.parametrize("change", ["released", "reestimate"])
def test_other_ways_resume_exactly_too(images: Array, change: str) -> None:
    network = residual_network()
    settings = replace(SETTINGS, profile="released-2019") if change == "released" else SETTINGS
    settings = replace(settings, reestimate="end") if change == "reestimate" else settings
    states: list[Progress] = []
    whole = run(network, images, settings, on_layer=states.append)
    assert same(run(network, images, settings, resume=states[1]), whole)


def test_the_last_report_is_of_the_network_that_is_returned(images: Array) -> None:
    network = residual_network()
    result = run(network, images, replace(SETTINGS, reestimate="end"))
    error = float(((result.network.forward(images) - network.forward(images)) ** 2).sum()) / 24
    assert result.reports[-1].output_error == pytest.approx(error, rel=1e-9)


def test_the_released_profile_reports_the_exact_layer_error(images: Array) -> None:
    network = residual_network()
    settings = replace(SETTINGS, profile="released-2019", update=None)
    report = run(network, images, settings).reports[0]
    student = run(network, images, settings).network
    z, z_hat = (net.advance(net.start(images), 0, 1)["conv1"] for net in (network, student))
    assert report.error == pytest.approx(float(((z_hat - z) ** 2).sum()) / 24, rel=1e-9)
    assert abs(report.objective - report.error) > 0.1 * report.error
    with pytest.raises(ValueError, match="must be left alone in the profile released-2019"):
        replace(settings, bias=True)


def test_what_the_solver_has_to_say_is_reported() -> None:
    silent = np.zeros((24, 2, 4, 4))
    assert any("H is 0" in note for note in run(residual_network(), silent).reports[0].notes)


def test_drift_makes_up_for_the_layers_before(images: Array) -> None:
    network = residual_network()
    own, drift = (
        run(network, images, replace(SETTINGS, update=None, target=target, solver="anneal"))
        for target in ("weights", "drift")
    )
    # The first layer has nothing to make up for, up to the ridge; the later ones do better.
    assert drift.reports[0].accumulated_error == pytest.approx(own.reports[0].accumulated_error, rel=0.05)
    for index in (1, 2):
        assert drift.reports[index].accumulated_error < own.reports[index].accumulated_error
    assert all(report.objective != report.error for report in drift.reports)


def test_the_kept_bias_is_not_made_twice(images: Array) -> None:
    # With many levels a layer can follow the reference; a target that held the bias would add it once more.
    network = residual_network()
    codebook = scaled(np.arange(-60.0, 61.0))
    settings = replace(
        SETTINGS, codebook=codebook, update=None, target="drift", solver="coordinate", ridge=1e-9
    )
    result = run(network, images, settings)
    assert all(report.relative_accumulated_error < 1e-3 for report in result.reports)


@pytest.mark.parametrize("per_channel", [False, True])
def test_certificates_are_of_the_problem_that_was_solved(images: Array, per_channel: bool) -> None:
    network = residual_network()
    how = CoordinateSettings(per_channel=per_channel)
    settings = replace(SETTINGS, update=None, solver="coordinate", solver_settings=how)
    report = run(network, images, settings, certificates=True).reports[0]
    layer = network["conv1"].layer
    assert isinstance(layer, LinearMap)
    H, W = layer.hessian(images), layer.pack(network.params["conv1"])
    bounds = [
        lower_bound(H, W, settings.codebook, BoundSettings(per_channel=own)).value for own in (True, False)
    ]
    assert report.lower_bound == pytest.approx(bounds[0] if per_channel else bounds[1], rel=1e-9)
    assert bounds[0] < bounds[1]  # more freedom: a certificate of the other problem would be wrong


@pytest.mark.parametrize("per_channel", [False, True])
def test_certificates_count_channels_as_the_problem_does(images: Array, per_channel: bool) -> None:
    network = residual_network()
    how = CoordinateSettings(per_channel=per_channel)
    settings = replace(SETTINGS, update=None, solver="coordinate", solver_settings=how)
    settings = replace(settings, channel_weights="batchnorm")
    reports = run(network, images, settings, certificates=True).reports
    layer, norm = network["conv1"].layer, network.params["bn1"]
    assert isinstance(layer, LinearMap)
    H, W = layer.hessian(images), layer.pack(network.params["conv1"])
    weights = (norm["weight"] ** 2 / (norm["running_var"] + 1e-5))[None]
    bound = BoundSettings(per_channel=per_channel)
    expected = lower_bound(H, W, settings.codebook, bound, column_weights=weights).value
    assert reports[0].lower_bound == pytest.approx(expected, rel=1e-9) and expected > 0
    assert expected != pytest.approx(lower_bound(H, W, settings.codebook, bound).value, rel=0.1)
    for report in reports:  # two groups in the second, no normalization behind the third
        assert report.lower_bound is not None and report.lower_bound <= report.objective


def mean_errors(network: Network, result: Progress, images: Array) -> dict[str, float]:
    """The largest mean error of a channel behind each layer and the normalization that follows it."""
    found = {}
    for name in ("bn1", "bn2", "fc"):
        end = network.position(name) + 1
        z, z_hat = (net.advance(net.start(images), 0, end)[name] for net in (network, result.network))
        found[name] = float(np.abs((z_hat - z).mean(axis=(0, *range(2, z.ndim)))).max())
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"cascades": 2},
        {"cascades": 3},
        {"hessian_versions": 3},
        {"hessian_images": 10},
        {"target": "drift"},
    ],
)
def test_corrected_biases_leave_no_mean_error_in_other_runs(images: Array, changes: dict[str, Any]) -> None:
    network, settings = residual_network(), replace(SETTINGS, update=None, solver="direct")
    result = run(network, images, replace(settings, correct_bias=True, **changes))
    for error in mean_errors(network, result, images).values():
        assert error <= 1e-12


def test_a_mean_error_that_nothing_takes_is_reported(images: Array) -> None:
    nodes = (Node("flatten", Flatten(), ("input",)), Node("fc", Linear(32, 3, bias=False), ("flatten",)))
    network = Network(nodes, {"fc": {"weight": np.random.default_rng(0).standard_normal((3, 32))}}, (2, 4, 4))
    settings = replace(SETTINGS, update=None, solver="direct")
    plain, other = (run(network, images, replace(settings, correct_bias=own)) for own in (False, True))
    assert np.array_equal(plain.network.params["fc"]["weight"], other.network.params["fc"]["weight"])
    assert plain.reports[0].notes == ()
    assert other.reports[0].notes == ("nothing behind the layer takes its mean error",)


@pytest.mark.parametrize("planted", [False, True])
def test_corrected_biases_leave_no_mean_error(
    images: Array, planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, settings = residual_network(), replace(SETTINGS, update=None, solver="direct")
    plain = run(network, images, settings)
    if planted:
        right = Cascade.mean_error
        monkeypatch.setattr(Cascade, "mean_error", lambda *own: -right(*own))
    result = run(network, images, replace(settings, correct_bias=True))
    left, before = mean_errors(network, result, images), mean_errors(network, plain, images)
    for name, error in left.items():
        assert (error <= 1e-12) != planted and before[name] > 1e-3
    if planted:
        return
    assert np.array_equal(result.quantized["conv1"].codes, plain.quantized["conv1"].codes)
    z, z_hat = (net.advance(net.start(images), 0, 1)["conv1"] for net in (network, result.network))
    shift = network.params["bn1"]["running_mean"] - result.network.params["bn1"]["running_mean"]
    error = np.mean(np.sum((z_hat + shift[:, None, None] - z) ** 2, axis=(1, 2, 3)))
    assert result.reports[0].accumulated_error == pytest.approx(error, rel=1e-9)
    assert result.reports[0].accumulated_error < plain.reports[0].accumulated_error
    assert np.array_equal(result.network.params["conv2"]["bias"], network.params["conv2"]["bias"])
    assert result.reports[-1].output_error < plain.reports[-1].output_error


@pytest.mark.parametrize("update", [None, UPDATE])
def test_corrected_biases_resume_exactly(images: Array, update: UpdateSettings | None) -> None:
    settings, states = replace(SETTINGS, update=update, correct_bias=True), list[Progress]()
    network, x = residual_network(np.float32), images.astype(np.float32)
    whole = run(network, x, settings, on_layer=states.append)
    assert len(states) == 3
    for state in states:
        assert same(run(network, x, settings, resume=state), whole)


@pytest.mark.parametrize(
    "changes",
    [{}, {"target": "drift"}, {"target": "block", "absorb": True}],
    ids=["weights", "drift", "block"],
)
def test_other_images_do_not_enter_the_problems(images: Array, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, update=None, solver="coordinate", **changes)
    other = images.copy()
    other[10:] = np.random.default_rng(9).standard_normal(other[10:].shape)
    few = replace(settings, hessian_images=10)
    one, two = (run(residual_network(), x, few).quantized for x in (images, other))
    for name, code in one.items():
        assert np.array_equal(code.codes, two[name].codes)
        assert np.allclose(code.alpha, two[name].alpha, rtol=1e-12, atol=0)
    all_of_them = [run(residual_network(), x, settings).quantized for x in (images, other)]
    assert any(not np.array_equal(all_of_them[0][n].codes, all_of_them[1][n].codes) for n in one)


def test_channels_are_weighted_by_the_normalization_behind(images: Array) -> None:
    network = residual_network()
    alike = network.replace({"bn1": {"weight": np.full(4, 0.5), "running_var": np.ones(4)}})
    base = replace(SETTINGS, update=None, solver="anneal")  # close to the optimum, so that the weights tell
    weighted = replace(base, channel_weights="batchnorm")
    one, other = (run(alike, images, settings).quantized["conv1"] for settings in (base, weighted))
    assert np.array_equal(one.codes, other.codes) and one.alpha == pytest.approx(
        float(other.alpha), rel=1e-12
    )
    uneven = network.replace({"bn1": {"weight": np.array([9.0, 0.1, 0.1, 0.1]), "running_var": np.ones(4)}})
    plain, tilted = (run(uneven, images, settings) for settings in (base, weighted))

    def behind(result: Progress) -> float:
        z, z_hat = (net.advance(net.start(images), 0, 2)["bn1"] for net in (uneven, result.network))
        return float(((z_hat - z) ** 2).sum())

    assert behind(tilted) < behind(plain)
    # What was minimized is the error behind the normalization, so that its scales count as squares.
    assert tilted.reports[0].objective == pytest.approx(behind(tilted) / 24, rel=1e-9)
    # A layer whose output something else takes has no weights; grouped convolutions have them by group.
    assert tilted.reports[2].objective == pytest.approx(tilted.reports[2].error, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "output"}, "`target`"),
        ({"ridge": 0.0}, "`ridge`"),
        ({"channel_weights": "alike"}, "`channel_weights`"),
        ({"solver": "magic"}, "`solver` must be one of"),
        ({"correct_bias": True, "bias": True}, "`correct_bias` must be False"),
        ({"correct_bias": True, "reestimate": "end"}, "`correct_bias` must be False"),
        ({"correct_bias": True, "target": "drift", "absorb": True}, "`correct_bias` must be False"),
        ({"correct_bias": True, "profile": "released-2019"}, "`correct_bias` must be False"),
        ({"channel_weights": "batchnorm"}, "for the solver 'admm'"),
        ({"profile": "released-2019", "target": "drift"}, "`target` and `channel_weights`"),
    ],
)
def test_targets_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LdnqSettings(**changes)
