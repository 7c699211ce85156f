"""One name for all data sets: a folder, a file, or the embedded digits."""

from __future__ import annotations

from pathlib import Path

from refldnq._checks import check_choice
from refldnq.data.arrays import array_names, load_arrays
from refldnq.data.cifar import load_cifar10
from refldnq.data.dataset import Dataset
from refldnq.data.digits import digits
from refldnq.data.mnist import load_mnist
from refldnq.errors import FormatError

CIFAR_FOLDERS = (".", "cifar-10-batches-bin", "cifar-10-batches-py")
MNIST_FOLDERS = (".", "mnist")


def _find(folder: Path, places: tuple[str, ...], pattern: str) -> Path | None:
    return next((folder / place for place in places if any((folder / place).glob(pattern))), None)


def load_dataset(source: str | Path, split: str = "train") -> Dataset:
    """The training or the test images of a data set.

    Parameters
    ----------
    source : str or Path
        ``"digits"``; a folder with CIFAR-10 (binary or Python batches) or MNIST (idx, gzipped or not), or one
        that holds such a folder; or an ``.npz``, ``.h5`` or ``.hdf5`` file.
    split : {'train', 'test'}, optional
        Which.

    Returns
    -------
    Dataset

    Raises
    ------
    FormatError
        If nothing that can be read is there, or a file is damaged.
    ValueError
        If the split is unknown.
    ModuleNotFoundError
        If the digits are asked for without scikit-learn.

    Examples
    --------
    >>> load_dataset("digits").images.shape
    (1297, 1, 8, 8)
    """
    check_choice("split", split, ("train", "test"))
    if str(source) == "digits":
        return digits(split)
    path = Path(source)
    if path.is_dir():
        cifar = _find(path, CIFAR_FOLDERS, "*_batch*")
        if cifar is not None:
            return load_cifar10(cifar, split)
        mnist = _find(path, MNIST_FOLDERS, "*-idx?-ubyte*")
        if mnist is not None:
            return load_mnist(mnist, split)
        raise FormatError(f"`{path}` must hold CIFAR-10 batches or MNIST's idx files, found neither.")
    if path.suffix in (".npz", ".h5", ".hdf5") and path.is_file():
        return load_arrays(path, split)
    raise FormatError(
        f"`{path}` must be a folder, an .npz, .h5 or .hdf5 file, or the word digits; it is none."
    )


def load_test(source: str | Path) -> Dataset | None:
    """The test images, or None if the data set has none.

    Raises
    ------
    FormatError
        If what is there is damaged.
    """
    path = Path(source)
    if str(source) != "digits":
        if path.is_dir():
            cifar = _find(path, CIFAR_FOLDERS, "*_batch*")
            if cifar is not None and not any(cifar.glob("test_batch*")):
                return None
            if cifar is None and _find(path, MNIST_FOLDERS, "t10k-*") is None:
                return None
        elif path.is_file() and array_names(path, "test") is None:
            return None
    return load_dataset(source, "test")
