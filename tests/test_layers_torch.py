"""Layers against PyTorch: outputs, gradients by autograd, running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CASES, Case, close
from hypothesis import given
from hypothesis import strategies as st

from refldnq._typing import Array
from refldnq.layers import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    ReLU,
    SubsampleShortcut,
    ZeroPad2d,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
functional = torch.nn.functional

TOLERANCE = {np.float64: 1e-11, np.float32: 1e-4}
"""Sums of some dozen products of numbers near 1, in another order."""


def symmetric(padding: Any) -> bool:
    top, bottom, left, right = padding
    return bool(top == bottom and left == right)


def known(case: Case) -> bool:
    """PyTorch has no asymmetric padding in ceil mode, and pads its pooling by at most half a window."""
    return not (isinstance(case.layer, MaxPool2d | AvgPool2d) and case.layer.ceil_mode) or symmetric(
        case.layer.padding
    )


def reference(case: Case, params: dict[str, Any], inputs: list[Any]) -> Any:
    """The layer as PyTorch has it; a train-mode batch norm updates the statistics in `params`."""
    layer, x = case.layer, inputs[0]
    match layer:
        case Linear():
            return functional.linear(x, params["weight"], params.get("bias"))
        case Conv2d():
            return functional.conv2d(
                functional.pad(x, sides(layer.padding)),
                params["weight"],
                params.get("bias"),
                stride=layer.stride,
                dilation=layer.dilation,
                groups=layer.groups,
            )
        case BatchNorm():
            return functional.batch_norm(
                x,
                params["running_mean"],
                params["running_var"],
                params["weight"],
                params["bias"],
                training=case.mode == "train",
                momentum=layer.momentum,
                eps=layer.eps,
            )
        case ReLU():
            return functional.relu(x)
        case MaxPool2d():
            return pool(layer, x, float("-inf"), functional.max_pool2d)
        case AvgPool2d():
            return pool(layer, x, 0.0, functional.avg_pool2d, count_include_pad=layer.count_include_pad)
        case GlobalAvgPool():
            return functional.adaptive_avg_pool2d(x, 1)
        case Flatten():
            return torch.flatten(x, 1)
        case Add():
            return sum(inputs[1:], start=x)
        case Concat():
            return torch.cat(inputs, dim=1)
        case ZeroPad2d():
            return functional.pad(x, sides(layer.padding))
        case SubsampleShortcut():
            sh, sw = layer.stride  # type: ignore[misc]
            before = (layer.out_channels - layer.in_channels) // 2
            after = layer.out_channels - layer.in_channels - before
            return functional.pad(x[:, :, ::sh, ::sw], (0, 0, 0, 0, before, after))
        case Dropout():
            return x * params["mask"] if "mask" in params else x
    raise AssertionError(f"no reference of {type(layer).__name__}")


def sides(padding: Any) -> tuple[int, int, int, int]:
    top, bottom, left, right = padding
    return left, right, top, bottom


def pool(layer: Any, x: Any, fill: float, function: Any, **options: Any) -> Any:
    arguments = {"stride": layer.stride, "ceil_mode": layer.ceil_mode, **options}
    if symmetric(layer.padding):
        return function(x, layer.kernel_size, padding=layer.padding[::2], **arguments)
    return function(functional.pad(x, sides(layer.padding), value=fill), layer.kernel_size, **arguments)


def compare(case: Case, dtype: Any) -> None:
    params, inputs, tolerance = case.params(dtype), case.inputs(dtype), TOLERANCE[dtype]
    arrays = {name: torch.from_numpy(array.copy()) for name, array in params.items()}
    points = [torch.from_numpy(x.copy()).requires_grad_() for x in inputs]
    moving = sorted(set(case.layer.parameter_shapes()) - set(case.layer.buffers))
    for name in moving:
        arrays[name].requires_grad_()
    want = reference(case, arrays, points)
    y, tape = case.layer.forward(params, *inputs, mode=case.mode)
    close(y, numpy(want), tolerance)
    v = np.random.default_rng(case.seed).standard_normal(y.shape).astype(dtype)
    want.backward(torch.from_numpy(v))
    grads, dp = case.layer.backward(params, v, tape)
    for got, point in zip(grads, points, strict=True):
        close(got, numpy(point.grad), tolerance)
    assert sorted(dp) == moving
    for name in moving:
        close(dp[name], numpy(arrays[name].grad), tolerance)
    for name, got in case.layer.new_statistics(params, tape).items():
        close(got, numpy(arrays[name]), tolerance)


def numpy(tensor: Any) -> Array:
    array: Array = tensor.detach().numpy()
    return array


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", [case for case in CASES if known(case)], ids=lambda case: case.id)
def test_layer_is_that_of_torch(case: Case, dtype: Any) -> None:
    compare(case, dtype)


@given(
    kernel=st.tuples(*[st.integers(1, 4)] * 2),
    stride=st.tuples(*[st.integers(1, 4)] * 2),
    halves=st.tuples(*[st.booleans()] * 2),
    extra=st.tuples(*[st.integers(0, 5)] * 2),
    ceil_mode=st.booleans(),
    include=st.booleans(),
)
def test_pooling_of_any_geometry_is_that_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    halves: tuple[bool, bool],
    extra: tuple[int, int],
    ceil_mode: bool,
    include: bool,
) -> None:
    """Windows may be larger than the image in ceil mode, by PyTorch's rule."""
    padding = tuple(k // 2 if half else 0 for k, half in zip(kernel, halves, strict=True))
    size = tuple(
        max(1, k - 2 * p - (ceil_mode and s > 1)) + e
        for k, p, s, e in zip(kernel, padding, stride, extra, strict=True)
    )
    for layer in (
        MaxPool2d(kernel, stride, padding, ceil_mode),  # type: ignore[arg-type]
        AvgPool2d(kernel, stride, padding, ceil_mode, count_include_pad=include),  # type: ignore[arg-type]
    ):
        compare(Case("pool", layer, ((2, 2, *size),), 21), np.float64)


def test_ties_and_kinks_are_those_of_torch() -> None:
    """Integers, so that windows hold equal pixels and ReLU sees zeros."""
    x = np.random.default_rng(22).integers(-1, 2, (2, 3, 6, 7)).astype(np.float64)
    for layer in (ReLU(), MaxPool2d(3, 2, 1), MaxPool2d(2)):
        case = Case("kinks", layer, (x.shape,), 0)
        point = torch.from_numpy(x.copy()).requires_grad_()
        reference(case, {}, [point]).sum().backward()
        y, tape = layer.forward({}, x)
        np.testing.assert_array_equal(layer.backward({}, np.ones_like(y), tape)[0][0], numpy(point.grad))


def test_planted_difference_is_seen() -> None:
    case = Case("batchnorm", BatchNorm(3, eps=0.1), ((6, 3),), 23, "train")
    wrong = Case("batchnorm", BatchNorm(3, eps=0.1, momentum=0.2), ((6, 3),), 23, "eval")
    compare(case, np.float64)
    y = case.layer.forward(case.params(), *case.inputs(), mode="train")[0]
    with pytest.raises(AssertionError):
        close(wrong.layer.forward(wrong.params(), *wrong.inputs())[0], y, TOLERANCE[np.float64])
