"""What a run's state belongs to: it goes on in a run with the same arguments and in no other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from refldnq._plain import plain
from refldnq._typing import Array, Int64Array
from refldnq.baselines.schedule import Schedule
from refldnq.network import Network


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """The arguments that decide what a run computes, but for the state of its generator.

    Parameters
    ----------
    method : str
        The baseline's name.
    settings, schedule, retraining : str
        As JSON: the method's settings, none left to a default; the schedule, which of a method that computes
        is its retraining's; and the schedule of a retraining behind a method that trains, else empty.
    levels : int
        Number of values of a quantized weight.
    layers : tuple of str
        What is quantized.
    network, data : str
        SHA-256 of the network, and of images and labels.

    Examples
    --------
    >>> parts = {"settings": "{}", "schedule": "{}", "retraining": "", "layers": ("fc",)}
    >>> parts |= {"network": "a", "data": "b"}
    >>> one, two = (Identity(method="ttq", levels=levels, **parts) for levels in (3, 5))
    >>> one.difference(two)
    'levels (3, not 5)'
    """

    method: str
    settings: str
    schedule: str
    retraining: str
    levels: int
    layers: tuple[str, ...]
    network: str
    data: str

    def difference(self, other: Identity) -> str:
        """What differs, in words; empty if nothing does.

        Parameters
        ----------
        other : Identity
            The one whose values are named second.
        """
        words = []
        for name in (item.name for item in fields(self)):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                both = f"{mine}, not {others}"
                words.append(f"{name} ({both})" if len(both) <= 100 else name)
        return ", ".join(words)


def identity_of(
    method: str,
    settings: Any,
    schedule: Schedule,
    retraining: Schedule | None,
    levels: int,
    layers: tuple[str, ...],
    network: Network,
    images: Array,
    labels: Int64Array | None,
) -> Identity:
    """The identity of a run.

    Parameters
    ----------
    method : str
        The baseline's name.
    settings : object
        The method's own, as it follows them.
    schedule : Schedule
        As the method follows it.
    retraining : Schedule or None
        Of what may follow a training.
    levels : int
        Number of values of a quantized weight.
    layers : tuple of str
        What is quantized.
    network : Network
        The well-trained network.
    images : Array, shape (n, *input_shape)
        Preprocessed inputs.
    labels : Array, shape (n,), int64, or None
        Class indices.
    """
    weights = hashlib.sha256(f"{graph_words(network)} {network.loss}".encode())
    for name, own in sorted(network.params.items()):
        for key, array in sorted(own.items()):
            _add(weights, f"{name}/{key}", array)
    data = hashlib.sha256()
    _add(data, "images", images)
    if labels is not None:
        _add(data, "labels", labels)
    return Identity(
        method=method,
        settings=_words(settings),
        schedule=_words(schedule.numbers),
        retraining="" if retraining is None else _words(retraining.numbers),
        levels=levels,
        layers=layers,
        network=weights.hexdigest(),
        data=data.hexdigest(),
    )


def graph_words(network: Network) -> str:
    """The graph of a network as JSON, by which it is known whatever the arrays are.

    A setting of a layer that is younger than stored runs is left out at its default, see
    `refldnq._plain.plain`.

    Parameters
    ----------
    network : Network
        Any network.

    Examples
    --------
    >>> from refldnq.layers import ReLU
    >>> from refldnq.network import Node
    >>> graph_words(Network((Node("relu", ReLU(), ("input",)),), {}, (2,)))
    '[["relu", "ReLU", {}, ["input"]]]'
    """
    return _words([[node.name, type(node.layer).__name__, node.layer, node.inputs] for node in network.nodes])


def _words(value: Any) -> str:
    return json.dumps(plain(value), sort_keys=True, allow_nan=False)


def _add(digest: Any, label: str, array: Array) -> None:
    digest.update(f"{label} {array.dtype.str} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).data)
