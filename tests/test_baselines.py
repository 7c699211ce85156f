"""What every baseline promises: one signature, codes, progress, and runs that go on bit for bit."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from baseline_cases import IMAGES, LABELS, LAYERS, NETWORK, SHORT, TRAINED, bits, run, tiny_network

from refldnq.baselines import (
    BASELINES,
    Baseline,
    BaselineResult,
    LoopState,
    lat,
    names,
)
from refldnq.baselines.inq import InqSettings
from refldnq.baselines.loop import TrainingPoint, begin, fit
from refldnq.baselines.retrain import RETRAIN, Retrain, step_6
from refldnq.baselines.trn import TrnSettings
from refldnq.baselines.ttq import TtqSettings
from refldnq.errors import FormatError
from refldnq.experiments import baseline_checkpoint
from refldnq.experiments.checkpoint import Fingerprint
from refldnq.ldnq_settings import LdnqSettings
from refldnq.loss import LossName
from refldnq.model import Model
from refldnq.train import fine_tune

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
    assert list(result.quantized) in ([], ["conv2", "fc"])  # in the network's order
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


@pytest.mark.parametrize("name", ["dq", "dq-affine", "vq", "trn", "ldnq-", "ttq", "distilquant"])
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


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_hinge"])
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_the_retraining_of_step_6_is_that_of_fine_tune(
    loss: LossName, statistics: Literal["batch", "running"]
) -> None:
    """Two codes of one algorithm: the loop here and `refldnq.train.fine_tune`."""
    schedule = replace(RETRAIN, epochs=2, batch_size=8, learning_rate=0.01, crop=1, statistics=statistics)
    quantized = run("ldnq-", replace(NETWORK, loss=loss), layers=LAYERS[:2])
    want = fine_tune(
        quantized.network, IMAGES, LABELS, LAYERS[:2], step_6(schedule), np.random.default_rng(5)
    ).network
    assert want.loss == loss
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


@pytest.mark.parametrize("name", names())
def test_a_run_goes_on_bit_for_bit_from_a_file(name: str, tmp_path: Path) -> None:
    retrain = name not in TRAINED
    whole, states = states_of(name, retrain=retrain, layers=LAYERS[:2])
    epochs = [1, 2, 1, 2, 3] if retrain else list(range(1, len(states) + 1))
    assert [state.epoch for state in states] == epochs
    for stop in (0, 1, 2, len(states) - 1):
        baseline_checkpoint.save(tmp_path / "state.h5", states[stop], FINGERPRINT)
        state = baseline_checkpoint.load(tmp_path / "state.h5", FINGERPRINT)
        later: list[LoopState] = []
        rest = run(
            name,
            rng=np.random.default_rng(99),
            state=state,
            retrain=retrain,
            layers=LAYERS[:2],
            on_epoch=later.append,
        )
        assert len(later) == len(states) - stop - 1  # nothing is done twice
        assert bits(rest.network) == bits(whole.network)
        assert rest.history == whole.history and rest.steps == whole.steps
        assert rest.mean_levels == whole.mean_levels and rest.images == whole.images
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


def test_progress_goes_layer_by_layer_where_weights_are_computed() -> None:
    for name in ("dq", "vq-exact", "trn", "ldnq-"):
        whole, states = states_of(name)
        assert [(state.stage, state.epoch, state.epochs) for state in states] == [
            ("quantize", 1, 3),
            ("quantize", 2, 3),
            ("quantize", 3, 3),
        ]
        for state in states:
            for index, layer in enumerate(LAYERS):
                same = state.params[layer]["weight"].tobytes() == bits(NETWORK)[f"{layer}/weight"]
                assert same == (index >= state.epoch) == (layer not in state.levels)
        assert states[-1].mean_levels == whole.mean_levels == 3.0 and whole.history == ()
        assert not whole.labels_used and whole.steps == whole.images == whole.epochs == 0
    assert [report.name for report in states[1].reports] == ["conv1", "conv2"]


def test_algorithm_1_goes_on_in_its_second_cascade() -> None:
    twice = LdnqSettings(cascades=2)
    whole, states = states_of("ldnq-", settings=twice)
    assert [(state.epoch, state.epochs) for state in states] == [(k, 6) for k in range(1, 7)]
    for state in (states[1], states[3], states[5]):
        assert bits(run("ldnq-", settings=twice, state=state).network) == bits(whole.network)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "levels": ({"levels": 5}, r"levels \(3, not 5\)"),
    "layers": ({"layers": ("conv1", "fc")}, r"layers \(\('conv1', 'conv2', 'fc'\), not \('conv1', 'fc'\)\)"),
    "schedule": ({"schedule": replace(SHORT, learning_rate=0.01)}, "schedule"),
    "network": ({"network": tiny_network(1)}, "network"),
    "loss": ({"network": replace(NETWORK, loss="squared_hinge")}, "network"),
    "graph": ({"network": tiny_network(dropout=0.2)}, "network"),
    "labels": ({"labels": LABELS[::-1].copy()}, "data"),
}


@pytest.fixture(scope="module")
def known_states() -> dict[str, list[LoopState]]:
    """Of ExNN's training; of VQ's layers, then of its retraining."""
    return {name: states_of(name, retrain=name == "vq")[1] for name in ("exnn", "vq")}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["exnn", "vq"])
def test_states_of_other_runs_are_refused(
    name: str, other: str, known_states: dict[str, list[LoopState]]
) -> None:
    changes, words = OTHERS[other]
    for state in (known_states[name][0], known_states[name][-1]):
        with pytest.raises(ValueError, match=f"`state` must be of the same run, .* differs in {words}"):
            run(name, state=state, retrain=name == "vq", **changes)


@pytest.mark.parametrize("name", names())
def test_the_defaults_passed_by_hand_make_the_same_run(name: str) -> None:
    """And none of them is left out of what a state is of."""
    how: Any = BASELINES[name].run
    _, states = states_of(name)
    own = states[0].run
    assert own is not None and json.loads(own.settings)
    again = run(name, state=states[0], settings=replace(how.settings))
    assert bits(again.network) == bits(run(name).network)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ttq", TtqSettings(threshold=0.1)),
        ("inq", InqSettings(portions=(0.5, 1.0))),
        ("trn", TrnSettings(tolerance=0.1)),
    ],
)
def test_a_state_under_other_defaults_is_refused(
    name: str, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they were before a release: nobody passes settings, and the run is another."""
    how: Any = BASELINES[name].run
    _, states = states_of(name)
    changed = replace(BASELINES[name], run=replace(how, settings=other))
    monkeypatch.setattr("baseline_cases.BASELINES", {name: changed})
    with pytest.raises(ValueError, match=r"differs in .*settings"):
        run(name, state=states[0])


def test_a_state_before_another_retraining_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, states = states_of("ttq")
    monkeypatch.setattr("refldnq.baselines.runs.RETRAIN", replace(RETRAIN, epochs=2))
    with pytest.raises(ValueError, match="differs in retraining"):
        run("ttq", state=states[0], retrain=True)


def test_states_of_other_methods_settings_and_stages_are_refused(
    known_states: dict[str, list[LoopState]],
) -> None:
    _, states = states_of("lata")
    for name in ("late", "ttq", "dq"):
        with pytest.raises(ValueError, match=rf"differs in method \(lata, not {name}\)"):
            run(name, state=states[0])
    with pytest.raises(ValueError, match="differs in settings"):
        run("lata", state=states[0], settings=lat.LatSettings(variant="approximate", clip=0.5))
    images = IMAGES.copy()
    images[3, 1, 2, 2] += 1.0
    how: dict[str, Any] = {"levels": 3, "schedule": SHORT, "rng": np.random.default_rng(3)}
    with pytest.raises(ValueError, match="differs in data"):
        BASELINES["lata"].run(NETWORK, images, LABELS, state=states[0], **how)
    with pytest.raises(ValueError, match="got one of a training by itself"):
        run("lata", state=replace(states[0], run=None))
    _, _, computed, retrained, *_ = known_states["vq"]
    assert run("vq", state=computed).history == ()  # without its retraining
    with pytest.raises(ValueError, match="`retrain` must be True to go on from the state of a retraining"):
        run("vq", state=retrained)


def test_states_of_other_lengths_and_damaged_files_are_refused(tmp_path: Path) -> None:
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
        file.attrs["schema"] = "refldnq-baseline/1"
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
