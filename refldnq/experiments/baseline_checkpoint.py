"""The state of a baseline's training on disk, and back bit for bit.

Layout, schema ``refldnq-baseline/3``, HDF5 without pickle::

    /                          attribute: schema
    /record                    JSON as bytes: stage, epoch, epochs, steps, images, mean_levels, rng, history,
                               levels, reports, run, fingerprint
    /params/<layer>/<key>      the network's arrays
    /latent/<layer>/<key>      what the optimizer moves
    /memory/<layer>/<key>      what the method remembers
    /optimizer/<layer>/<key>/<i>  what the optimizer remembers of each
    /quantized/<layer>         attribute: bias; codes, alpha, values
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.baselines.identity import Identity
from refldnq.baselines.loop import EpochRecord, LoopState, TrainingPoint
from refldnq.errors import FormatError
from refldnq.experiments.checkpoint import Fingerprint, decode_report, encode_report
from refldnq.formats.atomic import atomic_path
from refldnq.model import QuantizedWeight

SCHEMA = "refldnq-baseline/3"


def save(path: str | Path, state: LoopState, fingerprint: Fingerprint) -> None:
    """Write a state, at once and whole: a reader finds the last state or this one, never a part.

    Parameters
    ----------
    path : str or Path
        The file; an older one is replaced.
    state : LoopState
        What `on_epoch` was given.
    fingerprint : Fingerprint
        Of the run; see `refldnq.experiments.checkpoint.fingerprint`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import h5py

    record = {
        "stage": state.stage,
        "epoch": state.epoch,
        "epochs": state.epochs,
        "steps": state.steps,
        "images": state.images,
        "mean_levels": _plain(state.mean_levels),
        "rng": _plain(state.rng),
        "history": [[one.stage, one.index, _plain(one.loss), _plain(one.accuracy)] for one in state.history],
        "levels": dict(state.levels),
        "reports": [encode_report(report) for report in state.reports],
        "run": None if state.run is None else asdict(state.run),
        "fingerprint": dict(fingerprint.parts),
    }
    with atomic_path(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        file.attrs["schema"] = SCHEMA
        # As a data set: an attribute may not be larger than 64 KiB, and a history can be.
        file.create_dataset("record", data=np.frombuffer(json.dumps(record).encode(), dtype=np.uint8))
        trees = {"params": state.params, "latent": state.point.latent, "memory": state.point.memory}
        for label, tree in trees.items():
            group = file.create_group(label, track_order=True)
            for name, own in tree.items():
                part = group.create_group(name, track_order=True)
                for key, array in own.items():
                    part.create_dataset(key, data=array)
        group = file.create_group("optimizer", track_order=True)
        for name, arrays in state.point.optimizer.items():
            part = group.create_group(name, track_order=True)
            for key, memory in arrays.items():
                slots = part.create_group(key)
                for index, array in enumerate(memory):
                    slots.create_dataset(str(index), data=array)
        group = file.create_group("quantized", track_order=True)
        for name, code in state.quantized.items():
            part = group.create_group(name)
            part.attrs["bias"] = bool(code.bias)
            for key in ("codes", "alpha", "values"):
                part.create_dataset(key, data=getattr(code, key))


def load(path: str | Path, fingerprint: Fingerprint) -> LoopState:
    """Read a state.

    Parameters
    ----------
    path : str or Path
        The file.
    fingerprint : Fingerprint
        Of the run that goes on.

    Returns
    -------
    LoopState

    Raises
    ------
    FormatError
        If the file is not a state or is damaged.
    ValueError
        If it belongs to another run; the message says what differs.
    FileNotFoundError
        If there is no such file.
    """
    import h5py

    if not Path(path).is_file():
        raise FileNotFoundError(f"`{path}` must be the state of a training, found no such file.")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema") != SCHEMA:
                raise FormatError(f"{path}: `schema` must be {SCHEMA!r}, got {file.attrs.get('schema')!r}.")
            record = json.loads(file["record"][()].tobytes().decode())
            found = Fingerprint(dict(record["fingerprint"]))
            state = _state(file, record)
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, OSError, AttributeError, RuntimeError) as wrong:
        raise FormatError(f"{path}: the state of a training must be whole, got: {wrong}.") from wrong
    difference = found.difference(fingerprint)
    if difference:
        raise ValueError(f"`state` must be of the same run; {path} differs in {difference}.")
    return state


def _state(file: Any, record: Mapping[str, Any]) -> LoopState:
    optimizer = {
        name: {
            key: tuple(np.asarray(slots[str(index)][()]) for index in range(len(slots)))
            for key, slots in part.items()
        }
        for name, part in file["optimizer"].items()
    }
    quantized = {
        name: QuantizedWeight(
            codes=part["codes"][()],
            alpha=np.asarray(part["alpha"][()]),
            values=part["values"][()],
            bias=bool(part.attrs["bias"]),
        )
        for name, part in file["quantized"].items()
    }
    return LoopState(
        stage=record["stage"],
        epoch=int(record["epoch"]),
        epochs=int(record["epochs"]),
        steps=int(record["steps"]),
        images=int(record["images"]),
        params=_tree(file["params"]),
        point=TrainingPoint(_tree(file["latent"]), _tree(file["memory"]), optimizer),
        rng=record["rng"],
        run=_run(record["run"]),
        quantized=quantized,
        levels={name: float(number) for name, number in record["levels"].items()},
        reports=tuple(decode_report(report) for report in record["reports"]),
        mean_levels=float(record["mean_levels"]),
        history=tuple(
            EpochRecord(stage, int(index), float(loss), float(accuracy))
            for stage, index, loss, accuracy in record["history"]
        ),
    )


def _run(parts: Mapping[str, Any] | None) -> Identity | None:
    return None if parts is None else Identity(**{**parts, "layers": tuple(parts["layers"])})


def _tree(group: Any) -> dict[str, dict[str, Array]]:
    return {name: {key: np.asarray(array[()]) for key, array in part.items()} for name, part in group.items()}


def _plain(value: Any) -> Any:
    # JSON has neither NaN and infinity nor arrays; a generator's state may hold arrays.
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
