"""Images: where they come from, how a few are chosen, how they become a network's inputs."""

from __future__ import annotations

from refldnq.data.augment import augment
from refldnq.data.dataset import Dataset
from refldnq.data.load import has_split, load_dataset, load_test
from refldnq.data.preprocess import PRESETS, Preprocess, preprocess_from
from refldnq.data.sampling import sample

__all__ = [
    "PRESETS",
    "Dataset",
    "Preprocess",
    "augment",
    "has_split",
    "load_dataset",
    "load_test",
    "preprocess_from",
    "sample",
]
