"""``refldnq bounds``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from refldnq.bounds.results import TITLES
from refldnq.cli import main
from refldnq.data import load_dataset
from refldnq.experiments.digits import digits_request
from refldnq.experiments.run import QuantizeRequest, quantize_model
from refldnq.formats.h5 import load_model, save_model
from refldnq.layers import BatchNorm
from refldnq.ldnq_settings import LdnqSettings
from refldnq.models import shipped
from refldnq.update import UpdateSettings

CNN = shipped("cnn-digits")
MLP = shipped("mlp-digits")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network, quantized as by the quickstart, with a shorter update."""
    update = UpdateSettings(epochs=2, copies=1, pool=1, crop=0, flip=False, batch_size=10)
    settings = LdnqSettings(codebook=digits_request().settings.codebook, update=update)
    outcome = quantize_model(
        load_model(CNN),
        load_dataset("digits", "train"),
        QuantizeRequest(settings=settings, images=20),
    )
    path = tmp_path_factory.mktemp("bounds") / "quantized.h5"
    save_model(path, outcome.model)
    return path


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["bounds", *(str(word) for word in words)])


def test_a_pair_of_files(quantized: Path, tmp_path: Path) -> None:
    file = tmp_path / "ladder.json"
    result = invoke(CNN, quantized, "--data", "digits", "--images", 8, "--json", file)
    assert result.exit_code == 0, result.output
    record = json.loads(file.read_text())
    assert [rung["key"] for rung in record["rungs"]] == list(TITLES)
    assert [layer["name"] for layer in record["layers"]] == ["conv1", "conv2", "conv3", "linear"]
    assert any("bn1" in layer["changed"] or "bn2" in layer["changed"] for layer in record["layers"])
    assert record["sound"] and record["images"] == 8 and len(record["data"]["indices"]) == 8
    assert all(rung["holds"] for rung in record["rungs"] if rung["valid"])
    printed = next(rung for rung in record["rungs"] if rung["key"] == "printed")
    assert not printed["valid"] and any("batch normalization" in reason for reason in printed["reasons"])
    best = next(rung for rung in record["rungs"] if rung["key"] == record["best"])
    assert record["true_error"] <= best["value"] <= 10 * record["true_error"]
    update = record["update_aware"]
    assert update["available"] and update["holds"] and update["tightness"] >= 1.0
    for words in ("true final error", "hybrid telescoping", "as printed does not apply here", "conv3"):
        assert words in result.output
    again = invoke(CNN, quantized, "--data", "digits", "--images", 8, "--json", "-")
    assert json.loads(again.stdout) == record
    other = invoke(CNN, quantized, "--data", "digits", "--images", 8, "--seed", 1, "--json", "-")
    assert json.loads(other.stdout)["data"]["indices"] != record["data"]["indices"]


def test_the_plot(quantized: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    file = tmp_path / "ladder.png"
    result = invoke(CNN, quantized, "--data", "digits", "--images", 2, "--plot", file)
    assert result.exit_code == 0, result.output
    assert file.read_bytes().startswith(b"\x89PNG")


def test_what_does_not_fit_is_refused(quantized: Path, tmp_path: Path) -> None:
    for words, message in (
        ((MLP, quantized, "--data", "digits"), "must have the graph"),
        ((CNN, quantized, "--data", "digits", "--images", 0), "must be an integer of at least 1"),
        ((CNN, quantized, "--data", "digits", "--images", 10**6), "must be at most the number of images"),
        ((CNN, tmp_path / "none.h5", "--data", "digits"), "does not exist"),
        ((CNN, quantized, "--data", "digits", "--plot", tmp_path / "no" / "x.png"), "does not exist"),
    ):
        result = invoke(*words)
        assert result.exit_code in (1, 2) and message in result.stderr, result.output


def test_an_unsound_ladder_ends_with_an_error(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted: the constants of batch normalization are a millionth of what they are.
    honest = BatchNorm.lipschitz
    monkeypatch.setattr(BatchNorm, "lipschitz", lambda *args: tuple(1e-6 * c for c in honest(*args)))
    result = invoke(CNN, quantized, "--data", "digits", "--images", 2)
    assert result.exit_code == 1 and "NOT SOUND" in result.output


def test_a_violated_bound_with_the_update_ends_with_an_error(quantized: Path, tmp_path: Path) -> None:
    # Planted: reports of a last step without an error.
    model = load_model(quantized)
    *others, last = model.provenance["layers"]
    layers = [*others[:-1], {**others[-1], "output_error": 0.0}, {**last, "error": 0.0}]
    path = tmp_path / "planted.h5"
    save_model(path, replace(model, provenance={**model.provenance, "layers": layers}))
    result = invoke(CNN, path, "--data", "digits", "--images", 2)
    assert result.exit_code == 1 and "NOT SOUND: the bound with the weights update" in result.output
    record = json.loads(invoke(CNN, path, "--data", "digits", "--images", 2, "--json", "-").stdout)
    assert not record["sound"] and not record["update_aware"]["holds"]
