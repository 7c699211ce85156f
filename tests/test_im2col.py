"""im2col against its definition, col2im as its adjoint, threads as a pure split of work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq._kernels import threads
from refldnq._typing import Array
from refldnq.im2col import Window, col2im, im2col

windows = st.builds(
    Window,
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)


def by_definition(x: Array, window: Window) -> Array:
    n, c, h, w = x.shape
    ho, wo = window.output(h, w)
    out = np.zeros((n, c * window.kernel[0] * window.kernel[1], ho * wo))
    for index in np.ndindex(n, c, window.kernel[0], window.kernel[1], ho, wo):
        i, k, a, b, p, q = index
        row = p * window.stride[0] + a * window.dilation[0] - window.padding[0]
        col = q * window.stride[1] + b * window.dilation[1] - window.padding[2]
        if 0 <= row < h and 0 <= col < w:
            entry = (k * window.kernel[0] + a) * window.kernel[1] + b
            out[i, entry, p * wo + q] = x[i, k, row, col]
    return out


@given(window=windows, h=st.integers(3, 6), w=st.integers(3, 6), seed=st.integers(0, 9))
def test_im2col_is_its_definition_and_col2im_its_adjoint(window: Window, h: int, w: int, seed: int) -> None:
    ho, wo = window.output(h, w)
    if ho < 1 or wo < 1:
        return
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, (2, 2, h, w)).astype(float)
    patches = im2col(x, window)
    assert np.array_equal(patches, by_definition(x, window))
    other = rng.integers(-9, 9, patches.shape).astype(float)
    # Integers: the inner products are exact.
    assert np.vdot(patches, other) == np.vdot(x, col2im(other, window, x.shape[1:]))


def test_the_comparison_sees_a_transposed_patch() -> None:
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    window = Window((2, 2), (1, 1), (0, 0, 0, 0), (1, 1))
    swapped = im2col(x.transpose(0, 1, 3, 2), window)
    assert not np.array_equal(swapped, by_definition(x, window))


@given(count=st.integers(0, 50), grain=st.integers(1, 20))
def test_chunks_cover_the_range_once(count: int, grain: int) -> None:
    spans = threads.chunks(count, grain)
    assert [i for a, e in spans for i in range(a, e)] == list(range(count))
    assert len(spans) <= 1 or all(e - a >= grain for a, e in spans)


def test_run_chunks_passes_errors_on() -> None:
    def fail(part: int, start: int, stop: int) -> None:
        raise RuntimeError(f"part {part}")

    with pytest.raises(RuntimeError, match="part"):
        threads.run_chunks(fail, 4)


def test_thread_count_refuses_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.thread_count.cache_clear()
    monkeypatch.setenv("REFLDNQ_NUM_THREADS", "two")
    with pytest.raises(ValueError, match="`REFLDNQ_NUM_THREADS` must be a positive integer, got 'two'"):
        threads.thread_count()
    threads.thread_count.cache_clear()
