"""The command line: what it writes, and that bad input is refused in one line that names it."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from refldnq import __version__
from refldnq.baselines.retrain import step_6
from refldnq.cli import main
from refldnq.cli.output import progress
from refldnq.data import Dataset, Preprocess, load_dataset
from refldnq.data.preprocess import PRESETS
from refldnq.experiments.profiles import profile_settings
from refldnq.experiments.record import plain
from refldnq.experiments.run import Event, QuantizeRequest, quantize_model
from refldnq.formats.h5 import load_model
from refldnq.layer_report import RIDGE
from refldnq.ldnq_settings import LdnqSettings
from refldnq.models import shipped
from refldnq.solvers.base import default_settings
from refldnq.update import UpdateSettings

ROOT = Path(__file__).parents[1]

MLP = str(shipped("mlp-digits"))

QUICK = ("--images", "40", "--epochs", "2", "--batch-size", "20", "--copies", "1")
"""Options of a run that takes a moment."""


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def accept(*words: object) -> Result:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result


def refuse(*words: object) -> str:
    """The one line with which a command line is refused."""
    result = invoke(*words)
    return refusal(result.exit_code, result.stdout, result.stderr, result.exception)


def refusal(code: int, out: str, err: str, exception: BaseException | None = None) -> str:
    if not (code in (1, 2) and isinstance(exception, SystemExit | None)):
        raise AssertionError(f"exit code {code}, {exception!r}: {out}{err}")
    lines = [line for line in err.splitlines() if not line.startswith("[")]  # progress comes before
    if len(lines) != 1 or not lines[0].startswith("refldnq: error: ") or "Traceback" in err or out:
        raise AssertionError(f"not one line: {out}{err}")
    return lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits from the embedded set as an .npz file with both splits; noise where scikit-learn is missing."""
    path = tmp_path_factory.mktemp("data") / "small.npz"
    try:
        train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    except ModuleNotFoundError:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 17, (60, 1, 8, 8)).astype(np.uint8)
        train = test = Dataset(images, np.arange(60) % 10, None, "noise")
    assert train.labels is not None and test.labels is not None
    np.savez(
        path,
        x_train=train.images[:60],
        y_train=train.labels[:60],
        x_test=test.images[:50],
        y_test=test.labels[:50],
    )
    return path


@pytest.fixture(scope="module")
def quantized(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Result]:
    """A quantized MLP: the file, the JSON, what was printed."""
    folder = tmp_path_factory.mktemp("quantized")
    words = ("quantize", MLP, "--data", data, *QUICK, "--crop", 1, "--no-flip", "--direct")
    result = accept(*words, "-o", folder / "out.h5", "--json", folder / "out.json")
    assert sorted(os.listdir(folder)) == ["out.h5", "out.json"]  # the checkpoint is gone
    return folder / "out.h5", json.loads((folder / "out.json").read_text()), result


# ------------------------------------------------------------------ what works


def test_version_and_help() -> None:
    assert __version__ in accept("--version").output
    assert set(main.commands) == {
        "quickstart", "convert", "evaluate", "quantize", "inspect", "train", "bounds", "verify", "compare",
        "reproduce", "kit",
    }  # fmt: skip
    for name, command in main.commands.items():
        text = accept(name, "--help").output
        assert "--json" in text or isinstance(command, click.Group)
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        assert all(option.help for option in options), name


def test_help_names_every_preset() -> None:
    text = "".join(accept("convert", "--help").output.split())  # a name may be wrapped at its hyphen
    assert all(f"{name}," in text for name in PRESETS)


def test_step_6_is_the_schedule_of_every_retraining(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    words = ("quantize", MLP, "--data", data, "--images", 40, "--no-update", "-o", out)
    result = accept(*words, "--fine-tune", 2)
    assert "Labels of the calibration images were used." in result.stdout
    request = load_model(out).provenance["request"]["fine_tune"]
    assert request == plain(replace(step_6(), epochs=2))
    assert "Labels" not in accept(*words).stdout


def test_help_is_quick() -> None:
    heavy = ("numpy", "scipy", "h5py", "numba", "rich", "torch")
    code = f"import sys, refldnq.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.strip() == "[]"


def test_without_a_command_help_is_shown() -> None:
    result = invoke()
    assert result.exit_code == 2
    assert "quickstart" in result.output


def test_quantize_writes_model_and_json(quantized: tuple[Path, dict[str, Any], Result], data: Path) -> None:
    path, record, result = quantized
    assert list(load_model(path).quantized) == ["fc1", "fc2", "fc3"]
    assert [layer["name"] for layer in record["layers"]] == ["fc1", "fc2", "fc3"]
    assert record["drop"] == record["accuracy_before"] - record["accuracy_after"]
    assert record["direct"]["total"] == 50
    ranks = {layer["name"]: (layer["rank"], layer["size"]) for layer in record["layers"]}
    assert ranks["fc2"][0] < ranks["fc2"][1] == 128  # of 40 images
    assert f"fc2 ({ranks['fc2'][0]} of 128)" in result.stdout
    dead = {layer["name"]: layer["dead_inputs"] for layer in record["layers"]}
    assert dead["fc1"] and f"inputs that are 0 in all images: fc1 ({dead['fc1']})" in result.stdout
    for words in ("layer ", "fc3 ", "accuracy before:", "accuracy after:", "direct quantization:", "drop:"):
        assert words in result.stdout
    assert len([line for line in result.stderr.splitlines() if line.startswith("[")]) == 6
    assert "\x1b" not in result.output


def test_evaluate_agrees_with_quantize(
    quantized: tuple[Path, dict[str, Any], Result], data: Path, tmp_path: Path
) -> None:
    path, record, _ = quantized
    accept("evaluate", path, "--data", data, "--json", tmp_path / "e.json")
    score = json.loads((tmp_path / "e.json").read_text())
    assert score["accuracy"] == record["accuracy_after"]
    assert score["correct"] == record["after"]["correct"]
    assert score["total"] == 50
    accept(
        "evaluate", path, "--data", data, "--limit", 7, "--dtype", "float64", "--json", tmp_path / "e.json"
    )
    assert json.loads((tmp_path / "e.json").read_text())["total"] == 7


def test_json_to_standard_output_is_alone_there(data: Path) -> None:
    result = accept("evaluate", MLP, "--data", data, "--json", "-")
    assert json.loads(result.stdout)["total"] == 50
    assert "accuracy:" in result.stderr


def test_inspect(quantized: tuple[Path, dict[str, Any], Result], tmp_path: Path) -> None:
    result = accept("inspect", quantized[0], "--json", tmp_path / "i.json")
    facts = json.loads((tmp_path / "i.json").read_text())
    assert facts["layers"][1]["levels"] == 3
    assert "fc1" in result.stdout and "preprocessing" in result.stdout


SETTINGS: dict[str, tuple[tuple[object, ...], Callable[[dict[str, Any]], object], object]] = {
    "levels": (("--levels", 5), lambda s: s["codebook"]["levels"], 5),
    "rho": (("--rho", 2.5, "--rho-scale", "lambda_max"), lambda s: s["solver_settings"]["rho"], 2.5),
    "iterations": (("--iterations", 7), lambda s: s["solver_settings"]["iterations"], 7),
    "projection": (("--projection", "exact"), lambda s: s["solver_settings"]["projection"], "exact"),
    "channels": (("--per-channel",), lambda s: s["solver_settings"]["per_channel"], True),
    "released": (("--profile", "released-2019"), lambda s: s["solver_settings"]["rho_scale"], "h00"),
    "no update": (("--no-update",), lambda s: s["update"], None),
    "direct": (("--solver", "direct", "--no-update"), lambda s: s["solver"], "direct"),
    "anneal": (("--solver", "anneal", "--per-channel"), lambda s: s["solver_settings"]["per_channel"], True),
    "rising": (("--solver", "admm_plus", "--iterations", 9), lambda s: s["solver_settings"]["iterations"], 9),
    "target": (("--target", "drift", "--ridge", 0.5), lambda s: (s["target"], s["ridge"]), ("drift", 0.5)),
    "weighted": (
        ("--solver", "coordinate", "--channel-weights", "batchnorm"),
        lambda s: s["channel_weights"],
        "batchnorm",
    ),
    "loss": (
        ("--epochs", 1, "--loss", "distillation", "--temperature", 2),
        lambda s: (s["update"]["loss"], s["update"]["temperature"]),
        ("distillation", 2.0),
    ),
    "last update": (
        ("--epochs", 1, "--intermediate", 0.5, "--final-epochs", 2),
        lambda s: (s["update"]["intermediate"], s["final_epochs"], "final_scales" in s),
        (0.5, 2, False),
    ),
    "last update with scales fixed": (
        ("--epochs", 1, "--final-epochs", 1, "--no-final-scales"),
        lambda s: (s["final_epochs"], s["final_scales"]),
        (1, False),
    ),
    "codes": (
        ("--epochs", 1, "--code-epochs", 2, "--code-rate", 0.125, "--features", "blocks"),
        lambda s: (s["code_epochs"], s["code_rate"], s["update"]["features"], s["final_epochs"]),
        (2, 0.125, "blocks", 0),
    ),
    "what codes see": (
        ("--epochs", 1, "--code-epochs", 1, "--code-mix", 0.25, "--code-intermediate", 0),
        lambda s: (s["code_mix"], s["code_intermediate"], "mix" in s["update"]),
        (0.25, 0.0, True),
    ),
    "block": (
        ("--target", "block", "--absorb", "--no-update"),
        lambda s: (s["target"], s["absorb"]),
        ("block", True),
    ),
    "closed": (
        ("--target", "drift", "--closed-weight", 0.5, "--no-update"),
        lambda s: (s["closed_weight"], "hessian_versions" in s),
        (0.5, False),
    ),
    "cascades": (("--cascades", 2, "--no-update"), lambda s: s["cascades"], 2),
    "budget": (("--mean-bits", 2, "--no-update"), lambda s: len(s["levels"]), 0),
    "mix": (("--epochs", 1, "--mix", 0.25), lambda s: s["update"]["mix"], 0.25),
    "correct bias": (("--correct-bias", "--no-update"), lambda s: s["correct_bias"], True),
    "validation": (("--epochs", 1, "--validation", 0.25), lambda s: s["update"]["validation"], 0.25),
    "bias": (("--quantize-bias", "--no-update"), lambda s: s["bias"], True),
    "reestimate": (("--reestimate", "--no-update"), lambda s: s["reestimate"], "end"),
    "rate": (("--epochs", 1, "--learning-rate", 0.01), lambda s: s["update"]["learning_rate"], 0.01),
    "statistics": (
        ("--epochs", 1, "--statistics", "running"),
        lambda s: s["update"]["statistics"],
        "running",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_options_reach_the_settings(case: str, data: Path, tmp_path: Path) -> None:
    words, field, expected = SETTINGS[case]
    update = ("--no-update",) if "--epochs" not in words else ("--copies", 1)
    out = tmp_path / "out.h5"
    accept("quantize", MLP, "--data", data, "--images", 40, *update, *words, "-o", out)
    request = load_model(out).provenance["request"]
    assert field(request["settings"]) == expected


def test_the_profile_best_reaches_the_file(data: Path, tmp_path: Path) -> None:
    """The file has no name of the profile: it says all of its settings, but for those that were changed."""
    out, record = tmp_path / "out.h5", tmp_path / "out.json"
    words = ("--profile", "best", "--images", 20, "--final-epochs", 2, "--no-certificates", "--held-out", 0)
    said = accept("quantize", MLP, "--data", data, *words, "-o", out, "--json", record).stdout
    assert (
        RIDGE not in said and "rank less than its rows" in said
    )  # a number for every layer is for the record
    assert all(layer["notes"][0].startswith(RIDGE) for layer in json.loads(record.read_text())["layers"])
    model, original = load_model(out), load_model(MLP)
    profile = replace(profile_settings("best"), solver_settings=default_settings("anneal"), final_epochs=2)
    assert model.provenance["request"]["settings"] == plain(profile)
    assert list(model.quantized) == ["fc1", "fc2", "fc3"]
    for name, code in model.quantized.items():
        stored = model.network.params[name]["weight"]
        assert code.alpha.shape == () and np.array_equal(
            np.unique(stored), np.float32(code.alpha * code.values)
        )
    for name in ("bn1", "bn2"):  # it has taken the channels' scales over, and then moved
        for key, own in original.network.params[name].items():
            assert (model.network.params[name][key] != own).all()
    accept("evaluate", out, "--data", data, "--json", tmp_path / "e.json")
    score = json.loads((tmp_path / "e.json").read_text())
    assert score["correct"] == json.loads(record.read_text())["after"]["correct"]


def test_certificates_and_held_out_images_by_default_and_not(
    quantized: tuple[Path, dict[str, Any], Result], data: Path, tmp_path: Path
) -> None:
    _, record, result = quantized
    assert all(layer["lower_bound"] is not None for layer in record["layers"])
    assert all(layer["held_out_error"] > 0 for layer in record["layers"])
    assert "within" in result.stdout and "held out" in result.stdout and "certified" in result.stdout
    out = tmp_path / "out.h5"
    words = ("--images", 40, "--no-update", "--no-certificates", "--held-out", 0, "-o", out)
    plainer = accept("quantize", MLP, "--data", data, *words, "--json", tmp_path / "o.json")
    for layer in json.loads((tmp_path / "o.json").read_text())["layers"]:
        assert (layer["lower_bound"], layer["gap"], layer["held_out_error"]) == (None, None, None)
    assert "within" not in plainer.stdout and "held out" not in plainer.stdout


def test_the_exact_solver_takes_one_scale_a_channel(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    words = ("--images", 40, "--no-update", "--solver", "exact", "--per-channel", "--skip", "fc[12]")
    accept("quantize", MLP, "--data", data, *words, "-o", out, "--json", tmp_path / "o.json")
    (layer,) = json.loads((tmp_path / "o.json").read_text())["layers"]
    assert layer["guarantee"] in ("optimal", "none") and len(layer["alpha"]) == 10
    assert "--rho must go with" in refuse(
        "quantize", MLP, "--data", data, "--solver", "exact", "--rho", 1, "-o", out
    )


def test_layers_are_left_out(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    words = ("quantize", MLP, "--data", data, "--images", 40, "--no-update", "-o", out)
    accept(*words, "--no-first", "--skip", "fc2")
    assert list(load_model(out).quantized) == ["fc3"]


def test_an_interrupted_run_is_resumed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("quantize", MLP, "--data", data, *QUICK, "--crop", 1, "--no-flip", "-o", tmp_path / "out.h5")
    kept: list[bytes] = []
    remove = Path.unlink

    def keep(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".checkpoint") and path.exists():
            kept.append(path.read_bytes())
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", keep)
    accept(*words)
    (tmp_path / "out.h5.checkpoint").write_bytes(kept[0])
    line = refuse(*words)
    assert "out.h5.checkpoint" in line and "--resume" in line and "--no-resume" in line
    assert "differs in" in refuse(*words, "--seed", 1, "--resume")
    assert "fc3: from the checkpoint" in accept(*words, "--resume").stderr
    (tmp_path / "out.h5.checkpoint").write_bytes(kept[0])
    assert "from the checkpoint" not in accept(*words, "--no-resume").stderr


def test_train_writes_a_model_that_says_how(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mlp.h5"
    result = accept("train", "mlp-digits", "--data", data, "--epochs", 2, "--no-flip", "-o", out)
    command = load_model(out).provenance["command"]
    assert command == f"refldnq train mlp-digits --data {data} --epochs 2 --no-flip --seed 0 -o mlp.h5"
    assert "epoch 2 of 2" in result.stderr and "accuracy:" in result.stdout


# ------------------------------------------------------------------ PyTorch checkpoints


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A PyTorch checkpoint with the shipped MLP's arrays."""
    torch = pytest.importorskip("torch", reason="reading PyTorch checkpoints needs torch")
    params = load_model(MLP).network.params
    state = {
        f"{name}.{key}": torch.tensor(array) for name, own in params.items() for key, array in own.items()
    }
    path = tmp_path / "weights.th"
    torch.save({"state_dict": state}, path)
    return path


def test_convert(weights: Path, data: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "out.h5", tmp_path / "own.json"
    accept("convert", weights, "--arch", "mlp-digits", "-o", out)
    assert load_model(out).preprocess == load_model(MLP).preprocess
    assert accept("evaluate", out, "--data", data).stdout == accept("evaluate", MLP, "--data", data).stdout
    own.write_text(Preprocess(scale=0.5).to_json())
    accept("convert", weights, "--arch", "mlp-digits", "--preprocess", own, "-o", out)
    preprocess = load_model(out).preprocess
    assert preprocess is not None and preprocess.scale == 0.5


def test_without_preprocessing_a_model_is_refused(weights: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    accept("convert", weights, "--arch", "mlp-digits", "--preprocess", "none", "-o", out)
    assert "preprocessing" in refuse("evaluate", out, "--data", data)
    assert "preprocessing" in refuse("quantize", out, "--data", data, "--images", 40, "-o", tmp_path / "q.h5")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--arch", "cnn-digits"), "weights must fit the architecture"),
        (("--arch", "resnet9"), "'resnet9'"),
        (("--arch", "mlp-digits", "--preprocess", "nothing"), "'nothing'"),
    ],
)
def test_convert_refuses(words: tuple[str, ...], named: str, weights: Path, tmp_path: Path) -> None:
    assert named in refuse("convert", weights, *words, "-o", tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_convert_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="reading PyTorch checkpoints needs torch")
    path = tmp_path / "weights.th"
    path.write_bytes(b"no checkpoint at all")
    assert "weights.th" in refuse("convert", path, "--arch", "mlp-digits", "-o", tmp_path / "out.h5")


def test_an_onnx_file_is_converted_and_scored_on_both_splits(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="reading ONNX files needs the package onnx")
    weights, pictures = data_dir / "weights/squeezenet1.1.onnx", data_dir / "imagenet-sample"
    if not (weights.is_file() and pictures.is_dir()):
        pytest.skip("SqueezeNet or the ImageNet sample is not in the data folder")
    some, out, record = tmp_path / "some", tmp_path / "squeezenet.h5", tmp_path / "e.json"
    for folder in sorted(pictures.iterdir())[1:25:2]:
        (some / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            (some / folder.name / file.name).symlink_to(file)
    (some / "classes.txt").write_text((pictures / "classes.txt").read_text())
    words = ("--arch", "squeezenet1.1", "--preprocess", "imagenet-bgr255")
    accept("convert", weights, *words, "-o", out)
    scores = {}
    for split in ("train", "test", "all"):
        accept("evaluate", out, "--data", some, "--split", split, "--json", record)
        scores[split] = json.loads(record.read_text())
    assert [scores[split]["total"] for split in ("train", "test", "all")] == [6, 6, 12]
    assert scores["all"]["correct"] == scores["train"]["correct"] + scores["test"]["correct"] >= 4
    low, high = scores["all"]["interval"]
    assert low < scores["all"]["accuracy"] < high and scores["all"]["interval_top5"] is not None
    assert "--limit must go with" in refuse("evaluate", out, "--data", some, "--split", "all", "--limit", 3)
    assert "weights must fit the architecture" in refuse("convert", weights, "--arch", "resnet18", "-o", out)


# ------------------------------------------------------------------ bad data


def cifar_truncated(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes(bytes(3073 * 2 + 5))


def cifar_label(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes(bytes([10]) + bytes(3072))


def cifar_python(folder: Path) -> None:
    (folder / "data_batch_1").write_bytes(b"\x80\x04no pickle")


def mnist_magic(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x09\x03" + bytes(100))
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\x00\x00\x08\x01" + bytes(100))


def mnist_truncated(folder: Path) -> None:
    header = b"\x00\x00\x08\x03" + (50).to_bytes(4, "big") + 2 * (28).to_bytes(4, "big")
    (folder / "train-images-idx3-ubyte").write_bytes(header + bytes(100))
    (folder / "train-labels-idx1-ubyte").write_bytes(
        b"\x00\x00\x08\x01" + (50).to_bytes(4, "big") + bytes(50)
    )


def mnist_gzip(folder: Path) -> None:
    whole = gzip.compress(b"\x00\x00\x08\x03" + bytes(range(256)) * 20)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(whole[:40])
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(whole[:40])


def nothing(folder: Path) -> None:
    (folder / "notes.txt").write_text("no images here")


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "CIFAR-10, truncated": (cifar_truncated, "data_batch_1.bin"),
    "CIFAR-10, label 10": (cifar_label, "data_batch_1.bin"),
    "CIFAR-10, python batch": (cifar_python, "data_batch_1"),
    "MNIST, wrong magic": (mnist_magic, "train-images-idx3-ubyte"),
    "MNIST, truncated": (mnist_truncated, "train-images-idx3-ubyte"),
    "MNIST, truncated gzip": (mnist_gzip, "train-images-idx3-ubyte.gz"),
    "neither": (nothing, "CIFAR-10"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_damaged_folder_is_refused(case: str, tmp_path: Path) -> None:
    damage, named = FOLDERS[case]
    damage(tmp_path)
    for words in (("evaluate", MLP, "--split", "train"), ("quantize", MLP, "-o", tmp_path / "out.h5")):
        assert named in refuse(*words, "--data", tmp_path)
    assert not (tmp_path / "out.h5").exists()


def arrays(**changes: Any) -> dict[str, Any]:
    return {"x_train": np.zeros((60, 1, 8, 8)), "y_train": np.zeros(60, np.int64), **changes}


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "not a zip": (lambda path: _write(path, b"no archive"), "small.npz"),
    "truncated": (lambda path: _truncate(path), "small.npz"),
    "no images": (lambda path: np.savez(path, other=np.zeros(3)), "x_train"),
    "wrong shape": (lambda path: np.savez(path, **arrays(x_train=np.zeros((60, 8)))), "images"),
    "NaN": (lambda path: np.savez(path, **arrays(x_train=np.full((60, 1, 8, 8), np.nan))), "finite"),
    "wrong type": (lambda path: np.savez(path, **arrays(x_train=np.zeros((60, 1, 8, 8), "U1"))), "images"),
    "labels of another length": (lambda path: np.savez(path, **arrays(y_train=np.zeros(3, int))), "labels"),
    "label out of range": (lambda path: np.savez(path, **arrays(y_train=np.full(60, 12))), "labels"),
    "images of another size": (
        lambda path: np.savez(path, **arrays(x_train=np.zeros((60, 3, 8, 8)))),
        "shape",
    ),
}


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("case", FILES)
def test_a_damaged_array_file_is_refused(case: str, tmp_path: Path) -> None:
    damage, named = FILES[case]
    damage(tmp_path / "small.npz")
    assert named in refuse("evaluate", MLP, "--data", tmp_path / "small.npz", "--split", "train")


def test_data_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert "nowhere" in refuse("evaluate", MLP, "--data", tmp_path / "nowhere")


# ------------------------------------------------------------------ bad models


def _change(file: h5py.File, place: str, array: Any) -> None:
    del file[place]
    file[place] = array


MODELS: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "missing array": (lambda file: file.__delitem__("params/fc1/weight"), "fc1"),
    "missing attribute": (lambda file: file.attrs.__delitem__("graph"), "graph"),
    "misshapen array": (
        lambda file: _change(file, "params/fc1/weight", np.zeros((3, 3), np.float32)),
        "fc1",
    ),
    "NaN": (
        lambda file: _change(file, "params/fc3/bias", np.full(10, np.nan, np.float32)),
        "/params/fc3/bias",
    ),
    "wrong type": (lambda file: _change(file, "params/fc3/bias", np.zeros(10, np.int32)), "/params/fc3/bias"),
    "text for numbers": (lambda file: _change(file, "params/fc3/bias", "zeros"), "/params/fc3/bias"),
    "other schema": (lambda file: file.attrs.__setitem__("schema", "refldnq-model/99"), "schema"),
    "graph is no JSON": (lambda file: file.attrs.__setitem__("graph", "{"), "graph"),
    "unknown layer": (
        lambda file: file.attrs.__setitem__("graph", file.attrs["graph"].replace("ReLU", "Relu6")),
        "Relu6",
    ),
    "negative scale of preprocessing": (
        lambda file: file.attrs.__setitem__("preprocess", '{"scale": -1}'),
        "preprocess",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_broken_model_is_refused(case: str, data: Path, tmp_path: Path) -> None:
    damage, named = MODELS[case]
    path = tmp_path / "model.h5"
    path.write_bytes(Path(MLP).read_bytes())
    with h5py.File(path, "a") as file:
        damage(file)
    for words in (
        ("inspect",),
        ("evaluate", "--data", data),
        ("quantize", "--data", data, "-o", tmp_path / "o.h5"),
    ):
        line = refuse(words[0], path, *words[1:])
        assert named in line and "model.h5" in line


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(50)])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    assert "model.h5" in refuse("inspect", path)


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    whole, path = Path(MLP).read_bytes(), tmp_path / "model.h5"
    for size in range(100, len(whole), len(whole) // 7):
        path.write_bytes(whole[:size])
        assert "model.h5" in refuse("inspect", path)


# ------------------------------------------------------------------ bad options


OPTIONS: dict[str, tuple[tuple[object, ...], str]] = {
    "levels = 4": (("--levels", 4), "`levels`"),
    "levels = 1": (("--levels", 1), "`levels`"),
    "levels = three": (("--levels", "three"), "'--levels'"),
    "rho = 0": (("--rho", 0), "`rho`"),
    "rho < 0": (("--rho", -1), "`rho`"),
    "rho = nan": (("--rho", "nan"), "`rho`"),
    "too many images": (("--images", 61), "`images` must be at most the 60"),
    "no images": (("--images", 0), "`images`"),
    "negative seed": (("--seed", -1), "`seed`"),
    "unknown solver": (("--solver", "magic"), "'magic'"),
    "unknown profile": (("--profile", "2018"), "'--profile'"),
    "unknown type": (("--dtype", "float16"), "'--dtype'"),
    "weights of channels with the paper's solver": (("--channel-weights", "batchnorm"), "`channel_weights`"),
    "rho of another solver": (("--solver", "direct", "--rho", 1), "--rho"),
    "epochs without update": (("--no-update", "--epochs", 3), "--epochs"),
    "epochs = 0": (("--epochs", 0), "`epochs`"),
    "rate = inf": (("--learning-rate", "inf"), "`learning_rate`"),
    "scales without epochs": (("--no-final-scales",), "`--final-scales` must come with `--final-epochs`"),
    "a rate of codes that stay": (("--code-rate", 0.1), "`--code-rate` must come with `--code-epochs`"),
    "nothing to mix": (("--mix", 0.25, "--copies", 1, "--pool", 1), "`pool` must be greater than 1"),
    "bits below one": (("--mean-bits", 0.5), "`mean_bits` must be a finite number of at least 1"),
    "biases corrected and quantized": (("--correct-bias", "--quantize-bias"), "`correct_bias` must be False"),
    "nothing to mix while codes move": (
        ("--code-epochs", 1, "--code-mix", 0.3, "--validation", 0.1),
        "`--code-mix` must be 0 with --validation",
    ),
    "mixtures for codes that stay": (("--code-mix", 0), "`--code-mix` must come with `--code-epochs`"),
    "codes without update": (("--no-update", "--code-epochs", 3), "`code_epochs`"),
    "rate of codes = 0": (("--code-epochs", 3, "--code-rate", 0), "`code_rate`"),
    "new statistics behind codes that moved": (("--profile", "best", "--reestimate"), "`reestimate` must be"),
    "nothing left": (("--skip", "*"), "`skip`"),
    "a pattern of no layer": (
        ("--skip", "*shortcut*"),
        "got '*shortcut*', which matches none",
    ),
    "batches of one image": (("--batch-size", 1), "`batch_size` must leave 'bn1' two values"),
    "one image": (("--images", 1), "`images` must be at least 2 for the statistics of 'bn1', got 1"),
    "one image for the released code": (
        ("--profile", "released-2019", "--images", 1, "--held-out", 0),
        "`images` must be at least 2",
    ),
    "one image for step 6": (("--images", 1, "--no-update", "--fine-tune", 1), "`images` must be at least 2"),
    "unknown option": (("--colour", "red"), "--colour"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_bad_option_is_refused(case: str, data: Path, tmp_path: Path) -> None:
    words, named = OPTIONS[case]
    out = tmp_path / "out.h5"
    assert named in refuse("quantize", MLP, "--data", data, "--images", 40, "-o", out, *words)
    assert os.listdir(tmp_path) == []


def test_what_is_missing_is_named(data: Path, tmp_path: Path) -> None:
    assert "MODEL.h5" in refuse("evaluate")
    assert "--data" in refuse("evaluate", MLP)
    assert "nowhere.h5" in refuse("evaluate", tmp_path / "nowhere.h5", "--data", data)
    assert "magic" in refuse("magic")
    assert "resnet9" in refuse("train", "resnet9", "-o", tmp_path / "out.h5")


def test_a_folder_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "no" / "out.h5"
    # Before the work, not after it.
    for line in (
        refuse("quantize", MLP, "-o", out, "--data", "nowhere"),
        refuse("quickstart", "-o", out),
        refuse("train", "mlp-digits", "-o", out),
        refuse("evaluate", MLP, "--json", out, "--data", "nowhere"),
        refuse("quickstart", "--json", out),
    ):
        assert "folder" in line and str(out.parent) in line


def test_the_check_sees_a_traceback_and_a_second_line() -> None:
    with pytest.raises(AssertionError, match="not one line"):
        refusal(1, "", "refldnq: error: one\nrefldnq: error: two\n")
    with pytest.raises(AssertionError, match="not one line"):
        refusal(1, "", "Traceback (most recent call last):\nValueError: one\n")
    with pytest.raises(AssertionError, match="exit code 0"):
        refusal(0, "", "refldnq: error: one\n")
    with pytest.raises(AssertionError, match="exit code 1"):
        refusal(1, "", "refldnq: error: one\n", ZeroDivisionError("a bug"))


def test_a_bug_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(path: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("refldnq.formats.h5.load_model", bug)
    assert isinstance(invoke("inspect", MLP).exception, ZeroDivisionError)


def test_the_traceback_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(b"not HDF5")
    monkeypatch.setenv("REFLDNQ_TRACEBACK", "1")
    assert isinstance(invoke("inspect", path).exception, ValueError)


# ------------------------------------------------------------------ progress


class Terminal(io.StringIO):
    """Standard error as a terminal has it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with progress() as tell:
        tell(Event("conv1", 0.01))
        assert "left" not in screen.getvalue()
        tell(Event("conv2", 0.5))
        time.sleep(0.3)  # the bar is drawn ten times a second
    assert "conv2" in screen.getvalue() and "0:00 left" in screen.getvalue() and "50%" in screen.getvalue()


def test_elsewhere_there_are_lines_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 101.0, 110.0, 130.0])
    monkeypatch.setattr("refldnq.cli.output.time.monotonic", lambda: next(clock))
    with progress() as tell:
        for event in (Event("one", 0.01), Event("two", 0.25), Event("three", 1.0)):
            tell(event)
    assert capsys.readouterr().err.splitlines() == [
        "[  1 %] one (1 s)",
        "[ 25 %] two (10 s, about 30 s left)",
        "[100 %] three (30 s)",
    ]


def test_what_a_checkpoint_has_brought_took_no_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 102.0, 103.0, 104.0, 112.0])
    monkeypatch.setattr("refldnq.cli.output.time.monotonic", lambda: next(clock))
    with progress() as tell:
        tell(Event("one", 0.4, restored=True))
        tell(Event("two", 0.8, restored=True))
        tell(Event("three", 0.81))
        tell(Event("four", 0.85))  # a quarter of the fifth that was left, in nine seconds
    assert capsys.readouterr().err.splitlines() == [
        "[ 40 %] one (2 s)",
        "[ 80 %] two (3 s)",
        "[ 81 %] three (4 s)",
        "[ 85 %] four (12 s, about 27 s left)",
    ]


def test_the_library_is_silent(capfd: pytest.CaptureFixture[str], data: Path) -> None:
    settings = LdnqSettings(update=UpdateSettings(epochs=1, copies=1))
    quantize_model(load_model(MLP), load_dataset(data), QuantizeRequest(settings=settings, images=40))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


# ------------------------------------------------------------------ as a user runs it


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def test_quickstart_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    done = subprocess.run(
        [sys.executable, "-m", "refldnq.cli", "quickstart", "--json", "quick.json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["digits-cnn-3levels.h5", "quick.json"]
    record = json.loads((tmp_path / "quick.json").read_text())
    assert [layer["levels"] for layer in record["layers"]] == [3, 3, 3, 3]
    assert record["accuracy_before"] >= 98.5
    assert record["drop"] <= 4.0
    assert record["direct"]["accuracy"] < record["accuracy_after"]
    for heading in ("layer", "levels", "α", "zeros", "error", "accum.", "output", "iter.", "time"):
        assert heading in done.stdout
    model = load_model(tmp_path / "digits-cnn-3levels.h5")
    for name in model.quantized:
        assert len(np.unique(model.network.params[name]["weight"])) == 3
    assert len(record["provenance"]["data"]["indices"]) == 100


def test_a_refusal_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "refldnq.cli", "evaluate", MLP, "--data", "nowhere"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "nowhere" in refusal(done.returncode, done.stdout, done.stderr)


def test_a_published_network_on_real_images(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="reading PyTorch checkpoints needs torch")
    out, record = tmp_path / "resnet20.h5", tmp_path / "e.json"
    accept("convert", data_dir / "weights/resnet20-12fca82f.th", "--arch", "resnet20", "-o", out)
    accept("evaluate", out, "--data", data_dir, "--limit", 200, "--json", record)
    # 91.73 % of all test images; of 200 the deviation is 1.95 points, and four of them are allowed.
    assert abs(json.loads(record.read_text())["accuracy"] - 91.73) <= 4 * 1.95


def test_one_file_cannot_be_two(data: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model.h5", tmp_path / "out.h5"
    shutil.copyfile(MLP, model)
    before = model.read_bytes()
    start = ("quantize", model, "--data", data, *QUICK, "-o")
    for words in (
        (*start, out, "--checkpoint", out),
        (*start, model),
        (*start, out, "--json", out),
        (*start, out, "--checkpoint", model, "--no-resume"),
    ):
        assert "must be another file than" in refuse(*words)
        assert not out.exists() and model.read_bytes() == before
