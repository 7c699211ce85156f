"""CIFAR-10 in its two official formats: binary records and Python batches."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array, Int64Array
from refldnq.data.dataset import Dataset
from refldnq.errors import FormatError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32
"""Bytes of a binary record: the label, then the red, green and blue planes."""


def load_cifar10(folder: Path, split: str) -> Dataset:
    """The training or the test images in a folder of official files.

    Parameters
    ----------
    folder : Path
        Holds ``data_batch_*.bin`` and ``test_batch.bin``, or the same names without suffix (Python batches).
        A file may hold any number of records; missing training batches are not missed.
    split : {'train', 'test'}
        Which.

    Returns
    -------
    Dataset
        Images (n, 3, 32, 32), RGB.

    Raises
    ------
    FormatError
        If there is no file of the split, or one is truncated or not what its name says.
    """
    pattern = "data_batch_*" if split == "train" else "test_batch*"
    for suffix, read in ((".bin", _binary), ("", _python)):
        files = sorted(path for path in folder.glob(pattern) if path.suffix == suffix and path.is_file())
        if files:
            parts = [read(path) for path in files]
            images = np.concatenate([images for images, _ in parts])
            labels = np.concatenate([labels for _, labels in parts])
            return Dataset(images, labels, CLASSES, f"cifar10-{split}")
    raise FormatError(f"`{folder}` must hold {pattern}.bin or Python batches {pattern}, found neither.")


def _binary(path: Path) -> tuple[Array, Int64Array]:
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % RECORD:
        raise FormatError(
            f"`{path}` must hold whole records of {RECORD} bytes, got {raw.size} bytes: "
            "truncated, or not CIFAR-10's binary format."
        )
    records = raw.reshape(-1, RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), _labels(path, records[:, 0].astype(np.int64))


def _labels(path: Path, labels: Int64Array) -> Int64Array:
    if labels.size and not (labels.min() >= 0 and labels.max() < len(CLASSES)):
        wrong = int(labels[(labels < 0) | (labels >= len(CLASSES))][0])
        raise FormatError(f"`{path}` must hold labels 0..9, got {wrong}: not CIFAR-10's format.")
    return labels


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows NumPy arrays and nothing else: no other callable can be named by a file."""

    allowed = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return super().find_class(module, name)


def _python(path: Path) -> tuple[Array, Int64Array]:
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise FormatError(f"`{path}` must be a Python batch of CIFAR-10, got: {error}.") from None
    data = batch.get(b"data") if isinstance(batch, dict) else None
    labels = batch.get(b"labels") if isinstance(batch, dict) else None
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != RECORD - 1
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(type(label) is int for label in labels)
    ):
        raise FormatError(f"`{path}` must hold uint8 data (n, {RECORD - 1}) and a list of n integer labels.")
    return data.reshape(-1, 3, 32, 32), _labels(path, np.array(labels, dtype=np.int64))
