"""The CIFAR ResNets against PyTorch, and public checkpoints on real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from refldnq._typing import Array, Int64Array
from refldnq.cli import main
from refldnq.experiments.run import required_preprocess
from refldnq.formats.h5 import load_model
from refldnq.loss import cross_entropy
from refldnq.model import Model
from refldnq.models import build
from refldnq.models.resnet_cifar import DEPTHS
from refldnq.network import Network

torch = pytest.importorskip("torch", reason="PyTorch is the independent oracle and reads the checkpoints")
F = torch.nn.functional

CHECKPOINTS = {20: "resnet20-12fca82f.th", 32: "resnet32-d509ac18.th", 56: "resnet56-4bfd9763.th"}
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-11}
"""Relative to the largest entry of what is compared: 1000 and 50000 units in the last place."""


class TorchResNet(torch.nn.Module):  # type: ignore[misc, name-defined]
    """The same network written down a second time, with PyTorch's layers; shortcuts of option A or B."""

    def __init__(self, depth: int, option: str = "A") -> None:
        super().__init__()
        self.option = option
        self.blocks: list[tuple[str, int, int]] = []
        self._put("conv1", torch.nn.Conv2d(3, 16, 3, padding=1, bias=False))
        self._put("bn1", torch.nn.BatchNorm2d(16))
        c = 16
        for stage, width in ((1, 16), (2, 32), (3, 64)):
            for i in range((depth - 2) // 6):
                name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
                self._put(f"{name}.conv1", torch.nn.Conv2d(c, width, 3, stride, 1, bias=False))
                self._put(f"{name}.bn1", torch.nn.BatchNorm2d(width))
                self._put(f"{name}.conv2", torch.nn.Conv2d(width, width, 3, 1, 1, bias=False))
                self._put(f"{name}.bn2", torch.nn.BatchNorm2d(width))
                if stride == 2 and option == "B":
                    self._put(f"{name}.shortcut.0", torch.nn.Conv2d(c, width, 1, stride, bias=False))
                    self._put(f"{name}.shortcut.1", torch.nn.BatchNorm2d(width))
                self.blocks.append((name, stride, width - c))
                c = width
        self._put("linear", torch.nn.Linear(64, 10))

    def _put(self, name: str, module: Any) -> None:
        self.add_module(name.replace(".", "/"), module)

    def at(self, name: str) -> Any:
        return self.get_submodule(name.replace(".", "/"))

    def forward(self, x: Any) -> Any:
        x = F.relu(self.at("bn1")(self.at("conv1")(x)))
        for name, stride, new in self.blocks:
            y = F.relu(self.at(f"{name}.bn1")(self.at(f"{name}.conv1")(x)))
            y = self.at(f"{name}.bn2")(self.at(f"{name}.conv2")(y))
            x = F.relu(y + (x if stride == 1 else self.shortcut(name, x, new)))
        return self.at("linear")(x.mean(dim=(2, 3)))

    def shortcut(self, name: str, x: Any, new: int) -> Any:
        """Past the block `name`, which halves the sides and has so many new channels."""
        if self.option == "A":
            return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new // 2, new // 2))
        return self.at(f"{name}.shortcut.1")(self.at(f"{name}.shortcut.0")(x))


def twin(network: Network, depth: int, option: str = "A", kind: type[TorchResNet] = TorchResNet) -> Any:
    """A PyTorch network with the same arrays."""
    module = kind(depth, option)
    module.to(torch.float64 if network.dtype == np.float64 else torch.float32)
    with torch.no_grad():
        for name, own in network.params.items():
            for key, array in own.items():
                getattr(module.at(name), key).copy_(torch.from_numpy(array.copy()))
    return module


def relative_error(got: Array, want: Array) -> float:
    """Largest difference over the largest entry; NaN if either has one."""
    return float(np.abs(got - want).max() / np.abs(want).max())


def check_same(network: Network, module: TorchResNet, x: Array, labels: Int64Array, mode: Any) -> None:
    """Logits, gradients of all arrays and of the input, and new running statistics, against PyTorch's."""
    tolerance = TOLERANCE[network.dtype.type]
    run = network.record(network.start(x), 0, len(network.nodes), mode=mode)
    logits = run.live["linear"]
    _, dy = cross_entropy(logits, labels)
    dinputs, gradients = network.backward(run, {"linear": dy}, wrt_inputs=True)

    module.train(mode == "train")
    x_torch = torch.from_numpy(x).requires_grad_()
    y_torch = module(x_torch)
    F.cross_entropy(y_torch, torch.from_numpy(labels)).backward()

    pairs = {"logits": (logits, y_torch.detach().numpy()), "dx": (dinputs["input"], x_torch.grad.numpy())}
    for name, own in gradients.items():
        for key, gradient in own.items():
            pairs[f"d {name} {key}"] = (gradient, getattr(module.at(name), key).grad.numpy())
    for name, buffers in run.statistics.items():
        for key, array in buffers.items():
            pairs[f"{name} {key}"] = (array, getattr(module.at(name), key).numpy())
    # A convolution with batch normalization, all but the last layer, has three arrays that are learned.
    layers = len(network.weighted) - 1
    assert len(pairs) == 2 + 3 * layers + 2 + (2 * layers if mode == "train" else 0)
    errors = {name: relative_error(got, want) for name, (got, want) in pairs.items()}
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    if not errors[worst] <= tolerance:
        raise AssertionError(f"{worst}: relative error {errors[worst]:.2e} > {tolerance:.0e}")


def generic(depth: int, option: str) -> tuple[Network, Array, Int64Array]:
    """A network whose every array is random, two images, and labels.

    Zeros and ones of the start would hide a bias or a scale left out. The second scale of every block is
    small: 54 blocks would make the logits so large that the gradient at the end were 0.
    """
    rng = np.random.default_rng(3)
    network = build(f"resnet{depth}" + ("-b" if option == "B" else ""), rng)
    moved: dict[str, dict[str, Array]] = {}
    for name, own in network.params.items():
        for key, array in own.items():
            if array.ndim == 1 and key in ("weight", "running_var"):
                low, high = (0.1, 0.3) if key == "weight" and name.endswith("bn2") else (0.5, 1.5)
                moved.setdefault(name, {})[key] = rng.uniform(low, high, array.shape)
            elif array.ndim == 1:
                moved.setdefault(name, {})[key] = 0.1 * rng.standard_normal(array.shape)
    return network.replace(moved), rng.standard_normal((2, 3, 32, 32)), np.array([3, 8])


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_weights_give_pytorchs_logits_and_gradients(dtype: Any, mode: str) -> None:
    # At seed 0 one ReLU stands within rounding of 0, where float32 may take either derivative.
    rng = np.random.default_rng(1)
    network = build("resnet20", rng).astype(dtype)
    x = rng.standard_normal((4, 3, 32, 32)).astype(dtype)
    check_same(network, twin(network, 20), x, np.array([0, 3, 9, 3]), mode)


def test_the_comparison_sees_one_wrong_number() -> None:
    rng = np.random.default_rng(0)
    network = build("resnet20", rng)
    wrong = network.params["layer2.0.conv1"]["weight"].copy()
    wrong[3, 2, 1, 0] *= 1.001
    x = rng.standard_normal((2, 3, 32, 32))
    with pytest.raises(AssertionError, match="relative error"):
        check_same(
            network.replace({"layer2.0.conv1": {"weight": wrong}}),
            twin(network, 20),
            x,
            np.array([1, 2]),
            "eval",
        )


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_and_option_gives_pytorchs_logits_and_gradients(
    depth: int, option: str, mode: str
) -> None:
    network, x, labels = generic(depth, option)
    assert len(network.weighted) == depth + (2 if option == "B" else 0)
    check_same(network, twin(network, depth, option), x, labels, mode)


class ShiftedPixels(TorchResNet):
    """The shortcut takes the second of every two pixels, where the strided convolution takes the first."""

    def shortcut(self, name: str, x: Any, new: int) -> Any:
        return super().shortcut(name, x.roll((-1, -1), (2, 3)), new)


class MeanOfPixels(TorchResNet):
    """The shortcut takes the mean of four pixels."""

    def shortcut(self, name: str, x: Any, new: int) -> Any:
        return super().shortcut(name, F.interpolate(F.avg_pool2d(x, 2), scale_factor=2), new)


class WeakShortcut(TorchResNet):
    """A thousandth is lost past a block that changes the shape."""

    def shortcut(self, name: str, x: Any, new: int) -> Any:
        return 0.999 * super().shortcut(name, x, new)


class NewChannelsLast(TorchResNet):
    """Option A with all zeros behind the old channels."""

    def shortcut(self, name: str, x: Any, new: int) -> Any:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, new))


class NormalizedTwice(TorchResNet):
    """Option B with its batch normalization twice."""

    def shortcut(self, name: str, x: Any, new: int) -> Any:
        return self.at(f"{name}.shortcut.1")(super().shortcut(name, x, new))


class ActivatedShortcut(TorchResNet):
    """Option B with a ReLU."""

    def shortcut(self, name: str, x: Any, new: int) -> Any:
        return F.relu(super().shortcut(name, x, new))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *((option, wrong) for option in "AB" for wrong in (ShiftedPixels, MeanOfPixels, WeakShortcut)),
        ("A", NewChannelsLast),
        ("B", NormalizedTwice),
        ("B", ActivatedShortcut),
    ],
)
def test_the_comparison_sees_a_wrong_shortcut(option: str, wrong: type[TorchResNet], mode: str) -> None:
    network, x, labels = generic(20, option)
    with pytest.raises(AssertionError, match="relative error"):
        check_same(network, twin(network, 20, option, wrong), x, labels, mode)


@pytest.mark.parametrize(("key", "layer"), [("weight", 0), ("weight", 1), ("bias", 1), ("running_var", 1)])
def test_the_comparison_sees_one_wrong_number_of_a_shortcut_of_the_deepest(key: str, layer: int) -> None:
    network, x, labels = generic(110, "B")
    name = f"layer3.0.shortcut.{layer}"
    wrong = network.params[name][key].copy()
    wrong.flat[5] += 1e-3
    with pytest.raises(AssertionError, match="relative error"):
        check_same(network.replace({name: {key: wrong}}), twin(network, 110, "B"), x, labels, "eval")


# ------------------------------------------------------------------ real data


def checkpoint(data_dir: Path, depth: int) -> Path:
    """The file of a public checkpoint."""
    path = data_dir / "weights" / CHECKPOINTS[depth]
    if not path.exists():
        pytest.skip(f"{path.name} is not in the data folder")
    return path


@pytest.fixture(scope="module")
def converted(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Model]:
    """The model that ``refldnq convert`` makes of the public checkpoint of a depth."""
    folder = tmp_path_factory.mktemp("converted")

    def convert(depth: int) -> Model:
        out = folder / f"resnet{depth}.h5"
        if not out.exists():
            words = ["convert", str(checkpoint(data_dir, depth)), "--arch", f"resnet{depth}", "-o", str(out)]
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 0, result.output
        return load_model(out)

    return convert


def published(path: Path, depth: int, dtype: Any) -> TorchResNet:
    """PyTorch's network with the checkpoint's arrays: what reads them shares nothing with the package."""
    module = TorchResNet(depth)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    renamed = {}
    for key, tensor in state.items():
        layer, _, name = key.removeprefix("module.").rpartition(".")
        renamed[f"{layer.replace('.', '/')}.{name}"] = tensor
    module.load_state_dict(renamed)
    module.to(torch.float64 if dtype == np.float64 else torch.float32)
    return module


def cifar_test(data_dir: Path) -> tuple[Array, Int64Array]:
    """The CIFAR-10 test images as bytes, and their labels."""
    path = data_dir / "cifar-10-batches-bin" / "test_batch.bin"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the data folder")
    records = np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


@pytest.mark.parametrize(("depth", "count"), [(20, 32), (32, 4), (56, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_checkpoint_gives_pytorchs_logits_and_gradients(
    data_dir: Path, converted: Callable[[int], Model], depth: int, count: int, dtype: Any
) -> None:
    model = converted(depth)
    images, labels = cifar_test(data_dir)
    x = np.asarray(required_preprocess(model)(images[:count], dtype))
    module = published(checkpoint(data_dir, depth), depth, dtype)
    check_same(model.network.astype(dtype), module, x, labels[:count], "eval")


@pytest.mark.parametrize(("depth", "right"), [(20, 9152), (32, 9241), (56, 9317)])
def test_checkpoint_classifies_as_published(
    data_dir: Path, converted: Callable[[int], Model], depth: int, right: int
) -> None:
    # Counts of PyTorch on the 9,977 images at hand; 2 images of slack for float32 sums in another order.
    model = converted(depth)
    images, labels = cifar_test(data_dir)
    assert len(images) == 9977
    logits = model.network.forward(np.asarray(required_preprocess(model)(images, np.float32)))
    hits = int(np.sum(logits.argmax(axis=1) == labels))
    assert abs(hits - right) <= 2, f"{hits} images right, {right} expected"
