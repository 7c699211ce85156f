"""PyTorch checkpoints: reading a state dictionary and giving it to a network."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.errors import FormatError
from refldnq.network import Network

IGNORED = ("num_batches_tracked",)
"""Entries that PyTorch's layers keep and these do not have."""


def load_state_dict(path: str | Path) -> dict[str, Array]:
    """The arrays of a PyTorch checkpoint by name.

    Parameters
    ----------
    path : str or Path
        A file that ``torch.save`` wrote: a state dictionary, or a dictionary that holds one as
        ``state_dict``.

    Returns
    -------
    dict of str to Array
        Without the prefix ``module.`` that data-parallel training leaves, and without
        ``num_batches_tracked``.

    Raises
    ------
    FormatError
        If the file is not a checkpoint of tensors.
    FileNotFoundError
        If there is no such file.
    PermissionError
        If it may not be read.
    ModuleNotFoundError
        If PyTorch is not installed.

    Notes
    -----
    The file is opened with ``weights_only=True``: nothing in it is executed.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Reading a PyTorch checkpoint needs PyTorch: install `refldnq[torch]`.", name="torch"
        ) from None
    if not Path(path).exists():
        raise FileNotFoundError(f"`{path}` must be a PyTorch checkpoint, found no such file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that are refused below, or read well
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        found = _what_it_is(Path(path), error)
        # PyTorch's own text advises to switch the safety off: it is the cause, and not in the line.
        raise FormatError(f"`{path}` must be a PyTorch checkpoint of tensors, got {found}.") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise FormatError(f"`{path}` must hold a state dictionary, got {type(content).__name__}.")
    arrays: dict[str, Array] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise FormatError(f"`{path}` must hold tensors by name, got {type(tensor).__name__} at {name!r}.")
        if name.rpartition(".")[2] in IGNORED:
            continue
        own = name.removeprefix("module.")
        if own in arrays:
            raise FormatError(f"`{path}` must hold different names, got {own!r} twice.")
        try:
            arrays[own] = tensor.detach().numpy().copy()
        except TypeError as error:  # types and layouts that NumPy does not have
            raise FormatError(
                f"`{path}` must hold dense arrays of NumPy's types; {name!r}: {error}"
            ) from None
    return arrays


def _what_it_is(path: Path, error: Exception) -> str:
    # What came in place of a checkpoint, as far as it can be told from the bytes; nothing is unpickled.
    if path.is_dir():
        return "a directory"
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        return "an empty file"
    if foreign := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"objects that are not tensors ({foreign[1].rstrip('.')})"
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = {Path(name).name for name in archive.namelist()}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
            return "a zip archive that is truncated or damaged"
        if "constants.pkl" in names:
            return "a TorchScript program, not a state dictionary"
        if "data.pkl" not in names:
            return "a zip archive that is no checkpoint"
        return "a checkpoint that is damaged or holds objects that are not tensors"
    if head[:1] == b"\x80":
        return "a pickle that is truncated or no checkpoint"
    return "a file that is neither a zip archive nor a pickle"


def assign(
    network: Network, arrays: Mapping[str, Array], names: Callable[[str], str] | None = None
) -> Network:
    """A network with the arrays of a state dictionary.

    Parameters
    ----------
    network : Network
        Its own arrays say what is wanted.
    arrays : mapping of str to Array
        ``<prefix>.<array>`` to array; the type of all becomes float32 unless one is float64.
    names : callable, optional
        From a node's name to its prefix in `arrays`; by default they are the same.

    Returns
    -------
    Network

    Raises
    ------
    FormatError
        If an array is missing, superfluous, misshapen or not of finite floats: the weights are of another
        architecture, or damaged.

    Examples
    --------
    >>> from refldnq.layers import Linear
    >>> from refldnq.network import Node
    >>> nodes = (Node("fc", Linear(1, 1, bias=False), ("input",)),)
    >>> network = Network(nodes, {"fc": {"weight": np.zeros((1, 1))}}, (1,))
    >>> assign(network, {"fc.weight": np.ones((1, 1), np.float32)}).params["fc"]["weight"]
    array([[1.]], dtype=float32)
    """
    prefix = {name: name if names is None else names(name) for name in network.params}
    wanted = {
        f"{prefix[name]}.{key}": array.shape
        for name, own in network.params.items()
        for key, array in own.items()
    }
    for problem, odd in (("lack", set(wanted) - set(arrays)), ("have", set(arrays) - set(wanted))):
        if odd:
            shown = ", ".join(sorted(odd)[:3]) + (", ..." if len(odd) > 3 else "")
            raise FormatError(
                f"The weights must fit the architecture; they {problem} {len(odd)} array(s): {shown}."
            )
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise FormatError(
                f"The weights must fit the architecture; {name} must have shape {shape}, "
                f"got {arrays[name].shape}."
            )
        if arrays[name].dtype not in (np.float32, np.float64):
            raise FormatError(f"The weights must be float32 or float64, got {arrays[name].dtype} in {name}.")
        if not np.isfinite(arrays[name]).all():
            raise FormatError(f"The weights must be finite; {name} is not.")
    double = any(array.dtype == np.float64 for array in arrays.values())
    dtype = np.float64 if double else np.float32
    params = {
        name: {key: arrays[f"{prefix[name]}.{key}"].astype(dtype) for key in own}
        for name, own in network.params.items()
    }
    return replace(network, params=params)
