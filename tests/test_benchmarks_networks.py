"""The benchmark of the paper's networks: what it makes, keeps and prints."""

from __future__ import annotations

import gzip
import importlib
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from refldnq import models
from refldnq.models import NAMES

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, imported as its script does, and forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("networks")
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a dozen made-up MNIST images."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    images, labels = rng.integers(0, 256, (12, 28, 28)).astype(np.uint8), np.arange(12, dtype=np.uint8) % 10
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return tmp_path / "data"


def task(data: Path, checkpoint: Path, **changes: Any) -> dict[str, Any]:
    key = {
        "network": "lenet5",
        "trained": 0,
        "images": 4,
        "epochs": 0,
        "levels": 3,
        "iterations": 3,
        "seed": 0,
    }
    return {**key, "data": str(data), "checkpoint": str(checkpoint), **changes}


def test_a_run_tells_sizes_times_and_bits(networks: Any, data: Path, tmp_path: Path) -> None:
    result = networks.measure(task(data, tmp_path / "c.h5"))
    assert result["same_bits"] and result["parameters"] == 431_080 and result["layers"] == 4
    assert result["largest_d"] == 800 and result["hessian_mb"] == 8 * 800**2 / 1e6
    assert set(result["layer_seconds"]) == {"conv1", "conv2", "ip1", "ip2"}
    assert result["before"] is None and result["resumed_layers"] == 0
    again = networks.measure(task(data, tmp_path / "c.h5"))  # the checkpoint was left: nothing to do
    assert again["resumed_layers"] == 4
    assert again["relative_output_error"] == result["relative_output_error"]
    row = {"key": task(data, tmp_path), "result": {**result, "peak_rss_mb": 123.4}}
    table = networks.markdown([row])
    assert "| lenet5 | 1×28×28 | 0.43 | 4 | 800 | 5.1 | 4 | 0 | 3 | 3 |" in table and "| 123 |" in table
    assert "the same bits" in table and "top-1" not in table
    scores = {
        "accuracy": 60.0,
        "interval": [50.0, 70.0],
        "top5": 80.0,
        "interval_top5": [72.0, 86.0],
        "total": 9,
    }
    scored = networks.markdown([{**row, "result": {**row["result"], "before": scores, "after": scores}}])
    assert "9 other images | 60.0 (50.0 to 70.0) |" in scored


def test_other_bits_are_seen(networks: Any) -> None:
    from refldnq.formats.h5 import load_model

    one = load_model(models.shipped("mlp-digits"))
    changed = one.network.params["fc1"]["weight"].copy()
    changed[0, 0] = np.nextafter(changed[0, 0], 2, dtype=np.float32)
    two = replace(one, network=one.network.replace({"fc1": {"weight": changed}}))
    assert networks.same_bits(one, one) and not networks.same_bits(one, two)


def test_every_network_of_the_paper_is_there(networks: Any) -> None:
    paper = {"resnet20", "resnet32", "resnet56", "cifarnet", "vgg-distilquant", "wrn28-20", "alexnet-bn"}
    assert paper | {"resnet18", "resnet34", "resnet50"} <= set(networks.NETWORKS) <= set(NAMES)


def test_a_run_that_dies_leaves_no_row_and_bad_words_are_named(
    networks: Any, data: Path, tmp_path: Path
) -> None:
    call, store = CliRunner().invoke, tmp_path / "n.json"
    words = ["--data", str(data), "--store", str(store)]
    done = call(networks.main, [*words, "--networks", "resnet18", "--images", "3"])  # no such images there
    assert done.exit_code == 1 and "`resnet18` must come to its end, got exit code 1" in done.output
    assert not store.exists()
    assert "`--networks` must be among" in call(networks.main, [*words, "--networks", "vgg99"]).output
    assert "squeezenet1.1" in call(networks.main, [*words, "--trained", "--networks", "resnet18"]).output
    assert "`--data` must be given" in call(networks.main, []).output
