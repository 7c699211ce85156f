"""Cases from layers of a network: the library's answers pass, a fault does not."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from refldnq.formats.h5 import save_model
from refldnq.layers import Conv2d, Flatten, Linear, ReLU
from refldnq.model import Model
from refldnq.network import Network, Node
from refldnq.verify.kit import golden, rules
from refldnq.verify.kit.faults import turn
from refldnq.verify.kit.record import record
from refldnq.verify.kit.reference import Reference

commands = importlib.import_module("refldnq.cli.kit")  # the package has the command of this name


@pytest.fixture(scope="module")
def network() -> Network:
    rng = np.random.default_rng(3)
    conv = Conv2d(1, 4, 3, stride=2, padding=1, bias=True)
    deep = Conv2d(4, 4, 3, groups=2, bias=False)
    linear = Linear(16, 10)
    nodes = (
        Node("conv", conv, ("input",)),
        Node("relu", ReLU(), ("conv",)),
        Node("deep", deep, ("relu",)),
        Node("flat", Flatten(), ("deep",)),
        Node("fc", linear, ("flat",)),
    )
    params = {
        name: {key: rng.standard_normal(shape) for key, shape in layer.parameter_shapes().items()}
        for name, layer in (("conv", conv), ("deep", deep), ("fc", linear))
    }
    return Network(nodes, params, (1, 8, 8))


@pytest.mark.parametrize(("layer", "levels"), [("conv", 3), ("deep", 5), ("fc", 7)])
def test_the_library_passes_and_faults_fail(
    network: Network, layer: str, levels: int, tmp_path: Path
) -> None:
    images = np.random.default_rng(4).standard_normal((6, 1, 8, 8))
    cases = record(network, layer, images, levels=levels)
    golden.write(tmp_path / "a.h5", cases)
    assert [case.id for case in golden.load(tmp_path / "a.h5")] == [case.id for case in cases]
    assert {case.op for case in cases} == {"hessian", "pack", "admm"}
    for case in golden.load(tmp_path / "a.h5"):
        for answers in (case.outputs, getattr(Reference(), case.op)(**case.inputs)):
            bad = [str(one) for one in rules.judge(case, answers, "float64") if not one.ok]
            assert not bad, bad
        for fault in {"hessian": ["h-without-2"], "admm": ["dual-twice"]}.get(case.op, []):
            answers = getattr(Reference(turn([fault])), case.op)(**case.inputs)
            assert not all(one.ok for one in rules.judge(case, answers, "float64"))


def test_the_hessian_is_the_librarys(network: Network) -> None:
    images = np.random.default_rng(4).standard_normal((6, 1, 8, 8))
    found = record(network, "conv", images)[0]
    layer = network["conv"].layer
    right = layer.hessian(images, bias=True)  # type: ignore[attr-defined]
    assert np.allclose(found.outputs["H"], right, rtol=1e-13, atol=1e-13)


def test_refusals(network: Network) -> None:
    images = np.zeros((2, 1, 8, 8))
    with pytest.raises(ValueError, match="`name` must be one of"):
        record(network, "relu", images)
    with pytest.raises(ValueError, match="`group` must be one of"):
        record(network, "deep", images + 1, group=2)
    with pytest.raises(ValueError, match="`levels` must be one of"):
        record(network, "deep", images, levels=4)


def test_the_command(network: Network, tmp_path: Path) -> None:
    save_model(tmp_path / "model.h5", Model(network=network))
    np.savez(tmp_path / "data.npz", images=np.random.default_rng(0).standard_normal((9, 1, 8, 8)))
    words = [
        "record",
        tmp_path / "model.h5",
        "--data",
        tmp_path / "data.npz",
        "--layer",
        "fc",
        "-o",
        tmp_path / "o.h5",
    ]
    done = CliRunner().invoke(commands.kit, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "hessian/recorded-fc" in done.output
    assert golden.load(tmp_path / "o.h5")[0].inputs["X"].shape == (8, 16)
