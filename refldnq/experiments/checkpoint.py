"""The state of a run of Algorithm 1 on disk, and the fingerprint that ties it to its run.

A checkpoint is a model file, with all arrays as they are and the codes of the layers done; its provenance
holds the layers' reports and the fingerprint. `refldnq inspect` reads one, and there is one writer of files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from refldnq import __version__
from refldnq._kernels.threads import thread_count
from refldnq._typing import Array
from refldnq.errors import FormatError
from refldnq.formats.h5 import load_model, save_model
from refldnq.layer_report import LayerReport
from refldnq.model import Model
from refldnq.network import Network
from refldnq.progress import Progress

SCHEMA = 1
"""Version of what a checkpoint's provenance holds."""


@dataclass(frozen=True)
class Fingerprint:
    """All that decides a run's bits.

    Parameters
    ----------
    parts : mapping of str to str
        By name: a value where it is short, the SHA-256 of it where it is not.

    Examples
    --------
    >>> Fingerprint({"seed": "0"}).difference(Fingerprint({"seed": "1"}))
    'seed (0, not 1)'
    """

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of all parts, hexadecimal."""
        return hashlib.sha256(json.dumps(dict(self.parts), sort_keys=True).encode()).hexdigest()

    def difference(self, other: Fingerprint) -> str:
        """What differs, in words; empty if nothing does.

        Parameters
        ----------
        other : Fingerprint
            The one whose values are named second.
        """
        words = []
        for name in sorted({*self.parts, *other.parts}):
            mine, others = self.parts.get(name, "nothing"), other.parts.get(name, "nothing")
            if mine != others:
                words.append(f"{name} ({mine}, not {others})" if len(mine) + len(others) <= 60 else name)
        return ", ".join(words)


def fingerprint(
    network: Network,
    images: Array,
    indices: Array,
    *,
    settings: Mapping[str, Any],
    seed: int,
    dataset: str,
    held_out: Array | None = None,
) -> Fingerprint:
    """The fingerprint of a run.

    Parameters
    ----------
    network : Network
        As the run starts with it: its graph, arrays and type.
    images : Array, shape (n, *input_shape)
        The calibration images, preprocessed.
    indices : Array, shape (n,)
        Their places in the data set.
    settings : mapping
        JSON values; every leaf is a part of its own.
    seed : int
        Of the run.
    dataset : str
        Name of the data set.
    held_out : Array, optional
        The images on which layer errors are reported, preprocessed.

    Returns
    -------
    Fingerprint

    Notes
    -----
    The numbers of threads, of the kernels and of the BLAS, are parts, and so are the BLAS's kind and the
    versions of this package, NumPy, SciPy and Numba: with others, sums are added in another order, and bits
    differ.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Linear
    >>> from refldnq.network import Node
    >>> nodes = (Node("fc", Linear(1, 1, bias=False), ("input",)),)
    >>> network = Network(nodes, {"fc": {"weight": np.ones((1, 1))}}, (1,))
    >>> run = {"indices": np.arange(2), "settings": {"solver": "admm"}, "seed": 0, "dataset": "none"}
    >>> one, two = (fingerprint(network, np.full((2, 1), value), **run) for value in (0.0, 1.0))
    >>> one.difference(two)
    'data'
    """
    graph = repr([(node.name, node.layer, node.inputs) for node in network.nodes])
    weights = hashlib.sha256(graph.encode())
    for name, arrays in sorted(network.params.items()):
        for key, array in sorted(arrays.items()):
            _add_array(weights, f"{name}/{key}", array)
    data = hashlib.sha256()
    _add_array(data, "images", images)
    chosen = hashlib.sha256()
    _add_array(chosen, "indices", np.asarray(indices, dtype=np.int64))
    watched = {}
    if held_out is not None:
        digest = hashlib.sha256()
        _add_array(digest, "held_out", held_out)
        watched["held_out"] = digest.hexdigest()
    return Fingerprint(
        {
            "schema": str(SCHEMA),
            "refldnq": __version__,
            **{package: version(package) for package in ("numpy", "scipy", "numba")},
            "blas": _blas_kind(),
            "threads": f"{thread_count()}, BLAS {_blas_threads()}",
            "seed": str(seed),
            "dtype": str(network.dtype),
            "dataset": dataset,
            "data": data.hexdigest(),
            "indices": chosen.hexdigest(),
            "weights": weights.hexdigest(),
            **dict(_leaves("settings", settings)),
            **watched,
        }
    )


def _add_array(digest: Any, label: str, array: Array) -> None:
    digest.update(f"{label} {array.dtype.str} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).data)


def _leaves(label: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(f"{label}.{key}", item)
    else:
        yield label, json.dumps(value)


def _blas_kind() -> str:
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return ", ".join(
        sorted(f"{own['internal_api']} {own['version']} {own.get('architecture')}" for own in libraries)
    )


def _blas_threads() -> int:
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return max((int(library["num_threads"]) for library in libraries), default=1)


def save(path: Path, progress: Progress, model: Model, fingerprint: Fingerprint) -> None:
    """Write the state of a run, at once and whole: a reader finds the last state or this one, never a part.

    Parameters
    ----------
    path : Path
        The checkpoint.
    progress : Progress
        The state.
    model : Model
        The run's model, for its preprocessing and classes.
    fingerprint : Fingerprint
        Of the run.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    record = {
        "schema": SCHEMA,
        "total": progress.total,
        "pending": progress.pending,
        "fingerprint": dict(fingerprint.parts),
        "reports": [encode_report(report) for report in progress.reports],
    }
    state = replace(
        model, network=progress.network, quantized=dict(progress.quantized), provenance={"checkpoint": record}
    )
    save_model(path, state)


def load(path: Path, network: Network, fingerprint: Fingerprint) -> Progress:
    """Read the state of a run.

    Parameters
    ----------
    path : Path
        The checkpoint.
    network : Network
        As the run started with it.
    fingerprint : Fingerprint
        Of the run that goes on.

    Returns
    -------
    Progress

    Raises
    ------
    FormatError
        If the file is not a checkpoint or cannot be read.
    ValueError
        If it belongs to another run; the message says what differs.
    """
    model = load_model(path)
    record = model.provenance.get("checkpoint")
    if record is None:
        raise FormatError(f"{path}: `checkpoint` is missing: this is a model, not the state of a run.")
    try:
        found = Fingerprint(dict(record["fingerprint"]))
        total, pending = int(record["total"]), bool(record.get("pending", False))
        reports = tuple(decode_report(report) for report in record["reports"])
    except (KeyError, TypeError, ValueError) as wrong:
        raise FormatError(
            f"{path}: `checkpoint` must hold the state of a run, got a broken record."
        ) from wrong
    difference = found.difference(fingerprint)
    if difference:
        raise ValueError(f"`checkpoint` must be of the same run; {path} differs in {difference}.")
    arrays = {name: dict(own) for name, own in model.network.params.items()}
    done = {report.name: model.quantized[report.name] for report in reports}  # files sort names
    return Progress(
        network=network.replace(arrays), quantized=done, reports=reports, total=total, pending=pending
    )


def encode_report(report: LayerReport) -> dict[str, Any]:
    """A report as JSON values.

    Parameters
    ----------
    report : LayerReport
        Of a layer.
    """
    # JSON has no NaN and no infinity; a report may have both (no update, a singular Hessian).
    values = ((item.name, getattr(report, item.name)) for item in fields(report))
    return {
        name: repr(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values
    }


def decode_report(values: Mapping[str, Any]) -> LayerReport:
    """A report from what `encode_report` made of it.

    Parameters
    ----------
    values : mapping
        JSON values.
    """
    floats = {item.name for item in fields(LayerReport) if item.type in ("float", "float | None")}
    decoded: dict[str, Any] = {
        name: float(value)
        if name in floats and value is not None
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in values.items()
    }
    return LayerReport(**decoded)
