"""A run that is killed, again and again, ends with the bits of one that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from killed_runs import differences

from refldnq.formats.h5 import load_model
from refldnq.model import Model, QuantizedWeight
from refldnq.models import shipped

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(("threads", "kills"), [(1, 10), (2, 3)])
def test_killed_runs_end_with_the_bits_of_an_uninterrupted_one(
    threads: int, kills: int, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    # A fork has no threads but its own; the kernels' pool is made anew in it, the BLAS gets one thread.
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "REFLDNQ_NUM_THREADS": str(threads),
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/killed_runs.py"), str(tmp_path), str(kills), "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert len(outcome["stored_at_kill"]) == kills
    assert max(outcome["stored_at_kill"]) > 0, "no kill came after a checkpoint: nothing was resumed"
    assert outcome["differences"] == [[]] * len(outcome["differences"])
    assert len(outcome["differences"]) >= 2
    assert outcome["files"] == ["out.h5", "out.json", "reference.h5", "reference.json"]


@pytest.fixture(scope="module")
def quantized() -> Model:
    """The shipped MLP with the sign of one layer's weights for a code."""
    model = load_model(shipped("mlp-digits"))
    weight = model.network.params["fc3"]["weight"]
    codes = np.sign(weight).astype(np.int8).T[None] + np.int8(1)
    code = QuantizedWeight(codes=codes, alpha=np.array(0.5), values=np.array([-1.0, 0.0, 1.0]))
    network = model.network.replace({"fc3": {"weight": code.weight()[0].T.astype(weight.dtype).copy()}})
    return replace(model, network=network, quantized={"fc3": code})


def test_one_bit_is_a_difference(quantized: Model) -> None:
    assert differences(quantized, replace(quantized)) == []
    mean = quantized.network.params["bn1"]["running_mean"].copy()
    mean[0] = np.nextafter(mean[0], np.float32(np.inf))
    moved = replace(quantized, network=quantized.network.replace({"bn1": {"running_mean": mean}}))
    assert differences(quantized, moved) == ["bn1/running_mean"]
    code = quantized.quantized["fc3"]
    wider = replace(code, values=np.array([-1.0, 0.0, 1.0, 2.0]))
    assert differences(quantized, replace(quantized, quantized={"fc3": wider})) == ["quantized/fc3/values"]
    assert differences(quantized, replace(quantized, quantized={})) == ["quantized"]
    assert differences(quantized, replace(quantized, provenance={})) == ["provenance"]
