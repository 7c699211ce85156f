"""The Hessian of the layer error: definition, streaming, spectrum, certificates, and what is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq._kernels import conv as kernels
from refldnq._kernels import threads
from refldnq.hessian import (
    Hessian,
    HessianAccumulator,
    accumulate_hessian,
    certified_above,
    largest_eigenvalue,
    layer_error,
    layer_error_from_data,
)
from refldnq.im2col import im2col
from refldnq.layers import conv
from refldnq.layers.base import LinearMap
from refldnq.layers.conv import Conv2d
from refldnq.layers.linear import Linear
from refldnq.verify.naive import hessian as naive

# Integer inputs: every product and sum is exact, so structure is compared with ==.
LAYERS: dict[str, tuple[LinearMap, tuple[int, ...]]] = {
    "linear": (Linear(5, 3), (5,)),
    "linear-no-bias": (Linear(4, 2, bias=False), (4,)),
    "conv-3x3": (Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    "conv-stride-2": (Conv2d(2, 4, 3, stride=2, padding=(0, 1, 0, 1), bias=False), (2, 6, 6)),
    "conv-1x1": (Conv2d(3, 2, 1), (3, 3, 3)),
    "depthwise": (Conv2d(3, 6, 3, padding=1, groups=3, bias=False), (3, 4, 4)),
    "dilated-groups": (Conv2d(4, 4, (2, 3), dilation=(2, 1), groups=2), (4, 5, 5)),
}


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(np.float64)


def has_bias(layer: LinearMap) -> bool:
    return "bias" in layer.parameter_shapes()


def design(layer: LinearMap, x: np.ndarray, *, bias: bool) -> Iterator[np.ndarray]:
    """The design matrix of every group, (N, d), by slicing."""
    groups = getattr(layer, "groups", 1)
    channels = x.shape[1] // groups
    for g in range(groups):
        part = x[:, g * channels : (g + 1) * channels]
        if isinstance(layer, Conv2d):
            patches = im2col(np.ascontiguousarray(part), layer.window)
            part = patches.transpose(0, 2, 1).reshape(-1, patches.shape[1])
        yield np.concatenate([part, np.ones((len(part), 1))], axis=1) if bias else part


CASES = [
    (name, bias)
    for name, (layer, _) in LAYERS.items()
    for bias in (False, True)
    if not bias or has_bias(layer)
]


@pytest.mark.parametrize(("name", "bias"), CASES)
def test_blocks_are_the_definition(name: str, bias: bool) -> None:
    layer, shape = LAYERS[name]
    x = integers(np.random.default_rng(0), (4, *shape))
    H = accumulate_hessian(layer, [x], bias=bias)
    assert H.images == 4
    for block, X in zip(H.blocks, design(layer, x, bias=bias), strict=True):
        assert np.array_equal(block, naive.hessian(X, images=4))


@pytest.mark.parametrize(("name", "bias"), CASES)
def test_streaming_changes_nothing(name: str, bias: bool) -> None:
    layer, shape = LAYERS[name]
    x = integers(np.random.default_rng(1), (8, *shape))
    whole = accumulate_hessian(layer, [x], bias=bias)
    ragged = accumulate_hessian(layer, [x[:1], x[1:6], x[6:]], bias=bias)
    assert np.array_equal(whole.blocks, ragged.blocks) and ragged.images == 8
    assert np.array_equal(whole.blocks, layer.hessian(x, bias=bias))


def test_averaging_the_batches_is_another_matrix() -> None:
    layer, shape = LAYERS["linear"]
    x = integers(np.random.default_rng(2), (8, *shape))
    batches = [x[:1], x[1:6], x[6:]]
    planted = np.mean([layer.hessian(batch) for batch in batches], axis=0)
    assert not np.allclose(planted, accumulate_hessian(layer, batches).blocks)


def peak(accumulate: Callable[..., Hessian], layer: LinearMap, batches: Iterable[np.ndarray]) -> int:
    """The most bytes that Python and NumPy held at once, beyond what there was before; batches included."""
    tracemalloc.start()
    try:
        accumulate(layer, batches, bias=True)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check_memory(accumulate: Callable[..., Hessian], layer: Conv2d, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a large image's patches, whatever the number of images in a batch and of batches."""
    monkeypatch.setattr(threads, "thread_count", lambda: 1)  # each has buffers of its own
    x = np.random.default_rng(5).standard_normal((64, 4, 24, 24))
    accumulate(layer, [x[:1]], bias=True)  # what is imported and compiled by the first call does not count
    few, many = (peak(accumulate, layer, [x[:n]]) for n in (16, 64))
    if not many - few <= (x.nbytes - x[:16].nbytes) / 4:  # a truth value an entry, where the batch is checked
        raise AssertionError(f"{few} bytes for 16 images and {many} for 64, of {x[0].nbytes} bytes")
    patches = 64 * layer.patch_size * 24 * 24 * x.itemsize
    if not many <= patches / 16:
        raise AssertionError(f"{many} bytes in one batch; its patches are {patches}")
    short, long = (
        peak(accumulate, layer, (x[8 * i : 8 * i + 8].copy() for i in range(count))) for count in (2, 8)
    )
    if not long - short <= x[0].nbytes:
        raise AssertionError(f"{short} bytes for two batches and {long} for eight")


def all_patches(layer: LinearMap, batches: Iterable[np.ndarray], *, bias: bool) -> Hessian:
    rows = [layer.patches(x)[0].T for x in batches]
    X = np.concatenate([np.concatenate([part, np.ones((len(part), 1))], axis=1) for part in rows])
    return Hessian(blocks=(X.T @ X)[None], images=1)


def patches_of_16_images(layer: LinearMap, batches: Iterable[np.ndarray], *, bias: bool) -> Hessian:
    parts = (x[first : first + 16] for x in batches for first in range(0, len(x), 16))
    return [all_patches(layer, [part], bias=bias) for part in parts][-1]


def all_batches(layer: LinearMap, batches: Iterable[np.ndarray], *, bias: bool) -> Hessian:
    return accumulate_hessian(layer, list(batches), bias=bias)


def a_copy(layer: LinearMap, batches: Iterable[np.ndarray], *, bias: bool) -> Hessian:
    return accumulate_hessian(layer, (x + 0.0 for x in batches), bias=bias)


def test_memory_does_not_grow_with_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """[LDNQ] step 2 of Algorithm 1 over many images needs the room of one image's patches."""
    check_memory(accumulate_hessian, Conv2d(4, 3, 3, padding=1), monkeypatch)


def two_buffers(layer: Conv2d, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    area = x.shape[2] * x.shape[3]
    return np.empty(layer.patch_size * max(area, conv.GRAM_COLUMNS)), layer.gram(x)


@pytest.mark.parametrize("gram", [Conv2d.gram, two_buffers])
def test_patches_have_one_buffer(gram: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Large images one by one, and small ones together: never the patches of two products at once."""
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    layer = Conv2d(2, 3, 3, padding=1)
    for size, count, columns in ((96, 6, 96 * 96), (8, 200, 1024)):
        x = np.random.default_rng(size).standard_normal((count, 2, size, size))
        layer.gram(x)
        room = 8 * layer.patch_size * columns
        used = peak(lambda layer, batches, *, bias: gram(layer, next(iter(batches))), layer, [x])
        assert room <= used
        assert (used <= 1.2 * room + 10_000) is (gram is Conv2d.gram)


def check_gram(images: int, columns: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of integers, which are exact, over several images at once: those of all patches."""
    monkeypatch.setattr(conv, "GRAM_COLUMNS", columns)
    monkeypatch.setattr(threads, "thread_count", lambda: count)
    layer = Conv2d(4, 6, 3, padding=1, stride=(1, 2), groups=2)
    x = integers(np.random.default_rng(images), (images, 4, 5, 11))
    X = layer.patches(x)
    X = np.concatenate([X, np.ones((2, 1, X.shape[2]))], axis=1)
    if not np.array_equal(layer.gram(x, bias=True), X @ X.transpose(0, 2, 1)):
        raise AssertionError("not the sum over all patches")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("columns", [1, 59, 60, 95, 10**4])
def test_images_that_are_multiplied_together(
    columns: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for images in (0, 1, 2, 5, 7, 11):
        check_gram(images, columns, count, monkeypatch)


def test_an_image_in_the_wrong_columns_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right: Any = kernels.patches_of
    check_gram(7, 95, 2, monkeypatch)
    monkeypatch.setattr(kernels, "patches_of", lambda *given: right(*given[:-1], 0))
    with pytest.raises(AssertionError, match="all patches"):
        check_gram(7, 95, 2, monkeypatch)


def test_images_of_the_next_part_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = threads._run
    check_gram(7, 95, 2, monkeypatch)
    monkeypatch.setattr(
        threads, "_run", lambda kernel, spans: parts(kernel, [(a, b + (a == 0)) for a, b in spans])
    )
    with pytest.raises(AssertionError, match="all patches"):
        check_gram(7, 95, 2, monkeypatch)


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (all_patches, "for 16 images"),
        (a_copy, "for 16 images"),
        (patches_of_16_images, "its patches are"),
        (all_batches, "for two batches"),
    ],
)
def test_what_holds_more_than_one_image_is_seen(
    planted: Callable[..., Hessian], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_memory(planted, Conv2d(4, 3, 3, padding=1), monkeypatch)


@pytest.mark.parametrize(("name", "bias"), CASES)
def test_the_error_is_the_quadratic_form(name: str, bias: bool) -> None:
    layer, shape = LAYERS[name]
    rng = np.random.default_rng(3)
    x = integers(rng, (4, *shape))
    H = accumulate_hessian(layer, [x], bias=bias).blocks
    packed = layer.pack({k: np.zeros(s) for k, s in layer.parameter_shapes().items()}, bias=bias)
    W, G = integers(rng, packed.shape), integers(rng, packed.shape)
    E = layer_error(H, W, G)
    assert E == layer_error_from_data(layer, [x[:3], x[3:]], W, G, bias=bias)
    matrices = design(layer, x, bias=bias)
    assert E == sum(naive.layer_error(X, W[g], G[g], 4) for g, X in enumerate(matrices))
    assert E == sum(naive.objective(H[g], W[g], G[g]) for g in range(len(H)))
    assert layer_error(H, W, W) == 0.0


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_the_taylor_series_ends_after_its_second_term(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, W, delta = integers(rng, (5, 3)), integers(rng, (1, 3, 2)), integers(rng, (1, 3, 2))
    H = accumulate_hessian(Linear(3, 2), [x]).blocks
    E = [layer_error(H, W, W + t * delta) for t in (-1.0, 1.0, 2.0, 3.0)]
    assert E[0] == E[1]  # no linear and no cubic term
    assert E[2] == pytest.approx(4 * E[1], rel=1e-15) and E[3] == pytest.approx(9 * E[1], rel=1e-15)


def test_rank_condition_and_dead_inputs() -> None:
    x = integers(np.random.default_rng(4), (3, 6))
    x[:, 2] = 0.0
    H = accumulate_hessian(Linear(6, 1), [x])
    assert H.rank.tolist() == [int(np.linalg.matrix_rank(x))] == [3]
    assert H.dead.tolist() == [[False, False, True, False, False, False]]
    assert H.condition[0] == pytest.approx(np.linalg.cond(x @ x.T), rel=1e-9)
    low, high = H.eigenvalue_range
    assert abs(low) <= 1e-13 * high
    assert high == H.lambda_max == pytest.approx(2 / 3 * np.linalg.norm(x, 2) ** 2)
    assert H.mean_diagonal == pytest.approx(2 / 3 * float((x**2).sum()) / 6)


def test_eigenvalues_come_from_either_decomposition() -> None:
    block = np.diag([3.0, 1.0, 2.0])[None]
    first, second = Hessian(block, 1), Hessian(block, 1)
    assert second.eigh[1].shape == (1, 3, 3)
    assert first.eigenvalues.tolist() == second.eigenvalues.tolist() == [[1.0, 2.0, 3.0]]
    assert second.eigenvalues is second.eigh[0]


def test_a_zero_block_has_rank_0_and_condition_1() -> None:
    H = Hessian(np.zeros((2, 3, 3)), 1)
    assert H.rank.tolist() == [0, 0] and H.condition.tolist() == [1.0, 1.0] and H.dead.all()


def test_largest_eigenvalue_of_large_blocks() -> None:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((40, 1100))
    blocks = np.stack([X.T @ X, np.zeros((1100, 1100)), 3 * np.eye(1100)])
    assert largest_eigenvalue(blocks) == pytest.approx(np.linalg.norm(X, 2) ** 2, rel=1e-12)
    assert largest_eigenvalue(blocks[2:]) == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize("d", [256, 257, 300, 576])
def test_largest_eigenvalue_of_hard_blocks(d: int) -> None:
    second_difference = np.zeros(d)
    second_difference[:3] = np.array([1.0, -2.0, 1.0]) / np.sqrt(6)
    spread = np.diag(np.concatenate([np.zeros(3), np.linspace(0.1, 1, d - 3)]))
    noise = np.random.default_rng(d).standard_normal((d, d))
    close = np.eye(d) + 1e-9 * (noise + noise.T)
    for block in (
        2 * np.outer(second_difference, second_difference) + spread,  # a linear start is orthogonal to it
        2 * np.outer(second_difference, second_difference) + np.diag(np.arange(d) == 5),
        close,
        1e-300 * np.eye(d),
        1e300 * np.eye(d),
        noise @ noise.T,
    ):
        largest = largest_eigenvalue(block[None])
        assert largest == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-12, abs=0)
        assert largest == largest_eigenvalue(block[None])  # bit for bit


def test_where_lanczos_fails_a_dense_solver_finds_the_eigenvalue(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise scipy.sparse.linalg.ArpackNoConvergence("no", np.empty(0), np.empty((0, 0)))

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", fail)
    assert largest_eigenvalue(np.diag(np.arange(300.0))[None]) == pytest.approx(299.0, rel=1e-12)


def determinant(matrix: list[list[Fraction]]) -> Fraction:
    if not matrix:
        return Fraction(1)
    total = Fraction(0)
    for j, entry in enumerate(matrix[0]):
        total += (-1) ** j * entry * determinant([row[:j] + row[j + 1 :] for row in matrix[1:]])
    return total


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_certificates_are_true(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    X = integers(rng, (d, d))
    H = (X.T @ X)[None]
    largest = float(np.linalg.eigvalsh(H)[0, -1])
    for change in (-1e-15, 0.0, 1e-15, 1e-14, 1e-13, 1e-12):
        bound = largest * (1 + change)
        if certified_above(H, bound):  # then all leading minors of bound I - H are positive, in rationals
            exact = [[Fraction(bound) * (i == j) - Fraction(H[0, i, j]) for j in range(d)] for i in range(d)]
            assert all(determinant([row[:k] for row in exact[:k]]) > 0 for k in range(1, d + 1))
    assert certified_above(H, largest * (1 + 1e-10) + 1e-300) or largest == 0
    assert not certified_above(H, largest * (1 - 1e-10)) or largest == 0


def test_every_block_needs_its_certificate() -> None:
    H = np.stack([np.eye(2), 5 * np.eye(2)])
    assert certified_above(H, 6.0) and not certified_above(H, 4.0)
    assert not certified_above(H, float("nan"))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (np.zeros((2, 2)), "`blocks` must have shape"),
        (np.zeros((1, 2, 3)), "`blocks` must have shape"),
        (np.zeros((0, 2, 2)), "`blocks` must have shape"),
        (np.full((1, 1, 1), np.nan), "`blocks` must be finite"),
        (np.array([[[1.0, 2.0], [0.0, 1.0]]]), "`blocks` must be symmetric"),
        (np.array([[[-1.0]]]), "`blocks` must be positive semidefinite"),
    ],
)
def test_refused_blocks(blocks: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hessian(blocks, 1)


def test_refused_types_and_counts() -> None:
    with pytest.raises(TypeError, match="float64"):
        Hessian(np.eye(2, dtype=np.float32)[None], 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`images` must be"):
        Hessian(np.eye(2)[None], 0)


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3))]])
def test_no_image_is_refused(batches: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"`(batches|images)` must"):
        accumulate_hessian(Linear(3, 1), batches)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_refused(value: float) -> None:
    x = np.ones((2, 3))
    x[1, 2] = value
    with pytest.raises(ValueError, match=r"`x` must be finite, got .* at index \(1, 2\)"):
        HessianAccumulator(Linear(3, 1)).add(x)


def test_a_sum_that_overflows_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="`gram` must be finite"),
        np.errstate(over="ignore", invalid="ignore"),
    ):
        HessianAccumulator(Linear(1, 1)).add(np.array([[1e200]]))


def test_float32_inputs_are_summed_in_float64() -> None:
    x = np.full((3, 1), 4097.0, dtype=np.float32)  # its square needs 25 bits
    assert accumulate_hessian(Linear(1, 1), [x]).blocks[0, 0, 0] == 2 * 4097.0**2


@pytest.mark.parametrize("shape", [(1, 2, 1), (2, 3, 1)])
def test_misshapen_weights_are_refused(shape: tuple[int, ...]) -> None:
    H: Any = np.eye(3)[None]
    with pytest.raises(ValueError, match="must have shape"):
        layer_error(H, np.zeros(shape), np.zeros(shape))
