"""The choice of a few images: seeded, ascending, without repetition, stratified where it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq._typing import Int64Array
from refldnq.data.dataset import Dataset
from refldnq.data.sampling import sample

Draw = Callable[[int, int, int], Int64Array]
"""total, count, seed -> indices."""


def plain(total: int, count: int, seed: int) -> Int64Array:
    return sample(total, count, np.random.default_rng(seed))


def check_choice(draw: Draw, total: int, count: int, seed: int) -> None:
    indices = draw(total, count, seed)
    assert indices.dtype == np.int64 and indices.shape == (count,)
    assert ((indices >= 0) & (indices < total)).all(), "out of range"
    assert (np.diff(indices) > 0).all(), "not ascending or repeated"
    assert np.array_equal(indices, draw(total, count, seed)), "not determined by the seed"


@given(data=st.data(), total=st.integers(1, 300), seed=st.integers(0, 99))
def test_indices_ascend_without_repetition(data: st.DataObject, total: int, seed: int) -> None:
    count = data.draw(st.integers(1, total))
    check_choice(plain, total, count, seed)
    assert np.array_equal(plain(total, total, seed), np.arange(total))


def test_another_seed_chooses_others() -> None:
    assert not np.array_equal(plain(1000, 20, 0), plain(1000, 20, 1))


def check_shares(indices: Int64Array, labels: Int64Array) -> None:
    present = np.unique(labels)
    got = sorted(int((labels[indices] == label).sum()) for label in present)
    want = sorted((len(indices) + i) // len(present) for i in range(len(present)))
    if got != want:
        raise AssertionError(f"{got} images of the classes, not {want}")


unseeded = np.random.default_rng()
PLANTED: dict[str, tuple[Draw, str]] = {
    "with repetition": (
        lambda total, count, seed: np.sort(np.random.default_rng(seed).integers(0, total, count)),
        "repeated",
    ),
    "not sorted": (
        lambda total, count, seed: np.random.default_rng(seed).permutation(total)[:count],
        "ascending",
    ),
    "from one": (lambda total, count, seed: plain(total, count, seed) + total // 2, "out of range"),
    "without the seed": (lambda total, count, seed: sample(total, count, unseeded), "seed"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_check_sees_a_planted_bug(bug: str) -> None:
    draw, message = PLANTED[bug]
    with pytest.raises(AssertionError, match=message):
        check_choice(draw, 100, 60, 0)


def test_every_image_is_drawn_equally_often() -> None:
    rng, draws = np.random.default_rng(0), 2000
    counts = np.zeros(10)
    for _ in range(draws):
        counts[sample(10, 3, rng)] += 1
    # Each count is binomial(2000, 0.3), standard deviation 20.5; five of them.
    assert np.abs(counts - 0.3 * draws).max() <= 103


@given(
    sizes=st.lists(st.integers(8, 20), min_size=1, max_size=6),
    data=st.data(),
    seed=st.integers(0, 99),
)
def test_a_stratified_choice_takes_every_class_alike(
    sizes: list[int], data: st.DataObject, seed: int
) -> None:
    count = data.draw(st.integers(1, 8 * len(sizes)))
    labels = np.random.default_rng(seed).permutation(np.repeat(3 * np.arange(len(sizes)), sizes))

    def draw(total: int, count: int, seed: int) -> Int64Array:
        return sample(total, count, np.random.default_rng(seed), labels=labels, stratified=True)

    check_choice(draw, len(labels), count, seed)
    check_shares(draw(len(labels), count, seed), labels)


def test_the_check_sees_a_choice_that_ignores_the_labels() -> None:
    labels = np.repeat([0, 1, 2], [80, 10, 10])
    with pytest.raises(AssertionError, match="images of the classes"):
        check_shares(plain(100, 9, 0), labels)


def test_the_classes_that_give_one_more_are_drawn() -> None:
    labels = np.repeat(np.arange(3), 4)
    more = set()
    for seed in range(20):
        chosen = sample(12, 4, np.random.default_rng(seed), labels=labels, stratified=True)
        more.add(int(np.bincount(labels[chosen]).argmax()))
    assert more == {0, 1, 2}


def test_too_few_images_are_an_error_with_both_numbers() -> None:
    rng, labels = np.random.default_rng(0), np.array([0] * 9 + [1])
    with pytest.raises(ValueError, match="`count` must be at most the number of images, 10, got 11"):
        sample(10, 11, rng)
    with pytest.raises(ValueError, match="`count` must leave class 1 at most 1 images, got 2"):
        sample(10, 4, rng, labels=labels, stratified=True)
    with pytest.raises(ValueError, match="`count` must be at most the number of images, 0, got 1"):
        sample(0, 1, rng)
    with pytest.raises(ValueError, match="`count` must be an integer of at least 1, got 0"):
        sample(10, 0, rng)
    with pytest.raises(TypeError, match="`count` must be an integer, got float"):
        sample(10, 2.0, rng)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`labels` must be given for a stratified choice"):
        sample(10, 2, rng, stratified=True)


@pytest.mark.parametrize("seed", range(10))
def test_a_small_class_gives_what_it_has(seed: int) -> None:
    # 8 of 8 images are 3, 3 and 2: only the small class cannot give one more.
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    chosen = sample(8, 8, np.random.default_rng(seed), labels=labels, stratified=True)
    assert chosen.tolist() == list(range(8))
    few = np.array([0, 0, 1, 1, 2, 2, 2, 2, 2])
    with pytest.raises(ValueError, match="must leave class 0 at most 2 images, got 3: 8 images of 3 classes"):
        sample(9, 8, np.random.default_rng(seed), labels=few, stratified=True)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(9,\), got \(8,\)"):
        sample(9, 8, np.random.default_rng(seed), labels=labels, stratified=True)


def test_a_data_set_samples_itself() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    data = Dataset(np.zeros((10, 1, 2, 2), np.uint8), labels, None, "ten")
    assert np.array_equal(data.sample(4, np.random.default_rng(3)), plain(10, 4, 3))
    chosen = data.sample(4, np.random.default_rng(3), stratified=True)
    assert np.bincount(labels[chosen]).tolist() == [2, 2]
    with pytest.raises(ValueError, match="`labels` must be given"):
        Dataset(data.images, None, None, "ten").sample(4, np.random.default_rng(3), stratified=True)
