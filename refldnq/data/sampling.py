"""A few images out of many, by a seeded generator."""

from __future__ import annotations

import numpy as np

from refldnq._checks import check_integer
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
        drawn).

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
    present = np.unique(labels)
    shares = np.full(len(present), count // len(present))
    shares[rng.permutation(len(present))[: count % len(present)]] += 1
    parts = []
    for label, share in zip(present, shares, strict=True):
        members = np.flatnonzero(labels == label)
        if share > len(members):
            raise ValueError(f"`count` must leave class {label} at most {len(members)} images, got {share}.")
        parts.append(rng.choice(members, share, replace=False))
    return np.sort(np.concatenate(parts)).astype(np.int64)
