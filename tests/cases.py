"""Layer cases with readable names and explicit seeds, and the checks that every layer must pass.

A check takes a case and raises AssertionError; the tests run all checks over all cases, and run them again on
planted bugs, where they must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refldnq._typing import Array, Params, Shape
from refldnq.im2col import im2col
from refldnq.layers import (
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
    LinearMap,
    MaxPool2d,
    Mode,
    ReLU,
    SubsampleShortcut,
    ZeroPad2d,
)
from refldnq.verify import derivatives
from refldnq.verify.naive import layers as naive

SMALL_STEPS = tuple(0.5**k for k in range(11, 19))
"""Too short to reach the next kink of a piecewise linear layer: the inputs of such cases lie apart."""


@dataclass(frozen=True)
class Case:
    """A layer at a random point."""

    id: str
    layer: Layer
    shapes: tuple[Shape, ...]
    """Of the inputs, batch axis included."""
    seed: int
    mode: Mode = "eval"

    def inputs(self, dtype: Any = np.float64) -> list[Array]:
        """Standard normal numbers; for ReLU and max-pooling, numbers that lie apart, also from 0."""
        rng = np.random.default_rng(self.seed)
        if isinstance(self.layer, ReLU | MaxPool2d):
            return [apart(rng, shape).astype(dtype) for shape in self.shapes]
        return [rng.standard_normal(shape).astype(dtype) for shape in self.shapes]

    def params(self, dtype: Any = np.float64) -> dict[str, Array]:
        """Standard normal numbers; variances in [0.5, 1.5]; a dropout mask where the name says so."""
        rng = np.random.default_rng([self.seed, 1])
        arrays = {}
        for name, shape in self.layer.parameter_shapes().items():
            arrays[name] = rng.random(shape) + 0.5 if name == "running_var" else rng.standard_normal(shape)
        if isinstance(self.layer, Dropout) and "mask" in self.id:
            arrays["mask"] = self.layer.mask(rng, self.shapes[0])
        return {name: array.astype(dtype) for name, array in arrays.items()}


def apart(rng: np.random.Generator, shape: Shape) -> Array:
    """Numbers in [-2, 2], no two of them, and none of them and 0, closer than 2 / size."""
    size = int(np.prod(shape))
    return (rng.permutation(size).reshape(shape) + 0.5 - size // 2) * (4.0 / size)


def _cases() -> list[Case]:
    n4 = ((2, 3, 5, 6),)
    even = ((2, 4, 5, 5),)
    rows: list[tuple[str, Layer, tuple[Shape, ...], Mode]] = [
        ("linear", Linear(4, 3), ((5, 4),), "eval"),
        ("linear-nobias", Linear(4, 3, bias=False), ((5, 4),), "eval"),
        ("linear-one-image", Linear(6, 2), ((1, 6),), "eval"),
        ("linear-one-feature", Linear(1, 4), ((3, 1),), "eval"),
        ("conv-3x3", Conv2d(3, 4, 3, padding=1), n4, "eval"),
        ("conv-3x3-nobias", Conv2d(3, 2, 3, bias=False), n4, "eval"),
        ("conv-stride2-asymmetric", Conv2d(3, 2, 3, stride=2, padding=(0, 1, 1, 0)), n4, "eval"),
        ("conv-2x3-stride(2,1)", Conv2d(3, 2, (2, 3), stride=(2, 1), padding=(1, 0, 0, 2)), n4, "eval"),
        ("conv-even-same", Conv2d(2, 3, 4, padding=(1, 2, 2, 1)), ((2, 2, 5, 6),), "eval"),
        ("conv-same-width-only", Conv2d(2, 3, 3, padding=(0, 0, 1, 1)), ((2, 2, 5, 6),), "eval"),
        ("conv-padding-beyond-window", Conv2d(2, 2, 2, padding=(3, 2, 2, 3)), ((1, 2, 2, 3),), "eval"),
        ("conv-shifted-out", Conv2d(1, 1, (1, 3), padding=(0, 0, 0, 2)), ((1, 1, 3, 1),), "eval"),
        ("conv-dilation2", Conv2d(2, 2, 3, padding=2, dilation=2), ((2, 2, 5, 6),), "eval"),
        ("conv-dilation-stride3", Conv2d(2, 2, (3, 2), (1, 3), 1, (2, 1)), ((2, 2, 6, 7),), "eval"),
        ("conv-groups2", Conv2d(4, 6, 3, padding=1, groups=2), even, "eval"),
        ("conv-depthwise", Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False), even, "eval"),
        ("conv-depthwise-multiplier", Conv2d(4, 8, (3, 2), groups=4), even, "eval"),
        ("conv-1x1", Conv2d(4, 3, 1), even, "eval"),
        ("conv-1x1-stride2", Conv2d(4, 3, 1, stride=2, bias=False), even, "eval"),
        ("conv-whole-image", Conv2d(3, 2, (5, 6)), n4, "eval"),
        ("conv-larger-than-image", Conv2d(2, 2, 5, padding=1), ((2, 2, 3, 3),), "eval"),
        ("conv-stride-beyond-window", Conv2d(3, 2, 1, stride=3, padding=(1, 0, 0, 1)), n4, "eval"),
        ("conv-one-row", Conv2d(2, 2, (1, 3), padding=(0, 0, 1, 1)), ((3, 2, 1, 5),), "eval"),
        ("batchnorm-features", BatchNorm(3), ((6, 3),), "eval"),
        ("batchnorm-features-train", BatchNorm(3, eps=1e-3), ((6, 3),), "train"),
        ("batchnorm-images", BatchNorm(3, eps=0.1, momentum=0.3), ((2, 3, 2, 3),), "eval"),
        ("batchnorm-images-train", BatchNorm(3, eps=0.1, momentum=0.3), ((2, 3, 2, 3),), "train"),
        ("batchnorm-two-values-train", BatchNorm(2, eps=0.1), ((2, 2),), "train"),
        ("relu-features", ReLU(), ((4, 5),), "eval"),
        ("relu-images", ReLU(), n4, "eval"),
        ("maxpool-2x2", MaxPool2d(2), n4, "eval"),
        ("maxpool-3x3-stride2", MaxPool2d(3, 2), ((2, 2, 7, 7),), "eval"),
        ("maxpool-3x3-stride1-padding", MaxPool2d(3, 1, 1), n4, "eval"),
        ("maxpool-stride2-asymmetric", MaxPool2d(3, 2, (1, 0, 2, 1)), n4, "eval"),
        ("maxpool-ceil", MaxPool2d((2, 3), 2, (1, 0, 1, 1), ceil_mode=True), n4, "eval"),
        ("maxpool-ceil-stride3", MaxPool2d(2, 3, 1, ceil_mode=True), ((2, 2, 5, 6),), "eval"),
        ("maxpool-ceil-larger-than-image", MaxPool2d(3, 2, ceil_mode=True), ((2, 2, 2, 2),), "eval"),
        ("maxpool-stride-beyond-window", MaxPool2d(1, (2, 3)), n4, "eval"),
        ("avgpool-2x2", AvgPool2d(2), n4, "eval"),
        ("avgpool-3x3-stride2-padding", AvgPool2d(3, 2, 1), n4, "eval"),
        ("avgpool-exclude-padding", AvgPool2d(3, 2, 1, count_include_pad=False), n4, "eval"),
        ("avgpool-asymmetric", AvgPool2d((2, 3), (1, 2), (1, 0, 2, 0)), n4, "eval"),
        ("avgpool-ceil", AvgPool2d(3, 2, (1, 0, 1, 1), ceil_mode=True), n4, "eval"),
        ("avgpool-ceil-exclude", AvgPool2d(2, 3, 1, True, count_include_pad=False), n4, "eval"),
        ("avgpool-ceil-larger-than-image", AvgPool2d(3, 2, ceil_mode=True), ((2, 2, 2, 2),), "eval"),
        ("globalavgpool", GlobalAvgPool(), n4, "eval"),
        ("flatten", Flatten(), n4, "eval"),
        ("add-1", Add(), n4, "eval"),
        ("add-2", Add(), n4 * 2, "eval"),
        ("add-3-features", Add(), ((4, 5),) * 3, "eval"),
        ("concat-2", Concat(), ((2, 3, 4, 5), (2, 1, 4, 5)), "eval"),
        ("concat-3-features", Concat(), ((4, 2), (4, 3), (4, 1)), "eval"),
        ("zeropad", ZeroPad2d((1, 0, 2, 3)), n4, "eval"),
        ("zeropad-none", ZeroPad2d(0), n4, "eval"),
        ("shortcut", SubsampleShortcut(3, 8), n4, "eval"),
        ("shortcut-stride(1,2)", SubsampleShortcut(3, 4, (1, 2)), n4, "eval"),
        ("shortcut-stride3-same-channels", SubsampleShortcut(3, 3, 3), n4, "eval"),
        ("dropout", Dropout(), n4, "train"),
        ("dropout-mask", Dropout(0.3), n4, "train"),
    ]
    return [Case(name, layer, shapes, 100 + i, mode) for i, (name, layer, shapes, mode) in enumerate(rows)]


CASES = _cases()
BY_ID = {case.id: case for case in CASES}


def twin(case: Case, params: Params, inputs: list[Array]) -> Array:
    """The output by the definition, in loops."""
    layer, x = case.layer, inputs[0]
    match layer:
        case Linear():
            return naive.linear(x, params["weight"], params.get("bias"))
        case Conv2d():
            return naive.conv2d(x, params["weight"], params.get("bias"), **geometry(layer))
        case BatchNorm():
            moments = params["running_mean"], params["running_var"]
            if case.mode == "train":
                moments = naive.batch_moments(x)
            return naive.batch_norm(x, params["weight"], params["bias"], *moments, layer.eps)
        case ReLU():
            return naive.relu(x)
        case MaxPool2d():
            return naive.max_pool2d(x, **pooling(layer))[0]
        case AvgPool2d():
            return naive.avg_pool2d(x, **pooling(layer), count_include_pad=layer.count_include_pad)
        case GlobalAvgPool():
            return naive.global_avg_pool(x)
        case Flatten():
            return naive.flatten(x)
        case Add():
            return naive.add(*inputs)
        case Concat():
            return naive.concat(*inputs)
        case ZeroPad2d():
            return naive.zero_pad2d(x, layer.padding)  # type: ignore[arg-type]
        case SubsampleShortcut():
            return naive.subsample_shortcut(x, layer.out_channels, layer.stride)  # type: ignore[arg-type]
        case Dropout():
            return naive.dropout(x, params.get("mask"))
    raise AssertionError(f"no twin of {type(layer).__name__}")


def geometry(layer: Conv2d) -> dict[str, Any]:
    """What the naive convolution takes besides its arrays."""
    names = ("stride", "padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


def pooling(layer: MaxPool2d | AvgPool2d) -> dict[str, Any]:
    """What the naive pooling takes besides its input."""
    return {
        "kernel": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "ceil_mode": layer.ceil_mode,
    }


def close(got: Array, want: Array, tolerance: float) -> None:
    """Refuse arrays that differ by more than the tolerance, relative to the largest wanted number."""
    if got.shape != want.shape:
        raise AssertionError(f"shape {got.shape}, wanted {want.shape}")
    worst = float(np.abs(got - want).max(initial=0.0))
    if not worst <= tolerance * max(1.0, float(np.abs(want).max(initial=0.0))):
        raise AssertionError(f"differs by {worst:.3g}:\n{got}\nwanted\n{want}")


# Tolerances: outputs are sums of at most some dozen products of numbers near 1, so rounding is some 1e-15 in
# float64 and 1e-6 in float32; a central difference with step 6e-6 is good to about 1e-10.


def check_twin(case: Case) -> None:
    """The output is the naive twin's."""
    params, inputs = case.params(), case.inputs()
    close(case.layer.forward(params, *inputs, mode=case.mode)[0], twin(case, params, inputs), 1e-13)


def check_shape(case: Case) -> None:
    """`output_shape` tells the output's shape."""
    y, _ = case.layer.forward(case.params(), *case.inputs(), mode=case.mode)
    shape = case.layer.output_shape(*(shape[1:] for shape in case.shapes))
    if y.shape != (case.shapes[0][0], *shape):
        raise AssertionError(f"{y.shape} is not announced {shape}")


def check_adjoint(case: Case) -> None:
    """`jvp` and `backward` are adjoint."""
    rng = np.random.default_rng([case.seed, 2])
    for _ in range(3):
        error = derivatives.adjoint_error(case.layer, case.params(), case.inputs(), rng, mode=case.mode)
        if not error <= 1e-14:
            raise AssertionError(f"adjoint error {error:.3g}")


def check_taylor(case: Case) -> None:
    """The first-order remainder falls with the square of the step, or is rounding."""
    params, inputs = case.params(), case.inputs()
    direction = derivatives.random_direction(
        case.layer, params, inputs, np.random.default_rng([case.seed, 3])
    )
    piecewise = isinstance(case.layer, ReLU | MaxPool2d)
    steps = SMALL_STEPS if piecewise else derivatives.STEPS
    taylor = derivatives.taylor_slope(case.layer, params, inputs, direction, mode=case.mode, steps=steps)
    if not (taylor.exact or 1.9 <= taylor.slope <= 2.1):
        raise AssertionError(f"slope {taylor.slope:.3f}, remainders {taylor.remainders}")


def check_exact(case: Case) -> None:
    """A layer that is linear (or piecewise so) in its inputs has no remainder when only these move."""
    if isinstance(case.layer, BatchNorm) and case.mode == "train":
        return
    params, inputs = case.params(), case.inputs()
    dinputs, _ = derivatives.random_direction(case.layer, params, inputs, np.random.default_rng(case.seed))
    direction = (dinputs, dict[str, Array]())
    taylor = derivatives.taylor_slope(
        case.layer, params, inputs, direction, mode=case.mode, steps=SMALL_STEPS
    )
    if not taylor.exact:
        raise AssertionError(f"remainders {taylor.remainders}")


def check_jacobian(case: Case) -> None:
    """Columns by `jvp`, rows by `backward` and central differences give one matrix."""
    jacobian = {
        method: derivatives.jacobian(case.layer, case.params(), case.inputs(), method=method, mode=case.mode)
        for method in ("jvp", "backward", "differences")
    }
    close(jacobian["backward"], jacobian["jvp"], 1e-13)
    close(jacobian["jvp"], jacobian["differences"], 1e-8)


def check_float32(case: Case) -> None:
    """Single precision goes in and comes out, and is near double precision."""
    layer, params, inputs = case.layer, case.params(np.float32), case.inputs(np.float32)
    y, tape = layer.forward(params, *inputs, mode=case.mode)
    if y.dtype != np.float32:
        raise AssertionError(f"the output is {y.dtype}")
    direction = derivatives.random_direction(layer, params, inputs, np.random.default_rng(case.seed))
    dy = layer.jvp(params, tape, *direction)
    grads, dp = layer.backward(params, y, tape)
    buffers = layer.new_statistics(params, tape)
    for array in (dy, *grads, *dp.values(), *buffers.values()):
        if array.dtype != np.float32:
            raise AssertionError(f"a result is {array.dtype}")
    wide = {name: array.astype(np.float64) for name, array in params.items()}
    want, wide_tape = layer.forward(wide, *(x.astype(np.float64) for x in inputs), mode=case.mode)
    close(y, want, 1e-5)
    for got, grad in zip(grads, layer.backward(wide, want, wide_tape)[0], strict=True):
        close(got, grad, 1e-4)


def check_types(case: Case) -> None:
    """Whole numbers are refused, and so are gradients and directions of another float type than the input."""
    layer = case.layer
    _refused(lambda: layer.forward(case.params(), *case.inputs(np.int64), mode=case.mode), "int64")
    for own, other in ((np.float32, np.float64), (np.float64, np.float32), (np.float64, np.int64)):
        params, inputs = case.params(own), case.inputs(own)
        y, tape = layer.forward(params, *inputs, mode=case.mode)
        message = f"must have the input's type {np.dtype(own)}, got {np.dtype(other)}."
        dy = y.astype(other)
        for wanted in ({}, {"wrt_inputs": False}, {"wrt_params": False}):
            _refused(partial(layer.backward, params, dy, tape, **wanted), f"`dy` {message}")
        dinputs, dparams = derivatives.random_direction(
            layer, params, inputs, np.random.default_rng(case.seed)
        )
        name = "dx" if layer.arity == 1 else "dinputs"
        for place, dx in enumerate(dinputs):
            wrong = (*dinputs[:place], dx.astype(other), *dinputs[place + 1 :])
            _refused(partial(layer.jvp, params, tape, wrong, dparams), f"`{name}` {message}")
        for key, array in dparams.items():
            changed = {**dparams, key: array.astype(other)}
            _refused(partial(layer.jvp, params, tape, dinputs, changed), f"`{key}` {message}")


def _refused(call: Callable[[], object], message: str) -> None:
    try:
        call()
    except TypeError as error:
        if message not in str(error):
            raise AssertionError(f"refused with {str(error)!r}, wanted {message!r}") from None
        return
    raise AssertionError(f"accepted what must be refused: {message}")


def check_wanted(case: Case) -> None:
    """`backward` leaves out what is not asked for, and the rest does not change."""
    layer, params = case.layer, case.params()
    y, tape = layer.forward(params, *case.inputs(), mode=case.mode)
    both, own = layer.backward(params, y, tape)
    inputs, none = layer.backward(params, y, tape, wrt_params=False)
    nothing, arrays = layer.backward(params, y, tape, wrt_inputs=False)
    if none or nothing or set(own) != set(derivatives.trainable(layer, params)):
        raise AssertionError("something is computed that was not asked for, or something is missing")
    pairs = [*zip(both, inputs, strict=True), *((own[name], arrays[name]) for name in own)]
    if not all(np.array_equal(a, b) for a, b in pairs):
        raise AssertionError("a gradient depends on what else is asked for")


def check_untouched(case: Case) -> None:
    """No call writes into its arguments."""
    layer, params, inputs = case.layer, case.params(), case.inputs()
    direction = derivatives.random_direction(layer, params, inputs, np.random.default_rng(case.seed))
    y, tape = layer.forward(params, *inputs, mode=case.mode)
    v = np.ones(y.shape)
    arguments = [*params.values(), *inputs, *direction[0], *direction[1].values(), y, v]
    copies = [array.copy() for array in arguments]
    layer.jvp(params, tape, *direction)
    layer.backward(params, v, tape)
    layer.new_statistics(params, tape)
    layer.forward(params, *inputs, mode=case.mode)
    if not all(np.array_equal(a, b) for a, b in zip(arguments, copies, strict=True)):
        raise AssertionError("an argument or the output has changed")


def check_strides(case: Case) -> None:
    """Arrays that are not contiguous give the same results."""
    layer, params, inputs = case.layer, case.params(), case.inputs()
    y, tape = layer.forward(params, *inputs, mode=case.mode)
    v = np.random.default_rng(case.seed).standard_normal(y.shape)
    loose = [np.asfortranarray(x) for x in inputs]
    y2, tape2 = layer.forward({k: np.asfortranarray(a) for k, a in params.items()}, *loose, mode=case.mode)
    close(y2, y, 1e-13)
    grads, loose_grads = (
        layer.backward(params, v, tape)[0],
        layer.backward(params, np.asfortranarray(v), tape2)[0],
    )
    for got, want in zip(loose_grads, grads, strict=True):
        close(got, want, 1e-13)


def check_hessian(case: Case) -> None:
    """The layer error is half the quadratic form of the Hessian, which is the naive one and symmetric."""
    layer, params, (x, *_) = case.layer, case.params(), case.inputs()
    rng = np.random.default_rng([case.seed, 4])
    if isinstance(layer, BatchNorm):
        delta = rng.standard_normal((layer.features, 2))
        _small(derivatives.hessian_identity(layer, params, x, delta, mode=case.mode))
        mean, variance = params["running_mean"], params["running_var"]
        if case.mode == "train":
            mean, variance = naive.batch_moments(x)
        ones = np.ones(layer.features)
        x_hat = naive.batch_norm(x, ones, 0 * ones, mean, variance, layer.eps)
        close(layer.hessian(params, x, mode=case.mode), naive.batch_norm_hessian(x_hat), 1e-12)
    elif isinstance(layer, LinearMap):
        for bias in (False, True) if "bias" in params else (False,):
            delta = rng.standard_normal(layer.pack(params, bias=bias).shape)
            _small(derivatives.hessian_identity(layer, params, x, delta, bias=bias))
            hessian = layer.hessian(x, bias=bias)
            close(hessian, naive_hessian(layer, x, bias=bias), 1e-13)
            if not np.array_equal(hessian, hessian.transpose(0, 2, 1)):
                raise AssertionError("not symmetric")


def naive_hessian(layer: Layer, x: Array, *, bias: bool) -> Array:
    """The Hessian of a linear map in loops."""
    if isinstance(layer, Conv2d):
        return naive.conv2d_hessian(x, kernel=layer.kernel_size, **geometry(layer), bias=bias)  # type: ignore[arg-type]
    return naive.linear_hessian(x, bias=bias)


def _small(error: float) -> None:
    if not error <= 1e-12:
        raise AssertionError(f"E and its quadratic model differ by {error:.3g}")


def check_pack(case: Case) -> None:
    """Design matrix, ones in the last column, times packed weight is the output; unpack undoes pack."""
    layer, params, (x, *_) = case.layer, case.params(), case.inputs()
    if not isinstance(layer, LinearMap):
        return
    y = layer.forward(params, x)[0]
    for bias in (False, True) if "bias" in params else (False,):
        packed = layer.pack(params, bias=bias)
        for name, array in layer.unpack(packed, bias=bias).items():
            if not np.array_equal(array, params[name]):
                raise AssertionError(f"`{name}` does not come back")
        want = y
        if "bias" in params and not bias:
            want = y - params["bias"].reshape(-1, *[1] * (y.ndim - 2))
        close(_product(layer, x, packed, bias), want, 1e-13)


def _product(layer: LinearMap, x: Array, packed: Array, bias: bool) -> Array:
    # Z = X W in every group, back in the shape of the output.
    groups = packed.shape[0]
    if isinstance(layer, Conv2d):
        patches = im2col(x, layer.window)
        patches = patches.reshape(x.shape[0], groups, -1, patches.shape[2])
    else:
        patches = x[:, None, :, None]
    if bias:
        patches = np.concatenate([patches, np.ones_like(patches[:, :, :1])], axis=2)
    z = np.einsum("ngdp,gdm->ngmp", patches, packed)
    return np.asarray(z.reshape(x.shape[0], *layer.output_shape(x.shape[1:])))


def check_lipschitz(case: Case) -> None:
    """No sampled ratio and no operator norm exceeds the constants; the exact ones are attained."""
    if isinstance(case.layer, BatchNorm) and case.mode == "train":
        return
    layer, params, inputs = case.layer, case.params(), case.inputs()
    bounds = layer.lipschitz(params, *(shape[1:] for shape in case.shapes))
    rng = np.random.default_rng([case.seed, 5])
    y, _ = layer.forward(params, *inputs, mode=case.mode)
    for place, bound in enumerate(bounds):
        for scale in (1e-3, 1.0, 10.0):
            moved = list(inputs)
            moved[place] = inputs[place] + scale * rng.standard_normal(inputs[place].shape)
            change = np.linalg.norm(moved[place] - inputs[place])
            ratio = np.linalg.norm(layer.forward(params, *moved, mode=case.mode)[0] - y) / change
            if not ratio <= bound * (1 + 1e-12):
                raise AssertionError(f"ratio {ratio} exceeds {bound}")
    columns = derivatives.jacobian(layer, params, inputs, method="jvp", mode=case.mode)
    stops = np.cumsum([0, *(x.size for x in inputs)])
    for bound, start, stop in zip(bounds, stops[:-1], stops[1:], strict=True):
        norm = float(np.linalg.norm(columns[:, start:stop], 2))
        if not norm <= bound * (1 + 1e-13):
            raise AssertionError(f"operator norm {norm} exceeds {bound}")
        exact = isinstance(layer, Linear | AvgPool2d | GlobalAvgPool | BatchNorm | Add | Concat | Flatten)
        if exact and not norm >= bound * (1 - 1e-11):
            raise AssertionError(f"operator norm {norm} is below {bound}")


def check_kinks(case: Case) -> None:
    """Where a layer has no derivative, ReLU takes 0 and max-pooling the first pixel in row-major order."""
    layer, rng = case.layer, np.random.default_rng([case.seed, 6])
    x = rng.integers(-1, 2, case.shapes[0]).astype(np.float64)
    y, tape = layer.forward({}, x) if isinstance(layer, ReLU | MaxPool2d) else (x, None)
    v = rng.standard_normal(y.shape)
    want = np.zeros_like(x)
    if isinstance(layer, ReLU):
        want = np.where(x > 0, v, 0.0)
    elif isinstance(layer, MaxPool2d):
        _, place = naive.max_pool2d(x, **pooling(layer))
        for index in np.ndindex(y.shape):
            want[(*index[:2], *place[index])] += v[index]
    else:
        return
    close(layer.backward({}, v, tape)[0][0], want, 1e-14)


def check_statistics(case: Case) -> None:
    """Running statistics move in train mode as the naive twin's, and not in eval mode."""
    layer, params, (x, *_) = case.layer, case.params(), case.inputs()
    if not isinstance(layer, BatchNorm):
        return
    _, tape = layer.forward(params, x, mode=case.mode)
    new = layer.new_statistics(params, tape)
    if case.mode == "eval":
        if new:
            raise AssertionError("the running statistics move in eval mode")
        return
    want = naive.batch_norm_statistics(x, params["running_mean"], params["running_var"], layer.momentum)
    close(new["running_mean"], want[0], 1e-14)
    close(new["running_var"], want[1], 1e-14)


CHECKS: dict[str, Callable[[Case], None]] = {
    "twin": check_twin,
    "shape": check_shape,
    "adjoint": check_adjoint,
    "taylor": check_taylor,
    "exact": check_exact,
    "jacobian": check_jacobian,
    "float32": check_float32,
    "types": check_types,
    "wanted": check_wanted,
    "untouched": check_untouched,
    "strides": check_strides,
    "hessian": check_hessian,
    "pack": check_pack,
    "lipschitz": check_lipschitz,
    "kinks": check_kinks,
    "statistics": check_statistics,
}
"""Every check by name."""
