"""Straight-through steps of codes: their gradient, the ends of the levels, exact files, resumption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_final import STEP, quantized
from test_ldnq import SETTINGS, UPDATE, residual_network, run, same

from refldnq._typing import Array, NetworkParams
from refldnq.codebook import fixed, free, powers_of_two
from refldnq.experiments.report import remarks
from refldnq.final import Scales
from refldnq.last_updates import last_updates
from refldnq.layer_report import MOVED
from refldnq.layers import BatchNorm, Linear
from refldnq.layers.base import LinearMap
from refldnq.ldnq_settings import LdnqSettings
from refldnq.loss import output_error
from refldnq.model import Model, QuantizedWeight
from refldnq.network import Network, Node
from refldnq.optim import Tree
from refldnq.progress import Progress
from refldnq.solvers.anneal import AnnealSettings
from refldnq.straight import POSITION, Codes, Path
from refldnq.update import Copy, UpdateSettings, update

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
    took = (start - codes.units[name] * result.arrays[name][POSITION]) / RATE  # SGD: the rate of a gradient
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
        # Entries start on levels, inside of the range.
        worst = max(worst, float(abs(took[place] - slope)) / (1e-2 + abs(slope)))
    return worst


@pytest.mark.parametrize(("per_channel", "bias"), [(False, False), (True, False), (False, True)])
def test_positions_follow_the_gradient_of_the_weight(images: Array, per_channel: bool, bias: bool) -> None:
    error = position_gradient_error(quantized(images, per_channel=per_channel, bias=bias), images)
    if not error <= 1e-5:
        raise AssertionError(error)


def test_a_gradient_without_the_scale_is_seen(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Codes.inner

    def wrong(
        self: Codes, name: str, own: Mapping[str, Array], dG: Array, code: QuantizedWeight
    ) -> dict[str, Array]:
        inner = right(self, name, own, dG, code)
        return {**inner, POSITION: inner[POSITION] / code.alpha}

    monkeypatch.setattr(Codes, "inner", wrong)
    assert position_gradient_error(quantized(images), images) > 1e-2


def line(code: int) -> tuple[Network, QuantizedWeight]:
    own = QuantizedWeight(
        codes=np.array([[[code]]], np.int8), alpha=np.array(0.5), values=np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    )
    nodes = (Node("fc", Linear(1, 1, bias=False), ("input",)),)
    return Network(nodes, {"fc": {"weight": own.weight()[0].T}}, (1,)), own


@pytest.mark.parametrize(
    ("wanted", "code"), [(-5.0, 0), (-0.6, 1), (-0.4, 2), (0.1, 2), (0.4, 2), (0.6, 3), (0.9, 3), (5.0, 4)]
)
def test_a_code_goes_to_the_last_level_before_what_fits(wanted: float, code: int) -> None:
    # 0.4 lies between the levels 0 and 0.5: the code goes to 0.5, is sent back, and stays.
    x = np.random.default_rng(0).standard_normal((64, 1))
    settings = UpdateSettings(epochs=200, batch_size=64, copies=1, pool=1, learning_rate=1e-6)
    network, own = line(2)
    moving = Codes(network, {"fc": own}, ("fc",), settings, rate=0.05)
    result, new = moving.update([Copy({"input": x}, wanted * x)], settings, np.random.default_rng(0))
    assert new["fc"].codes.item() == code
    assert new["fc"].alpha == 0.5  # a fixed scale
    # Positions do not run away from the outermost levels: a few steps of Adam, which has momentum, at most.
    assert abs(moving.units["fc"] * result.arrays["fc"][POSITION].item()) <= 2.0 + 10 * 0.05


def test_without_the_ends_positions_run_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(
        self: Codes, name: str, own: Mapping[str, Array], dG: Array, code: QuantizedWeight
    ) -> dict[str, Array]:
        return {**Scales.inner(self, name, own, dG, code), POSITION: dG * code.alpha * self.units[name]}

    monkeypatch.setattr(Codes, "inner", wrong)
    with pytest.raises(AssertionError):
        test_a_code_goes_to_the_last_level_before_what_fits(5.0, 4)


def walk(wanted: float, starts: int = 1) -> list[list[int]]:
    """The codes of one entry where they change, in several updates with the same object."""
    x = np.random.default_rng(0).standard_normal((64, 1))
    settings = UpdateSettings(epochs=400, batch_size=16, copies=1, pool=1, schedule="constant")
    network, own = line(2)
    moving, walks = Codes(network, {"fc": own}, ("fc",), settings, rate=0.05), []
    place = moving.place
    for _ in range(starts):
        seen = [2]

        def watched(arrays: Tree, seen: list[int] = seen) -> NetworkParams:
            seen.append(moving.code("fc", arrays["fc"]).codes.item())
            return place(arrays)

        moving.place = watched  # type: ignore[method-assign]
        result, new = moving.update([Copy({"input": x}, wanted * x)], settings, np.random.default_rng(0))
        position = moving.units["fc"] * result.arrays["fc"][POSITION].item()
        assert new["fc"].codes.item() == seen[-1]
        if moving.paths["fc"].turned.item():
            assert position == pytest.approx(own.values[seen[-1]], rel=1e-12, abs=1e-12)
        walks.append([code for code, before in zip(seen[1:], seen[:-1], strict=True) if code != before])
    return walks


@pytest.mark.parametrize(
    ("wanted", "codes"),
    [(0.1, [3, 2]), (0.4, [3, 2]), (0.6, [3, 4, 3]), (-0.4, [1, 2]), (-0.9, [1, 0, 1]), (5.0, [3, 4])],
)
def test_a_code_that_turns_around_stays(wanted: float, codes: list[int]) -> None:
    assert walk(wanted, 2) == [codes, codes]  # the second update does not know of the first


def test_without_that_a_code_swings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codes, "after", Scales.after)
    assert len(walk(0.4)[0]) > 20


def test_a_path_that_forgets_the_way_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Path.follow

    def wrong(self: Path, codes: Array) -> Path:
        path = right(self, codes)
        return replace(path, way=np.sign(path.codes - self.codes))

    monkeypatch.setattr(Path, "follow", wrong)
    assert len(walk(0.4)[0]) > 20


def test_a_start_that_remembers_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Codes.start
    monkeypatch.setattr(Codes, "start", lambda self: None if self.paths else right(self))
    first, second = walk(0.4, 2)
    assert first == [3, 2] and second != first


def test_codes_move_in_any_update() -> None:
    network, own = line(2)
    x = np.random.default_rng(0).standard_normal((64, 1))
    settings = UpdateSettings(epochs=200, batch_size=64, copies=1, pool=1)
    moving = Codes(network, {"fc": own}, ("fc",), settings, rate=0.05)
    copy = Copy({"input": x}, 0.6 * x)
    result = update(network, 0, [copy], settings, np.random.default_rng(0), moving=moving)
    assert result.network.params["fc"]["weight"].item() == 0.5


def turning_back(images: Array, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], dtype: type) -> int:
    """How many entries of all layers change after they have turned around."""
    seen: dict[str, list[Array]] = {}
    place = Codes.place

    def watched(self: Codes, arrays: Tree) -> NetworkParams:
        for name, own in arrays.items():
            if POSITION in own:
                seen.setdefault(name, []).append(self.code(name, own).codes.astype(int))
        return place(self, arrays)

    monkeypatch.setattr(Codes, "place", watched)
    settings = replace(SETTINGS, **{"code_epochs": 40, "code_rate": 0.2, **change})
    start = run(residual_network().astype(dtype), images.astype(dtype), replace(settings, code_epochs=0))
    result = run(residual_network().astype(dtype), images.astype(dtype), settings)
    assert set(seen) == set(result.quantized) and len(seen) > 1
    late = turned = 0
    for name, codes in seen.items():
        steps = np.diff(np.stack([start.quantized[name].codes.astype(int), *codes]), axis=0)
        assert np.array_equal(codes[-1], result.quantized[name].codes)
        for own in steps.reshape(len(steps), -1).T:
            moves = np.flatnonzero(own)
            signs = np.sign(own[moves])
            turns = np.flatnonzero(np.diff(signs))
            turned += turns.size > 0
            late += turns.size > 0 and moves.size > turns[0] + 2
    assert turned > 5
    return late


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"codebook": powers_of_two(5)},
        {"levels": {"conv2": fixed([-0.25, 0.0, 0.25])}},
        {"solver": "anneal", "solver_settings": AnnealSettings(per_channel=True)},
    ],
    ids=["ternary", "five", "fixed", "channels"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_code_of_a_network_turns_back(
    images: Array, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], dtype: type
) -> None:
    assert turning_back(images, monkeypatch, change, dtype) == 0


def test_codes_that_turn_back_are_seen(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codes, "after", Scales.after)
    assert turning_back(images, monkeypatch, {}, np.float64) > 5


@given(data=st.data())
def test_a_path_keeps_what_turned_around(data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=12))
    path = Path(np.array([steps[0]], np.int8), np.zeros(1, np.int8), np.zeros(1, bool))
    # A twin in plain Python.
    kept, way, back = steps[0], 0, False
    for code in steps[1:]:
        path = path.follow(np.array([code], np.int8))
        if not back and code != kept:
            turn = 1 if code > kept else -1
            back, way, kept = turn == -way, turn, code
        assert (path.codes.item(), path.turned.item()) == (kept, back)
        assert back or path.way.item() == way


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
    assert after.reports[-1].update_images == before.reports[-1].update_images + (6 + 2) * len(images)


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
    still = run(network, x, replace(settings, code_epochs=60, code_rate=1e-9))
    after = run(network, x, replace(settings, code_epochs=60, code_rate=0.02))
    assert np.array_equal(still.quantized["fc"].codes, run(network, x, settings).quantized["fc"].codes)
    assert after.reports[-1].output_error < 0.6 * still.reports[-1].output_error


def test_all_last_updates_resume_exactly(images: Array) -> None:
    settings, states = replace(SETTINGS, final_epochs=2, code_epochs=2, code_rate=0.05), list[Progress]()
    whole = run(residual_network(), images, settings, on_layer=states.append)
    assert [state.pending for state in states] == [False, False, True, False]
    for state in states:
        assert same(run(residual_network(), images, settings, resume=state), whole)


def test_the_last_update_is_what_it_is_without_codes_that_move(images: Array) -> None:
    settings = replace(SETTINGS, final_epochs=2)
    drawn = []
    for epochs in (0, 4):
        updates = list(last_updates(replace(settings, code_epochs=epochs), images, np.random.default_rng(5)))
        how, kind, _ = updates[0]
        assert (how.epochs, how.statistics, kind) == (2, UPDATE.statistics, Scales)
        drawn.append([stream.integers(0, 2**63, 5).tolist() for _, _, stream in updates])
    assert drawn[0][0] == drawn[1][0]
    assert [len(streams) for streams in drawn] == [1, 3]
    assert len({tuple(own) for own in drawn[1]}) == 3


def test_codes_move_with_running_statistics_and_settle(images: Array) -> None:
    own = replace(UPDATE, statistics="batch", pool=4, copies=1)
    settings = replace(SETTINGS, code_epochs=4, update=own)
    (moving, _, _), (settling, kind, _) = last_updates(settings, images, np.random.default_rng(0))
    assert (moving.statistics, moving.copies) == ("running", 4)
    assert (settling, kind) == (replace(own, epochs=1, copies=1, statistics="running"), Scales)
    told = replace(settings, update=replace(own, mix=0.3, intermediate=2.0))
    *_, (settling, _, _) = last_updates(told, images, np.random.default_rng(0))
    assert (settling.mix, settling.intermediate, settling.features) == (0.3, 2.0, "last")
    assert [replace(settings, code_epochs=n).last_epochs for n in (0, 1, 2, 3, 5, 6)] == [0, 2, 3, 4, 6, 8]
    # The statistics are those that the layers' own updates have left.
    before = run(residual_network(), images, replace(settings, code_epochs=0))
    after = run(residual_network(), images, settings)
    for key in ("running_mean", "running_var"):
        assert np.array_equal(before.network.params["bn1"][key], after.network.params["bn1"][key])
    assert not np.array_equal(before.network.params["bn1"]["weight"], after.network.params["bn1"]["weight"])


def code_phase(images: Array, **changes: Any) -> UpdateSettings:
    settings = replace(SETTINGS, code_epochs=7, **changes)
    return next(iter(last_updates(settings, images, np.random.default_rng(0))))[0]


def test_what_the_code_phase_takes_from_the_update(images: Array) -> None:
    how = replace(UPDATE, copies=1, pool=4, mix=0.2, intermediate=3.0, features="last")
    own = code_phase(images, update=how)
    assert (own.epochs, own.copies, own.pool, own.features) == (7, 7, 7, "blocks")
    assert (own.mix, own.intermediate) == (0.5, 0.05)
    told = code_phase(images, update=how, code_mix=0.1, code_intermediate=0.0)
    assert (told.mix, told.intermediate) == (0.1, 0.0)
    plain = code_phase(images, update=replace(how, pool=1, mix=0.0))
    assert (plain.pool, plain.mix) == (1, 0.0)
    flat = code_phase(images.reshape(24, -1), update=how)
    assert (flat.pool, flat.mix) == (1, 0.0)
    assert code_phase(images, update=replace(how, mix=0.0, validation=0.25)).mix == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"codebook": free(3)},
        {"cascades": 2},
        {"update": replace(UPDATE, validation=0.25)},
        {"update": replace(UPDATE, optimizer="sgd", learning_rate=1e-4), "code_rate": 1e-3},
        {"final_epochs": 2},
    ],
    ids=["free", "cascades", "validation", "sgd", "the last update"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_goes_with_other_settings(images: Array, change: dict[str, Any], dtype: type) -> None:
    settings = replace(SETTINGS, **{"code_epochs": 3, "code_rate": 0.2, **change})
    result = run(residual_network().astype(dtype), images.astype(dtype), settings)
    Model(network=result.network, quantized=result.quantized)
    for name, code in result.quantized.items():
        assert set(np.unique(code.codes)) <= set(range(3))
        assert result.network.params[name]["weight"].dtype == dtype


def test_a_rate_is_a_share_of_the_distance_of_two_levels() -> None:
    # The same problem with levels 100 times smaller, in a fixed set: the same codes.
    x = np.random.default_rng(0).standard_normal((64, 1))
    settings = UpdateSettings(epochs=20, batch_size=64, copies=1, pool=1)
    found = []
    for size in (1.0, 0.01):
        code = QuantizedWeight(
            codes=np.array([[[0]]], np.int8), alpha=np.array(1.0), values=size * np.array([-1.0, 0.0, 1.0])
        )
        nodes = (Node("fc", Linear(1, 1, bias=False), ("input",)),)
        network = Network(nodes, {"fc": {"weight": code.weight()[0].T}}, (1,))
        moving = Codes(network, {"fc": code}, ("fc",), settings, rate=0.05)
        copy = Copy({"input": x}, size * 1.2 * x)
        result, _ = moving.update([copy], settings, np.random.default_rng(0))
        found.append(moving.units["fc"] * result.arrays["fc"][POSITION].item() / size)
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > -0.6


def test_reports_say_that_codes_moved(images: Array) -> None:
    settings = replace(SETTINGS, code_epochs=6, code_rate=0.2)
    result, before = run(residual_network(), images, settings), run(residual_network(), images, SETTINGS)
    for report, old in zip(result.reports, before.reports, strict=True):
        moved = int((result.quantized[report.name].codes != before.quantized[report.name].codes).sum())
        assert any(note.endswith(f"before; how many moved: {moved}") for note in report.notes)
        assert (report.error, report.objective) == (old.error, old.objective)
    counts = ", ".join(f"{r.name} ({r.notes[-1].split()[-1]})" for r in result.reports)
    assert f"{MOVED}: {counts}" in remarks(result.reports)  # one line for all layers
    still = run(residual_network(), images, replace(settings, code_rate=1e-4))
    assert [report.notes for report in still.reports] == [report.notes for report in before.reports]


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
        ({"code_epochs": 1, "reestimate": "end"}, "`reestimate` must be 'none' with `code_epochs`"),
        ({"code_rate": 0.0}, "`code_rate` must be"),
        ({"code_rate": np.nan}, "`code_rate` must be"),
        ({"code_mix": 0.6}, "`code_mix` must be at most 0.5"),
        ({"code_mix": np.nan}, "`code_mix` must be"),
        ({"code_intermediate": -0.1}, "`code_intermediate` must be"),
        ({"code_intermediate": np.inf}, "`code_intermediate` must be"),
    ],
)
def test_settings_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)  # type: ignore[arg-type]


def test_batches_of_one_image_are_enough_for_running_statistics() -> None:
    nodes = (Node("bn", BatchNorm(4), ("input",)), Node("fc", Linear(4, 2, bias=False), ("bn",)))
    params = {name: np.ones(4) for name in ("weight", "bias", "running_mean", "running_var")}
    network = Network(nodes, {"bn": params, "fc": {"weight": np.eye(2, 4)}}, (4,))
    x = np.random.default_rng(1).standard_normal((8, 4))
    settings = LdnqSettings(update=UpdateSettings(epochs=1, batch_size=1, copies=1, pool=1), code_epochs=2)
    assert settings.update is not None and settings.update.statistics == "batch"
    run(network, x, settings)
    with pytest.raises(ValueError, match="`batch_size` must"):
        run(network, x, replace(settings, final_epochs=1))
