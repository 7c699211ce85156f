"""Convolution without patches against its definition: in integers to the last bit, whatever the geometry."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import geometry
from hypothesis import given
from hypothesis import strategies as st

from refldnq._kernels import direct, threads, tiles
from refldnq._typing import Array, Shape
from refldnq.im2col import col2im, im2col
from refldnq.layers import Conv2d
from refldnq.verify.naive import layers as naive

TYPES = ("float32", "float64")
RULES = ("suits_forward", "suits_input_gradient", "suits_weight_gradient")

Results = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A convolution, its input, its parameters and the gradient of its output."""

    layer: Conv2d
    x: Array
    params: dict[str, Array]
    dy: Array


def integers(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    """Integers but 0, so small that all sums of their products are exact in float32."""
    return np.asarray(rng.integers(1, 4, shape) * rng.choice([-1, 1], shape), dtype=dtype)


def problem(layer: Conv2d, size: Shape, n: int, dtype: str, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    params = {name: integers(rng, shape, dtype) for name, shape in layer.parameter_shapes().items()}
    shape = (layer.in_channels, *size)
    return Problem(
        layer,
        integers(rng, (n, *shape), dtype),
        params,
        integers(rng, (n, *layer.output_shape(shape)), dtype),
    )


@st.composite
def problems(draw: st.DrawFn, most_channels: int = 20) -> Problem:
    """Channels on both sides of every block, widths on both sides of one, two and three vectors."""
    kernel, dilation = (draw(st.tuples(*[st.integers(1, most)] * 2)) for most in (4, 3))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (2, 1), (3, 2), (2, 3), (4, 4)]))
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    groups = draw(st.integers(1, 3))
    channels, outputs = (groups * draw(st.integers(1, most_channels // groups)) for _ in range(2))
    size = []
    for axis, most in enumerate((6, 40)):
        least = dilation[axis] * (kernel[axis] - 1) + 1 - sum(padding[2 * axis : 2 * axis + 2])
        size.append(max(least, draw(st.integers(1, most))))
    layer = Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()))
    return problem(layer, tuple(size), draw(st.integers(1, 5)), draw(st.sampled_from(TYPES)))


def by_definition(given: Problem) -> Results:
    """Everything from the matrix of patches, in float64."""
    layer, n, g = given.layer, given.x.shape[0], given.layer.groups
    patches = im2col(given.x.astype(np.float64), layer.window).reshape(n, g, layer.patch_size, -1)
    weight = given.params["weight"].astype(np.float64).reshape(g, -1, layer.patch_size)
    dy = given.dy.astype(np.float64).reshape(n, g, weight.shape[1], -1)
    y = np.einsum("gmd,ngdp->ngmp", weight, patches).reshape(given.dy.shape)
    dpatches = np.einsum("gmd,ngmp->ngdp", weight, dy).reshape(n, g * layer.patch_size, -1)
    results = {
        "y": y + given.params["bias"][:, None, None] if layer.bias else y,
        "dx": col2im(dpatches, layer.window, given.x.shape[1:]),
        "weight": np.einsum("ngmp,ngdp->gmd", dy, patches).reshape(given.params["weight"].shape),
    }
    return results | ({"bias": given.dy.sum(axis=(0, 2, 3), dtype=np.float64)} if layer.bias else {})


def by_layer(given: Problem, rules: dict[str, Any] | None = None, positions: int = 1) -> Results:
    """The layer's own, by default without patches even for few positions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "POSITIONS", positions)
        for name, rule in (rules or {}).items():
            patch.setattr(direct, name, rule)
        y, tape = given.layer.forward(given.params, given.x)
        (dx,), grads = given.layer.backward(given.params, given.dy, tape)
    return {"y": y, "dx": dx, **grads}


def by_patches(given: Problem) -> Results:
    return by_layer(given, dict.fromkeys(RULES, lambda *_: False))


def same(got: Results, want: Results) -> None:
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].shape == array.shape
        if not np.array_equal(got[name], array, equal_nan=True):
            raise AssertionError(f"{name} differs in {np.argwhere(got[name] != array)[:3].tolist()}")


# ---------------------------------------------------------------------- every geometry, exactly


@given(problems())
def test_both_ways_are_the_definition(given: Problem) -> None:
    want = by_definition(given)
    same(by_layer(given), want)
    same(by_patches(given), want)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from(TYPES))
def test_any_number_of_channels(channels: int, outputs: int, width: int, dtype: str) -> None:
    given = problem(Conv2d(channels, outputs, 3, padding=1), (2, width), 3, dtype)
    same(by_layer(given), by_definition(given))


@given(problems(most_channels=5))
def test_the_output_is_that_of_seven_loops(given: Problem) -> None:
    layer = given.layer
    few = dataclasses.replace(given, x=given.x[:1, ..., :7], dy=given.dy[:1])
    if min(layer.window.output(*few.x.shape[2:])) < 1:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "POSITIONS", 1)
        y = layer.forward(few.params, few.x)[0]
    twin = naive.conv2d(few.x, few.params["weight"], few.params.get("bias"), **geometry(layer))
    assert np.array_equal(y, twin)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("channels", "size", "stride"),
    [(16, 32, 1), (32, 16, 1), (64, 8, 1), (16, 32, 2), (32, 16, 2), (8, 224, 1)],
)
def test_shapes_of_residual_networks(channels: int, size: int, stride: int, dtype: str) -> None:
    layer = Conv2d(channels, channels * stride, 3, stride, padding=1, bias=False)
    given = problem(layer, (size, size), 3, dtype)
    same(by_layer(given), by_definition(given))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_rounding_is_that_of_one_sum(stride: int, dtype: str) -> None:
    """An output is a sum of d terms: at most d roundings of the sum of the terms' absolute values."""
    rng = np.random.default_rng(1)
    given = problem(Conv2d(20, 24, 3, stride, padding=1), (9, 21), 4, dtype)

    def normal(array: Array) -> Array:
        return rng.standard_normal(array.shape).astype(dtype)

    params = {name: normal(array) for name, array in given.params.items()}
    given = Problem(given.layer, normal(given.x), params, normal(given.dy))
    sizes = Problem(
        given.layer, abs(given.x), {name: abs(array) for name, array in params.items()}, abs(given.dy)
    )
    got, want, bound = by_layer(given), by_definition(given), by_definition(sizes)
    terms = {"y": 20 * 9 + 1, "dx": 24 * 9, "weight": given.dy[:, 0].size, "bias": given.dy[:, 0].size}
    for name, count in terms.items():
        if not (abs(got[name] - want[name]) <= count * np.finfo(dtype).eps * bound[name]).all():
            raise AssertionError(name)


# ---------------------------------------------------------------------- what is not finite


@given(problems(), st.sampled_from([np.nan, np.inf]), st.integers(0, 2**32 - 1))
def test_what_is_not_finite_reaches_what_reads_it(given: Problem, value: float, draw: int) -> None:
    """One NaN or infinity in the input: exactly the outputs and the weights that read it change."""
    place = np.unravel_index(draw % given.x.size, given.x.shape)
    x = given.x.copy()
    x[place] = value
    mark = dataclasses.replace(given, x=np.zeros_like(given.x), dy=np.ones_like(given.dy))
    mark.x[place] = 1
    ones = {name: np.ones_like(array) for name, array in given.params.items()}
    without = dataclasses.replace(
        given, params={**ones, "bias": 0 * ones["bias"]} if "bias" in ones else ones
    )
    reached = by_definition(dataclasses.replace(without, x=mark.x, dy=mark.dy))
    clean, got = by_layer(given), by_layer(dataclasses.replace(given, x=x))
    for name in ("y", "weight"):
        hit = reached[name] > 0
        assert not np.isfinite(got[name][hit]).any()
        assert np.array_equal(got[name][~hit], clean[name][~hit])
    assert np.array_equal(got["dx"], clean["dx"])


@given(problems(), st.integers(0, 2**32 - 1))
def test_a_nan_of_the_gradient_reaches_the_pixels_read(given: Problem, draw: int) -> None:
    place = np.unravel_index(draw % given.dy.size, given.dy.shape)
    dy = given.dy.copy()
    dy[place] = np.nan
    spot = np.zeros_like(dy)
    spot[place] = 1
    ones = {name: np.ones_like(array) for name, array in given.params.items()}
    reached = by_definition(Problem(given.layer, given.x, ones, spot))["dx"] > 0
    clean, got = by_layer(given), by_layer(dataclasses.replace(given, dy=dy))
    assert np.isnan(got["dx"][reached]).all()
    assert np.array_equal(got["dx"][~reached], clean["dx"][~reached])
    other = np.arange(given.layer.out_channels) != place[1]
    assert np.isnan(got["weight"][~other]).all()
    assert np.array_equal(got["weight"][other], clean["weight"][other])


def with_an_infinite_weight() -> Problem:
    given = problem(Conv2d(4, 4, 3, padding=1), (5, 6), 2, "float64")
    given.params["weight"][1, 2, 0, 0] = np.inf
    return given


def test_an_infinite_weight_meets_no_zero_that_is_no_gradient() -> None:
    given = with_an_infinite_weight()
    dx = by_layer(given)["dx"]
    assert not np.isnan(dx).any()
    assert np.isinf(dx[:, 2, :4, :5]).all() and np.isfinite(dx[:, [0, 1, 3]]).all()
    same(by_layer(given), by_patches(given))


def test_the_infinite_weight_shows_a_rule_that_forgets_it() -> None:
    assert np.isnan(by_layer(with_an_infinite_weight(), {RULES[1]: lambda *_: True})["dx"]).any()


# ---------------------------------------------------------------------- which way


def ways(layer: Conv2d, size: Shape, n: int, dtype: str) -> set[str]:
    """The kernels without patches that forward and backward ask for."""
    given = problem(layer, size, n, dtype)
    asked = set()

    def spy(name: str) -> Callable[..., Any]:
        kernel = getattr(direct, name)

        def call(*args: Any) -> Any:
            asked.add(name)
            return kernel(*args)

        return call

    names = ("forward", "input_gradient", "weight_gradient")
    same(by_layer(given, {name: spy(name) for name in names}, direct.POSITIONS), by_definition(given))
    return asked


@pytest.mark.parametrize("dtype", TYPES)
def test_the_rule(dtype: str) -> None:
    lanes = tiles.WIDTH // np.dtype(dtype).itemsize
    n = direct.POSITIONS // 16
    everything = {"forward", "input_gradient", "weight_gradient"}

    def asked(channels: int, outputs: int, kernel: int = 3, n: int = n) -> set[str]:
        return ways(Conv2d(channels, outputs, kernel, padding=kernel // 2), (4, 4), n, dtype)

    assert asked(tiles.OUTPUTS, lanes) == everything
    assert asked(tiles.OUTPUTS - 1, lanes) == everything - {"input_gradient"}
    assert "weight_gradient" not in asked(tiles.OUTPUTS, lanes - 1)
    assert asked(tiles.OUTPUTS, tiles.OUTPUTS) >= {"forward", "input_gradient"}
    assert asked(tiles.OUTPUTS, tiles.OUTPUTS - 1) == {"input_gradient"}
    assert asked(tiles.OUTPUTS, lanes, n=n - 1) == {"weight_gradient"}
    assert asked(tiles.OUTPUTS, lanes, kernel=1) == set()


# ---------------------------------------------------------------------- order of summation


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("size", "stride"), [(32, 1), (8, 1), (5, 1), (8, 2)])
def test_images_and_threads_do_not_change_bits(
    size: int, stride: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and the input's gradient, by the same way: equal bits in every company; the weight's: a sum."""
    given = problem(Conv2d(16, 16, 3, stride, padding=1), (size, size), 7, dtype)
    rng = np.random.default_rng(2)
    given = dataclasses.replace(given, x=rng.standard_normal(given.x.shape).astype(dtype))
    results = {}
    for count in (1, 2, 3):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        results[count] = by_layer(given)
        same(by_layer(given), results[count])
    for count in (2, 3):
        for name in ("y", "dx"):
            assert np.array_equal(results[count][name], results[1][name])
        # An image's share has the same bits; the shares are added in another order.
        atol = 32 * np.finfo(dtype).eps * np.abs(results[1]["weight"]).max()
        if not np.allclose(results[count]["weight"], results[1]["weight"], rtol=0, atol=atol):
            raise AssertionError(count)
    alone = by_layer(dataclasses.replace(given, x=given.x[4:5], dy=given.dy[4:5]))
    assert np.array_equal(alone["y"][0], results[1]["y"][4])
    assert np.array_equal(alone["dx"][0], results[1]["dx"][4])


def test_what_is_not_asked_for_is_not_computed() -> None:
    given = problem(Conv2d(16, 16, 3, padding=1), (32, 32), 2, "float32")
    want = by_definition(given)
    for wrt_inputs in (False, True):
        for wrt_params in (False, True):
            wrt = {"wrt_inputs": wrt_inputs, "wrt_params": wrt_params}
            dx, grads = given.layer.backward(given.params, given.dy, given.x, **wrt)
            assert len(dx) == wrt_inputs and set(grads) == ({"weight", "bias"} if wrt_params else set())
            same(
                {**dict(zip(["dx"], dx, strict=False)), **grads},
                {k: v for k, v in want.items() if k in grads or (k == "dx" and wrt_inputs)},
            )


# ---------------------------------------------------------------------- memory, planted bugs


def plans(given: Problem) -> list[tuple[Any, int, int]]:
    """Every table of a problem, with the numbers of a padded group and of a vector."""
    layer, lanes = given.layer, tiles.WIDTH // given.x.itemsize
    channels, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    geometry, out = layer._geometry, given.dy.shape[2:]
    found = [
        (direct._forward_plan(channels, out, geometry, lanes), channels, lanes),
        (direct._gradient_plan(outputs, channels, given.x.shape[2:], geometry, lanes), outputs, lanes),
        (direct._correlation_plan(channels, out, geometry), channels, 1),
    ]
    return [(plan, depth * int(np.prod(plan.layout[:4])), width) for plan, depth, width in found]


def inside(given: Problem) -> None:
    """Every vector lies within a row of the padded image, and within the outputs of its class."""
    for plan, numbers, width in plans(given):
        row = plan.layout[2] * plan.layout[3]
        ranges = plan.classes[:, 6:10].tolist() or [[0, plan.offsets.size, 0, plan.starts.size]]
        for k, entries, t, vectors in ranges:
            begins = np.add.outer(plan.offsets[k : k + entries], plan.starts[t : t + vectors])
            assert (begins >= 0).all() and (begins + width <= numbers).all()
            assert (begins % row + width <= row).all()
        for pixels in plan.classes:
            places = plan.places[pixels[8] : pixels[8] + pixels[9]]
            covered = np.add.outer(places, np.arange(width))
            assert set(covered.reshape(-1)) == set(range(pixels[2] * pixels[5] * plan.layout[3]))
            assert places.size % tiles.VECTORS == 0


@given(problems())
def test_no_vector_leaves_its_row(given: Problem) -> None:
    inside(given)


def swapped(array: Array) -> Array:
    return np.concatenate([array[1::-1], array[2:]])


@pytest.mark.parametrize(
    ("plan", "table"),
    [
        (plan, table)
        for plan in ("_forward_plan", "_gradient_plan", "_correlation_plan")
        for table in ("offsets", "starts", "places")
        if (plan, table) != ("_correlation_plan", "places")  # has none of its own
    ],
)
def test_a_wrong_table_is_seen(plan: str, table: str) -> None:
    """Two entries of one table have changed places."""
    given = problem(Conv2d(16, 16, 3, padding=1), (8, 32), 2, "float32")
    make = getattr(direct, plan)

    def wrong(*args: Any) -> Any:
        right = make(*args)
        return dataclasses.replace(right, **{table: swapped(getattr(right, table))})

    with pytest.raises(AssertionError, match="differs"):
        same(by_layer(given, {plan: wrong}), by_definition(given))


def test_a_vector_beyond_its_row_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem(Conv2d(4, 4, 3, padding=1), (4, 20), 2, "float32")
    inside(given)
    make = direct._forward_plan

    def wrong(*args: Any) -> Any:
        right = make(*args)
        return dataclasses.replace(right, starts=right.starts + 1)

    monkeypatch.setattr(direct, "_forward_plan", wrong)
    with pytest.raises(AssertionError):
        inside(given)


def test_patches_are_left_where_they_serve() -> None:
    """The first layer of a network of colour images: only its input has too few channels."""
    given = problem(Conv2d(3, 16, 3, padding=1), (32, 32), 2, "float32")
    assert ways(given.layer, (32, 32), 2, "float32") == {"forward", "weight_gradient"}


def test_a_gradient_much_smaller_than_the_image_is_spread_by_patches() -> None:
    """A pixel of the direct way costs as much as an output; here there are 49 times more of them."""
    assert "input_gradient" not in ways(Conv2d(64, 64, 7), (7, 7), 64, "float32")
    assert "input_gradient" in ways(Conv2d(64, 64, 7, padding=3), (7, 7), 64, "float32")


# ---------------------------------------------------------------------- arrays of another kind


@pytest.mark.parametrize("shapes", [(16, 32), (2, 3)], ids=["direct", "patches"])
def test_other_types_are_refused(shapes: tuple[int, int]) -> None:
    channels, size = shapes
    given = problem(Conv2d(channels, 16, 3, padding=1), (size, size), 2, "float32")
    layer, params = given.layer, given.params
    for dy in (given.dy.astype(np.float64), given.dy.astype(np.int64)):
        with pytest.raises(TypeError, match="`dy` must have the input's type float32"):
            layer.backward(params, dy, given.x)
    with pytest.raises(TypeError, match="`dx` must have the input's type float32"):
        layer.jvp(params, given.x, (given.x.astype(np.float64),), {})
    with pytest.raises(TypeError, match="`weight` must have the input's type float32"):
        layer.jvp(params, given.x, (given.x,), {"weight": params["weight"].astype(np.float64)})
    with pytest.raises(TypeError, match="`x` must be"):
        layer.forward({name: a.astype(np.int64) for name, a in params.items()}, given.x.astype(np.int64))


@pytest.mark.parametrize("stride", [2, -1])
def test_arrays_with_gaps_are_read_as_they_are(stride: int) -> None:
    given = problem(Conv2d(16, 16, 3, padding=1), (32, 32), 2, "float32")

    def spread(array: Array) -> Array:
        wide = np.full(2 * len(array), 1e6, array.dtype).reshape(-1, *[1] * (array.ndim - 1))
        wide = np.repeat(wide, 1, axis=0) * np.ones(array.shape[1:], array.dtype)
        view = wide[::2] if stride == 2 else wide[: len(array)][::-1]
        view[...] = array
        return view

    gaps = dataclasses.replace(
        given, x=spread(given.x), dy=spread(given.dy), params={k: spread(a) for k, a in given.params.items()}
    )
    assert not gaps.params["bias"].flags.c_contiguous
    same(by_layer(gaps), by_definition(given))


def test_no_image_has_no_patches() -> None:
    assert Conv2d(4, 2, 3, groups=2).patches(np.empty((0, 4, 5, 5))).shape == (2, 18, 0)


PROGRAM = """
from llvmlite import binding

host = binding.get_host_cpu_features
narrow = host()
narrow["avx512f"] = False
binding.get_host_cpu_features = lambda: narrow
from refldnq._kernels import tiles

binding.get_host_cpu_features = host
import test_conv as tests
from refldnq.layers import Conv2d

assert (tiles.WIDTH, tiles.VECTORS) == (32, 2)
for dtype in ("float32", "float64"):
    odd = Conv2d(10, 22, 3, 2, (0, 1, 2, 1), groups=2)
    for layer, size in ((Conv2d(16, 16, 3, padding=1), 32), (odd, 9)):
        given = tests.problem(layer, (size, size + 1), 24, dtype)
        tests.same(tests.by_layer(given), tests.by_definition(given))
print("same")
"""


def test_processors_with_narrower_vectors() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "same\n"
