"""Crops and mirror images against loops over pixels; mixtures of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq._typing import Array
from refldnq.data.augment import augment, mix


def moved(image: Array, down: int, right: int, mirror: bool, fill: Sequence[float]) -> Array:
    """One image, shifted and then mirrored, pixel by pixel."""
    c, h, w = image.shape
    out = np.empty_like(image)
    for k, row, column in np.ndindex(c, h, w):
        x = w - 1 - column if mirror else column
        a, b = row - down, x - right
        out[k, row, column] = image[k, a, b] if 0 <= a < h and 0 <= b < w else fill[k]
    return out


def versions(image: Array, crop: int, fill: Sequence[float]) -> dict[tuple[int, int, bool], Array]:
    """All versions of an image by shift and mirroring."""
    shifts = range(-crop, crop + 1)
    return {
        (a, b, mirror): moved(image, a, b, mirror, fill)
        for a in shifts
        for b in shifts
        for mirror in (False, True)
    }


def found(image: Array, out: Array, crop: int, fill: Sequence[float]) -> tuple[int, int, bool]:
    """Which version of `image` `out` is; an image of different pixels is one only."""
    same = [key for key, version in versions(image, crop, fill).items() if np.array_equal(version, out)]
    if len(same) != 1:
        raise AssertionError(f"{len(same)} versions are equal")
    return same[0]


def numbered(n: int, c: int = 2, h: int = 5, w: int = 6, dtype: Any = np.float64) -> Array:
    """Images whose pixels all differ, and differ from 0."""
    return 1 + np.arange(n * c * h * w, dtype=dtype).reshape(n, c, h, w)


@given(
    crop=st.integers(0, 2),
    flip=st.booleans(),
    fill=st.sampled_from([0.0, -3.0, (-1.0, -2.0)]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 999),
)
def test_every_image_is_one_of_its_versions(crop: int, flip: bool, fill: Any, dtype: Any, seed: int) -> None:
    images = numbered(3, dtype=dtype)
    before = images.copy()
    out = augment(images, np.random.default_rng(seed), crop=crop, flip=flip, fill=fill)
    assert out.shape == images.shape and out.dtype == dtype
    assert np.array_equal(images, before) and not np.shares_memory(images, out)
    colours = np.broadcast_to(fill, (2,)).tolist()
    for image, version in zip(images, out, strict=True):
        down, right, mirror = found(image, version, crop, colours)
        assert max(abs(down), abs(right)) <= crop and mirror <= flip


def test_the_comparison_sees_a_planted_bug() -> None:
    image = numbered(1)[0]
    with pytest.raises(AssertionError, match="0 versions"):
        found(image, moved(image, 3, 0, False, (0.0, 0.0)), 2, (0.0, 0.0))  # shifted too far
    with pytest.raises(AssertionError, match="0 versions"):
        found(image, image[:, ::-1], 2, (0.0, 0.0))  # upside down
    with pytest.raises(AssertionError, match="0 versions"):
        found(image, np.roll(image, 1, axis=2), 2, (0.0, 0.0))  # pixels that come in on the other side
    with pytest.raises(AssertionError, match="0 versions"):
        found(image, moved(image, 1, 1, False, (1.0, 0.0)), 2, (0.0, 0.0))  # another colour


def test_all_shifts_come_equally_often() -> None:
    images = np.repeat(numbered(1, c=1, h=4, w=4), 1800, axis=0)
    out = augment(images, np.random.default_rng(0), crop=1)
    counts: dict[tuple[int, int, bool], int] = {}
    for version in out:
        key = found(images[0], version, 1, (0.0,))
        counts[key] = counts.get(key, 0) + 1
    # 18 versions: binomial(1800, 1/18), standard deviation 9.7; five of them.
    assert len(counts) == 18
    assert max(abs(count - 100) for count in counts.values()) <= 49


def test_without_crop_and_flip_nothing_changes() -> None:
    images = numbered(4)
    assert np.array_equal(augment(images, np.random.default_rng(0), crop=0, flip=False), images)
    out = augment(images, np.random.default_rng(0), crop=0)
    mirrored = [np.array_equal(a, b[:, :, ::-1]) for a, b in zip(out, images, strict=True)]
    assert all(m or np.array_equal(a, b) for m, a, b in zip(mirrored, out, images, strict=True))


def test_the_seed_decides() -> None:
    images = numbered(20)
    one, two, other = (augment(images, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.tobytes() == two.tobytes() != other.tobytes()
    assert augment(images[:0], np.random.default_rng(0)).shape == (0, 2, 5, 6)


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (
            np.zeros((3, 4, 4)),
            {},
            ValueError,
            r"`images` must have shape \(any, any, any, any\), got \(3, 4, 4\)",
        ),
        (np.zeros((1, 3, 4, 4), np.uint8), {}, TypeError, "`images` must be an array of float32 or float64"),
        (np.zeros((1, 3, 4, 4)), {"crop": -1}, ValueError, "`crop` must be an integer of at least 0, got -1"),
        (np.zeros((1, 3, 4, 4)), {"crop": 1.5}, TypeError, "`crop` must be an integer, got float"),
        (np.zeros((1, 3, 4, 4)), {"fill": np.nan}, ValueError, "`fill` must be finite"),
        (
            np.zeros((1, 3, 4, 4)),
            {"fill": (0.0, 1.0)},
            ValueError,
            r"`fill` must have shape \(3,\), got \(2,\)",
        ),
    ],
)
def test_bad_input_is_named(
    images: Array, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        augment(images, np.random.default_rng(0), **options)


@given(n=st.integers(1, 6), share=st.sampled_from([0.0, 0.25, 1.0]), seed=st.integers(0, 99))
def test_a_mixture_is_one_image_and_a_share_of_another(n: int, share: float, seed: int) -> None:
    # Image i is the unit vector i: a mixture shows whom it is made of, and with which weights.
    out = mix(np.eye(n), np.random.default_rng(seed), share=share)
    others = np.where(out - np.diag(np.diag(out)) > 0)
    assert out.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-15)
    assert (np.diag(out) >= 1 - share - 1e-15).all() and (out >= 0).all()
    assert len(set(others[0])) == len(others[0]) and len(set(others[1])) == len(others[1])
    if share == 0:
        assert np.array_equal(out, np.eye(n))


def test_weights_of_mixtures_fill_their_range() -> None:
    weights = 1 - np.diag(mix(np.eye(500), np.random.default_rng(0), share=0.4))
    assert 0.18 < weights.mean() < 0.22 and 0.39 < weights.max() <= 0.4
    mixed = mix(numbered(3, dtype=np.float32), np.random.default_rng(0), share=0.5)
    assert mixed.dtype == np.float32 and mixed.shape == (3, 2, 5, 6)


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
def test_shares_out_of_range_are_named(share: float) -> None:
    with pytest.raises(ValueError, match="`share`"):
        mix(numbered(2), np.random.default_rng(0), share=share)
