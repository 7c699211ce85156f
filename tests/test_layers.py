"""Layers: every check on every case, identities in integers, random geometries, errors, planted bugs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cases import BY_ID, CASES, CHECKS, Case, close, geometry, pooling
from hypothesis import given
from hypothesis import strategies as st

from refldnq._kernels import threads
from refldnq._typing import Array, Params, Shape
from refldnq.im2col import Window
from refldnq.layers import (
    LAYERS,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool2d,
    Mode,
    ReLU,
    SubsampleShortcut,
    Tape,
    ZeroPad2d,
)
from refldnq.layers.norms import spectral_norm_upper
from refldnq.verify.naive import layers as naive


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("case", CASES, ids=BY_ID)
def test_check(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


def test_every_layer_has_a_case() -> None:
    assert {type(case.layer) for case in CASES} == set(LAYERS.values())
    assert len(BY_ID) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=BY_ID)
def test_hyper_parameters_survive_json(case: Case) -> None:
    fields = json.loads(json.dumps(dataclasses.asdict(case.layer)))
    assert LAYERS[type(case.layer).__name__](**fields) == case.layer


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("layer", "shape", "mode"),
    [
        (Conv2d(2, 3, 3, padding=1), (5, 2, 4, 4), "eval"),
        (BatchNorm(5), (5, 5, 2, 2), "train"),
        (MaxPool2d(2), (5, 20, 4, 4), "eval"),
        (AvgPool2d(2), (5, 20, 4, 4), "eval"),
        (BatchNorm(5), (5, 5, 2, 2), "eval"),
        (ReLU(), (5, 77), "eval"),
        (Add(), (5, 77), "eval"),
        (GlobalAvgPool(), (5, 3, 17, 31), "eval"),
        (SubsampleShortcut(2, 5), (5, 2, 5, 7), "eval"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else None,
)
def test_chunks_do_not_change_results(
    layer: Layer, shape: Shape, mode: Mode, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("chunks", layer, (shape,), 7, mode)
    params, inputs = case.params(), case.inputs()
    v = np.random.default_rng(8).standard_normal((shape[0], *layer.output_shape(shape[1:])))

    def results() -> list[Array]:
        y, tape = layer.forward(params, *inputs, mode=mode)
        grads, dp = layer.backward(params, v, tape)
        return [y, *grads, *dp.values()]

    monkeypatch.setattr(threads, "STREAM", 1)  # else work as small as this is not split
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    one = results()
    monkeypatch.setattr(threads, "thread_count", lambda: parts)
    assert len(threads.chunks(shape[0], threads.worth(1))) == parts
    for got, want in zip(results(), one, strict=True):
        close(got, want, 1e-13 if isinstance(layer, Conv2d) else 0.0)  # its sums follow the chunks


@pytest.mark.parametrize("size", [1, 255, 257, 1000])
def test_global_average_pool_rounds_a_sum_in_float64(size: int) -> None:
    """10^8 and many ones: a sum in float32 would lose the ones."""
    x = np.ones((1, 1, 1, size), np.float32)
    x[..., 0] = 1e8
    y, _ = GlobalAvgPool().forward({}, x)
    assert y.dtype == np.float32
    assert y.ravel()[0] == np.float32((1e8 + size - 1) / size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (ReLU(), (4, 3, 5, 7)),
        (Add(), (4, 3, 5, 7)),
        (BatchNorm(3), (4, 3, 5, 7)),
        (GlobalAvgPool(), (4, 3, 5, 7)),
        (SubsampleShortcut(3, 6), (4, 3, 5, 7)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else None,
)
def test_strides_change_no_bit(layer: Layer, shape: Shape, dtype: Any) -> None:
    """A view with gaps, and another order of axes, in place of inputs and gradients in one piece."""
    rng = np.random.default_rng(9)
    params = {key: rng.random(size).astype(dtype) for key, size in layer.parameter_shapes().items()}
    x = rng.standard_normal(shape).astype(dtype)
    v = rng.standard_normal((shape[0], *layer.output_shape(shape[1:]))).astype(dtype)

    def results(x: Array, v: Array) -> list[Array]:
        y, tape = layer.forward(params, *([x, x] if isinstance(layer, Add) else [x]))
        grads, dp = layer.backward(params, v, tape)
        return [y, *grads, *dp.values()]

    def gaps(a: Array) -> Array:
        wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, dtype)
        wide[..., ::2] = a
        return wide[..., ::2]

    def turned(a: Array) -> Array:
        return np.ascontiguousarray(a.T).T

    for view in (gaps, turned):
        for got, want in zip(results(view(x), view(v)), results(x, v), strict=True):
            assert got.dtype == dtype
            assert np.array_equal(got, want)


# ---------------------------------------------------------------------- exact identities


def integers(seed: int, shape: Shape) -> Array:
    return np.asarray(np.random.default_rng(seed).integers(-3, 4, shape), dtype=np.float64)


def exact(array: Array) -> Array:
    return np.asarray(np.vectorize(lambda value: Fraction(int(value)), otypes=[object])(array))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Linear(3, 2), (4, 3)),
        (Conv2d(1, 2, 2, padding=(1, 0, 0, 1)), (2, 1, 3, 3)),
        (Conv2d(2, 2, (2, 1), stride=2, groups=2), (3, 2, 4, 3)),
        (Conv2d(1, 2, (1, 2), dilation=(1, 2)), (2, 1, 2, 4)),
    ],
    ids=["linear", "conv", "conv-depthwise-stride", "conv-dilation"],
)
@pytest.mark.parametrize("bias", [False, True])
def test_hessian_is_that_of_second_differences_exactly(layer: Any, shape: Shape, bias: bool) -> None:
    """Integers: the full Hessian in Fractions is I times the layer's block, with no rounding anywhere."""
    x = integers(1, shape)
    packed = (layer.parameter_shapes()["weight"], (layer.parameter_shapes()["bias"]))
    block = exact_hessian(layer, x, bias)
    groups, d, _ = block.shape
    m = packed[1][0] // groups

    def forward(theta: Array) -> Array:
        arrays = layer.unpack(theta, bias=bias)
        if isinstance(layer, Linear):
            return naive.linear(exact(x), arrays["weight"], arrays.get("bias"))
        return naive.conv2d(exact(x), arrays["weight"], arrays.get("bias"), **geometry(layer))

    theta = exact(integers(2, (groups, d, m)))
    full = naive.second_differences(
        lambda delta: naive.layer_error(forward, theta, delta), theta.shape, Fraction(1)
    ).reshape(groups, d, m, groups, d, m)
    for g, o, g2, o2 in np.ndindex(groups, m, groups, m):
        want = block[g] if (g, o) == (g2, o2) else 0 * block[g]
        assert (full[g, :, o, g2, :, o2] == want).all()
    # The library's sums of integer products are exact, so only the division by n can round.
    n = shape[0]
    assert (exact(layer.gram(x, bias=bias)) * Fraction(2, n) == block).all()


def exact_hessian(layer: Linear | Conv2d, x: Array, bias: bool) -> Array:
    if isinstance(layer, Linear):
        return naive.linear_hessian(exact(x), bias=bias)
    return naive.conv2d_hessian(exact(x), kernel=layer.kernel_size, **geometry(layer), bias=bias)  # type: ignore[arg-type]


def test_layer_error_is_an_even_quadratic_form_exactly() -> None:
    """E(-d) = E(d) and E(t d) = t^2 E(d): no gradient and no cubic remainder. [LDNQ] (9)."""
    x, theta, delta = (
        exact(integers(seed, shape)) for seed, shape in ((3, (4, 3)), (4, (2, 3)), (5, (2, 3)))
    )

    def error(change: Array) -> Any:
        return naive.layer_error(lambda w: naive.linear(x, w), theta, change)

    assert error(-delta) == error(delta)
    assert error(7 * delta) == 49 * error(delta)


def test_hessian_has_the_factor_two() -> None:
    """The counterexample of a Hessian without the 2: E = 5, half its quadratic form would be 5/2."""
    x = np.array([[1.0, 0.0], [2.0, 1.0]])
    delta = np.array([[1.0], [1.0]])
    layer = Linear(2, 1, bias=False)
    error = float((((x @ delta) ** 2).sum()) / 2)
    assert error == 5.0
    assert 0.5 * float((delta.T @ layer.hessian(x)[0] @ delta)[0, 0]) == error


def test_hessian_counts_images_not_positions() -> None:
    layer = Conv2d(1, 1, 1, bias=False)
    assert layer.hessian(np.ones((3, 1, 8, 8))).item() == 2 * 64


def test_hessian_in_float32_is_accumulated_in_float64() -> None:
    x = np.full((4, 1, 2, 2), 1.0 + 2.0**-12, dtype=np.float32)
    hessian = Conv2d(1, 1, 1, bias=False).hessian(x)
    assert hessian.dtype == np.float64
    assert hessian.item() == 2 * 4 * (1.0 + 2.0**-12) ** 2


def test_hessian_of_batchnorm_in_train_mode() -> None:
    """Off the diagonal 0; first entry M v / (v + eps) times 2/n."""
    case = BY_ID["batchnorm-images-train"]
    (x,) = case.inputs()
    layer = case.layer
    assert isinstance(layer, BatchNorm)
    blocks = layer.hessian(case.params(), x, mode="train")
    variance, count = x.var(axis=(0, 2, 3)), x.size // 3
    close(blocks[:, 0, 1], np.zeros(3), 1e-14)
    close(blocks[:, 0, 0], 2 / x.shape[0] * count * variance / (variance + layer.eps), 1e-13)


@pytest.mark.parametrize("case_id", ["batchnorm-features-train", "batchnorm-images-train"])
def test_the_layer_error_of_batchnorm_in_train_mode_sees_another_hessian(case_id: str) -> None:
    """The identity alone, before the comparison with the formula: the running statistics have another H."""
    case = BY_ID[case_id]
    assert isinstance(case.layer, BatchNorm)
    layer = BatchNormHessianOfRunningStatistics(case.layer.features, case.layer.eps, case.layer.momentum)
    CHECKS["hessian"](dataclasses.replace(case, layer=layer, mode="eval"))  # where nothing is wrong with it
    with pytest.raises(AssertionError, match="E and its quadratic model differ"):
        CHECKS["hessian"](dataclasses.replace(case, layer=layer))


# ---------------------------------------------------------------------- geometries at random


@st.composite
def windows(draw: st.DrawFn, *, dilated: bool) -> tuple[Window, Shape]:
    """A window and an image (h, w) into which it fits at least once."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 2))
    stride = draw(st.tuples(*[st.integers(1, 4)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, 3)] * 2)) if dilated else (1, 1)
    largest = [3, 3, 3, 3] if dilated else [k - 1 for k in kernel for _ in range(2)]
    padding = draw(st.tuples(*[st.integers(0, side) for side in largest]))
    size = []
    for axis in range(2):
        reach = dilation[axis] * (kernel[axis] - 1) + 1 - sum(padding[2 * axis : 2 * axis + 2])
        size.append(draw(st.integers(max(1, reach), max(1, reach) + 4)))
    return Window(kernel, stride, padding, dilation), tuple(size)


@given(windows(dilated=True), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.booleans())
def test_conv_of_any_geometry(
    drawn: tuple[Window, Shape], groups: int, channels: int, outputs: int, bias: bool
) -> None:
    window, size = drawn
    layer = Conv2d(
        groups * channels,
        groups * outputs,
        window.kernel,
        window.stride,
        window.padding,
        window.dilation,
        groups,
        bias,
    )
    case = Case("conv", layer, ((2, groups * channels, *size),), 11)
    for name in ("twin", "shape", "adjoint", "exact", "hessian", "pack", "lipschitz"):
        CHECKS[name](case)


@given(windows(dilated=False), st.booleans(), st.booleans())
def test_pooling_of_any_geometry(drawn: tuple[Window, Shape], ceil_mode: bool, include: bool) -> None:
    window, size = drawn
    arguments = (window.kernel, window.stride, window.padding, ceil_mode)
    for layer in (MaxPool2d(*arguments), AvgPool2d(*arguments, count_include_pad=include)):
        case = Case("pool", layer, ((2, 2, *size),), 12)
        for name in ("twin", "shape", "adjoint", "exact", "kinks", "lipschitz"):
            CHECKS[name](case)


# ---------------------------------------------------------------------- constants


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 6), st.integers(-300, 300))
def test_spectral_norm_upper_bounds_a_norm_known_exactly(seed: int, m: int, k: int, exponent: int) -> None:
    """A matrix u v^T of integers has the norm |u| |v|, whose square is an integer."""
    rng = np.random.default_rng(seed)
    u, v = rng.integers(-50, 51, m), rng.integers(-50, 51, k)
    square = Fraction(int(u @ u) * int(v @ v)) * Fraction(2) ** (2 * exponent)
    bound = Fraction(spectral_norm_upper(np.ldexp(np.outer(u, v).astype(np.float64), exponent)))
    assert square <= bound**2 <= square * (1 + Fraction(1, 10**11))


def test_spectral_norm_upper_is_tight_on_a_larger_matrix() -> None:
    a = np.random.default_rng(14).standard_normal((60, 90))
    norm = np.linalg.norm(a, 2)
    assert norm * (1 - 1e-14) <= spectral_norm_upper(a) <= norm * (1 + 1e-10)


def test_maxpool_attains_its_constant() -> None:
    """Raising a pixel that is the maximum of all its windows raises all of them."""
    layer, x = MaxPool2d(3, 2), np.zeros((1, 1, 5, 5))
    moved = x.copy()
    moved[0, 0, 2, 2] = 0.5
    change = np.linalg.norm(layer.forward({}, moved)[0] - layer.forward({}, x)[0])
    assert change / 0.5 == layer.lipschitz({}, (1, 5, 5))[0] == 2.0
    assert MaxPool2d(2).lipschitz({}, (1, 4, 4)) == (1.0,)
    assert MaxPool2d(3, 1, 1).lipschitz({}, (1, 8, 8)) == (3.0,)


def test_frobenius_norm_of_a_kernel_is_no_bound_for_a_convolution() -> None:
    """[LDNQ] (21) with the kernel's norm fails: ones on a map of ones; the layer's own constant holds."""
    layer, x = Conv2d(1, 1, 3, padding=1, bias=False), np.ones((1, 1, 5, 5))
    params = {"weight": np.ones((1, 1, 3, 3))}
    square = float((layer.forward(params, x)[0] ** 2).sum())
    assert square == 1225.0 > 9 * 25
    assert square <= layer.lipschitz(params, (1, 5, 5))[0] ** 2 * 25


# ---------------------------------------------------------------------- values that need care


def test_maxpool_lets_nan_through() -> None:
    x = np.array([[[[1.0, np.nan, 2.0, 3.0]]]])
    y, tape = MaxPool2d((1, 2)).forward({}, x)
    assert np.isnan(y[0, 0, 0, 0]) and y[0, 0, 0, 1] == 3.0
    assert MaxPool2d((1, 2)).backward({}, np.ones_like(y), tape)[0][0].tolist() == [[[[0.0, 1.0, 0.0, 1.0]]]]


def test_maxpool_of_minus_infinity_points_into_the_window() -> None:
    x = np.full((1, 1, 2, 2), -np.inf)
    y, tape = MaxPool2d(2, padding=1, stride=2).forward({}, x)
    assert (y == -np.inf).all()
    assert MaxPool2d(2, padding=1, stride=2).backward({}, np.ones_like(y), tape)[0][0].tolist() == [
        [[[1, 1], [1, 1]]]
    ]


@pytest.mark.parametrize("case", [c for c in CASES if c.mode == "eval"], ids=lambda case: case.id)
def test_no_image_is_allowed(case: Case) -> None:
    empty = [x[:0] for x in case.inputs()]
    y, tape = case.layer.forward(case.params(), *empty)
    assert y.shape[0] == 0
    grads, dp = case.layer.backward(case.params(), y, tape)
    assert [g.shape for g in grads] == [x.shape for x in empty]
    assert all((array == 0).all() for array in dp.values())


def test_dropout_keeps_the_expectation() -> None:
    """A share p of zeros, the rest scaled up; six standard deviations."""
    mask = Dropout(0.3).mask(np.random.default_rng(15), (100_000,))
    assert set(np.unique(mask)) == {0.0, 1 / 0.7}
    assert abs(float(mask.mean()) - 1.0) < 6 * np.sqrt(0.3 / 0.7 / 100_000)


# ---------------------------------------------------------------------- errors

X4 = np.zeros((2, 3, 4, 4))
LINEAR = {"weight": np.zeros((2, 3)), "bias": np.zeros(2)}
CONV = {"weight": np.zeros((2, 3, 3, 3)), "bias": np.zeros(2)}

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "linear-rank": (lambda: Linear(3, 2).forward(LINEAR, X4), ValueError, r"`x` must have shape \(n, 3\)"),
    "linear-features": (lambda: Linear(3, 2).forward(LINEAR, np.zeros((2, 4))), ValueError, r"got \(n, 4\)"),
    "linear-dtype": (
        lambda: Linear(3, 2).forward(LINEAR, np.zeros((2, 3), np.float32)),
        TypeError,
        "`weight` must have the input's type float32",
    ),
    "linear-integers": (
        lambda: Linear(3, 2).forward({}, np.zeros((2, 3), int)),
        TypeError,
        "float32 or float64",
    ),
    "linear-dy": (
        lambda: Linear(3, 2).backward(LINEAR, np.zeros((2, 3)), np.zeros((2, 3))),
        ValueError,
        r"`dy` must have shape \(2, 2\)",
    ),
    "linear-zero": (lambda: Linear(0, 2), ValueError, "`in_features` must be an integer of at least 1"),
    "linear-float": (lambda: Linear(3.0, 2), TypeError, "`in_features` must be an integer"),  # type: ignore[arg-type]
    "linear-pack-bias": (
        lambda: Linear(3, 2, bias=False).pack(LINEAR, bias=True),
        ValueError,
        "`bias` must be False",
    ),
    "linear-unpack": (
        lambda: Linear(3, 2).unpack(np.zeros((1, 3, 2)), bias=True),
        ValueError,
        r"`packed` must have shape \(1, 4, 2\)",
    ),
    "linear-hessian-empty": (lambda: Linear(3, 2).hessian(np.zeros((0, 3))), ValueError, "`n` must be"),
    "linear-gram": (lambda: Linear(3, 2).gram(np.zeros((2, 4))), ValueError, r"got \(n, 4\)"),
    "conv-channels": (lambda: Conv2d(4, 2, 3).forward(CONV, X4), ValueError, r"\(n, 4, h, w\)"),
    "conv-rank": (lambda: Conv2d(3, 2, 3).forward(CONV, X4[0]), ValueError, "`x` must have shape"),
    "conv-window": (lambda: Conv2d(3, 2, 5).output_shape((3, 4, 4)), ValueError, "window"),
    "conv-dtype": (lambda: Conv2d(3, 2, 3).forward(CONV, X4.astype(np.float32)), TypeError, "float32"),
    "conv-dy": (lambda: Conv2d(3, 2, 3).backward(CONV, X4, X4), ValueError, "`dy` must have shape"),
    "conv-groups": (lambda: Conv2d(3, 2, 3, groups=2), ValueError, "`groups` must divide"),
    "conv-stride": (
        lambda: Conv2d(3, 2, 3, stride=0),
        ValueError,
        "`stride` must be an integer of at least 1",
    ),
    "conv-kernel": (lambda: Conv2d(3, 2, (3, 3, 3)), ValueError, "`kernel_size` must be"),  # type: ignore[arg-type]
    "conv-padding": (lambda: Conv2d(3, 2, 3, padding=(1, 2, 3)), ValueError, "`padding` must be"),  # type: ignore[arg-type]
    "conv-hessian-empty": (lambda: Conv2d(3, 2, 3).hessian(X4[:0]), ValueError, "`n` must be"),
    "batchnorm-channels": (lambda: BatchNorm(2).output_shape((3, 4, 4)), ValueError, r"got \(n, 3, 4, 4\)"),
    "batchnorm-rank": (lambda: BatchNorm(3).output_shape((3, 4)), ValueError, "`x` must have shape"),
    "batchnorm-one-value": (
        lambda: BatchNorm(1).forward(
            dict.fromkeys(BatchNorm(1).parameter_shapes(), np.ones(1)), np.ones((1, 1)), mode="train"
        ),
        ValueError,
        "at least two values",
    ),
    "batchnorm-eps": (lambda: BatchNorm(3, eps=0.0), ValueError, "`eps` must be"),
    "batchnorm-momentum": (lambda: BatchNorm(3, momentum=1.5), ValueError, "`momentum` must be"),
    "maxpool-rank": (lambda: MaxPool2d(2).forward({}, X4[0]), ValueError, r"got \(n, 4, 4\)"),
    "maxpool-window": (lambda: MaxPool2d(5).forward({}, X4), ValueError, "must be as large as the window"),
    "maxpool-padding": (lambda: MaxPool2d(2, padding=2), ValueError, "`padding` must be smaller"),
    "maxpool-side": (
        lambda: MaxPool2d((2, 4), padding=(0, 2, 0, 0)),
        ValueError,
        "`padding` must be smaller",
    ),
    "maxpool-empty": (lambda: MaxPool2d(2, padding=1).output_shape((1, 0, 4)), ValueError, "window"),
    "maxpool-integers": (lambda: MaxPool2d(2).forward({}, X4.astype(int)), TypeError, "float32 or float64"),
    "maxpool-dy": (
        lambda: MaxPool2d(2).backward({}, X4, MaxPool2d(2).forward({}, X4)[1]),
        ValueError,
        r"`dy` must have shape \(2, 3, 2, 2\)",
    ),
    "avgpool-dy": (lambda: AvgPool2d(2).backward({}, X4, X4), ValueError, "`dy` must have shape"),
    "avgpool-negative": (lambda: AvgPool2d(2, padding=-1), ValueError, "`padding` must be"),
    "globalavgpool-rank": (lambda: GlobalAvgPool().output_shape((3,)), ValueError, r"got \(n, 3\)"),
    "globalavgpool-empty": (
        lambda: GlobalAvgPool().output_shape((3, 0, 4)),
        ValueError,
        "at least one pixel",
    ),
    "add-shapes": (lambda: Add().forward({}, X4, X4[:, :2]), ValueError, "`inputs` must have the same shape"),
    "add-types": (lambda: Add().forward({}, X4, X4.astype(np.float32)), TypeError, "same type"),
    "add-none": (lambda: Add().forward({}), ValueError, "at least one array"),
    "concat-shapes": (lambda: Concat().output_shape((2, 3, 4), (2, 4, 3)), ValueError, "behind the channels"),
    "concat-images": (lambda: Concat().forward({}, X4, X4[:1]), ValueError, "equally many images"),
    "concat-types": (lambda: Concat().forward({}, X4, X4.astype(np.float32)), TypeError, "same type"),
    "concat-none": (lambda: Concat().output_shape(), ValueError, "at least one array"),
    "zeropad-rank": (lambda: ZeroPad2d(1).forward({}, X4[0]), ValueError, r"got \(n, 4, 4\)"),
    "zeropad-negative": (lambda: ZeroPad2d((0, 0, -1, 0)), ValueError, "`padding` must be"),
    "shortcut-channels": (lambda: SubsampleShortcut(2, 4).forward({}, X4), ValueError, r"\(n, 2, h, w\)"),
    "shortcut-fewer": (lambda: SubsampleShortcut(4, 2), ValueError, "`out_channels` must be at least"),
    "dropout-p": (lambda: Dropout(1.0), ValueError, "`p` must be smaller than 1"),
    "dropout-mask": (lambda: Dropout().forward({"mask": X4[:1]}, X4), ValueError, "`mask` must have shape"),
    "flatten-dy": (
        lambda: Flatten().backward({}, X4, X4),
        ValueError,
        r"`dy` must have shape \(2, 48\)",
    ),
    "relu-dy": (lambda: ReLU().backward({}, X4[:1], X4), ValueError, "`dy` must have shape"),
}


@pytest.mark.parametrize(("call", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments_are_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------------- planted bugs

Grads = tuple[tuple[Array, ...], dict[str, Array]]


class ConvIgnoresStrideBackward(Conv2d):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        _, grads = super().backward(params, dy, tape)
        dense = Conv2d(self.in_channels, self.out_channels, self.kernel_size, 1, self.padding)
        wide = np.zeros((dy.shape[0], *dense.output_shape(tape.shape[1:])))
        wide[:, :, : dy.shape[2], : dy.shape[3]] = dy
        return dense.backward(params, wide, tape)[0], grads


class ConvWithoutFlip(Conv2d):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        _, grads = super().backward(params, dy, tape)
        back = Conv2d(self.out_channels, self.in_channels, self.kernel_size, padding=1, bias=False)
        weight = np.ascontiguousarray(params["weight"].transpose(1, 0, 2, 3))
        return (back.forward({"weight": weight}, dy)[0],), grads


class ConvPaddingOffByOne(Conv2d):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        y, _ = super().forward(params, np.roll(inputs[0], 1, axis=2), mode=mode)
        return y, inputs[0]


class ConvTransposedKernel(Conv2d):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        return super().forward({**params, "weight": params["weight"].transpose(0, 1, 3, 2)}, *inputs)


class ConvMixesGroups(Conv2d):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        return super().forward({**params, "weight": np.roll(params["weight"], 1, axis=0)}, *inputs)


class ConvForgetsBiasGradient(Conv2d):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        dx, grads = super().backward(params, dy, tape)
        return dx, {**grads, "bias": dy.mean(axis=(0, 2, 3))}


class ConvGroupsSwappedInHessian(Conv2d):
    def gram(self, x: Array, *, bias: bool = False) -> Array:
        return super().gram(x, bias=bias)[::-1].copy()


class ConvMeanOverPositions(Conv2d):
    def hessian(self, x: Array, *, bias: bool = False) -> Array:
        _, ho, wo = self.output_shape(x.shape[1:])
        return super().hessian(x, bias=bias) / (ho * wo)


class ConvFrobeniusConstant(Conv2d):
    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        return (float(np.linalg.norm(params["weight"].reshape(self.out_channels, -1), 2)),)


class ConvKernelOrderInPack(Conv2d):
    def _swap(self, packed: Array, d: int) -> Array:
        c = self.in_channels // self.groups
        rows = np.arange(d).reshape(c, -1).T.ravel()
        return np.concatenate([packed[:, rows], packed[:, d:]], axis=1)

    def pack(self, params: Params, *, bias: bool = False) -> Array:
        return self._swap(super().pack(params, bias=bias), self.patch_size)


class LinearWithoutFactorTwo(Linear):
    def hessian(self, x: Array, *, bias: bool = False) -> Array:
        return super().hessian(x, bias=bias) / 2


class LinearBiasRowFirst(Linear):
    def pack(self, params: Params, *, bias: bool = False) -> Array:
        packed = super().pack(params, bias=bias)
        return np.roll(packed, 1, axis=1) if bias else packed

    def unpack(self, packed: Array, *, bias: bool = False) -> dict[str, Array]:
        return super().unpack(np.roll(packed, -1, axis=1) if bias else packed, bias=bias)


class LinearMeanGradient(Linear):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        dx, grads = super().backward(params, dy, tape)
        return dx, {name: array / dy.shape[0] for name, array in grads.items()}


class LinearJvpWithoutParameters(Linear):
    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        return super().jvp(params, tape, dinputs, {})


class LinearWritesIntoGradient(Linear):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        grads = super().backward(params, dy, tape)
        dy *= 0.0
        return grads


class LinearUpcasts(Linear):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        y, tape = super().forward(params, *inputs)
        return y.astype(np.float64), tape


class LinearConstantTooSmall(Linear):
    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        return (float(np.abs(params["weight"]).max()),)


class LinearAlwaysComputes(Linear):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        return super().backward(params, dy, tape)


class LinearUpcastsGradient(Linear):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        return super().backward(params, dy, tape.astype(dy.dtype), **wanted)


class LinearNarrowsParameterDirection(Linear):
    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        narrow = {name: array.astype(tape.dtype) for name, array in dparams.items()}
        return super().jvp(params, tape, dinputs, narrow)


class BatchNormUnbiasedNormalization(BatchNorm):
    def _moments(self, x: Array) -> tuple[Array, Array]:
        mean, variance = super()._moments(x)
        count = x.size // self.features
        return mean, variance * (count / (count - 1))


class BatchNormBiasedStatistics(BatchNorm):
    def new_statistics(self, params: Params, tape: Tape) -> dict[str, Array]:
        new = super().new_statistics(params, tape)
        if not new:
            return new
        keep = 1 - self.momentum
        return {**new, "running_var": keep * params["running_var"] + self.momentum * tape.variance}


class BatchNormMomentumReversed(BatchNorm):
    def new_statistics(self, params: Params, tape: Tape) -> dict[str, Array]:
        return BatchNorm(self.features, self.eps, 1 - self.momentum).new_statistics(params, tape)


class BatchNormEpsOutsideTheRoot(BatchNorm):
    def _inverse(self, variance: Array) -> Array:
        return np.asarray(1.0 / (np.sqrt(variance) + self.eps))


class BatchNormHessianOfRunningStatistics(BatchNorm):
    def hessian(self, params: Params, x: Array, *, mode: Mode = "eval") -> Array:
        return super().hessian(params, x)


class BatchNormFrozenVarianceBackward(BatchNorm):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        _, grads = super().backward(params, dy, tape)
        scale = params["weight"] / np.sqrt(tape.variance + self.eps)
        axes = (0, *range(2, dy.ndim))
        return ((dy - dy.mean(axis=axes, keepdims=True)) * scale.reshape(-1, *[1] * (dy.ndim - 2)),), grads


class BatchNormEvalDerivativeInTrain(BatchNorm):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        y, tape = super().forward(params, *inputs, mode=mode)
        return y, tape._replace(train=False)


class ReLUOneAtZero(ReLU):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        return (np.where(tape >= 0, dy, 0.0),), {}

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        return super().forward(params, *inputs)[0], inputs[0]


class ReLUNarrowsGradient(ReLU):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        return super().backward(params, dy.astype(tape.dtype), tape, **wanted)


class ReLULeaksBackward(ReLU):
    def _mask(self, dy: Array, y: Array) -> Array:
        return np.where(y > 0, dy, 0.01 * dy)


class MaxPoolLastTie(MaxPool2d):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        kernel, stride, padding = self.kernel_size, self.stride, self.padding
        top, bottom, left, right = padding  # type: ignore[misc]
        mirrored = MaxPool2d(kernel, stride, (bottom, top, right, left))
        y, tape = mirrored.forward({}, np.ascontiguousarray(inputs[0][:, :, ::-1, ::-1]))
        last = inputs[0][0, 0].size - 1 - tape.where
        shape = (last.shape[0], *y.shape[2:])
        return (
            np.ascontiguousarray(y[:, :, ::-1, ::-1]),
            tape._replace(where=np.ascontiguousarray(last.reshape(shape)[:, ::-1, ::-1]).reshape(last.shape)),
        )


class MaxPoolZeroPadding(MaxPool2d):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        _, tape = super().forward(params, *inputs)
        padded = ZeroPad2d(self.padding).forward({}, inputs[0])[0]
        return MaxPool2d(self.kernel_size, self.stride).forward({}, padded)[0], tape


class MaxPoolConstantOne(MaxPool2d):
    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        return (1.0,)


class AvgPoolCountsPadding(AvgPool2d):
    def _divisors(self, shape: Shape) -> tuple[Array, Array]:
        return AvgPool2d(self.kernel_size, self.stride, self.padding, self.ceil_mode)._divisors(shape)


class AvgPoolFullWindowInCeilMode(AvgPool2d):
    def _lengths(self, size: int, out: int, kernel: int, stride: int, before: int, after: int) -> Array:
        return np.full(out, float(kernel))


class PoolIgnoresCeil(MaxPool2d):
    def _positions(self, size: int, kernel: int, stride: int, before: int, after: int) -> int:
        return (size + before + after - kernel) // stride + 1


class GlobalAvgPoolSums(GlobalAvgPool):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        return (np.broadcast_to(dy, tape.shape).copy(),), {}


class FlattenColumnMajor(Flatten):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        (x,) = inputs
        return x.transpose(0, 2, 3, 1).reshape(x.shape[0], -1), x.shape


class FlattenTakesIntegers(Flatten):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        (x,) = inputs
        y, tape = super().forward(params, x.astype(np.float64), mode=mode)
        return y.astype(x.dtype), dataclasses.replace(tape, dtype=x.dtype)


class AddFirstGradientOnly(Add):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        return (dy, *[np.zeros_like(dy)] * (tape[1] - 1)), {}


class AddChecksFirstDirectionOnly(Add):
    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        like = dinputs[0].dtype
        return super().jvp(params, tape, tuple(dx.astype(like) for dx in dinputs), dparams)


class ConcatReversed(Concat):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        return np.concatenate(inputs[::-1], axis=1), tuple(x.shape for x in inputs)


class ZeroPadSidesSwapped(ZeroPad2d):
    def _image(self, padded: Array, shape: Shape) -> Array:
        _, bottom, _, right = self.padding  # type: ignore[misc]
        return padded[:, :, bottom : bottom + shape[2], right : right + shape[3]]


class ShortcutZerosBehind(SubsampleShortcut):
    @property
    def _places(self) -> tuple[int, int, int]:
        return (*super()._places[:2], 0)


class ShortcutOddPixels(SubsampleShortcut):
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        return super().forward(params, np.roll(inputs[0], -1, axis=3), mode=mode)


class ShortcutForgetsOtherPixels(SubsampleShortcut):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        (dx,), none = super().backward(params, dy, tape, **wanted)
        dx[:, :, 1::2] = 1
        return (dx,), none


class DropoutBackwardWithoutMask(Dropout):
    def backward(self, params: Params, dy: Array, tape: Tape, **wanted: bool) -> Grads:
        return (dy,), {}


BUGS: list[tuple[type[Layer], str, set[str]]] = [
    (ConvIgnoresStrideBackward, "conv-stride2-asymmetric", {"adjoint", "jacobian"}),
    (ConvWithoutFlip, "conv-3x3", {"adjoint", "jacobian"}),
    (ConvPaddingOffByOne, "conv-3x3", {"twin"}),
    (ConvTransposedKernel, "conv-3x3", {"twin", "pack"}),
    (ConvMixesGroups, "conv-groups2", {"twin", "pack", "hessian"}),
    (ConvForgetsBiasGradient, "conv-3x3", {"adjoint", "jacobian"}),
    (ConvGroupsSwappedInHessian, "conv-groups2", {"hessian"}),
    (ConvMeanOverPositions, "conv-3x3", {"hessian"}),
    (ConvFrobeniusConstant, "conv-depthwise-multiplier", {"lipschitz"}),
    (ConvKernelOrderInPack, "conv-3x3", {"pack"}),
    (LinearWithoutFactorTwo, "linear", {"hessian"}),
    (LinearBiasRowFirst, "linear", {"hessian", "pack"}),
    (LinearMeanGradient, "linear", {"adjoint", "jacobian"}),
    (LinearJvpWithoutParameters, "linear", {"adjoint", "taylor", "jacobian"}),
    (LinearWritesIntoGradient, "linear", {"untouched"}),
    (LinearUpcasts, "linear", {"float32"}),
    (LinearConstantTooSmall, "linear", {"lipschitz"}),
    (LinearAlwaysComputes, "linear", {"wanted"}),
    (LinearUpcastsGradient, "linear", {"types"}),
    (LinearNarrowsParameterDirection, "linear", {"types"}),
    (BatchNormUnbiasedNormalization, "batchnorm-images-train", {"twin"}),
    (BatchNormBiasedStatistics, "batchnorm-images-train", {"statistics"}),
    (BatchNormMomentumReversed, "batchnorm-images-train", {"statistics"}),
    (BatchNormEpsOutsideTheRoot, "batchnorm-images", {"twin"}),
    (BatchNormHessianOfRunningStatistics, "batchnorm-images-train", {"hessian"}),
    (BatchNormFrozenVarianceBackward, "batchnorm-images-train", {"adjoint", "jacobian"}),
    (BatchNormEvalDerivativeInTrain, "batchnorm-images-train", {"taylor", "jacobian"}),
    (ReLUOneAtZero, "relu-images", {"kinks"}),
    (ReLUNarrowsGradient, "relu-images", {"types"}),
    (ReLULeaksBackward, "relu-images", {"taylor", "jacobian"}),
    (MaxPoolLastTie, "maxpool-3x3-stride1-padding", {"kinks"}),
    (MaxPoolZeroPadding, "maxpool-3x3-stride1-padding", {"twin"}),
    (MaxPoolConstantOne, "maxpool-3x3-stride1-padding", {"lipschitz"}),
    (AvgPoolCountsPadding, "avgpool-exclude-padding", {"twin"}),
    (AvgPoolFullWindowInCeilMode, "avgpool-ceil", {"twin"}),
    (PoolIgnoresCeil, "maxpool-ceil", {"twin"}),
    (GlobalAvgPoolSums, "globalavgpool", {"adjoint", "jacobian"}),
    (FlattenColumnMajor, "flatten", {"twin"}),
    (FlattenTakesIntegers, "flatten", {"types"}),
    (AddFirstGradientOnly, "add-2", {"adjoint", "jacobian"}),
    (AddChecksFirstDirectionOnly, "add-2", {"types"}),
    (ConcatReversed, "concat-2", {"twin"}),
    (ZeroPadSidesSwapped, "zeropad", {"twin"}),
    (ShortcutZerosBehind, "shortcut", {"twin"}),
    (ShortcutOddPixels, "shortcut", {"twin"}),
    (ShortcutForgetsOtherPixels, "shortcut", {"adjoint", "jacobian"}),
    (DropoutBackwardWithoutMask, "dropout-mask", {"adjoint", "jacobian"}),
]


@pytest.mark.parametrize(("wrong", "case_id", "catching"), BUGS, ids=[bug[0].__name__ for bug in BUGS])
def test_planted_bug_is_caught(wrong: type[Layer], case_id: str, catching: set[str]) -> None:
    """Each bug fails the checks named; the right layer passes them all (`test_check`)."""
    right = BY_ID[case_id]
    fields = {field.name: getattr(right.layer, field.name) for field in dataclasses.fields(right.layer)}
    case = dataclasses.replace(right, layer=wrong(**fields))
    for name in catching:
        with pytest.raises(AssertionError):
            CHECKS[name](case)


def test_planted_bug_in_a_twin_is_caught() -> None:
    """A check against a twin fails when the twin is wrong, so the two are not the same code."""
    layer = MaxPool2d(2)
    x = BY_ID["maxpool-2x2"].inputs()[0]
    with pytest.raises(AssertionError):
        close(layer.forward({}, x)[0], naive.max_pool2d(-x, **pooling(layer))[0], 1e-13)


def test_close_refuses_nan() -> None:
    with pytest.raises(AssertionError):
        close(np.array([np.nan]), np.array([1.0]), 1.0)
