"""One name for all data sets: a folder, a file, or the embedded digits."""

from __future__ import annotations

from pathlib import Path

from refldnq._checks import check_choice
from refldnq.data.arrays import SUFFIXES, array_names, load_arrays
from refldnq.data.cifar import PATTERNS, cifar10_files, load_cifar10
from refldnq.data.dataset import Dataset
from refldnq.data.digits import digits
from refldnq.data.folder import folder_of_pictures, has_folder_split, load_folder
from refldnq.data.mnist import load_mnist, mnist_file
from refldnq.errors import FormatError

SPLITS = ("train", "test")
CIFAR_FOLDERS = (".", "cifar-10-batches-bin", "cifar-10-batches-py")
MNIST_FOLDERS = (".", "mnist")
"""Where official files are looked for, below the folder that is given, in this order."""


def load_dataset(source: str | Path, split: str = "train") -> Dataset:
    """The training or the test images of a data set.

    Parameters
    ----------
    source : str or Path
        ``"digits"``; a folder with CIFAR-10 (binary or Python batches) or MNIST (idx, gzipped or not), or one
        that holds such a folder; a folder of pictures as ImageNet comes (module `folder`); or an ``.npz``,
        ``.h5`` or ``.hdf5`` file.
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
    check_choice("split", split, SPLITS)
    kind, place = _locate(source)
    if kind == "digits":
        return digits(split)
    load = {"cifar": load_cifar10, "mnist": load_mnist, "pictures": load_folder, "arrays": load_arrays}
    return load[kind](place, split)


def has_split(source: str | Path, split: str) -> bool:
    """Whether a data set has a split; its files may still turn out to be damaged.

    Parameters
    ----------
    source : str or Path
        As in `load_dataset`.
    split : {'train', 'test'}
        Which.

    Raises
    ------
    FormatError
        If nothing that can be read is there.
    ValueError
        If the split is unknown.

    Examples
    --------
    >>> has_split("digits", "test")
    True
    """
    check_choice("split", split, SPLITS)
    kind, place = _locate(source)
    if kind == "cifar":
        return bool(cifar10_files(place, split))
    if kind == "mnist":
        return mnist_file(place, split, "images-idx3") is not None
    if kind == "pictures":
        return has_folder_split(place, split)
    return kind == "digits" or array_names(place, split) is not None


def load_test(source: str | Path) -> Dataset | None:
    """The test images, or None if the data set has none.

    Parameters
    ----------
    source : str or Path
        As in `load_dataset`.

    Raises
    ------
    FormatError
        If nothing that can be read is there, or a file is damaged.

    Examples
    --------
    >>> load_test("digits").images.shape
    (500, 1, 8, 8)
    """
    return load_dataset(source, "test") if has_split(source, "test") else None


def _locate(source: str | Path) -> tuple[str, Path]:
    # The kind of a data set, and the folder or file that holds it.
    path = Path(source)
    if str(source) == "digits":
        return "digits", path
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return "arrays", path
    if not path.is_dir():
        raise FormatError(
            f"`{path}` must be a folder, an .npz, .h5 or .hdf5 file, or the word digits; it is none."
        )
    for place in CIFAR_FOLDERS:
        if any(cifar10_files(path / place, split) for split in SPLITS):
            return "cifar", path / place
    for place in MNIST_FOLDERS:
        if any(mnist_file(path / place, split, "images-idx3") for split in SPLITS):
            return "mnist", path / place
    if folder_of_pictures(path):
        return "pictures", path
    raise FormatError(
        f"`{path}` must hold CIFAR-10 batches or MNIST's idx files, found neither: no "
        f"{', '.join(PATTERNS.values())} or *-images-idx3-ubyte(.gz), there or in "
        f"{', '.join((*CIFAR_FOLDERS[1:], *MNIST_FOLDERS[1:]))}; nor a folder of pictures for each class."
    )
