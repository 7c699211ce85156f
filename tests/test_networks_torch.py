"""The paper's networks against PyTorch: each is written down a second time with PyTorch's layers.

The twins are those of the published codes (torchvision's names and order, DistilQuant's), at full depth and,
where the widths are options, at smaller ones; arrays find their places by name. What is compared are outputs,
gradients of all arrays and of the input, and the new running statistics, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from refldnq._typing import Array, Int64Array
from refldnq.layers import Dropout
from refldnq.loss import cross_entropy, squared_hinge
from refldnq.models import build
from refldnq.network import Network

torch = pytest.importorskip("torch", reason="PyTorch is the independent oracle")
nn = torch.nn
F = nn.functional

TOLERANCE = 1e-11
"""Relative to the largest entry of what is compared; 3e-13 was the most seen. Sums of up to 10^4 products are
rounded in another order in each of up to 54 layers, and batch normalization of few numbers magnifies. A ReLU
within rounding of 0, where the two sides may differ, would show as some 1e-3."""


class Named(nn.Module):  # type: ignore[misc, name-defined]
    """Modules by the names of checkpoints, which may have dots."""

    def put(self, name: str, module: Any) -> None:
        """Add `module` at `name`, making the containers on the way."""
        *parents, last = name.split(".")
        place = self
        for parent in parents:
            if parent not in dict(place.named_children()):
                place.add_module(parent, nn.Module())
            place = place.get_submodule(parent)
        place.add_module(last, module)

    def at(self, name: str) -> Any:
        return self.get_submodule(name)


class LeNet(Named):
    def __init__(self) -> None:
        super().__init__()
        self.put("conv1", nn.Conv2d(1, 20, 5))
        self.put("conv2", nn.Conv2d(20, 50, 5))
        self.put("ip1", nn.Linear(800, 500))
        self.put("ip2", nn.Linear(500, 10))

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(self.at("conv1")(x), 2, 2)
        x = F.max_pool2d(self.at("conv2")(x), 2, 2)
        return self.at("ip2")(F.relu(self.at("ip1")(x.flatten(1))))


class CifarNet(Named):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        channels = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        for i in range(6):
            self.put(f"conv{i + 1}", nn.Conv2d(channels[i], channels[i + 1], 3, padding=1, bias=False))
            self.put(f"bn{i + 1}", nn.BatchNorm2d(channels[i + 1]))
        for i, features in enumerate((64 * width, hidden)):
            self.put(f"fc{i + 1}", nn.Linear(features, hidden, bias=False))
            self.put(f"bn{i + 7}", nn.BatchNorm1d(hidden))
        self.put("svm", nn.Linear(hidden, 10))

    def forward(self, x: Any) -> Any:
        for i in range(1, 7):
            x = F.relu(self.at(f"bn{i}")(self.at(f"conv{i}")(x)))
            x = F.max_pool2d(x, 2) if i % 2 == 0 else x
        x = x.flatten(1)
        for i in (1, 2):
            x = F.relu(self.at(f"bn{i + 6}")(self.at(f"fc{i}")(x)))
        return self.at("svm")(x)


class ConvolForwardNet(Named):
    """DistilQuant's teacher."""

    def __init__(self, channels: tuple[int, ...], hidden: int, masks: dict[str, Any]) -> None:
        super().__init__()
        self.masks = masks
        for i, (old, new) in enumerate(zip((3, *channels[:-1]), channels, strict=True)):
            self.put(f"conv_layers.{i}", nn.Conv2d(old, new, (3, 3), padding=(1, 1)))
            self.put(f"batchNormalizationLayers.{i}", nn.BatchNorm2d(new))
        for i, features in enumerate((channels[-1] * 16, hidden)):
            self.put(f"linear_layers.{i}", nn.Linear(features, hidden))
            self.put(f"batchNormalizationLayers.{8 + i}", nn.BatchNorm1d(hidden))
        self.put("out_layer", nn.Linear(hidden, 10))

    def forward(self, x: Any) -> Any:
        for i in range(10):
            if i == 8:
                x = x.view(x.size(0), -1)
            layer = f"conv_layers.{i}" if i < 8 else f"linear_layers.{i - 8}"
            x = self.at(f"batchNormalizationLayers.{i}")(F.relu(self.at(layer)(x)))
            if i in (1, 3, 7):
                x = F.max_pool2d(x, (2, 2))
            if f"dropout{i}" in self.masks:
                x = x * self.masks[f"dropout{i}"]
        return F.relu(self.at("out_layer")(x))


class WideResNet(Named):
    """meliketoy/wide-resnet.pytorch, which DistilQuant uses."""

    def __init__(self, depth: int, k: int, bias: bool, masks: dict[str, Any]) -> None:
        super().__init__()
        self.masks = masks
        self.put("conv1", nn.Conv2d(3, 16, 3, 1, 1, bias=bias))
        planes = 16
        self.blocks: list[str] = []
        for stage, (width, first) in enumerate(((16 * k, 1), (32 * k, 2), (64 * k, 2)), 1):
            for i in range((depth - 4) // 6):
                name, stride = f"layer{stage}.{i}", first if i == 0 else 1
                self.put(f"{name}.bn1", nn.BatchNorm2d(planes))
                self.put(f"{name}.conv1", nn.Conv2d(planes, width, 3, padding=1, bias=bias))
                self.put(f"{name}.bn2", nn.BatchNorm2d(width))
                self.put(f"{name}.conv2", nn.Conv2d(width, width, 3, stride, 1, bias=bias))
                if stride != 1 or planes != width:
                    self.put(f"{name}.shortcut.0", nn.Conv2d(planes, width, 1, stride, bias=bias))
                self.blocks.append(name)
                planes = width
        self.put("bn1", nn.BatchNorm2d(planes, momentum=0.9))
        self.put("linear", nn.Linear(planes, 10))

    def forward(self, x: Any) -> Any:
        x = self.at("conv1")(x)
        for name in self.blocks:
            y = self.at(f"{name}.conv1")(F.relu(self.at(f"{name}.bn1")(x)))
            y = y * self.masks.get(f"{name}.dropout", 1.0)
            y = self.at(f"{name}.conv2")(F.relu(self.at(f"{name}.bn2")(y)))
            has = "shortcut" in dict(self.at(name).named_children())
            x = y + (self.at(f"{name}.shortcut.0")(x) if has else x)
        x = F.avg_pool2d(F.relu(self.at("bn1")(x)), 8)
        return self.at("linear")(x.view(x.size(0), -1))


class TorchvisionResNet(Named):
    """torchvision's ResNet-18, -34 and -50."""

    def __init__(self, depth: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.put("conv1", nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False))
        self.put("bn1", nn.BatchNorm2d(width))
        self.blocks: list[tuple[str, int]] = []
        inplanes, bottleneck = width, depth == 50
        for stage, blocks in enumerate({18: [2, 2, 2, 2]}.get(depth, [3, 4, 6, 3]), 1):
            planes = width * 2 ** (stage - 1)
            out = planes * (4 if bottleneck else 1)
            for i in range(blocks):
                name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
                if bottleneck:
                    shapes = [(inplanes, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
                else:
                    shapes = [(inplanes, planes, 3, stride), (planes, planes, 3, 1)]
                for j, (c, m, kernel, step) in enumerate(shapes, 1):
                    self.put(f"{name}.conv{j}", nn.Conv2d(c, m, kernel, step, kernel // 2, bias=False))
                    self.put(f"{name}.bn{j}", nn.BatchNorm2d(m))
                if stride != 1 or inplanes != out:
                    self.put(f"{name}.downsample.0", nn.Conv2d(inplanes, out, 1, stride, bias=False))
                    self.put(f"{name}.downsample.1", nn.BatchNorm2d(out))
                self.blocks.append((name, len(shapes)))
                inplanes = out
        self.put("fc", nn.Linear(inplanes, classes))

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.at("bn1")(self.at("conv1")(x))), 3, 2, 1)
        for name, depth in self.blocks:
            y = x
            for j in range(1, depth + 1):
                y = self.at(f"{name}.bn{j}")(self.at(f"{name}.conv{j}")(y))
                y = F.relu(y) if j < depth else y
            if "downsample" in dict(self.at(name).named_children()):
                x = self.at(f"{name}.downsample.1")(self.at(f"{name}.downsample.0")(x))
            x = F.relu(y + x)
        return self.at("fc")(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class AlexNet(Named):
    """torchvision's alexnet, and the same with batch normalization."""

    def __init__(self, batch_norm: bool, hidden: int, classes: int, masks: dict[str, Any]) -> None:
        super().__init__()
        self.masks = masks

        def norm(width: int, one: Any) -> list[Any]:
            return [one(width)] if batch_norm else []

        features = [nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), *norm(64, nn.BatchNorm2d)]
        features += [nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2)]
        features += [*norm(192, nn.BatchNorm2d), nn.ReLU(), nn.MaxPool2d(3, 2)]
        for c, m in ((192, 384), (384, 256), (256, 256)):
            features += [nn.Conv2d(c, m, 3, padding=1), *norm(m, nn.BatchNorm2d), nn.ReLU()]
        self.put("features", nn.Sequential(*features, nn.MaxPool2d(3, 2)))
        classifier = [nn.Identity(), nn.Linear(256 * 36, hidden), *norm(hidden, nn.BatchNorm1d), nn.ReLU()]
        classifier += [nn.Identity(), nn.Linear(hidden, hidden), *norm(hidden, nn.BatchNorm1d), nn.ReLU()]
        self.put("classifier", nn.Sequential(*classifier, nn.Linear(hidden, classes)))

    def forward(self, x: Any) -> Any:
        x = F.adaptive_avg_pool2d(self.at("features")(x), (6, 6)).flatten(1)
        for i, layer in enumerate(self.at("classifier")):
            x = layer(x * self.masks.get(f"classifier.{i}", 1.0))
        return x


class SqueezeNet(Named):
    """torchvision's squeezenet1_0 and squeezenet1_1."""

    def __init__(self, version: str, classes: int, masks: dict[str, Any]) -> None:
        super().__init__()
        self.masks = masks
        old = version == "1.0"
        self.put("features.0", nn.Conv2d(3, 96, 7, 2) if old else nn.Conv2d(3, 64, 3, 2))
        c, self.pools = (96, (2, 6, 11)) if old else (64, (2, 5, 8))
        squeezes = iter((16, 16, 32, 32, 48, 48, 64, 64))
        self.fires = [i for i in range(3, 13) if i not in self.pools]
        for i in self.fires:
            s = next(squeezes)
            self.put(f"features.{i}.squeeze", nn.Conv2d(c, s, 1))
            self.put(f"features.{i}.expand1x1", nn.Conv2d(s, 4 * s, 1))
            self.put(f"features.{i}.expand3x3", nn.Conv2d(s, 4 * s, 3, padding=1))
            c = 8 * s
        self.put("classifier.1", nn.Conv2d(512, classes, 1))

    def forward(self, x: Any) -> Any:
        x = F.relu(self.at("features.0")(x))
        for i in range(2, 13):
            if i in self.pools:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            else:
                x = F.relu(self.at(f"features.{i}.squeeze")(x))
                ends = (f"features.{i}.expand1x1", f"features.{i}.expand3x3")
                x = torch.cat([F.relu(self.at(end)(x)) for end in ends], 1)
        x = F.relu(self.at("classifier.1")(x * self.masks.get("classifier.0", 1.0)))
        return F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)


@dataclass(frozen=True)
class Case:
    """A network, its twin, and how many images."""

    name: str
    twin: Callable[[dict[str, Any]], Named]
    options: dict[str, Any] = field(default_factory=dict)
    images: int = 3
    loss: str = "cross_entropy"


TINY_VGG = (5, 4, 6, 5, 7, 6, 5, 4)
CASES = [
    Case("lenet5", lambda masks: LeNet()),
    Case("cifarnet", lambda masks: CifarNet(6, 11), {"width": 6, "hidden": 11}, 4, "squared_hinge"),
    Case(
        "vgg-distilquant",
        lambda masks: ConvolForwardNet(TINY_VGG, 9, masks),
        {"channels": TINY_VGG, "hidden": 9},
        4,
    ),
    Case("wrn28-1", lambda masks: WideResNet(28, 1, True, masks)),
    Case("wrn28-10", lambda masks: WideResNet(16, 2, False, masks), {"depth": 16, "widen": 2, "bias": False}),
    Case("resnet18", lambda masks: TorchvisionResNet(18, 7), {"size": 40, "classes": 7}),
    Case("resnet34", lambda masks: TorchvisionResNet(34, 7, 8), {"size": 33, "classes": 7, "width": 8}),
    Case("resnet50", lambda masks: TorchvisionResNet(50, 7, 8), {"size": 40, "classes": 7, "width": 8}),
    Case("alexnet", lambda masks: AlexNet(False, 16, 7, masks), {"hidden": 16, "classes": 7}, 2),
    Case("alexnet-bn", lambda masks: AlexNet(True, 16, 7, masks), {"hidden": 16, "classes": 7}, 3),
    Case("squeezenet1.0", lambda masks: SqueezeNet("1.0", 9, masks), {"size": 67, "classes": 9}),
    Case("squeezenet1.1", lambda masks: SqueezeNet("1.1", 9, masks), {"size": 64, "classes": 9}),
]


def generic(network: Network, rng: np.random.Generator) -> Network:
    """Every array random: zeros and ones of the start would hide a bias or a scale left out."""
    moved: dict[str, dict[str, Array]] = {}
    for name, own in network.params.items():
        for key, array in own.items():
            if array.ndim == 1 and key in ("weight", "running_var"):
                moved.setdefault(name, {})[key] = rng.uniform(0.5, 1.5, array.shape)
            elif array.ndim == 1:
                moved.setdefault(name, {})[key] = 0.1 * rng.standard_normal(array.shape)
    return network.replace(moved)


def twin_of(network: Network, case: Case, masks: dict[str, Array]) -> Named:
    """The PyTorch network with the same arrays, every one of them used, and the same dropout masks."""
    module = case.twin({name: torch.from_numpy(mask) for name, mask in masks.items()})
    module.double()
    state = {f"{name}.{key}": array for name, own in network.params.items() for key, array in own.items()}
    module.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in state.items()}, strict=False
    )
    wanted = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    assert wanted == set(state)
    return module


def check_same(network: Network, module: Named, case: Case, x: Array, masks: dict[str, Array]) -> None:
    """Outputs, gradients of all arrays and of the input, new running statistics, against PyTorch's."""
    mode: Any = "train" if masks else "eval"
    params = {**network.params, **{name: {"mask": mask} for name, mask in masks.items()}}
    last = network.nodes[-1].name
    labels = np.arange(len(x), dtype=np.int64)
    run = network.record(network.start(x), 0, len(network.nodes), mode=mode, params=params)
    _, dy = losses(case, run.live[last], labels)
    dinputs, gradients = network.backward(run, {last: dy}, wrt_inputs=True, params=params)

    module.train(mode == "train")
    x_torch = torch.from_numpy(x).requires_grad_()
    y_torch = module(x_torch)
    torch_loss(case, y_torch, torch.from_numpy(labels)).backward()

    pairs = {"output": (run.live[last], y_torch), "dx": (dinputs["input"], x_torch.grad)}
    for name, own in gradients.items():
        for key, gradient in own.items():
            pairs[f"d {name} {key}"] = (gradient, getattr(module.at(name), key).grad)
    for name, buffers in run.statistics.items():
        for key, array in buffers.items():
            pairs[f"{name} {key}"] = (array, getattr(module.at(name), key))
    learnable = sum(len(network.groups[group]) for group in ("weights", "biases", "affine"))
    assert len(pairs) == 2 + learnable + (len(network.groups["statistics"]) if masks else 0)
    for name, (got, tensor) in pairs.items():
        want = tensor.detach().numpy()
        scale = float(np.abs(want).max())
        if name.startswith("d ") and name.endswith(" bias"):
            # A bias before batch normalization in train mode has the gradient 0, a sum of terms that cancel:
            # what they were shows in the gradient of the layer's weight.
            scale = max(scale, float(pairs[name.removesuffix("bias") + "weight"][1].abs().max()))
        error = float(np.abs(got - want).max()) / scale
        if not error <= TOLERANCE:
            raise AssertionError(f"{name}: relative error {error:.2e} > {TOLERANCE:.0e}")


def losses(case: Case, y: Array, labels: Int64Array) -> tuple[float, Array]:
    return squared_hinge(y, labels) if case.loss == "squared_hinge" else cross_entropy(y, labels)


def torch_loss(case: Case, y: Any, labels: Any) -> Any:
    if case.loss == "cross_entropy":
        return F.cross_entropy(y, labels)
    signs = 2 * F.one_hot(labels, y.shape[1]).to(y.dtype) - 1
    return (F.relu(1 - signs * y) ** 2).sum() / len(y)


def setting(case: Case, train: bool) -> tuple[Network, Array, dict[str, Array]]:
    """A network away from its start, inputs, and in train mode a mask for every dropout layer."""
    rng = np.random.default_rng(7)
    network = generic(build(case.name, rng, **case.options), rng)
    x = rng.standard_normal((case.images, *network.input_shape))
    masks = {
        node.name: node.layer.mask(rng, (case.images, *network.shapes[node.name]))
        for node in network.nodes
        if isinstance(node.layer, Dropout)
    }
    # An empty mask would mean eval mode; one that no layer has is passed to none.
    return network, x, (masks or {"none": np.ones(1)}) if train else {}


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_and_gradients_are_pytorchs(case: Case, train: bool) -> None:
    network, x, masks = setting(case, train)
    check_same(network, twin_of(network, case, masks), case, x, masks)


PLANTED: dict[str, tuple[str, str]] = {
    "lenet5": ("conv2", "weight"),
    "cifarnet": ("svm", "bias"),
    "vgg-distilquant": ("batchNormalizationLayers.9", "weight"),
    "wrn28-1": ("layer3.0.shortcut.0", "bias"),
    "resnet18": ("layer3.0.downsample.1", "running_mean"),
    "squeezenet1.1": ("features.12.expand3x3", "bias"),
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in PLANTED], ids=lambda case: case.name)
def test_the_comparison_sees_one_wrong_number(case: Case) -> None:
    network, x, masks = setting(case, train=False)
    module = twin_of(network, case, masks)
    name, key = PLANTED[case.name]
    wrong = network.params[name][key].copy()
    wrong.flat[0] += 1e-3
    with pytest.raises(AssertionError, match="relative error"):
        check_same(network.replace({name: {key: wrong}}), module, case, x, masks)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name == "wrn28-1"], ids=lambda case: case.name
)
def test_the_comparison_sees_a_mask_that_is_not_applied(case: Case) -> None:
    network, x, masks = setting(case, train=True)
    module = twin_of(network, case, dict(list(masks.items())[1:]))
    with pytest.raises(AssertionError, match="relative error"):
        check_same(network, module, case, x, masks)
