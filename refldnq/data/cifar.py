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
"""Names of the classes where no file beside the images tells them."""

RECORD = 1 + 3 * 32 * 32
"""Bytes of a binary record: the label, then the red, green and blue planes."""

PATTERNS = {"train": "data_batch_*", "test": "test_batch*"}
"""Names of the files of a split; with the suffix ``.bin`` binary, without a suffix Python batches."""


def load_cifar10(folder: Path, split: str) -> Dataset:
    """The training or the test images in a folder of official files.

    Parameters
    ----------
    folder : Path
        Holds ``data_batch_*.bin`` and ``test_batch.bin``, or the same names without suffix (Python batches).
        A file may hold any number of records; missing training batches are not missed. Class names come from
        ``batches.meta.txt``, or ``batches.meta`` of the Python format, if there is one.
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

    Notes
    -----
    Python batches are pickles, which could run any code: they are read by an unpickler that builds NumPy
    arrays, dictionaries, lists, numbers and strings and refuses everything else.
    """
    files = cifar10_files(folder, split)
    if not files:
        pattern = PATTERNS[split]
        raise FormatError(f"`{folder}` must hold {pattern}.bin or Python batches {pattern}, found neither.")
    parts = [(_binary if path.suffix == ".bin" else _python)(path) for path in files]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return Dataset(images, labels, _classes(folder), f"cifar10-{split}")


def cifar10_files(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder, binary ones if there are any, in the order of their numbers.

    Examples
    --------
    >>> cifar10_files(Path("nowhere"), "train")
    []
    """
    found = [path for path in folder.glob(PATTERNS[split]) if path.suffix in (".bin", "") and path.is_file()]
    binary = [path for path in found if path.suffix == ".bin"]
    return sorted(binary or found, key=lambda path: (len(path.name), path.name))  # 2 before 10


def _classes(folder: Path) -> tuple[str, ...]:
    text, batch = folder / "batches.meta.txt", folder / "batches.meta"
    if text.is_file():
        source, names = text, text.read_text(encoding="utf-8", errors="replace").split()
    elif batch.is_file():
        source, found = batch, _unpickle(batch).get("label_names")
        names = found if isinstance(found, list) else []
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]
    else:
        return CLASSES
    if len(names) != len(CLASSES) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"`{source}` must hold the names of {len(CLASSES)} classes, got {names!r:.80}.")
    return tuple(names)


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


def _latin1(text: str, encoding: str) -> bytes:
    # How pickles of old protocols write bytes; any other codec is refused.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused the encoding {encoding!r:.40}")
    return text.encode("latin1")


_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_FROM_BUFFER: Any = np.empty(1).__reduce_ex__(5)[0]
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in ("core", "_core")},
    ("_codecs", "encode"): _latin1,
}
"""All that a batch may name: what makes pickled NumPy arrays of any age. Nothing is imported for a file."""


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows NumPy arrays and nothing else: no other callable can be named by a file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return _KNOWN[module, name]


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise FormatError(f"`{path}` must be a Python batch of CIFAR-10, got: {error}.") from None
    if not isinstance(batch, dict):
        return {}
    # Python 2's names arrive as bytes.
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}


def _python(path: Path) -> tuple[Array, Int64Array]:
    batch = _unpickle(path)
    data, labels = batch.get("data"), batch.get("labels")
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != RECORD - 1
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(type(label) is int and abs(label) < 1 << 31 for label in labels)
    ):
        raise FormatError(f"`{path}` must hold uint8 data (n, {RECORD - 1}) and a list of n integer labels.")
    return data.reshape(-1, 3, 32, 32), _labels(path, np.array(labels, dtype=np.int64))
