"""A network's own loss: kept by what makes a network from it, minimized by what trains it with labels."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from refldnq.data import Dataset, Preprocess
from refldnq.errors import FormatError
from refldnq.experiments.training import train_model
from refldnq.formats.h5 import load_model, save_model
from refldnq.formats.torch import assign
from refldnq.loss import LossName, cross_entropy, squared_hinge
from refldnq.model import Model
from refldnq.models import build
from refldnq.network import Network
from refldnq.train import TrainSettings, fine_tune, train

RNG = np.random.default_rng(0)
CIFARNET = build("cifarnet", RNG, width=2, hidden=3)
X = RNG.standard_normal((6, 3, 32, 32))
LABELS = np.array([0, 3, 9, 1, 1, 7])
ONE = TrainSettings(epochs=1, batch_size=6, crop=0, optimizer="sgd", momentum=0, weight_decay=0)


def test_only_cifarnet_has_margins() -> None:
    assert CIFARNET.loss == "squared_hinge"
    for name in ("mlp-digits", "cnn-digits", "lenet5", "resnet20"):
        assert build(name, np.random.default_rng(0)).loss == "cross_entropy"
    with pytest.raises(ValueError, match="`loss` must be one of"):
        replace(CIFARNET, loss="hinge")  # type: ignore[arg-type]


def test_whatever_makes_a_network_from_another_keeps_the_loss() -> None:
    state = {f"{n}.{k}": array for n, own in CIFARNET.params.items() for k, array in own.items()}
    for made in (
        CIFARNET.astype(np.float32),
        CIFARNET.replace({"svm": {"bias": np.ones(10)}}),
        pickle.loads(pickle.dumps(CIFARNET)),
        copy.deepcopy(CIFARNET),
        assign(CIFARNET, state),
    ):
        assert made.loss == "squared_hinge"


def test_model_files_keep_the_loss_and_name_it_only_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    for loss, stored in (("cross_entropy", False), ("squared_hinge", True)):
        network = replace(CIFARNET, loss=loss)  # type: ignore[arg-type]
        save_model(path, Model(network=network))
        with h5py.File(path) as file:
            assert ("loss" in file.attrs) == stored
        assert load_model(path).network.loss == loss
    for wrong in ("hinge", 3):
        with h5py.File(path, "r+") as file:
            file.attrs["loss"] = wrong
        with pytest.raises(FormatError, match="field `loss`: must be"):
            load_model(path)


def first_loss(network: Network, settings: TrainSettings) -> tuple[float, str]:
    result = train(network, X, LABELS, settings, np.random.default_rng(1))
    return result.history[0].loss, result.network.loss


def test_training_minimizes_the_networks_loss_or_gives_it_another() -> None:
    y = CIFARNET.forward(X, mode="train")
    hinge, entropy = squared_hinge(y, LABELS)[0], cross_entropy(y, LABELS)[0]
    usual = replace(CIFARNET, loss="cross_entropy")
    cases: tuple[tuple[Network, LossName | None, float, str], ...] = (
        (CIFARNET, None, hinge, "squared_hinge"),
        (usual, None, entropy, "cross_entropy"),
        (CIFARNET, "cross_entropy", entropy, "cross_entropy"),
        (usual, "squared_hinge", hinge, "squared_hinge"),
    )
    for network, asked, value, after in cases:
        found, loss = first_loss(network, replace(ONE, loss=asked))
        assert found == pytest.approx(value, rel=1e-12) and loss == after


def test_step_6_minimizes_the_networks_loss() -> None:
    result = fine_tune(CIFARNET, X, LABELS, CIFARNET.weighted, ONE, np.random.default_rng(1))
    assert result.history[0].loss == pytest.approx(
        squared_hinge(CIFARNET.forward(X, mode="train"), LABELS)[0], rel=1e-12
    )


def test_a_trained_cifarnet_is_a_file_that_knows_its_loss(tmp_path: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    data = Dataset(images=images, labels=np.arange(8) % 10, classes=tuple("0123456789"), name="noise")

    def tiny(name: str, rng: np.random.Generator) -> Network:
        return build(name, rng, width=2, hidden=3)

    model = train_model(
        "cifarnet", data, TrainSettings(epochs=1, crop=0), 0, build=tiny, preprocess=Preprocess(scale=255.0)
    )
    save_model(tmp_path / "cifarnet.h5", model)
    assert load_model(tmp_path / "cifarnet.h5").network.loss == "squared_hinge"
    assert "loss" not in model.provenance["settings"]
