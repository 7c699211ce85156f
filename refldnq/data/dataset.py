"""Images with or without labels, and their fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from refldnq._checks import FLOATS, check_finite, check_shape
from refldnq._typing import Array, Int64Array
from refldnq.data.sampling import sample


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as stored, their labels, and what the labels mean.

    Parameters
    ----------
    images : Array, shape (n, c, h, w) or (n, h, w, c)
        Unsigned bytes, or finite floats; or what looks like such an array and is read in parts
        (`refldnq.data.folder.PictureFiles`).
    labels : Array, shape (n,), int64, or None
        Class indices.
    classes : tuple of str or None
        Names of the classes.
    name : str
        For messages and records.

    Raises
    ------
    ValueError
        If shapes do not fit, an image is not finite, or a label is not a class index.
    TypeError
        If the images are neither uint8 nor float32 or float64, or labels are not integers.

    Examples
    --------
    >>> data = Dataset(np.zeros((3, 1, 2, 2), np.uint8), np.array([0, 1, 0]), ("no", "yes"), "tiny")
    >>> len(data), len(data.take(np.array([1])))
    (3, 1)
    """

    images: Array
    labels: Int64Array | None
    classes: tuple[str, ...] | None
    name: str

    def __post_init__(self) -> None:
        known = isinstance(self.images, np.ndarray) and self.images.dtype in (np.uint8, *FLOATS)
        if not (self.streamed or known):
            kind = getattr(self.images, "dtype", type(self.images).__name__)
            raise TypeError(f"`images` must be an array of uint8, float32 or float64, got {kind}.")
        check_shape("images", self.images, (None, None, None, None))
        if not self.streamed:
            check_finite("images", self.images)
        if self.labels is None:
            return
        labels = np.asarray(self.labels)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"`labels` must be integers, got {labels.dtype}.")
        check_shape("labels", labels, (len(self.images),))
        highest = len(self.classes) - 1 if self.classes is not None else np.iinfo(np.int64).max
        if labels.size and not (labels.min() >= 0 and labels.max() <= highest):
            raise ValueError(f"`labels` must lie in 0..{highest}, got {labels.min()}..{labels.max()}.")
        object.__setattr__(self, "labels", labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Array) -> Dataset:
        """The images at `indices`, with their labels."""
        labels = None if self.labels is None else self.labels[indices]
        images = self.images.take(indices) if self.streamed else self.images[indices]
        return Dataset(images, labels, self.classes, self.name)

    @property
    def streamed(self) -> bool:
        """Whether the images are files that are read when they are needed."""
        return hasattr(self.images, "sized")

    def pixels(self, places: Any, size: int | None = None) -> Array:
        """The stored images at `places`, an index, slice or array.

        Parameters
        ----------
        places : int, slice or Array
            Which.
        size : int, optional
            Rows and columns that files are decoded to; other images stay as they are.

        Returns
        -------
        Array
        """
        images: Any = self.images
        return np.asarray((images.sized(size) if self.streamed and size is not None else images)[places])

    def record(self, indices: Array) -> dict[str, Any]:
        """What a result tells of the images at `indices`: their places, and the files if they are files."""
        found: dict[str, Any] = {
            "name": self.name,
            "size": len(self),
            "indices": [int(index) for index in indices],
        }
        if self.streamed:
            files: Any = self.images
            found |= {"split": files.split, "files": list(files.take(indices).names)}
        return found

    def sample(self, count: int, rng: np.random.Generator, *, stratified: bool = False) -> Int64Array:
        """Indices of `count` images, ascending, without repetition; see `refldnq.data.sampling.sample`."""
        return sample(
            len(self), count, rng, labels=self.labels if stratified else None, stratified=stratified
        )

    def fingerprint(self) -> str:
        """SHA-256 of shapes, types and bytes of images and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            if array is not None:
                digest.update(f"{array.shape} {array.dtype.str}".encode())
                for first in range(0, len(array), 1024):
                    digest.update(np.ascontiguousarray(array[first : first + 1024]).data)
        return digest.hexdigest()
