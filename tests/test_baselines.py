"""The baselines' training: one loop, resumable bit for bit, with the gradients of PyTorch's autograd."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq._typing import Array, Int64Array, NetworkParams
from refldnq.baselines import (
    BASELINES,
    Baseline,
    BaselineResult,
    LoopState,
    Schedule,
    distilquant,
    exnn,
    inq,
    lat,
    names,
    trn,
    ttq,
)
from refldnq.baselines.loop import Method, TrainingPoint, begin, fit
from refldnq.baselines.retrain import RETRAIN, Retrain
from refldnq.errors import FormatError
from refldnq.experiments import baseline_checkpoint
from refldnq.experiments.checkpoint import Fingerprint
from refldnq.layers import Add, BatchNorm, Conv2d, Dropout, Flatten, Linear, ReLU
from refldnq.model import Model
from refldnq.network import Network, Node
from refldnq.train import TrainSettings, fine_tune

TRAINED = tuple(name for name, one in BASELINES.items() if one.trains)

SHORT = Schedule(
    epochs=3, batch_size=8, learning_rate=0.02, weight_decay=1e-3, crop=1, origin="short, for tests"
)

LAYERS = ("conv1", "conv2", "fc")


def tiny_network(seed: int = 0) -> Network:
    """A residual network with batch norm, dropout, biases and 2 x 4 x 4 images."""
    rng = np.random.default_rng(seed)
    nodes = (
        Node("conv1", Conv2d(2, 4, 3, padding=1, bias=False), ("input",)),
        Node("bn1", BatchNorm(4), ("conv1",)),
        Node("relu1", ReLU(), ("bn1",)),
        Node("conv2", Conv2d(4, 4, 3, padding=1), ("relu1",)),
        Node("bn2", BatchNorm(4), ("conv2",)),
        Node("add", Add(), ("bn2", "relu1")),
        Node("flatten", Flatten(), ("add",)),
        Node("drop", Dropout(0.1), ("flatten",)),
        Node("fc", Linear(64, 3), ("drop",)),
    )
    params: dict[str, dict[str, Array]] = {}
    for node in nodes:
        shapes = node.layer.parameter_shapes()
        if shapes:
            params[node.name] = {key: 0.3 * rng.standard_normal(shape) for key, shape in shapes.items()}
    for name in ("bn1", "bn2"):
        params[name]["running_var"] = rng.uniform(0.5, 2.0, 4)
        params[name]["weight"] = rng.uniform(0.5, 1.5, 4)
    return Network(nodes, params, (2, 4, 4))


NETWORK = tiny_network()
IMAGES: Array = np.random.default_rng(1).standard_normal((24, 2, 4, 4))
LABELS: Int64Array = np.random.default_rng(2).integers(0, 3, 24)


def run(name: str, network: Network = NETWORK, **changes: Any) -> BaselineResult:
    images = IMAGES.astype(network.dtype)
    arguments: dict[str, Any] = {"levels": 3, "rng": np.random.default_rng(3), "schedule": SHORT, **changes}
    return BASELINES[name].run(network, images, arguments.pop("labels", LABELS), **arguments)


def bits(network: Network) -> dict[str, bytes]:
    return {f"{n}/{k}": array.tobytes() for n, own in network.params.items() for k, array in own.items()}


# ---------------------------------------------------------------------- what every baseline promises


def test_the_registry_names_every_method() -> None:
    assert names() == tuple(BASELINES) and len(names()) == 15
    assert {one.name for one in BASELINES.values()} == set(BASELINES)
    assert all(isinstance(one, Baseline) and one.origin[0] == "[" for one in BASELINES.values())
    assert {name for name, one in BASELINES.items() if "memory" in one.origin} == {"dq-affine", "exnn", "trn"}
    assert not BASELINES["trn"].needs_labels and BASELINES["inq"].needs_labels


@pytest.mark.parametrize("name", names())
def test_results_are_quantized_coded_and_in_the_networks_type(name: str) -> None:
    network = NETWORK.astype(np.float32)
    result = run(name, network, layers=("fc", "conv2"))
    assert result.network.dtype == np.float32 and result.skipped == ("conv1",)
    assert result.labels_used == BASELINES[name].trains
    assert result.epochs == len(result.history) and (result.epochs > 0) == BASELINES[name].trains
    assert result.images == 24 * result.epochs and result.steps == 3 * result.epochs
    assert result.mean_levels == 3.0
    if name in ("trn", "distilquant"):
        assert result.quantized == {}
    else:
        assert set(result.quantized) == {"conv2", "fc"}
        assert all(len(np.unique(result.network.params[n]["weight"])) <= 3 for n in ("conv2", "fc"))
    Model(network=result.network, quantized=result.quantized)  # refuses codes that do not give the bits
    moved = result.network.params["conv1"]["weight"] is not network.params["conv1"]["weight"]
    assert moved == BASELINES[name].trains
    assert bits(network) == bits(NETWORK.astype(np.float32))


@pytest.mark.parametrize("name", names())
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    first, second, other = run(name), run(name), run(name, rng=np.random.default_rng(4))
    assert bits(first.network) == bits(second.network) and first.history == second.history
    assert (bits(first.network) == bits(other.network)) != BASELINES[name].trains or name == "vq"


@pytest.mark.parametrize("name", ["dq", "dq-affine", "vq", "trn", "ldnq-minus", "ttq", "distilquant"])
def test_a_retraining_moves_what_is_free_and_says_that_labels_were_used(name: str) -> None:
    plain, after = run(name, layers=LAYERS[:2]), run(name, layers=LAYERS[:2], retrain=True)
    assert after.labels_used and after.epochs > plain.epochs
    assert after.history[-1].stage == "retrain"
    for layer in ("bn1", "bn2", "fc"):
        assert not np.array_equal(
            after.network.params[layer]["weight"], plain.network.params[layer]["weight"]
        )
    for layer in LAYERS[:2]:
        before, now = (r.network.params[layer]["weight"] for r in (plain, after))
        if name in ("dq", "dq-affine", "vq"):
            assert not np.array_equal(before, now)
            # The clusters stay; their values may change places, and then the codes are numbered anew.
            assert len(np.unique(np.stack([before.ravel(), now.ravel()]), axis=1).T) == 3
        else:
            assert before.tobytes() == now.tobytes()
    if name == "dq":
        ratio = after.network.params["conv1"]["weight"][plain.network.params["conv1"]["weight"] != 0]
        assert len(np.unique(np.abs(ratio))) == 1  # one scale, still symmetric
    Model(network=after.network, quantized=after.quantized)


def test_the_retraining_of_step_6_is_that_of_fine_tune() -> None:
    """Two codes of one algorithm: the loop here and `refldnq.train.fine_tune`."""
    settings = TrainSettings(epochs=2, batch_size=8, learning_rate=0.01, weight_decay=0.0, crop=1, flip=True)
    schedule = Schedule(epochs=2, batch_size=8, learning_rate=0.01, optimizer="adam", crop=1, origin="")
    quantized = run("ldnq-minus", layers=LAYERS[:2])
    want = fine_tune(
        quantized.network, IMAGES, LABELS, LAYERS[:2], settings, np.random.default_rng(5)
    ).network
    method = Retrain(network=quantized.network, layers=LAYERS[:2])
    rng = np.random.default_rng(5)
    state = fit(method, IMAGES, LABELS, schedule, rng, begin(method, schedule, rng))
    got = quantized.network.replace({name: state.params[name] for name in NETWORK.params})
    assert bits(got) == bits(want)


@pytest.mark.parametrize("name", names())
def test_levels_that_a_method_lacks_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="`levels` must be"):
        run(name, levels=1)
    if name not in ("dq-affine", "vq", "vq-exact", "distilquant"):
        with pytest.raises(ValueError, match="`levels` must be"):
            run(name, levels=4)


@pytest.mark.parametrize(
    ("name", "levels", "used"),
    [("dq", 9, 9), ("dq-affine", 32, 32), ("vq", 8, 8), ("exnn", 5, 5), ("inq", 15, 15), ("trn", 9, None)],
)
def test_other_numbers_of_levels(name: str, levels: int, used: float | None) -> None:
    result = run(name, levels=levels)
    if used is None:
        assert 3.0 < result.mean_levels <= 9.0
    else:
        assert result.mean_levels == used
        assert all(len(code.values) == used for code in result.quantized.values())


def test_missing_labels_and_wrong_arguments_are_refused() -> None:
    for name in TRAINED:
        with pytest.raises(ValueError, match="`labels` must be given"):
            run(name, labels=None)
    assert not run("dq", labels=None).labels_used
    with pytest.raises(ValueError, match="`labels` must be given"):
        run("dq", labels=None, retrain=True)
    with pytest.raises(KeyError, match="`layers` must name layers with weights"):
        run("dq", layers=("bn1",))
    with pytest.raises(ValueError, match="at least one layer"):
        run("dq", layers=())
    with pytest.raises(ValueError, match="`schedule` must be one of"):
        run("ttq", schedule="long")
    with pytest.raises(TypeError, match="`images`"):
        BASELINES["ttq"].run(
            NETWORK, IMAGES.astype(np.float32), LABELS, levels=3, rng=np.random.default_rng(0)
        )
    with pytest.raises(ValueError, match="`schedule` must have a rate small enough"):
        run("distilquant", schedule=replace(SHORT, learning_rate=1e30))


def test_baselines_can_be_sent_to_other_processes() -> None:
    for name in names():
        again = pickle.loads(pickle.dumps(BASELINES[name]))
        assert again.name == name and again.run == BASELINES[name].run


# ---------------------------------------------------------------------- resuming


def states_of(name: str, **changes: Any) -> tuple[BaselineResult, list[LoopState]]:
    states: list[LoopState] = []
    return run(name, on_epoch=states.append, **changes), states


FINGERPRINT = Fingerprint({"seed": "3"})


@pytest.mark.parametrize("name", [*TRAINED, "vq", "dq", "trn"])
def test_a_run_goes_on_bit_for_bit_from_a_file(name: str, tmp_path: Path) -> None:
    retrain = name not in TRAINED
    whole, states = states_of(name, retrain=retrain)
    assert [state.history[-1].index for state in states] == list(range(len(states)))
    for stop in (0, len(states) - 1):
        baseline_checkpoint.save(tmp_path / "state.h5", states[stop], FINGERPRINT)
        state = baseline_checkpoint.load(tmp_path / "state.h5", FINGERPRINT)
        rest = run(name, rng=np.random.default_rng(99), state=state, retrain=retrain)
        assert bits(rest.network) == bits(whole.network)
        assert rest.history == whole.history and rest.steps == whole.steps
        assert {n: c.codes.tobytes() for n, c in rest.quantized.items()} == {
            n: c.codes.tobytes() for n, c in whole.quantized.items()
        }


@pytest.mark.parametrize("name", ["ttq", "inq"])
def test_a_run_goes_on_into_its_retraining(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refldnq.baselines.runs.RETRAIN", replace(RETRAIN, epochs=2, batch_size=8))
    whole, states = states_of(name, retrain=True)
    assert [state.stage for state in states[-3:]] == ["train", "retrain", "retrain"]
    for state in states[-3:-1]:
        baseline_checkpoint.save(tmp_path / "state.h5", state, FINGERPRINT)
        loaded = baseline_checkpoint.load(tmp_path / "state.h5", FINGERPRINT)
        rest = run(name, state=loaded, retrain=True)
        assert bits(rest.network) == bits(whole.network) and rest.history == whole.history
        assert rest.images == whole.images == 24 * whole.epochs


@pytest.mark.parametrize("lost", ["optimizer", "rng", "memory", "params"])
def test_whatever_a_state_lost_would_be_seen(lost: str) -> None:
    whole, states = states_of("late")
    state = states[0]
    fresh = begin(lat.method(NETWORK, LAYERS, 3), SHORT, np.random.default_rng(7))
    point = state.point
    if lost == "optimizer":
        point = TrainingPoint(point.latent, point.memory, fresh.point.optimizer)
    elif lost == "memory":
        point = TrainingPoint(point.latent, fresh.point.memory, point.optimizer)
    else:
        state = replace(state, **{lost: getattr(fresh, lost)})
    assert bits(run("late", state=states[0]).network) == bits(whole.network)
    assert bits(run("late", state=replace(state, point=point)).network) != bits(whole.network)


def test_states_of_other_runs_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.h5"
    _, states = states_of("ttq")
    with pytest.raises(ValueError, match="of a run of 3 epochs, got one of 5"):
        run("ttq", state=replace(states[0], epochs=5))
    with pytest.raises(FileNotFoundError):
        baseline_checkpoint.load(path, FINGERPRINT)
    baseline_checkpoint.save(path, states[0], FINGERPRINT)
    with pytest.raises(ValueError, match=r"differs in seed \(3, not 4\)"):
        baseline_checkpoint.load(path, Fingerprint({"seed": "4"}))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"state\.h5"):
        baseline_checkpoint.load(path, FINGERPRINT)
    h5py = pytest.importorskip("h5py")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        del file["latent"]
    with pytest.raises(FormatError, match="must be whole"):
        baseline_checkpoint.load(path, FINGERPRINT)
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = "another"
    with pytest.raises(FormatError, match="`schema` must be"):
        baseline_checkpoint.load(path, FINGERPRINT)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def test_a_generator_with_arrays_in_its_state_is_kept_too(tmp_path: Path) -> None:
    states: list[LoopState] = []
    whole = run("ttq", rng=np.random.Generator(np.random.MT19937(0)), on_epoch=states.append)
    baseline_checkpoint.save(tmp_path / "state.h5", states[0], FINGERPRINT)
    state = baseline_checkpoint.load(tmp_path / "state.h5", FINGERPRINT)
    json.dumps(state.rng)
    again = run("ttq", rng=np.random.Generator(np.random.MT19937(5)), state=state)
    assert bits(again.network) == bits(whole.network)


# ---------------------------------------------------------------------- the methods' hooks


def inq_phases(method: inq.Inq) -> list[tuple[Mapping[str, Array], Mapping[str, Array]]]:
    """Weights and masks of fc after every epoch of a run with momentum and penalty."""
    schedule = method.plan(replace(SHORT, epochs=2, weight_decay=0.1))
    rng, found = np.random.default_rng(0), []
    fit(
        method,
        IMAGES,
        LABELS,
        schedule,
        rng,
        begin(method, schedule, rng),
        lambda state: found.append((state.point.latent["fc"], state.point.memory["fc"])),
    )
    return found


def frozen_weights_stay(method: inq.Inq) -> None:
    found = inq_phases(method)
    values = inq.powers(NETWORK.params["fc"]["weight"], 5)
    for (before, memory), (after, later) in pairwise(found):
        frozen = memory[inq.FROZEN]
        assert later[inq.FROZEN][frozen].all()
        if before["weight"][frozen].tobytes() != after["weight"][frozen].tobytes():
            raise AssertionError("a frozen weight has moved")
        assert np.isin(after["weight"][later[inq.FROZEN]], values).all()
        assert not np.array_equal(before["weight"][~frozen], after["weight"][~frozen])
    shares = [round(float(memory[inq.FROZEN].mean()), 3) for _, memory in found]
    assert shares == [0.5, 0.5, 0.75, 0.75, 0.875, 0.875]


def test_inqs_frozen_weights_stay_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    method = inq.method(NETWORK, LAYERS, 5)
    frozen_weights_stay(method)
    # Planted: the gradient is masked in place of the step; momentum and penalty move what is frozen.

    def pull(self: inq.Inq, latent: Any, memory: Any, gradients: NetworkParams) -> Any:
        masked = {
            name: {**own, "weight": np.where(memory[name][inq.FROZEN], 0.0, own["weight"])}
            if name in self.layers
            else own
            for name, own in gradients.items()
        }
        return masked, memory

    monkeypatch.setattr(inq.Inq, "pull", pull)
    monkeypatch.setattr(inq.Inq, "settle", Method.settle)
    with pytest.raises(AssertionError, match="frozen"):
        frozen_weights_stay(method)


def test_inqs_phases_restart_rate_and_momentum() -> None:
    method = inq.method(NETWORK, LAYERS, 3)
    assert method.portions == inq.TERNARY_PORTIONS and method.plan(SHORT).total == 27
    assert inq.method(NETWORK, LAYERS, 17).portions == inq.PORTIONS
    plan = method.plan(SHORT)
    assert plan.rate(3, 0, 3) == plan.rate(0, 0, 3) == 0.02 and plan.rate(2, 2, 3) < 0.002
    state = begin(method, plan, np.random.default_rng(0))
    latent, _ = state.point.latent, state.point.memory
    heavy = plan.rule().step(latent, latent, state.point.optimizer, rate=0.1, count=1)[1]
    going = TrainingPoint(latent, state.point.memory, heavy)
    assert method.begin_epoch(1, going, plan) is going
    assert not method.begin_epoch(3, going, plan).optimizer["fc"]["weight"][0].any()
    with pytest.raises(ValueError, match="`portions` must ascend"):
        inq.InqSettings(portions=(0.5, 0.5, 1.0))


def exnn_duals(every: int | None) -> list[LoopState]:
    method = exnn.method(NETWORK, LAYERS, 3, exnn.ExnnSettings(every=every))
    schedule = replace(SHORT, momentum=0.0)
    rng = np.random.default_rng(0)
    states: list[LoopState] = []
    fit(method, IMAGES, LABELS, schedule, rng, begin(method, schedule, rng), states.append)
    return states


def test_exnns_minibatches_count_over_the_run() -> None:
    """Every fifth step, where an epoch has three: the dual moves in the second epoch and not before."""
    first, second = exnn_duals(5)[:2]
    assert not any(first.point.memory[name][exnn.DUAL].any() for name in LAYERS)
    assert all(second.point.memory[name][exnn.DUAL].any() for name in LAYERS)


def test_a_cycle_starts_with_an_empty_memory_of_the_optimizer() -> None:
    method = exnn.method(NETWORK, LAYERS, 3)
    rng = np.random.default_rng(0)
    schedule = replace(SHORT, optimizer="adam", cycles=2)
    states: list[LoopState] = []
    fit(method, IMAGES, LABELS, schedule, rng, begin(method, schedule, rng), states.append)
    once = replace(schedule, cycles=1)
    half = states[schedule.epochs - 1]
    fresh = replace(
        half,
        epoch=0,
        epochs=once.total,
        point=replace(half.point, optimizer=once.rule().start(half.point.latent)),
    )
    again: list[LoopState] = []
    fit(method, IMAGES, LABELS, once, rng, fresh, again.append)
    for name, own in again[-1].point.latent.items():
        for key, array in own.items():
            assert np.array_equal(array, states[-1].point.latent[name][key]), (name, key)


def test_numpys_numbers_leave_the_type_alone() -> None:
    plain, numpys = (
        Schedule(epochs=1, origin="", learning_rate=kind(0.01), momentum=kind(0.5), weight_decay=kind(1e-4))
        for kind in (float, np.float64)
    )
    assert plain == numpys and type(numpys.learning_rate) is float and type(numpys.weight_decay) is float


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_quantizer_takes_what_is_not_finite(bad: float) -> None:
    w = np.array([[1.0, bad]])
    quantizers: dict[str, Callable[[], Any]] = {
        "ttq": lambda: ttq.quantize(w, 1.0, 1.0),
        "nearest": lambda: inq.nearest(w, np.array([-1.0, 0.0, 1.0])),
        "partition": lambda: inq.partition(w, np.zeros(w.shape, bool), 0.5),
        "fgq": lambda: trn.fgq(w),
        "proximal": lambda: exnn.proximal(w, 0 * w, 3),
    }
    for name, quantizer in quantizers.items():
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="finite"):
            raise AssertionError(f"{name} gave {quantizer()}")
    with pytest.raises(ValueError, match="`lam` must have shape"):
        exnn.proximal(np.ones(3), np.ones(1), 3)


def test_exnns_dual_follows_every_epoch() -> None:
    states = exnn_duals(None)
    for before, after in pairwise(states):
        for name in LAYERS:
            own, old = after.point.memory[name], before.point.memory[name]
            w = after.point.latent[name]["weight"]
            G = exnn.proximal(w, old[exnn.DUAL], 3).G
            assert np.array_equal(own[exnn.PROXIMAL], G)
            assert np.array_equal(own[exnn.DUAL], old[exnn.DUAL] + w - G)
            assert not np.array_equal(own[exnn.DUAL], old[exnn.DUAL] - w + G)  # a planted sign is seen
    often = exnn_duals(2)[-1]  # after two of three minibatches: the last one is behind the dual step
    assert not np.array_equal(often.point.memory["fc"][exnn.DUAL], states[-1].point.memory["fc"][exnn.DUAL])
    finished = exnn.method(NETWORK, LAYERS, 3).finish(states[-1].point.latent, states[-1].point.memory)
    for name in LAYERS:
        assert np.array_equal(finished.arrays[name]["weight"], states[-1].point.memory[name][exnn.PROXIMAL])


def test_a_heavy_penalty_brings_exnns_weights_to_their_projection() -> None:
    method = exnn.method(NETWORK, LAYERS, 3, exnn.ExnnSettings(rho=20.0))
    schedule, rng = replace(SHORT, epochs=30, momentum=0.0), np.random.default_rng(0)
    first = begin(method, schedule, rng)
    last = fit(method, IMAGES, LABELS, schedule, rng, first)

    def gap(state: LoopState) -> float:
        point = state.point
        return float(np.linalg.norm(point.latent["fc"]["weight"] - point.memory["fc"][exnn.PROXIMAL]))

    assert gap(last) < 0.2 * gap(first)


def test_lats_moment_is_of_the_gradients_at_the_ternary_weights_and_weights_are_clipped() -> None:
    method = lat.method(NETWORK, LAYERS, 3, lat.LatSettings(clip=0.25))
    latent, memory = method.start()
    assert np.abs(latent["fc"]["weight"]).max() == 0.25 and not memory["fc"][lat.MOMENT].any()
    g = {name: {key: np.ones_like(array) for key, array in own.items()} for name, own in latent.items()}
    once = method.pull(latent, memory, g)[1]
    twice = method.pull(latent, once, g)[1]
    assert np.allclose(once["fc"][lat.MOMENT], 0.001, rtol=1e-12)
    assert np.allclose(twice["fc"][lat.MOMENT], 0.001999, rtol=1e-12)
    assert np.allclose(lat.curvature(once["fc"][lat.MOMENT]), 0.001**0.5 + 1e-8, rtol=1e-12)


def test_schedules_are_those_of_the_sources() -> None:
    published = ttq.PUBLISHED
    rates = [round(published.rate(epoch, 5, 10), 6) for epoch in (0, 80, 81, 122, 149)]
    assert rates == [0.1, 0.1, 0.01, 0.001, 0.0001] and published.weight_decay == 2e-4
    halved = [lat.PUBLISHED.rate(epoch, 0, 10) for epoch in (0, 14, 15, 30)]
    assert halved == [0.002, 0.002, 0.001, 0.0005] and lat.PUBLISHED.optimizer == "adam"
    assert distilquant.PUBLISHED.nesterov and distilquant.PUBLISHED.weight_decay == 2.2e-4
    assert exnn.PUBLISHED.momentum == 0  # extragradient steps have none
    for one in (ttq, lat, inq, exnn, distilquant):
        for schedule in (one.SCALED, one.PUBLISHED):
            assert schedule.origin
    with pytest.raises(ValueError, match="`milestones` must ascend"):
        replace(SHORT, milestones=(3, 2))


# ---------------------------------------------------------------------- against autograd

STEP = Schedule(
    epochs=1,
    batch_size=24,
    learning_rate=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=0.01,
    decays="all",
    crop=0,
    flip=False,
    origin="one step",
)


def plain_network() -> Network:
    """`tiny_network` without dropout, whose masks PyTorch would draw otherwise."""
    network = tiny_network()
    nodes = tuple(
        replace(node, inputs=("flatten",)) if node.name == "fc" else node
        for node in network.nodes
        if node.name != "drop"
    )
    return Network(nodes, network.params, network.input_shape)


def one_step(name: str, settings: Any = None) -> tuple[LoopState, Network]:
    network = plain_network()
    states: list[LoopState] = []
    method = BASELINES[name].run.make(network, LAYERS, 3, settings)  # type: ignore[attr-defined]
    schedule = replace(STEP, nesterov=False, momentum=0.0) if name == "exnn" else STEP
    rng = np.random.default_rng(0)
    # Two epochs of one step each: the second has momentum, and a curvature.
    plan = replace(schedule, epochs=2)
    fit(method, IMAGES, LABELS, plan, rng, begin(method, plan, rng), states.append)
    return states[-1], network


class Twin:
    """The tiny network in PyTorch, whose quantizers are straight-through functions of autograd."""

    def __init__(self, network: Network) -> None:
        import torch

        self.torch = torch
        self.leaves = {
            (name, key): torch.tensor(array, requires_grad="running" not in key)
            for name, own in network.params.items()
            for key, array in own.items()
        }

    def forward(self, x: Any, weights: Mapping[str, Any], leaves: Mapping[tuple[str, str], Any]) -> Any:
        f = self.torch.nn.functional

        def norm(name: str, z: Any) -> Any:
            mean, var = leaves[name, "running_mean"].clone(), leaves[name, "running_var"].clone()
            scale, shift = leaves[name, "weight"], leaves[name, "bias"]
            return f.batch_norm(z, mean, var, scale, shift, training=True, eps=1e-5)

        a = f.relu(norm("bn1", f.conv2d(x, weights["conv1"], padding=1)))
        b = norm("bn2", f.conv2d(a, weights["conv2"], leaves["conv2", "bias"], padding=1))
        return f.linear((a + b).flatten(1), weights["fc"], leaves["fc", "bias"])


def through(torch: Any, w: Any, quantized: Array) -> Any:
    """The quantized weight forward, the identity backward."""
    return w + (torch.tensor(quantized) - w).detach()


def clip(torch: Any, leaves: Mapping[tuple[str, str], Any]) -> None:
    with torch.no_grad():
        for layer in LAYERS:
            leaves[layer, "weight"].clamp_(-1, 1)


def torch_steps(name: str) -> dict[tuple[str, str], Array]:
    torch = pytest.importorskip("torch")
    network = plain_network()
    twin, x, y = Twin(network), torch.tensor(IMAGES), torch.tensor(LABELS)
    leaves = dict(twin.leaves)
    moment = {layer: np.zeros_like(network.params[layer]["weight"]) for layer in LAYERS}
    if name == "ttq":
        for layer in LAYERS:
            for key in (ttq.POSITIVE, ttq.NEGATIVE):
                leaves[layer, key] = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    if name == "late":
        clip(torch, leaves)
    moving = [leaf for leaf in leaves.values() if leaf.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=STEP.learning_rate, momentum=0.9, nesterov=True, weight_decay=0.01)
    with torch.no_grad():
        teacher = torch.tensor(network.forward(IMAGES))
    for index in range(2):
        for group in optimizer.param_groups:
            group["lr"] = replace(STEP, epochs=2).rate(index, 0, 1)
        weights, quantized = {}, {}
        for layer in LAYERS:
            w = leaves[layer, "weight"]
            array = w.detach().numpy()
            if name == "ttq":
                # One function whose derivative is the published one: Wp w / |w|-like terms, masks held.
                above, below = (torch.tensor(mask) for mask in ttq.masks(array, 0.05))
                p, n = leaves[layer, ttq.POSITIVE], leaves[layer, ttq.NEGATIVE]
                scale = torch.where(above, p, torch.where(below, n, torch.ones_like(p))).detach()
                free = p * above - n * below
                weights[layer] = free + scale * (w - w.detach())
            elif name == "late":
                D = lat.curvature(moment[layer])
                weights[layer] = through(torch, w, lat.quantize(array, D, "exact"))
            else:
                weights[layer] = through(torch, w, distilquant.quantize(array, 3))
            weights[layer].retain_grad()
            quantized[layer] = weights[layer]
        output = twin.forward(x, weights, leaves)
        loss = torch.nn.functional.cross_entropy(output, y)
        if name == "distilquant":
            log = torch.log_softmax(output / 2, 1)
            kl = torch.nn.functional.kl_div(log, torch.softmax(teacher / 2, 1), reduction="batchmean") / 3
            loss = 0.7 * 4 * kl + 0.3 * loss
        optimizer.zero_grad()
        loss.backward()
        for layer in LAYERS:
            moment[layer] = 0.999 * moment[layer] + 0.001 * quantized[layer].grad.numpy() ** 2
        optimizer.step()
        if name == "late":
            clip(torch, leaves)
    return {key: leaf.detach().numpy() for key, leaf in leaves.items() if leaf.requires_grad}


def compare(state: LoopState, wanted: Mapping[tuple[str, str], Array]) -> None:
    for (name, key), array in wanted.items():
        got = state.point.latent[name][key]
        if not (np.abs(got - array).max() <= 1e-10 * max(1.0, float(np.abs(array).max()))):
            raise AssertionError(f"{name}.{key} differs by {np.abs(got - array).max()}")


@pytest.mark.parametrize("name", ["ttq", "late", "distilquant"])
def test_two_steps_are_those_of_autograd_with_straight_through_quantizers(name: str) -> None:
    state, network = one_step(name)
    wanted = torch_steps(name)
    compare(state, wanted)
    moved = [key for key in wanted if key[1] == "weight"]
    assert all(not np.array_equal(wanted[key], network.params[key[0]]["weight"]) for key in moved)


@pytest.mark.parametrize(
    ("name", "target", "fault"),
    [
        ("ttq", "refldnq.baselines.ttq._gradients", "sign"),
        ("late", "refldnq.baselines.lat.Lat.pull", "moment"),
        ("distilquant", "refldnq.baselines.distilquant._loss", "images"),
    ],
)
def test_planted_faults_differ_from_autograd(
    name: str, target: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = torch_steps(name)
    if fault == "sign":

        def gradients(*arguments: Any) -> Any:
            dw, p, n = ttq.gradients(*arguments)
            return dw, p, -n

        monkeypatch.setattr(target, gradients)
    elif fault == "moment":
        # v never follows. Squares of gradients too small to change a code would hide it: make D uneven.
        monkeypatch.setattr(target, lambda self, latent, memory, gradients: (gradients, memory))
    else:
        settings = distilquant.DistilQuantSettings(mean="images")
        monkeypatch.setattr(target, lambda y, t, labels, _: distilquant.loss(y, t, labels, settings))
    with pytest.raises(AssertionError, match="differs by"):
        compare(one_step(name)[0], wanted)


def test_exnns_extragradient_steps_are_those_of_autograd() -> None:
    torch = pytest.importorskip("torch")
    state, network = one_step("exnn")
    twin, x, y = Twin(network), torch.tensor(IMAGES), torch.tensor(LABELS)
    w = {key: leaf.detach().numpy() for key, leaf in twin.leaves.items() if leaf.requires_grad}
    G = {layer: exnn.proximal(w[layer, "weight"], 0 * w[layer, "weight"], 3).G for layer in LAYERS}
    lam = {layer: np.zeros_like(G[layer]) for layer in LAYERS}
    rho = exnn.ExnnSettings().rho

    def gradient(at: Mapping[tuple[str, str], Array]) -> dict[tuple[str, str], Array]:
        leaves = {**twin.leaves, **{key: torch.tensor(a, requires_grad=True) for key, a in at.items()}}
        output = twin.forward(x, {layer: leaves[layer, "weight"] for layer in LAYERS}, leaves)
        loss = torch.nn.functional.cross_entropy(output, y)
        for layer in LAYERS:
            gap = leaves[layer, "weight"] - torch.tensor(G[layer]) + torch.tensor(lam[layer])
            loss = loss + 0.5 * rho * (gap**2).sum()
        loss.backward()
        return {key: leaves[key].grad.numpy() for key in at}

    for index in range(2):
        rate = replace(STEP, epochs=2).rate(index, 0, 1)
        ahead = {
            key: array - rate * slope
            for (key, array), slope in zip(w.items(), gradient(w).values(), strict=True)
        }
        slopes = gradient(ahead)
        w = {key: array - rate * (slopes[key] + 0.01 * array) for key, array in w.items()}
        for layer in LAYERS:
            G[layer] = exnn.proximal(w[layer, "weight"], lam[layer], 3).G
            lam[layer] = lam[layer] + w[layer, "weight"] - G[layer]
    compare(state, w)
    descent = {key: array + 1e-6 for key, array in w.items()}
    with pytest.raises(AssertionError, match="differs by"):
        compare(state, descent)
