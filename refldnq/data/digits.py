"""Real handwritten digits that need no file: scikit-learn's copy of the UCI test set of 1,797 images."""

from __future__ import annotations

import numpy as np

from refldnq._checks import check_choice
from refldnq.data.dataset import Dataset

TRAINING_IMAGES = 1297
"""The rest, 500 images, are the test split."""

SPLIT_SEED = 20190127
"""Of the permutation that splits the images; any number would do."""


def digits(split: str = "train") -> Dataset:
    """The training or the test part of the digits.

    Parameters
    ----------
    split : {'train', 'test'}, optional
        1,297 or 500 images, a fixed random split.

    Returns
    -------
    Dataset
        Images (n, 1, 8, 8), uint8 from 0 (paper) to 16 (ink).

    Raises
    ------
    ValueError
        If the split is unknown.
    ModuleNotFoundError
        If scikit-learn is not installed.

    Examples
    --------
    >>> data = digits("test")
    >>> data.images.shape, int(data.images.max())
    ((500, 1, 8, 8), 16)
    """
    check_choice("split", split, ("train", "test"))
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "The embedded digits need scikit-learn: install `refldnq[data]`.", name="sklearn"
        ) from None
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    part = np.sort(order[:TRAINING_IMAGES] if split == "train" else order[TRAINING_IMAGES:])
    return Dataset(
        images[part].astype(np.uint8).reshape(-1, 1, 8, 8),
        labels[part].astype(np.int64),
        tuple("0123456789"),
        f"digits-{split}",
    )
