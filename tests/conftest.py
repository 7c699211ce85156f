"""What all tests share: hypothesis without chance, and the real data if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine and in every run; a busy machine must not fail a test by its slowness.
settings.register_profile("refldnq", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("refldnq")

DATA = "REFLDNQ_DATA"
"""Environment variable: the folder with CIFAR-10, MNIST and public checkpoints."""


def find_data(root: Path) -> Path:
    """The folder that `DATA` names, else ``../shared/data`` beside the repository at `root`."""
    named = os.environ.get(DATA)
    return Path(named) if named else root.parent / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = find_data(Path(__file__).resolve().parents[1])
    if not folder.is_dir():
        pytest.skip(f"needs real data: `{folder}` is no folder, set {DATA} to one")
    return folder
