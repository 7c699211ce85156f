"""The released code's Hessian and update: each deviation is there, and only those."""

from __future__ import annotations

import numpy as np
import pytest

from refldnq.layers import Conv2d, Linear
from refldnq.released import ReleasedUpdate, released_hessian, same_padding


def test_rows_are_permuted_and_scaled_where_padding_agrees() -> None:
    rng = np.random.default_rng(0)
    layer, x = Conv2d(3, 2, 3, padding=1, bias=False), rng.standard_normal((5, 3, 6, 6))
    exact = layer.hessian(x)[0]
    order = np.arange(27).reshape(3, 9).T.ravel()
    expected = 1.01 * exact[np.ix_(order, order)] / 2 / 36
    assert np.allclose(released_hessian(layer, x, bias=False)[0], expected, rtol=1e-12)
    assert not np.allclose(released_hessian(layer, x, bias=False)[0], 1.01 * exact / 72, rtol=1e-3)


def test_one_channel_has_no_permutation() -> None:
    layer, x = Conv2d(1, 2, 3, padding=1, bias=False), np.random.default_rng(0).standard_normal((5, 1, 6, 6))
    assert np.allclose(released_hessian(layer, x, bias=False), 1.01 * layer.hessian(x) / 72, rtol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "expected"),
    [
        (3, 1, 8, (1, 1, 1, 1)),
        (3, 2, 8, (0, 1, 0, 1)),
        (3, 2, 7, (1, 1, 1, 1)),
        (1, 2, 8, (0, 0, 0, 0)),
        (2, 1, 5, (0, 1, 0, 1)),
    ],
)
def test_same_padding_is_tensorflows(kernel: int, stride: int, size: int, expected: tuple[int, ...]) -> None:
    layer = Conv2d(1, 1, kernel, stride)
    assert same_padding(layer, size, size) == expected


def test_at_stride_two_the_patches_are_shifted() -> None:
    layer, x = Conv2d(1, 1, 3, 2, 1, bias=False), np.random.default_rng(0).standard_normal((4, 1, 8, 8))
    assert not np.allclose(released_hessian(layer, x, bias=False), 1.01 * layer.hessian(x) / 32, rtol=1e-3)


def test_a_linear_layer_gets_a_constant_row_and_202_images() -> None:
    layer, x = Linear(4, 2), np.random.default_rng(0).standard_normal((300, 4))
    got = released_hessian(layer, x, bias=True)[0]
    augmented = np.concatenate([x[:202], np.ones((202, 1))], axis=1)
    assert np.allclose(got, 1.01 * augmented.T @ augmented / 202, rtol=1e-12)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="`max_epochs`"):
        ReleasedUpdate(max_epochs=0)
