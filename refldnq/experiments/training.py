"""From labelled images and a seed to a trained model file's content."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from refldnq import __version__
from refldnq._checks import check_integer
from refldnq._kernels.threads import thread_count
from refldnq.data import Dataset, Preprocess
from refldnq.experiments.record import plain
from refldnq.experiments.run import evaluate_model
from refldnq.model import Model
from refldnq.network import Network
from refldnq.train import Epoch, TrainSettings, train


def train_model(
    arch: str,
    data: Dataset,
    settings: TrainSettings,
    seed: int,
    *,
    build: Callable[[str, np.random.Generator], Network],
    preprocess: Preprocess,
    test: Dataset | None = None,
    command: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Model:
    """Train a network from random weights, in float32, and record how.

    Parameters
    ----------
    arch : str
        Name of the architecture, given to `build`.
    data : Dataset
        Labelled training images.
    settings : TrainSettings
        Of the training.
    seed : int
        Of the weights, then of the order and the augmentation of the images: one stream.
    build : callable
        Makes the network from its name and a generator; ``refldnq.models.build``.
    preprocess : Preprocess
        From images to the network's inputs; ``refldnq.models.preprocess(arch)``.
    test : Dataset, optional
        Labelled images to classify at the end; they guide nothing.
    command : str, optional
        The command line that does the same, for the record.
    on_epoch : callable, optional
        Called after every epoch.

    Returns
    -------
    Model
        Not quantized. Its provenance holds what is needed to make it again, and no time: the same call gives
        the same bits on one machine with one number of threads.

    Raises
    ------
    ValueError
        If the data do not fit the network or have no labels, or training diverges.
    TypeError
        If the seed is not an integer.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Flatten, Linear
    >>> from refldnq.network import Node
    >>> def build(name, rng):
    ...     nodes = (Node("flat", Flatten(), ("input",)), Node("fc", Linear(4, 2, bias=False), ("flat",)))
    ...     return Network(nodes, {"fc": {"weight": rng.standard_normal((2, 4))}}, (1, 2, 2))
    >>> images = np.array([[[[9, 9], [0, 0]]], [[[0, 0], [9, 9]]]], np.uint8)
    >>> data = Dataset(images=images, labels=np.array([0, 1]), classes=("top", "bottom"), name="bars")
    >>> settings = TrainSettings(epochs=20, learning_rate=0.1, crop=0)
    >>> model = train_model("line", data, settings, 0, build=build, preprocess=Preprocess(), test=data)
    >>> model.provenance["test"]["correct"]
    2
    """
    check_integer("seed", seed, at_least=0)
    if data.labels is None:
        raise ValueError(f"`data` must have labels to be trained on, got none in {data.name!r}.")
    rng = np.random.default_rng(seed)
    network = build(arch, rng).astype(np.float32)
    images = preprocess(data.pixels(slice(None), preprocess.resize), np.float32)
    result = train(network, images, data.labels, settings, rng, on_epoch=on_epoch)
    model = Model(
        network=result.network, preprocess=preprocess, classes=data.classes, quantized={}, provenance={}
    )
    provenance: dict[str, Any] = {
        "architecture": arch,
        "data": {"name": data.name, "size": len(data)},
        "settings": _settings(settings),
        "seed": seed,
        "threads": thread_count(),
        "loss": result.history[-1].loss,
        "versions": {
            "refldnq": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy", "numba")},
        },
    }
    if command is not None:
        provenance["command"] = command
    if test is not None:
        score = evaluate_model(model, test)
        provenance["test"] = {
            "name": test.name,
            "size": score.total,
            "correct": score.correct,
            "accuracy": score.accuracy,
        }
    return replace(model, provenance=provenance)


def _settings(settings: TrainSettings) -> dict[str, Any]:
    # Without the loss where it is the network's own: files from before there was a choice stay the same.
    return {
        name: value
        for name, value in plain(settings).items()
        if name != "loss" or value != TrainSettings().loss
    }
