"""Folders of pictures, one a class, as ImageNet comes: read when they are needed, not before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_choice, check_integer
from refldnq._typing import Array
from refldnq.data.dataset import Dataset
from refldnq.data.pictures import read_picture
from refldnq.errors import FormatError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Of pictures, in lower or upper case."""

OTHER_SUFFIXES = (".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".jfif", ".avif", ".heic")
"""Of pictures that are not read: beside others in a class's folder they are refused rather than left out."""

SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "test")}
"""Where the classes' folders of a split are looked for."""

CLASSES = "classes.txt"
"""One class a line, its folder's name first: the order of the indices."""

SIZE = 256
"""Rows and columns of a picture unless a preprocessing asks for others; the short side of ImageNet's usual
evaluation."""

SEED = 0
"""Of the split into halves where folders do not tell."""


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Files that look like an array (n, 3, size, size) of bytes; they are decoded when they are indexed.

    Parameters
    ----------
    root : Path
        The folder.
    names : tuple of str
        Files below it.
    size : int, optional
        Rows and columns of a decoded picture: the short side is resized to it, the middle kept.
    split : str, optional
        How the names were chosen, for the record.

    Raises
    ------
    ValueError
        If `size` is below 1.
    """

    root: Path
    names: tuple[str, ...]
    size: int = SIZE
    split: str = ""

    def __post_init__(self) -> None:
        check_integer("size", self.size, at_least=1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, size, size)."""
        return len(self.names), 3, self.size, self.size

    @property
    def ndim(self) -> int:
        """4."""
        return 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.names)

    def _numbers(self, places: Any) -> npt.NDArray[Any]:
        numbers: npt.NDArray[Any] = np.asarray(np.arange(len(self.names))[places])
        return numbers

    def __getitem__(self, places: Any) -> Array:
        """The decoded pictures at `places`: an index, a slice, or an array of either kind NumPy takes."""
        numbers = self._numbers(places)
        if not numbers.ndim:
            return read_picture(self.root / self.names[int(numbers)], self.size)
        out = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for row, number in zip(out, numbers, strict=True):
            row[...] = read_picture(self.root / self.names[number], self.size)
        return out

    def take(self, places: Any) -> PictureFiles:
        """The files at `places`; none is read."""
        return replace(self, names=tuple(self.names[number] for number in self._numbers(places)))

    def sized(self, size: int) -> PictureFiles:
        """The same files, decoded to another size."""
        return replace(self, size=size)


def folder_of_pictures(path: Path) -> bool:
    """Whether a folder, or its ``train``, ``val`` or ``test``, holds folders of pictures.

    Examples
    --------
    >>> folder_of_pictures(Path("nowhere"))
    False
    """
    return any(_has_classes(path / name) for names in SPLIT_FOLDERS.values() for name in (*names, "."))


def has_folder_split(path: Path, split: str) -> bool:
    """Whether `load_folder` finds the split; its files may still turn out to be damaged."""
    if _split_folders(path):
        return split in _split_folders(path)
    return _has_classes(path)


def load_folder(path: Path, split: str) -> Dataset:
    """The pictures of a split, a class a folder; nothing is decoded yet.

    Parameters
    ----------
    path : Path
        Holds ``train/<class>/<picture>`` and ``val/<class>/<picture>`` (or ``test``), or
        ``<class>/<picture>``, which is then split into halves at random, once and for all (`SEED`).
    split : {'train', 'test'}
        Which; ``val`` is the test split.

    Returns
    -------
    Dataset
        Its `images` are `PictureFiles`. Classes are in the order of the file ``classes.txt``, one a line, its
        folder's name first; without the file in the order of the folders' names.

    Raises
    ------
    FormatError
        If the split is not there or empty, a folder is not in ``classes.txt``, a line there does not begin
        with the name of a folder, or a class's folder holds pictures that are not read (`OTHER_SUFFIXES`).
    ValueError
        If the split is unknown.

    Notes
    -----
    Files and folders whose names begin with a dot are left alone, and so are files that are no pictures.

    The halves depend on the files' names alone: ``numpy.random.default_rng(SEED)`` permutes them in the order
    of the names; the first half, rounded up, is for training.
    """
    check_choice("split", split, tuple(SPLIT_FOLDERS))
    places = _split_folders(path)
    if places and split not in places:
        wanted = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split])
        raise FormatError(f"`{path}` must hold {wanted} with folders of pictures, found neither.")
    classes = _classes(path, list(places.values()) or [path])
    own = places.get(split, path)
    names, labels = [], []
    for label, name in enumerate(classes):
        found = _pictures(own / name)
        names += [file.relative_to(path).as_posix() for file in found]
        labels += [label] * len(found)
    if len(names) < (2 if split == "test" and not places else 1):  # half of one, rounded down, is none
        raise FormatError(
            f"`{path}` must hold pictures in folders, one a class, enough for the split {split!r}, "
            f"found {len(names)}."
        )
    how, chosen = f"the folder {own.name}", np.arange(len(names))
    if not places:
        order = np.array(sorted(range(len(names)), key=names.__getitem__))
        order = order[np.random.default_rng(SEED).permutation(len(names))]
        half = -(-len(names) // 2)
        chosen = np.sort(order[:half] if split == "train" else order[half:])
        digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
        how = f"half of {len(names)} files, seed {SEED}, sha256 of the names {digest}"
    files = PictureFiles(path, tuple(names), split=how).take(chosen)
    # It has all of an array that a data set needs.
    return Dataset(cast(Array, files), np.array(labels, np.int64)[chosen], classes, f"{path.name}-{split}")


def _split_folders(path: Path) -> dict[str, Path]:
    found = {}
    for split, names in SPLIT_FOLDERS.items():
        places = [path / name for name in names if _has_classes(path / name)]
        if places:
            found[split] = places[0]
    return found


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(place for place in path.iterdir() if place.is_dir() and not place.name.startswith("."))


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    other = next((file for file in path.iterdir() if _is(file, OTHER_SUFFIXES)), None)
    if other is not None:
        raise FormatError(f"`{other}` must be a file of a kind that is read: {', '.join(SUFFIXES)}.")
    return sorted(file for file in path.iterdir() if _is(file, SUFFIXES))


def _is(file: Path, suffixes: tuple[str, ...]) -> bool:
    return file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()


def _has_classes(path: Path) -> bool:
    suffixes = (*SUFFIXES, *OTHER_SUFFIXES)
    return any(_is(file, suffixes) for folder in _folders(path) for file in folder.iterdir())


def _classes(path: Path, places: Sequence[Path]) -> tuple[str, ...]:
    present = sorted({folder.name for place in places for folder in _folders(place) if _pictures(folder)})
    listed = path / CLASSES
    if not listed.is_file():
        return tuple(present)
    lines = listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = tuple(line.split()[0] for line in lines if line.strip())
    for name in names:  # others would lead out of the data set
        if name in (".", "..") or any(mark in name for mark in "/\\:\0"):
            raise FormatError(f"`{listed}` must begin every line with the name of a folder, got {name!r}.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FormatError(f"`{listed}` must hold different classes, got {twice!r} twice.")
    unknown = sorted(set(present) - set(names))
    if unknown:
        raise FormatError(f"`{listed}` must hold every folder of pictures, {unknown[0]!r} is not there.")
    return names
