"""HDF5 without chance: what is written depends on the content alone; small datasets lie in their headers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array

COMPACT = 32 * 1024
"""Largest dataset in bytes that lies in its header, which saves space (the format's limit: 64 KiB)."""


@contextmanager
def new_file(path: Path) -> Iterator[Any]:
    """A new file, as h5py.File, without times and of the format of HDF5 1.8, which all readers know."""
    import h5py

    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    with h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, creation, access)) as file:
        yield file


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """A file to read from.

    Raises
    ------
    ValueError
        If it is no HDF5 file.
    OSError
        If there is no such file.
    """
    import h5py

    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    if not h5py.is_hdf5(path):
        raise ValueError(f"`{path}` must be an HDF5 file.")
    with h5py.File(path, "r") as file:
        yield file


def new_group(parent: Any, place: str) -> Any:
    """The group at a place, made with all above it where they do not exist, without times."""
    import h5py

    for name in place.split("/"):
        if name not in parent:
            creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
            creation.set_obj_track_times(False)
            h5py.h5g.create(parent.id, name.encode(), gcpl=creation)
        parent = parent[name]
    return parent


def new_dataset(parent: Any, place: str, array: Array) -> Any:
    """A dataset, contiguous or compact, without times or filters."""
    import h5py

    above, _, name = place.rpartition("/")
    group = new_group(parent, above) if above else parent
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    if 0 < array.nbytes <= COMPACT:
        creation.set_layout(h5py.h5d.COMPACT)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    space = h5py.h5s.create_simple(array.shape) if array.ndim else h5py.h5s.create(h5py.h5s.SCALAR)
    made = h5py.h5d.create(group.id, name.encode(), kind, space, creation)
    if array.size:
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return group[name]


def set_attributes(target: Any, values: Mapping[str, Any]) -> None:
    """Attributes: texts in ASCII of fixed length, numbers, truth values as 0 or 1."""
    for name, value in values.items():
        if isinstance(value, str):
            target.attrs[name] = np.bytes_(value.encode("ascii") or b"\0")
        else:
            target.attrs[name] = np.int8(value) if isinstance(value, bool) else np.float64(value)


def attributes(target: Any) -> dict[str, Any]:
    """Attributes, texts decoded."""
    found = {}
    for name, value in target.attrs.items():
        found[name] = value.decode("ascii") if isinstance(value, bytes) else value
    return found


def children(group: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """What lies so many steps below a group, with its place."""
    for name in group:
        if depth == 1:
            yield name, group[name]
        else:
            for place, found in children(group[name], depth - 1):
                yield f"{name}/{place}", found
