"""The last update: codes stay, scales follow their gradient, files stay exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from test_ldnq import SETTINGS, UPDATE, residual_network, run, same

from refldnq._typing import Array
from refldnq.codebook import fixed
from refldnq.final import FACTOR, Scales
from refldnq.layers import Flatten, Linear
from refldnq.ldnq_settings import LdnqSettings
from refldnq.loss import output_error
from refldnq.model import Model, QuantizedWeight
from refldnq.network import Network, Node
from refldnq.progress import Progress
from refldnq.solvers.direct import DirectSettings
from refldnq.update import Copy, Moving, UpdateSettings

STEP = UpdateSettings(
    epochs=1,
    batch_size=24,
    optimizer="sgd",
    learning_rate=1e-3,
    schedule="constant",
    momentum=0.0,
    statistics="running",
    copies=1,
    pool=1,
)
"""One step down the gradient of all images."""


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).standard_normal((24, 2, 4, 4))


def quantized(images: Array, *, per_channel: bool = False, bias: bool = False) -> Progress:
    settings = replace(
        SETTINGS,
        update=None,
        bias=bias,
        solver="direct",
        solver_settings=DirectSettings(per_channel=per_channel),
    )
    return run(residual_network(), images, settings)


def loss_at(state: Progress, codes: dict[str, QuantizedWeight], images: Array, target: Array) -> float:
    network = state.network.replace(
        {name: code.arrays(state.network[name], np.dtype(np.float64)) for name, code in codes.items()}
    )
    return output_error(network.forward(images), target)[0]


def scale_gradient_error(state: Progress, images: Array) -> float:
    """Largest relative difference of the step's gradient of log alpha and a central difference."""
    target = residual_network().forward(images)
    copy = Copy({"input": images}, target)
    scales = Scales(state.network, state.quantized, (), STEP)
    _, codes = scales.update([copy], STEP, np.random.default_rng(0))
    worst, step = 0.0, 1e-5
    for name, code in state.quantized.items():
        for place in np.ndindex(code.alpha.shape):
            took = -float(np.log(codes[name].alpha[place] / code.alpha[place])) / STEP.learning_rate
            values = []
            for sign in (1, -1):
                alpha = np.array(code.alpha)
                alpha[place] *= np.exp(sign * step)
                changed = {**state.quantized, name: replace(code, alpha=alpha)}
                values.append(loss_at(state, changed, images, target))
            slope = (values[0] - values[1]) / (2 * step)
            worst = max(worst, abs(took - slope) / (1e-3 + abs(slope)))
    return worst


@pytest.mark.parametrize(("per_channel", "bias"), [(False, False), (True, False), (False, True)])
def test_scales_follow_their_gradient(images: Array, per_channel: bool, bias: bool) -> None:
    error = scale_gradient_error(quantized(images, per_channel=per_channel, bias=bias), images)
    if not error <= 1e-6:  # a central difference at 1e-5, and 13 digits of a step of 1e-3
        raise AssertionError(error)


def test_a_wrong_gradient_is_seen(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Scales.pull

    def wrong(self: Scales, arrays: Moving, gradients: Moving) -> dict[str, dict[str, Array]]:
        pulled = {name: dict(own) for name, own in right(self, arrays, gradients).items()}  # type: ignore[arg-type]
        pulled["conv2"][FACTOR] = pulled["conv2"][FACTOR] / self.quantized["conv2"].alpha
        return pulled

    monkeypatch.setattr(Scales, "pull", wrong)
    assert scale_gradient_error(quantized(images), images) > 1e-2


def test_codes_stay_and_give_the_weights_bit_for_bit(images: Array) -> None:
    # With running statistics and the images as they are: what the update sees is what the report is of.
    settings = replace(SETTINGS, update=replace(UPDATE, statistics="running", copies=1, pool=1))
    before = run(residual_network(), images, settings)
    after = run(residual_network(), images, replace(settings, final_epochs=5))
    for name, code in before.quantized.items():
        assert np.array_equal(after.quantized[name].codes, code.codes)
        assert after.quantized[name].alpha != code.alpha
    Model(network=after.network, quantized=after.quantized)  # refuses weights that the codes do not give
    assert after.reports[-1].output_error < before.reports[-1].output_error
    assert after.reports[-1].update_images == before.reports[-1].update_images + 5 * len(images)
    assert [r.alpha for r in after.reports] == [float(code.alpha) for code in after.quantized.values()]
    # Everything before the last update is the run without one.
    assert [r.error for r in after.reports] == [r.error for r in before.reports]


def test_the_last_report_is_of_the_network_after_it(images: Array) -> None:
    network = residual_network()
    result = run(network, images, replace(SETTINGS, final_epochs=3, reestimate="end"))
    error = float(((result.network.forward(images) - network.forward(images)) ** 2).sum()) / 24
    assert result.reports[-1].output_error == pytest.approx(error, rel=1e-9)


def test_it_resumes_exactly(images: Array) -> None:
    settings, states = replace(SETTINGS, final_epochs=3), list[Progress]()
    whole = run(residual_network(), images, settings, on_layer=states.append)
    assert [state.pending for state in states] == [False, False, True, False]
    for state in states:
        assert same(run(residual_network(), images, settings, resume=state), whole)
    # The last update is what a state that is pending lacks.
    assert not same(
        run(residual_network(), images, settings, resume=replace(states[2], pending=False)), whole
    )


def test_fixed_sets_keep_their_values(images: Array) -> None:
    settings = replace(SETTINGS, final_epochs=3, levels={"conv2": fixed([-0.25, 0.0, 0.25])})
    result = run(residual_network(), images, settings)
    assert result.quantized["conv2"].alpha == 1.0 and result.quantized["fc"].alpha != 1.0
    assert set(np.unique(result.network.params["conv2"]["weight"])) <= {-0.25, 0.0, 0.25}


def test_nothing_to_move_is_no_error(images: Array) -> None:
    settings = replace(SETTINGS, final_epochs=2, codebook=fixed([-0.3, 0.0, 0.3]))
    settings = replace(settings, update=replace(UPDATE, weights=False), solver="coordinate")
    nodes = (Node("flatten", Flatten(), ("input",)), Node("fc", Linear(32, 3), ("flatten",)))
    bare = Network(nodes, {"fc": {"weight": np.ones((3, 32)), "bias": np.zeros(3)}}, (2, 4, 4))
    result = run(bare, images, settings)
    assert np.isnan(result.reports[-1].update_loss) and result.reports[-1].update_images == 0


def test_layers_that_are_not_quantized_move(images: Array) -> None:
    settings = replace(SETTINGS, skip=("conv2",))
    before = run(residual_network(), images, settings)
    after = run(residual_network(), images, replace(settings, final_epochs=2))

    def moved(network: Network, key: str) -> bool:
        return not np.array_equal(before.network.params["conv2"][key], network.params["conv2"][key])

    assert moved(after.network, "weight") and moved(after.network, "bias")


@pytest.mark.parametrize(
    "make",
    [
        lambda: LdnqSettings(update=None, final_epochs=1),
        lambda: LdnqSettings(profile="released-2019", final_epochs=1),
        lambda: LdnqSettings(final_epochs=-1),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], LdnqSettings]) -> None:
    with pytest.raises(ValueError, match="`final_epochs` must be"):
        make()


def test_a_second_cascade_starts_from_the_original_weights(images: Array) -> None:
    network = residual_network()
    settings = replace(SETTINGS, update=None, target="drift", cascades=2)
    once, twice = run(network, images, replace(settings, cascades=1)), run(network, images, settings)
    # Without an update nothing in front of a layer has changed: the second cascade finds the same codes.
    assert same(once, replace(twice, reports=once.reports, total=once.total))
    assert [report.name for report in twice.reports] == ["conv1", "conv2", "fc"]
    assert [report.error for report in twice.reports] == [report.error for report in once.reports]
    assert twice.total == 6


def test_quantized_weights_stay_in_later_cascades(images: Array) -> None:
    settings, states = replace(SETTINGS, cascades=2, final_epochs=1), list[Progress]()
    whole = run(residual_network(), images, settings, on_layer=states.append)
    assert len(states) == 7  # six layers and the last update
    for state in states[3:]:  # everything is quantized, in the middle of the second cascade too
        Model(network=state.network, quantized=state.quantized)
    passes = [state.reports[-1].update_images for state in states]
    assert whole.reports[0].update_images == passes[0] + passes[3] > passes[0] > 0
    for state in (states[1], states[2], states[4], states[5]):
        assert same(run(residual_network(), images, settings, resume=state), whole)
    with pytest.raises(ValueError, match="`cascades` must be 1 in the profile released-2019"):
        LdnqSettings(profile="released-2019", cascades=2)


def test_scales_can_stay(images: Array) -> None:
    settings = replace(SETTINGS, final_epochs=3, final_scales=False)
    before, after = run(residual_network(), images, SETTINGS), run(residual_network(), images, settings)
    moving = run(residual_network(), images, replace(settings, final_scales=True))
    for name, code in before.quantized.items():
        assert np.array_equal(after.quantized[name].weight(), code.weight())
        assert not np.array_equal(moving.quantized[name].weight(), code.weight())
    for key in ("weight", "bias", "running_mean"):
        assert not np.array_equal(after.network.params["bn1"][key], before.network.params["bn1"][key])
    Model(network=after.network, quantized=after.quantized)
    assert after.reports[-1].update_images == before.reports[-1].update_images + 3 * len(images)
