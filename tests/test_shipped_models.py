"""The trained weights beside `models/__init__.py` do what their provenance and their card say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq.data import Dataset
from refldnq.data.digits import digits
from refldnq.experiments.run import evaluate_model
from refldnq.experiments.training import train_model
from refldnq.formats.h5 import load_model
from refldnq.model import Model
from refldnq.models import SHIPPED, build, preprocess, shipped
from refldnq.train import TrainSettings

LEAST = {"mlp-digits": 97.0, "cnn-digits": 98.5}
"""Accuracy in percent below which a file is not worth shipping."""


@pytest.fixture(scope="module")
def splits() -> tuple[Dataset, Dataset]:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    return digits("train"), digits("test")


def check_record(model: Model, test: Dataset) -> None:
    """The accuracy in the provenance is the accuracy."""
    score, record = evaluate_model(model, test), model.provenance["test"]
    if (score.correct, score.total) != (record["correct"], record["size"]):
        raise AssertionError(f"{score.correct} of {score.total} images right, the file says {record}")


@pytest.mark.parametrize("name", SHIPPED)
def test_accuracy_is_the_recorded_one(name: str, splits: tuple[Dataset, Dataset]) -> None:
    model = load_model(shipped(name))
    check_record(model, splits[1])
    record = model.provenance["test"]
    assert record["accuracy"] >= LEAST[name]
    card = Path(shipped(name)).with_name("README.md").read_text("utf-8").split(f"## `{name}`")[1]
    told = card.split("Accuracy on the test split: ")[1].split("\n")[0]
    assert told == f"{record['accuracy']:.2f} % ({record['correct']} of {record['size']})."


@pytest.mark.parametrize("name", SHIPPED)
def test_the_check_sees_a_wrong_weight(name: str, splits: tuple[Dataset, Dataset]) -> None:
    model = load_model(shipped(name))
    last = model.network.weighted[-1]
    bias = model.network.params[last]["bias"].copy()
    bias[3] += 9
    wrong = replace(model, network=model.network.replace({last: {"bias": bias}}))
    with pytest.raises(AssertionError, match="the file says"):
        check_record(wrong, splits[1])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_file_holds_the_architecture_of_its_name(name: str) -> None:
    model, fresh = load_model(shipped(name)), build(name, np.random.default_rng(0))
    assert model.network.nodes == fresh.nodes
    assert model.network.dtype == np.float32
    assert model.preprocess == preprocess(name)
    assert not model.quantized
    assert model.provenance["architecture"] == name
    defaults = TrainSettings()
    assert model.provenance["settings"] == {
        # the loss stands in a file where it is not the usual one
        key: getattr(defaults, key)
        for key in TrainSettings.__dataclass_fields__
        if key != "loss"
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_says_what_the_file_says(name: str) -> None:
    text = (Path(shipped(name)).parent / "README.md").read_text(encoding="utf-8")
    card = text.split(f"\n## `{name}`")[1].split("\n## ")[0]
    model = load_model(shipped(name))
    record = model.provenance["test"]
    learnt = sum(
        array.size
        for node in model.network.nodes
        for key, array in model.network.params.get(node.name, {}).items()
        if key not in node.layer.buffers
    )
    assert f"{record['accuracy']:.2f} % ({record['correct']} of {record['size']})" in card
    assert model.provenance["command"] in card
    assert f"{learnt:,} parameters" in card
    assert f"{round(shipped(name).stat().st_size / 1000)} kB" in card


def again(name: str, splits: tuple[Dataset, Dataset], seed: int, settings: TrainSettings) -> Model:
    how: dict[str, Any] = {"build": build, "preprocess": preprocess(name)}
    return train_model(name, splits[0], settings, seed, test=splits[1], **how)


def test_training_twice_gives_the_same_bits(splits: tuple[Dataset, Dataset]) -> None:
    one, two, other = (again("cnn-digits", splits, seed, TrainSettings(epochs=1)) for seed in (0, 0, 1))
    assert one.provenance == two.provenance != other.provenance
    for layer, own in one.network.params.items():
        for key, array in own.items():
            assert array.tobytes() == two.network.params[layer][key].tobytes()
    first, second = (model.network.params["conv1"]["weight"] for model in (one, other))
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_command_makes_an_equal_model(name: str, splits: tuple[Dataset, Dataset]) -> None:
    # Bits depend on the machine; a shipped file's accuracy may differ from it by a few images, not more.
    repeated = again(name, splits, 0, TrainSettings()).provenance["test"]["correct"]
    assert abs(repeated - load_model(shipped(name)).provenance["test"]["correct"]) <= 5


def test_training_needs_labels_and_a_seed(splits: tuple[Dataset, Dataset]) -> None:
    data = splits[0]
    blank = Dataset(images=data.images, labels=None, classes=data.classes, name="blank")
    how: dict[str, Any] = {"build": build, "preprocess": preprocess("mlp-digits")}
    with pytest.raises(ValueError, match="`data` must have labels to be trained on, got none in 'blank'"):
        train_model("mlp-digits", blank, TrainSettings(), 0, **how)
    with pytest.raises(TypeError, match="`seed` must be an integer, got float"):
        train_model("mlp-digits", data, TrainSettings(), 0.5, **how)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`name` must be one of"):
        train_model("mlp", data, TrainSettings(), 0, **how)
