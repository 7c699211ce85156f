"""Arrays of HDF5 files that may be damaged or made to harm."""

from __future__ import annotations

from typing import Any

MOST_BYTES = 1 << 33
"""Arrays above 8 GiB are refused (chosen here): a damaged header must not ask for all memory."""


def own_dataset(group: Any, name: str) -> Any:
    """The dataset called `name`, provided that its numbers lie in the file that was opened.

    Parameters
    ----------
    group : h5py.Group
        Where it is looked for.
    name : str
        Its name.

    Returns
    -------
    h5py.Dataset
        Not read yet; at most `MOST_BYTES`.

    Raises
    ------
    ValueError
        If there is no such dataset, it is empty in HDF5's sense (it has no shape) or too large, or a link, a
        virtual or an external dataset would lead to another file. The message lacks the subject.

    Examples
    --------
    >>> import h5py
    >>> with h5py.File("memory", "w", driver="core", backing_store=False) as file:
    ...     file["elsewhere"] = h5py.ExternalLink("/etc/secret.h5", "/x")
    ...     own_dataset(file, "elsewhere")
    Traceback (most recent call last):
        ...
    ValueError: must be an array in the file itself, got a link.
    """
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError("is missing.")
    if not isinstance(link, h5py.HardLink):
        raise ValueError("must be an array in the file itself, got a link.")
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"must be an array, got a {type(dataset).__name__.lower()}.")
    if dataset.is_virtual or dataset.external:
        raise ValueError("must be an array in the file itself, got one that lies elsewhere.")
    if dataset.shape is None:
        raise ValueError("must be an array, got an empty dataset.")
    if dataset.size * dataset.dtype.itemsize > MOST_BYTES:
        raise ValueError(f"must have at most {MOST_BYTES} bytes, got shape {dataset.shape}.")
    return dataset
