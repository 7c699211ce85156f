"""Where networks and data come from: what a run needs, or the reason why it is not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.baselines.identity import graph_words
from refldnq.data import Dataset, Preprocess, load_dataset
from refldnq.data.load import SPLITS, has_split
from refldnq.errors import FormatError
from refldnq.experiments.record import plain
from refldnq.experiments.reproduce.paper import paper
from refldnq.experiments.run import at_a_time, required_preprocess
from refldnq.model import Model
from refldnq.network import Network

CHECKPOINTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
    "resnet44": "resnet44-014dd654.th",
    "resnet56": "resnet56-4bfd9763.th",
    "resnet110": "resnet110-1d1ed7c2.th",
}
"""Checkpoints of akamaster/pytorch_resnet_cifar10, by the names of the networks here."""

LEAST = 100
"""Calibration images of a data set that the paper does not have, unless 1 % is more: as in quickstart."""


IMAGENET_CLASSES = 1000
"""A data set of so many classes is taken for ImageNet."""


class MissingError(Exception):
    """What a run needs is not there; the message says what."""


@dataclass(frozen=True, slots=True)
class Zoo:
    """The architectures, which this package is handed and does not know itself.

    Parameters
    ----------
    names, shipped : tuple of str
        All of them; those whose trained weights and data need no file.
    build : callable
        From a name and a generator to a network.
    preprocess : callable
        From a name to a preprocessing.
    weights : callable
        From the name of a shipped network to its file.
    """

    names: tuple[str, ...]
    shipped: tuple[str, ...]
    build: Callable[[str, np.random.Generator], Network]
    preprocess: Callable[[str], Preprocess]
    weights: Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look. A value, so that other processes can look at the same places.

    Parameters
    ----------
    zoo : Zoo
        The architectures.
    data : str or None, optional
        What `load_dataset` takes.
    weights : str or None, optional
        A folder with ``NAME.h5`` (a model file) or one of `CHECKPOINTS`.
    """

    zoo: Zoo
    data: str | None = None
    weights: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A network with its data.

    Parameters
    ----------
    model : Model
        Trained, not quantized, float32.
    train, test : Dataset
        Calibration images are drawn from the first; the second is scored.
    fingerprints : mapping of str to str
        SHA-256 of the network, of the training and of the test images; of pictures in files, of their names,
        sizes in bytes and labels, as reading a million of them would take longer than the runs.
    usual_images : int
        Calibration images where nothing else is asked for: the paper's.
    """

    model: Model
    train: Dataset
    test: Dataset
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    usual_images: int = LEAST


@lru_cache(maxsize=2)
def prepare(sources: Sources, network: str) -> Prepared:
    """A network with its data, from files or from what is shipped.

    Parameters
    ----------
    sources : Sources
        Where to look.
    network : str
        Its name.

    Returns
    -------
    Prepared
        Kept for the next call: the runs of a network follow each other.

    Raises
    ------
    MissingError
        If there are no weights or no data, or they do not fit each other.
    FormatError
        If they are there and a file of theirs is damaged.
    ImportError
        If a package that reads them is not installed.
    """
    try:
        model = _model(sources, network)
        where = "digits" if network in sources.zoo.shipped else sources.data
        if where is None:
            raise MissingError("needs data: name their folder with --data")
        _look(where)
        train, test = load_dataset(where, "train"), load_dataset(where, "test")
        for dataset in (train, test):
            _check(model, dataset)
    except FormatError:  # it is there, and is broken
        raise
    except (OSError, ValueError) as reason:
        raise MissingError(" ".join(str(reason).split())) from reason
    model = replace(model, network=model.network.astype(np.float32), quantized={}, provenance={})
    fingerprints = {
        "network": _network_hash(model),
        "train": _data_hash(train),
        "test": _data_hash(test),
    }
    return Prepared(
        model=model, train=train, test=test, fingerprints=fingerprints, usual_images=_usual_images(train)
    )


def _look(where: str) -> None:
    # Whether data are there at all, without reading them.
    if where == "digits" or Path(where).is_file():
        return
    try:
        absent = [split for split in SPLITS if not has_split(where, split)]
    except FormatError as reason:
        raise MissingError(str(reason)) from reason
    if absent:
        raise MissingError(f"needs data: {where} holds no {absent[0]} images")


def _usual_images(train: Dataset) -> int:
    usual, own = max(LEAST, len(train) // 100), paper().images
    if train.name.startswith("cifar10"):
        usual = own["cifar10"]
    elif len(train.classes or ()) == IMAGENET_CLASSES and len(train) >= own["imagenet"]:
        usual = own["imagenet"]
    return min(usual, len(train))


def _data_hash(dataset: Dataset) -> str:
    if not dataset.streamed:
        return dataset.fingerprint()
    files: Any = dataset.images
    digest = hashlib.sha256(np.ascontiguousarray(dataset.labels).tobytes())
    for name in files.names:
        digest.update(f"{name}\n{(files.root / name).stat().st_size}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def reference_outputs(sources: Sources, network: str) -> Array:
    """The outputs of the network as it is for the test images, (n, k)."""
    prepared = prepare(sources, network)
    return outputs(prepared.model, prepared.model.network, prepared.test)


def outputs(model: Model, network: Network, dataset: Dataset) -> Array:
    """What a network makes of stored images, as many at a time as in `evaluate_model`.

    Parameters
    ----------
    model : Model
        With the preprocessing.
    network : Network
        The network.
    dataset : Dataset
        The images; files are read in parts.

    Returns
    -------
    Array, shape (n, k)
    """
    how, size = required_preprocess(model), at_a_time(network)
    parts = (
        how(dataset.pixels(slice(first, first + size), how.resize), network.dtype)
        for first in range(0, len(dataset), size)
    )
    return np.concatenate([network.forward(part, batch_size=size) for part in parts])


def _model(sources: Sources, network: str) -> Model:
    from refldnq.formats.h5 import load_model
    from refldnq.formats.torch import assign, load_state_dict

    zoo = sources.zoo
    if network in zoo.shipped:
        return load_model(zoo.weights(network))
    if sources.weights is None:
        unknown = "" if network in zoo.names else "there is no architecture of that name, so it "
        raise MissingError(f"{unknown}needs trained weights: name their folder with --weights or --data")
    own = Path(sources.weights) / f"{network}.h5"
    if own.is_file():
        return load_model(own)
    checkpoint = CHECKPOINTS.get(network)
    published = None if checkpoint is None else Path(sources.weights) / checkpoint
    if published is None or not published.is_file():
        wanted = own.name if published is None else f"{own.name} or {published.name}"
        unknown = "" if network in zoo.names else ", and there is no architecture of that name"
        raise MissingError(f"needs trained weights: {sources.weights} holds no {wanted}{unknown}")
    built = zoo.build(network, np.random.default_rng(0))
    return Model(network=assign(built, load_state_dict(published)), preprocess=zoo.preprocess(network))


def _check(model: Model, dataset: Dataset) -> None:
    how = required_preprocess(model)
    shape = how(dataset.pixels(slice(1), how.resize), np.dtype(np.float32)).shape[1:]
    if shape != model.network.input_shape:
        raise MissingError(
            f"needs data of the shape {model.network.input_shape}, and {dataset.name!r} has {shape}"
        )
    classes = model.network.shapes[model.network.nodes[-1].name][-1]
    if dataset.labels is None or not len(dataset):
        raise MissingError(f"needs labelled images to be scored on, and {dataset.name!r} has none")
    if dataset.labels.max() >= classes:
        raise MissingError(f"needs data of at most {classes} classes, and {dataset.name!r} has more")


def _network_hash(model: Model) -> str:
    # The graph as well: a stride leaves no trace in the arrays.
    words = [plain(model.preprocess), graph_words(model.network), list(model.network.input_shape)]
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    for name, own in sorted(model.network.params.items()):
        for key, array in sorted(own.items()):
            digest.update(f"{name}.{key} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
