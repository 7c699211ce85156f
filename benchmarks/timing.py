"""Side-by-side timing: the sides of a contest take turns, so that whatever drifts hits all of them."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array

PAUSE = 0.02
"""Seconds before every turn, in which the threads of the side before fall asleep (idle threads of OpenMP and
OpenBLAS spin for some milliseconds)."""

BRIEF = 0.2
"""A turn starts with a call that is not timed (caches, threads), unless one call takes longer than this."""

Outputs = Sequence[Any]
"""What a side computes: arrays, tensors on the CPU, numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """The same numbers computed by this package and by others.

    Parameters
    ----------
    group, name, dtype : str
        What is computed, in which type.
    ours : callable
        This package's way.
    others : mapping of str to callable
        The ways that a user would pick instead, by name.
    tolerance : float
        Largest accepted difference of an output, as a share of that output's largest magnitude.
    """

    group: str
    name: str
    dtype: str
    ours: Callable[[], Outputs]
    others: Mapping[str, Callable[[], Outputs]]
    tolerance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How long is measured.

    Parameters
    ----------
    repeats : int
        Turns of every side.
    seconds : float
        A turn has as many calls as take about so long, at least one and at most `most`.
    most : int
        See `seconds`.
    """

    repeats: int = 9
    seconds: float = 0.05
    most: int = 50


def as_array(value: Any) -> Array:
    """`value` as a float64 array, whatever library it is from."""
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    return np.asarray(value, dtype=np.float64)


def largest_difference(ours: Outputs, others: Outputs) -> float:
    """The largest difference of corresponding outputs, each as a share of the output's largest magnitude.

    Raises
    ------
    ValueError
        If the number of outputs or a shape differs.

    Examples
    --------
    >>> largest_difference([np.array([1.0, 4.0])], [np.array([1.0, 3.0])])
    0.25
    """
    if len(ours) != len(others):
        raise ValueError(f"`others` must have {len(ours)} outputs, got {len(others)}.")
    shares = []
    for a, b in zip(map(as_array, ours), map(as_array, others), strict=True):
        if a.shape != b.shape:
            raise ValueError(f"`others` must have the shape {a.shape}, got {b.shape}.")
        scale = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
        difference = float(np.abs(a - b).max(initial=0.0))
        shares.append(difference / scale if scale > 0 else difference)
    return float(np.max(shares, initial=0.0))  # NaN, if there is one


def check(contest: Contest) -> dict[str, float]:
    """Compute the outputs of all sides and compare them; the first call also compiles.

    Returns
    -------
    dict of str to float
        The largest difference from ours, by side.

    Raises
    ------
    ValueError
        If a side computes something else.
    """
    ours = contest.ours()
    differences = {name: largest_difference(ours, call()) for name, call in contest.others.items()}
    for name, difference in differences.items():
        if not difference <= contest.tolerance:
            raise ValueError(
                f"`{contest.group}: {contest.name}, {contest.dtype}` must agree with {name} to "
                f"{contest.tolerance:g}, got a difference of {difference:g}."
            )
    return differences


def take_turns(sides: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, list[float]]:
    """Time the sides in turns: A B C A B C ...

    Parameters
    ----------
    sides : mapping of str to callable
        Called before already, so that nothing is left to compile.
    effort : Effort
        How long.

    Returns
    -------
    dict of str to list of float
        Seconds of every timed call, by side.
    """
    once = {name: _seconds(call) for name, call in sides.items()}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(effort.repeats):
            for name, call in sides.items():
                time.sleep(PAUSE)
                if once[name] < BRIEF:
                    call()
                count = min(effort.most, max(1, int(effort.seconds / max(once[name], 1e-9))))
                taken[name] += [_seconds(call) for _ in range(count)]
    finally:
        if collecting:
            gc.enable()
    return taken


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(contest: Contest, effort: Effort) -> list[dict[str, Any]]:
    """Check and time a contest.

    Returns
    -------
    list of dict
        A row for every other side: ``group``, ``name``, ``dtype``, ``against``, ``ours`` and ``other``
        (``median`` and ``min`` in seconds, ``calls``), ``ratio`` (their median over ours: above 1, ours is
        faster), ``difference`` and ``tolerance``, and ``elsewhere``: cores that other programs kept busy
        meanwhile. Threads that wait for each other, PyTorch's first of all, lose much more by that than their
        share.
    """
    differences = check(contest)
    began, before = time.perf_counter(), seconds_elsewhere()
    taken = take_turns({"": contest.ours, **contest.others}, effort)
    elsewhere = max(0.0, (seconds_elsewhere() - before) / (time.perf_counter() - began))
    ours = _summary(taken[""])
    rows = []
    for name, difference in differences.items():
        other = _summary(taken[name])
        rows.append(
            {
                "group": contest.group,
                "name": contest.name,
                "dtype": contest.dtype,
                "against": name,
                "ours": ours,
                "other": other,
                "ratio": other["median"] / ours["median"],
                "difference": difference,
                "tolerance": contest.tolerance,
                "elsewhere": elsewhere,
            }
        )
    return rows


def seconds_elsewhere(*, children: bool = False) -> float:
    """Processor time that others got: all other work, and what the hypervisor took; 0 without /proc.

    Parameters
    ----------
    children : bool, optional
        Whether the work of processes that this one has started and waited for is its own.
    """
    table = Path("/proc/stat")
    if not table.exists():
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, table.read_text().split("\n")[0].split()[1:9]
    )
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    others = busy - own.user - own.system
    return others - own.children_user - own.children_system if children else others


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "calls": len(seconds)}


def geometric_mean(ratios: Iterable[float]) -> float:
    """The geometric mean of positive numbers.

    Examples
    --------
    >>> round(geometric_mean([1.0, 4.0]), 12)
    2.0
    """
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
