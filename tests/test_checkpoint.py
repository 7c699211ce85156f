"""The state of a run on disk: exact, whole, and refused by any other run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from refldnq._typing import Array
from refldnq.errors import FormatError
from refldnq.experiments import checkpoint as checkpoints
from refldnq.experiments.checkpoint import Fingerprint, fingerprint
from refldnq.experiments.record import plain
from refldnq.formats.h5 import load_model, save_model
from refldnq.layer_report import LayerReport
from refldnq.layers import BatchNorm, Flatten, Linear, ReLU
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.network import Network, Node
from refldnq.progress import Progress
from refldnq.update import UpdateSettings

SETTINGS = LdnqSettings(update=UpdateSettings(epochs=2, batch_size=8, copies=2, crop=1))


def small_network(dtype: Any = np.float32) -> Network:
    rng = np.random.default_rng(0)
    nodes = (
        Node("flatten", Flatten(), ("input",)),
        Node("fc1", Linear(9, 7, bias=False), ("flatten",)),
        Node("bn", BatchNorm(7), ("fc1",)),
        Node("relu", ReLU(), ("bn",)),
        Node("fc2", Linear(7, 5), ("relu",)),
        Node("fc3", Linear(5, 3), ("fc2",)),
    )
    params = {
        node.name: {key: rng.uniform(0.1, 1.0, shape) for key, shape in node.layer.parameter_shapes().items()}
        for node in nodes
        if node.layer.parameter_shapes()
    }
    return Network(nodes, params, (1, 3, 3)).astype(dtype)


def small_images(dtype: Any = np.float32) -> Array:
    return np.random.default_rng(1).standard_normal((20, 1, 3, 3)).astype(dtype)


def run(network: Network, images: Array, **how: Any) -> Progress:
    return ldnq(network, images, SETTINGS, np.random.default_rng(2), **how)


def mark(network: Network, images: Array, **changes: Any) -> Fingerprint:
    how: dict[str, Any] = {
        "indices": np.arange(20),
        "settings": plain(SETTINGS),
        "seed": 2,
        "dataset": "noise",
    }
    return fingerprint(network, images, **{**how, **changes})


def bits(progress: Progress) -> dict[str, bytes]:
    """All that must survive: arrays, codes, and reports but for their times."""
    found = {
        f"{name}/{key}": array.tobytes()
        for name, own in progress.network.params.items()
        for key, array in own.items()
    }
    for name, code in progress.quantized.items():
        found |= {
            f"{name}.{item.name}": np.asarray(getattr(code, item.name)).tobytes() for item in fields(code)
        }
    for report in progress.reports:
        found[report.name] = repr(replace(report, seconds=0.0)).encode()
    return found


@pytest.fixture(scope="module", params=["float32", "float64"])
def states(request: pytest.FixtureRequest) -> list[Progress]:
    """The state after every layer of a run."""
    found: list[Progress] = []
    run(small_network(request.param), small_images(request.param), on_layer=found.append)
    return found


def test_every_state_survives_and_ends_alike(states: list[Progress], tmp_path: Path) -> None:
    dtype = states[0].network.dtype
    network, images = small_network(dtype), small_images(dtype)
    for state in states:
        path = tmp_path / "run.checkpoint"
        checkpoints.save(path, state, Model(network=network), mark(network, images))
        again = checkpoints.load(path, network, mark(network, images))
        assert bits(again) == bits(state)
        waiting = replace(state, pending=True)
        checkpoints.save(path, waiting, Model(network=network), mark(network, images))
        assert checkpoints.load(path, network, mark(network, images)).pending and not again.pending
        assert (again.total, [report.seconds for report in again.reports]) == (
            state.total,
            [report.seconds for report in state.reports],
        )
        assert bits(run(network, images, resume=again)) == bits(states[-1])


def test_the_comparison_sees_one_bit(states: list[Progress]) -> None:
    state = states[0]
    mean = state.network.params["bn"]["running_mean"].copy()
    mean[-1] = np.nextafter(mean[-1], mean.dtype.type(np.inf))
    moved = replace(state, network=state.network.replace({"bn": {"running_mean": mean}}))
    assert bits(moved) != bits(state)
    network, images = small_network(mean.dtype), small_images(mean.dtype)
    shifted = state.network.params["fc2"]["bias"] + mean.dtype.type(1e-3)
    wrong = replace(state, network=state.network.replace({"fc2": {"bias": shifted}}))
    assert bits(run(network, images, resume=wrong)) != bits(states[-1])


def test_reports_keep_what_json_lacks(states: list[Progress], tmp_path: Path) -> None:
    report = states[0].reports[0]
    odd = replace(report, condition=float("inf"), rho=float("nan"), alpha=(0.1, 1 / 3))
    state = replace(states[0], reports=(odd,))
    dtype = state.network.dtype
    network, images = small_network(dtype), small_images(dtype)
    checkpoints.save(tmp_path / "c", state, Model(network=network), mark(network, images))
    (again,) = checkpoints.load(tmp_path / "c", network, mark(network, images)).reports
    assert repr(again) == repr(odd)
    assert all(
        type(getattr(again, item.name)) is type(getattr(odd, item.name)) for item in fields(LayerReport)
    )


def other_weights(network: Network) -> Network:
    return network.replace({"fc3": {"bias": np.nextafter(network.params["fc3"]["bias"], np.float32(9))}})


CHANGES: dict[str, tuple[str, Callable[[Network, Array], Fingerprint]]] = {
    "weights": ("weights", lambda n, x: mark(other_weights(n), x)),
    "data": ("data", lambda n, x: mark(n, np.nextafter(x, np.float32(9)))),
    "choice": ("indices", lambda n, x: mark(n, x, indices=np.arange(1, 21))),
    "seed": (r"seed \(2, not 3\)", lambda n, x: mark(n, x, seed=3)),
    "data set": (r"dataset \(noise, not cifar\)", lambda n, x: mark(n, x, dataset="cifar")),
    "epochs": (
        r"settings\.update\.epochs \(2, not 3\)",
        lambda n, x: mark(n, x, settings=plain(replace(SETTINGS, update=UpdateSettings(epochs=3)))),
    ),
    "solver": (
        r'settings\.solver \("admm", not "direct"\)',
        lambda n, x: mark(n, x, settings=plain(replace(SETTINGS, solver="direct"))),
    ),
    "no update": ("settings.update", lambda n, x: mark(n, x, settings=plain(replace(SETTINGS, update=None)))),
    "type": (r"dtype \(float32, not float64\)", lambda n, x: mark(n.astype(np.float64), x)),
}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A checkpoint after the first layer."""
    network, images = small_network(), small_images()
    path = tmp_path / "run.checkpoint"
    found: list[Progress] = []
    run(network, images, on_layer=found.append)
    checkpoints.save(path, found[0], Model(network=network), mark(network, images))
    return path


@pytest.mark.parametrize("case", CHANGES)
def test_another_run_is_refused_by_name(case: str, stored: Path) -> None:
    words, other = CHANGES[case]
    with pytest.raises(ValueError, match=rf"must be of the same run.* differs in .*{words}"):
        checkpoints.load(stored, small_network(), other(small_network(), small_images()))


def test_the_number_of_threads_is_part_of_a_run(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "thread_count", lambda: 999)
    with pytest.raises(ValueError, match=r"differs in threads \("):
        checkpoints.load(stored, small_network(), mark(small_network(), small_images()))


def test_equal_runs_have_equal_fingerprints() -> None:
    one, two = (mark(small_network(), small_images()) for _ in range(2))
    assert one.digest == two.digest
    assert one.difference(two) == ""
    assert one.digest != mark(small_network(), small_images(), seed=3).digest


def test_a_checkpoint_is_a_model_file(stored: Path) -> None:
    assert list(load_model(stored).quantized) == ["fc1"]


def test_a_model_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    save_model(path, Model(network=small_network()))
    with pytest.raises(FormatError, match=r"model\.h5.*`checkpoint` is missing"):
        checkpoints.load(path, small_network(), mark(small_network(), small_images()))


@pytest.mark.parametrize("key", ["fingerprint", "reports", "total"])
def test_a_broken_record_is_refused(key: str, stored: Path) -> None:
    model = load_model(stored)
    record = {name: value for name, value in model.provenance["checkpoint"].items() if name != key}
    save_model(stored, replace(model, provenance={"checkpoint": record}))
    with pytest.raises(FormatError, match="must hold the state of a run"):
        checkpoints.load(stored, small_network(), mark(small_network(), small_images()))


def test_a_truncated_file_is_refused(stored: Path) -> None:
    stored.write_bytes(stored.read_bytes()[: stored.stat().st_size // 2])
    with pytest.raises(FormatError, match=r"run\.checkpoint"):
        checkpoints.load(stored, small_network(), mark(small_network(), small_images()))


def test_a_failed_write_leaves_the_old_state(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        state = Progress(network=small_network(), quantized={}, reports=(), total=3)
        checkpoints.save(stored, state, Model(network=small_network()), mark(small_network(), small_images()))
    assert stored.read_bytes() == before
    assert os.listdir(stored.parent) == [stored.name]
