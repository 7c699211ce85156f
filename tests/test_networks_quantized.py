"""Every network of the paper through Algorithm 1 on small data; what is written is read back bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq.codebook import powers_of_two
from refldnq.data import Dataset, Preprocess
from refldnq.experiments.run import QuantizeOutcome, QuantizeRequest, evaluate_model, quantize_model
from refldnq.formats.h5 import load_model, save_model
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.models import build, preprocess
from refldnq.solvers.admm_settings import AdmmSettings
from refldnq.update import UpdateSettings


@dataclass(frozen=True)
class Case:
    """A network at full depth, narrow where its widths are options, and how it is quantized."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    levels: int = 3
    skip: tuple[str, ...] = ()


CASES = [
    Case("lenet5", epochs=1),
    Case("cifarnet", {"width": 4, "hidden": 12}, epochs=1),
    Case("vgg-distilquant", {"channels": (4, 4, 6, 6, 8, 8, 8, 8), "hidden": 12}, epochs=1),
    Case("wrn28-1", levels=5),
    Case("wrn28-10", {"depth": 10, "widen": 1}, epochs=1),
    Case("resnet20-b", levels=7),
    Case("resnet18", {"size": 32, "width": 4, "classes": 7}, epochs=1),
    Case("resnet34", {"size": 32, "width": 2, "classes": 7}),
    Case("resnet50", {"size": 32, "width": 2, "classes": 7}, levels=9),
    # d = 9216 in fc6: H alone has 680 MB; the other large layers would take seconds each.
    Case("alexnet-bn", {"hidden": 8, "classes": 7}, skip=("features.[48]", "features.1?", "classifier.1")),
    Case("squeezenet1.1", {"size": 48, "classes": 7}, epochs=1),
]


def noise(shape: tuple[int, ...], classes: int) -> Dataset:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (8, *shape)).astype(np.uint8)
    return Dataset(images, np.arange(8) % classes, None, "noise")


def run(case: Case) -> tuple[Model, Dataset, QuantizeOutcome]:
    network = build(case.name, np.random.default_rng(0), dtype=np.float32, **case.options)
    how = preprocess(case.name)
    plain = Preprocess(scale=how.scale, mean=how.mean, std=how.std)  # the images have the input's size
    model = Model(network=network, preprocess=plain, provenance={"architecture": case.name})
    data = noise(network.input_shape, network.shapes[network.nodes[-1].name][0])
    update = UpdateSettings(epochs=1, batch_size=4, copies=1, pool=1) if case.epochs else None
    settings = LdnqSettings(
        codebook=powers_of_two(case.levels),
        solver_settings=AdmmSettings(iterations=5),
        update=update,
        skip=case.skip,
        batch_size=4,
    )
    request = QuantizeRequest(settings=settings, images=6)
    return model, data, quantize_model(model, data, request, test=data)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_network_is_quantized_and_read_back_bit_for_bit(case: Case, tmp_path: Path) -> None:
    model, data, outcome = run(case)
    quantized = outcome.model
    chosen = LdnqSettings(skip=case.skip).chosen(model.network)
    assert tuple(quantized.quantized) == chosen and len(outcome.reports) == len(chosen)
    for name in chosen:
        weight = quantized.network.params[name]["weight"]
        assert len(np.unique(weight)) <= case.levels
        assert weight.any(), f"{name} is all zeros"
    for report in outcome.reports:
        assert np.isfinite(report.relative_output_error) and report.relative_error < 1
    if case.epochs:
        assert any(report.update_images for report in outcome.reports)
    save_model(tmp_path / "q.h5", quantized)
    back = load_model(tmp_path / "q.h5")
    for name, own in quantized.network.params.items():
        for key, array in own.items():
            assert back.network.params[name][key].tobytes() == array.tobytes(), f"{name}.{key}"
    for name, code in quantized.quantized.items():
        assert back.quantized[name].codes.tobytes() == code.codes.tobytes()
        assert back.quantized[name].alpha.tobytes() == code.alpha.tobytes()
    assert back.network.nodes == quantized.network.nodes and back.provenance == quantized.provenance
    assert evaluate_model(back, data) == outcome.after
