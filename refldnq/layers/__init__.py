"""Layers with hand-written derivatives; those with weights expose their exact Hessians.

`LAYERS` names them for file formats: a layer is written as its name and its dataclass fields, which are
numbers, booleans, strings and tuples of integers.
"""

from __future__ import annotations

from refldnq.layers.add import Add
from refldnq.layers.avgpool import AvgPool2d
from refldnq.layers.base import Layer, LinearMap, Mode, Tape, he_normal
from refldnq.layers.batchnorm import BatchNorm
from refldnq.layers.concat import Concat
from refldnq.layers.conv import Conv2d
from refldnq.layers.dropout import Dropout
from refldnq.layers.flatten import Flatten
from refldnq.layers.globalpool import GlobalAvgPool
from refldnq.layers.linear import Linear
from refldnq.layers.maxpool import MaxPool2d
from refldnq.layers.pad import ZeroPad2d
from refldnq.layers.relu import ReLU
from refldnq.layers.shortcut import SubsampleShortcut

LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        Linear,
        Conv2d,
        BatchNorm,
        ReLU,
        MaxPool2d,
        AvgPool2d,
        GlobalAvgPool,
        Flatten,
        Add,
        Concat,
        ZeroPad2d,
        SubsampleShortcut,
        Dropout,
    )
}
"""Every layer by the name under which files know it."""

__all__ = [
    "LAYERS",
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Layer",
    "Linear",
    "LinearMap",
    "MaxPool2d",
    "Mode",
    "ReLU",
    "SubsampleShortcut",
    "Tape",
    "ZeroPad2d",
    "he_normal",
]
