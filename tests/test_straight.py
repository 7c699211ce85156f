"""Straight-through steps of codes: their gradient, the ends of the levels, exact files, resumption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from test_final import STEP, quantized
from test_ldnq import SETTINGS, UPDATE, residual_network, run, same

from refldnq._typing import Array
from refldnq.codebook import fixed
from refldnq.final import Scales
from refldnq.layers import Linear
from refldnq.layers.base import LinearMap
from refldnq.ldnq import LdnqSettings, Progress
from refldnq.loss import output_error
from refldnq.model import Model, QuantizedWeight
from refldnq.network import Network, Node
from refldnq.straight import POSITION, Codes
from refldnq.update import Copy, UpdateSettings

RATE = 0.05


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).standard_normal((24, 2, 4, 4))


def position_gradient_error(state: Progress, images: Array, name: str = "conv2") -> float:
    """Largest relative difference of a step of positions and alpha times a central difference in G."""
    target = residual_network().forward(images)
    codes = Codes(state.network, state.quantized, (), STEP, rate=RATE)
    result, _ = codes.update([Copy({"input": images}, target)], STEP, np.random.default_rng(0))
    code, layer = state.quantized[name], state.network[name].layer
    assert isinstance(layer, LinearMap)
    start = code.values[code.codes]
    took = (start - codes.unit * result.arrays[name][POSITION]) / (codes.unit**2 * STEP.learning_rate)
    worst, step = 0.0, 1e-6
    for place in list(np.ndindex(code.codes.shape))[::5]:
        values = []
        for sign in (1, -1):
            G = code.weight()
            G[place] += sign * step
            params = {**state.network.params[name], **layer.unpack(G, bias=code.bias)}
            network = state.network.replace({name: params})
            values.append(output_error(network.forward(images), target)[0])
        alpha = code.alpha[place[0], place[2]] if code.alpha.ndim else code.alpha
        slope = (values[0] - values[1]) / (2 * step) * float(alpha)
        end = code.values[-1] if slope < 0 else code.values[0]
        wanted = 0.0 if start[place] * np.sign(end) > 1 else slope  # at an end it may still move out once
        worst = max(worst, float(abs(took[place] - wanted)) / (1e-2 + abs(wanted)))
    return worst


@pytest.mark.parametrize(("per_channel", "bias"), [(False, False), (True, False), (False, True)])
def test_positions_follow_the_gradient_of_the_weight(images: Array, per_channel: bool, bias: bool) -> None:
    error = position_gradient_error(quantized(images, per_channel=per_channel, bias=bias), images)
    if not error <= 1e-5:
        raise AssertionError(error)


def test_a_gradient_without_the_scale_is_seen(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Codes.inner

    def wrong(self: Codes, own: Mapping[str, Array], dG: Array, code: QuantizedWeight) -> dict[str, Array]:
        inner = right(self, own, dG, code)
        return {**inner, POSITION: inner[POSITION] / code.alpha}

    monkeypatch.setattr(Codes, "inner", wrong)
    assert position_gradient_error(quantized(images), images) > 1e-2


def line(code: int, position: float | None = None) -> tuple[Network, QuantizedWeight]:
    own = QuantizedWeight(
        codes=np.array([[[code]]], np.int8), alpha=np.array(0.5), values=np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    )
    nodes = (Node("fc", Linear(1, 1, bias=False), ("input",)),)
    return Network(nodes, {"fc": {"weight": own.weight()[0].T}}, (1,)), own


@pytest.mark.parametrize(("wanted", "code"), [(-5.0, 0), (-0.6, 1), (0.1, 2), (0.4, 3), (5.0, 4)])
def test_a_code_goes_to_the_level_that_fits(wanted: float, code: int) -> None:
    x = np.random.default_rng(0).standard_normal((64, 1))
    settings = UpdateSettings(epochs=200, batch_size=64, copies=1, pool=1, learning_rate=1e-6)
    network, own = line(2)
    moving = Codes(network, {"fc": own}, ("fc",), settings, rate=0.05)
    result, new = moving.update([Copy({"input": x}, wanted * x)], settings, np.random.default_rng(0))
    assert new["fc"].codes.item() == code
    assert new["fc"].alpha == 0.5  # a fixed scale
    # Positions do not run away from the outermost levels: a few steps of Adam, which has momentum, at most.
    assert abs(moving.unit * result.arrays["fc"][POSITION].item()) <= 2.0 + 10 * 0.05


def test_without_the_ends_positions_run_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Codes, own: Mapping[str, Array], dG: Array, code: QuantizedWeight) -> dict[str, Array]:
        return {**Scales.inner(self, own, dG, code), POSITION: dG * code.alpha * self.unit}

    monkeypatch.setattr(Codes, "inner", wrong)
    with pytest.raises(AssertionError):
        test_a_code_goes_to_the_level_that_fits(5.0, 4)


def test_codes_move_and_give_the_weights_bit_for_bit(images: Array) -> None:
    settings = replace(SETTINGS, code_epochs=6, code_rate=0.2)
    before, after = run(residual_network(), images, SETTINGS), run(residual_network(), images, settings)
    moved = {
        name: int((after.quantized[name].codes != code.codes).sum())
        for name, code in before.quantized.items()
    }
    assert all(moved.values())
    Model(network=after.network, quantized=after.quantized)  # refuses weights that the codes do not give
    assert [r.zero_fraction for r in after.reports] == [
        float(np.mean(code.weight() == 0)) for code in after.quantized.values()
    ]
    assert [r.alpha for r in after.reports] == [float(code.alpha) for code in after.quantized.values()]
    assert after.reports[-1].update_images == before.reports[-1].update_images + 6 * len(images)


def test_a_small_rate_moves_no_code(images: Array) -> None:
    settings = replace(SETTINGS, code_epochs=3, code_rate=1e-4)
    before, after = run(residual_network(), images, SETTINGS), run(residual_network(), images, settings)
    for name, code in before.quantized.items():
        assert np.array_equal(after.quantized[name].codes, code.codes)
        assert after.quantized[name].alpha != code.alpha


def test_it_brings_the_output_nearer(images: Array) -> None:
    # On the images as they are, which the report is of.
    plain = replace(UPDATE, statistics="running", copies=1, pool=1)
    x = images.reshape(24, 32)
    rng = np.random.default_rng(3)
    nodes = (Node("fc", Linear(32, 10), ("input",)),)
    network = Network(nodes, {"fc": {"weight": rng.standard_normal((10, 32)), "bias": np.zeros(10)}}, (32,))
    settings = LdnqSettings(update=plain, solver="direct")
    before = run(network, x, settings)
    after = run(network, x, replace(settings, code_epochs=60, code_rate=0.02))
    assert after.reports[-1].output_error < before.reports[-1].output_error


def test_both_last_updates_resume_exactly(images: Array) -> None:
    settings, states = replace(SETTINGS, final_epochs=2, code_epochs=2, code_rate=0.05), list[Progress]()
    whole = run(residual_network(), images, settings, on_layer=states.append)
    assert [state.pending for state in states] == [False, False, True, False]
    for state in states:
        assert same(run(residual_network(), images, settings, resume=state), whole)
    # The one with codes fixed is drawn as without the other, from a stream of its own.
    assert not same(run(residual_network(), images, replace(settings, code_epochs=0)), whole)


def test_fixed_sets_keep_their_values(images: Array) -> None:
    settings = replace(SETTINGS, code_epochs=6, code_rate=0.2, levels={"conv2": fixed([-0.25, 0.0, 0.25])})
    result = run(residual_network(), images, settings)
    assert result.quantized["conv2"].alpha == 1.0 and result.quantized["fc"].alpha != 1.0
    assert set(np.unique(result.network.params["conv2"]["weight"])) <= {-0.25, 0.0, 0.25}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code_epochs": -1}, "`code_epochs` must be"),
        ({"code_epochs": 1, "update": None}, "`code_epochs` must be 0 without an update"),
        ({"code_rate": 0.0}, "`code_rate` must be"),
        ({"code_rate": np.nan}, "`code_rate` must be"),
    ],
)
def test_settings_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)  # type: ignore[arg-type]
