"""MNIST and its relatives: idx files, gzipped or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from refldnq._typing import Array
from refldnq.data.dataset import Dataset
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
        If the magic number, the type or the number of bytes is wrong.
    """
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError(f"`{path}` must be a whole gzip file, got: {error}.") from None
    head = 4 + 4 * axes
    magic = bytes((0, 0, 8, axes))
    if len(raw) < head or raw[:4] != magic:
        raise FormatError(
            f"`{path}` must start with the idx magic {magic.hex()}, got {raw[:4].hex() or 'nothing'}."
        )
    shape = struct.unpack(f">{axes}I", raw[4:head])
    size = int(np.prod(shape, dtype=object))
    if len(raw) - head != size:
        raise FormatError(f"`{path}` must hold {size} bytes for shape {shape}, got {len(raw) - head}.")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


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
        If a file is missing, truncated or not idx, or images and labels differ in number.
    """
    prefix = "train" if split == "train" else "t10k"
    arrays = []
    for kind, axes in (("images-idx3", 3), ("labels-idx1", 1)):
        plain = folder / f"{prefix}-{kind}-ubyte"
        found = [path for path in (plain, plain.with_name(plain.name + ".gz")) if path.is_file()]
        if not found:
            raise FormatError(f"`{folder}` must hold {plain.name} or {plain.name}.gz, found neither.")
        arrays.append(read_idx(found[0], axes))
    images, labels = arrays
    if len(images) != len(labels):
        raise FormatError(
            f"`{folder}` must hold as many labels as images, got {len(labels)} and {len(images)}."
        )
    return Dataset(images[:, None], labels.astype(np.int64), CLASSES, f"mnist-{split}")
