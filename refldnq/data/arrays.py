"""Arrays of images in NPZ and HDF5 files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from refldnq._typing import Array
from refldnq.data.dataset import Dataset
from refldnq.data.hdf5 import own_dataset
from refldnq.errors import FormatError

SUFFIXES = (".npz", ".h5", ".hdf5")
"""Of the files that are understood."""

NAMES = {
    "train": (("x_train", "y_train"), ("images", "labels")),
    "test": (("x_test", "y_test"), ("images_test", "labels_test")),
}
"""Under which names the images and labels of a split are looked for, in this order."""

_DAMAGE = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy, zipfile and h5py raise on damaged content; NotImplementedError is a RuntimeError."""


def array_names(path: Path, split: str) -> tuple[str, str] | None:
    """The names of images and labels of a split in a file, or None if it has no such images.

    Raises
    ------
    FormatError
        If the file is neither NPZ nor HDF5.
    """
    with _opened(path) as (names, _):
        return next((pair for pair in NAMES[split] if pair[0] in names), None)


def load_arrays(path: Path, split: str) -> Dataset:
    """The images and, if they are there, the labels of a split.

    Parameters
    ----------
    path : Path
        ``.npz``, ``.h5`` or ``.hdf5``. Training images are called ``x_train`` or ``images``, test images
        ``x_test`` or ``images_test``; their labels ``y_train`` or ``labels``, ``y_test`` or ``labels_test``.
    split : {'train', 'test'}
        Which.

    Returns
    -------
    Dataset
        Images of three axes, (n, h, w), as in Keras' ``mnist.npz``, get a channel axis: (n, 1, h, w); labels
        (n, 1), as in Keras' CIFAR-10, lose their second axis.

    Raises
    ------
    FormatError
        If the file is damaged or lacks the images, or an array is not of numbers of the right type and shape;
        the message names the file and the array.

    Notes
    -----
    Nothing is unpickled, and HDF5 links and datasets that lead to other files are refused.
    """
    found = array_names(path, split)
    if found is None:
        wanted = " or ".join(f"`{images}`" for images, _ in NAMES[split])
        raise FormatError(f"`{path}` must hold {wanted} for the {split} split, found neither.")
    with _opened(path) as (names, read):
        images = _read(path, read, found[0])
        labels = _read(path, read, found[1]) if found[1] in names else None
    if images.ndim == 3:
        images = images[:, None]
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    try:
        return Dataset(images, labels, None, f"{path.stem}-{split}")
    except (ValueError, TypeError) as error:
        raise FormatError(f"`{path}`, arrays `{found[0]}` and `{found[1]}`: {error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[frozenset[str], Callable[[str], Array]]]:
    # What the file holds, and how to read one of it.
    if path.suffix.lower() == ".npz":
        # Opened here: NumPy leaves a file open that is damaged.
        with path.open("rb") as stream:
            try:
                archive = np.load(stream, allow_pickle=False)
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise ValueError("a single array")
            except _DAMAGE as error:
                raise FormatError(f"`{path}` must be an NPZ file, got: {error}.") from None
            with archive:
                yield frozenset(archive.files), lambda name: np.asarray(archive[name])
        return
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"`{path}` must be an HDF5 file, got: {error}.") from None

    def read(name: str) -> Array:
        dataset = own_dataset(file, name)
        if dataset.dtype.kind not in "iuf":
            raise ValueError(f"must be an array of numbers, got {dataset.dtype}.")
        return np.asarray(dataset[()])

    with file:
        yield frozenset(file), read


def _read(path: Path, read: Callable[[str], Array], name: str) -> Array:
    try:
        array = read(name)
    except _DAMAGE as error:
        raise FormatError(f"`{path}`, array `{name}`: {error}") from None
    return array.astype(array.dtype.newbyteorder("="), copy=False)
