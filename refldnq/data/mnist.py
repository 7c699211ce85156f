"""MNIST and its relatives: idx files, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from refldnq._typing import Array
from refldnq.data.dataset import Dataset
from refldnq.data.hdf5 import MOST_BYTES
from refldnq.errors import FormatError

CLASSES = tuple("0123456789")


def read_idx(path: Path, axes: int) -> Array:
    """The array of bytes in an idx file.

    Parameters
    ----------
    path : Path
        The file; a name ending in ``.gz`` is decompressed.
    axes : int
        Number of axes that the file must declare.

    Returns
    -------
    Array, uint8

    Raises
    ------
    FormatError
        If the magic number, the type or the number of bytes is wrong, or the compressed file is damaged.

    Notes
    -----
    No more is decompressed than the head declares, and one byte: a small file cannot ask for all memory.
    """
    magic = bytes((0, 0, 8, axes))  # two zeros, the code of unsigned bytes, the number of axes
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        try:
            head = file.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != magic:
                start = head[:4].hex() or "nothing"
                raise FormatError(f"`{path}` must start with the idx magic {magic.hex()}, got {start}.")
            shape = struct.unpack(f">{axes}I", head[4:])
            size = math.prod(shape)
            if size > MOST_BYTES:
                raise FormatError(f"`{path}` must hold {size} bytes for shape {shape}, which is too much.")
            raw = file.read(size + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FormatError(f"`{path}` must be a whole gzip file, got: {error}.") from None
    if len(raw) != size:
        got = f"{len(raw)} or more" if len(raw) > size else len(raw)
        raise FormatError(f"`{path}` must hold {size} bytes for shape {shape}, got {got}.")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def mnist_file(folder: Path, split: str, kind: str) -> Path | None:
    """The file of a split's ``images-idx3`` or ``labels-idx1``, gzipped or not; None if there is none.

    Examples
    --------
    >>> mnist_file(Path("nowhere"), "train", "images-idx3") is None
    True
    """
    plain = folder / _name(split, kind)
    return next((path for path in (plain, plain.with_name(plain.name + ".gz")) if path.is_file()), None)


def _name(split: str, kind: str) -> str:
    return f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte"


def load_mnist(folder: Path, split: str) -> Dataset:
    """The training or the test images in a folder of the official files.

    Parameters
    ----------
    folder : Path
        Holds ``train-images-idx3-ubyte`` and the like, with or without ``.gz``.
    split : {'train', 'test'}
        Which.

    Returns
    -------
    Dataset
        Images (n, 1, h, w).

    Raises
    ------
    FormatError
        If a file is missing, truncated or not idx, images and labels differ in number, or a label is not
        0..9.
    """
    arrays = []
    for kind, axes in (("images-idx3", 3), ("labels-idx1", 1)):
        path = mnist_file(folder, split, kind)
        if path is None:
            name = _name(split, kind)
            raise FormatError(f"`{folder}` must hold {name} or {name}.gz, found neither.")
        arrays.append(read_idx(path, axes))
    images, labels = arrays
    if len(images) != len(labels):
        raise FormatError(
            f"`{folder}` must hold as many labels as images, got {len(labels)} and {len(images)}."
        )
    if labels.size and labels.max() >= len(CLASSES):
        raise FormatError(f"`{folder}` must hold labels 0..9, got {labels.max()}: not MNIST.")
    return Dataset(images[:, None], labels.astype(np.int64), CLASSES, f"mnist-{split}")
