"""A few images out of many, by a seeded generator."""

from __future__ import annotations

import numpy as np

from refldnq._checks import check_integer, check_shape
from refldnq._typing import Int64Array


def sample(
    total: int,
    count: int,
    rng: np.random.Generator,
    *,
    labels: Int64Array | None = None,
    stratified: bool = False,
) -> Int64Array:
    """Indices of `count` of `total` images, ascending, without repetition.

    Parameters
    ----------
    total, count : int
        How many there are and how many are wanted.
    rng : numpy.random.Generator
        Chooses.
    labels : Array, shape (total,), int64, optional
        Class indices; needed for a stratified choice.
    stratified : bool, optional
        Whether every class gives the same number of images, up to one (the classes that give one more are
        drawn from those that can).

    Returns
    -------
    Array, shape (count,), int64

    Raises
    ------
    ValueError
        If there are fewer images than wanted, in all or of a class, or labels are missing.

    Examples
    --------
    >>> indices = sample(6, 4, np.random.default_rng(0), labels=np.array([0, 0, 0, 1, 1, 1]), stratified=True)
    >>> int((indices < 3).sum())
    2
    """
    check_integer("count", count, at_least=1)
    if count > total:
        raise ValueError(f"`count` must be at most the number of images, {total}, got {count}.")
    if not stratified:
        return np.sort(rng.choice(total, count, replace=False)).astype(np.int64)
    if labels is None:
        raise ValueError("`labels` must be given for a stratified choice, got None.")
    check_shape("labels", labels, (total,))
    present, sizes = np.unique(labels, return_counts=True)
    share, more = divmod(count, len(present))
    able = np.flatnonzero(sizes > share)  # those that can give one more
    if sizes.min() < share or len(able) < more:
        few = int(sizes.argmin())
        wanted = share if sizes[few] < share else share + 1
        raise ValueError(
            f"`count` must leave class {present[few]} at most {sizes[few]} images, got {wanted}: "
            f"{count} images of {len(present)} classes."
        )
    shares = np.full(len(present), share)
    shares[able[rng.permutation(len(able))[:more]]] += 1
    parts = [
        rng.choice(np.flatnonzero(labels == label), size, replace=False)
        for label, size in zip(present, shares, strict=True)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def shuffled_batches(count: int, size: int, rng: np.random.Generator) -> list[Int64Array]:
    """The indices 0..count-1 in random order, in batches of nearly equal size.

    Parameters
    ----------
    count : int
        Number of images.
    size : int
        Most images a batch. A remainder is spread over all batches: a last batch of one image would have no
        variance for batch normalization.
    rng : numpy.random.Generator
        Shuffles.

    Returns
    -------
    list of Array

    Examples
    --------
    >>> [len(batch) for batch in shuffled_batches(7, 3, np.random.default_rng(0))]
    [3, 2, 2]
    """
    return np.array_split(rng.permutation(count), -(-count // size))


def least_batch(count: int, size: int) -> int:
    """Images of the smallest of `shuffled_batches`.

    Parameters
    ----------
    count : int
        Number of images.
    size : int
        Most images a batch.

    Returns
    -------
    int

    Examples
    --------
    >>> least_batch(7, 3), least_batch(3, 50)
    (2, 3)
    """
    return count // -(-count // size)
