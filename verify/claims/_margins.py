"""Logits, their errors and labels, for the claims about what an output error does to a classification.

An instance holds ``Z`` (a column a sample) of a network and ``E``, the change of its output; labels are the
network's own unless ``labels`` gives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._rational import exact, squares
from refldnq.verify.claims.base import Instance


def label(z: Any) -> int:
    """The index of the largest logit; of equal ones the first.

    Examples
    --------
    >>> label([1, 3, 3])
    1
    """
    return max(range(len(z)), key=lambda k: (z[k], -k))


def margin(z: Any) -> Any:
    """The largest logit minus the second.

    Examples
    --------
    >>> margin([1, 4, 2])
    2
    """
    first, second = sorted(z, reverse=True)[:2]
    return first - second


def columns(instance: Instance) -> list[tuple[Any, Any]]:
    """Pairs of logits and their change, one a sample."""
    return [(instance["Z"][:, j], instance["E"][:, j]) for j in range(instance["Z"].shape[1])]


def flips(instance: Instance) -> list[bool]:
    """Which samples change their label."""
    return [label(z) != label(z + e) for z, e in columns(instance)]


def batches(seed: int, count: int, *, classes: int = 3, samples: int = 4) -> Iterator[Instance]:
    """Random logits and errors of about their size."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        Z = exact(rng.integers(-9, 10, (classes, samples))) / 2
        E = exact(rng.integers(-5, 6, (classes, samples))) / (1 + k % 5)
        yield {"Z": Z, "E": E}


def mean_square(E: Any) -> Any:
    """(ε̂^L)², the mean over samples of the squared norm."""
    return squares(E) / EXACT.number(E.shape[1])
