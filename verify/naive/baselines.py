"""The quantizers of the baselines by their definitions: loops over plain numbers, all possibilities tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise, product


def ternary_optimum(w: Sequence[float], D: Sequence[float], two_scales: bool = False) -> float:
    """The least Σ D (ŵ - w)² over all ternary codes, each with its best scale or two of them.

    Parameters
    ----------
    w, D : sequence of float
        Weights and their positive curvatures.
    two_scales : bool, optional
        Whether codes 1 and -1 have scales of their own.

    Returns
    -------
    float
        The least error.

    Examples
    --------
    >>> ternary_optimum([4.0, 1.0, -1.0, 1.0], [1.0] * 4)
    3.0
    """
    best = math.inf
    for codes in product((-1, 0, 1), repeat=len(w)):
        error = sum(d * v * v for d, v in zip(D, w, strict=True))
        for group in ((1,), (-1,)) if two_scales else ((1, -1),):
            chosen = [i for i, b in enumerate(codes) if b in group]
            mass = sum(D[i] for i in chosen)
            moment = sum(D[i] * codes[i] * w[i] for i in chosen)
            if chosen and moment > 0:  # scales are not negative
                error -= moment * moment / mass
        best = min(best, error)
    return best


def fgq_score(v: Sequence[float]) -> float:
    """The largest (Σ|v|)²/# over all thresholds, 0 where v is 0.

    Examples
    --------
    >>> fgq_score([4.0, 1.0, -1.0, 1.0])
    16.0
    """
    best = 0.0
    for threshold in [0.0, *(abs(x) for x in v)]:
        kept = [abs(x) for x in v if abs(x) > threshold]
        if kept:
            best = max(best, sum(kept) ** 2 / len(kept))
    return best


def best_partition(w: Sequence[float], levels: int) -> float:
    """The least sum of squares around the means of at most `levels` intervals of the sorted numbers.

    Examples
    --------
    >>> best_partition([0.0, 5.0, 1.0, 6.0], 2)
    1.0
    """
    ordered = sorted(w)
    best = math.inf
    for count in range(min(levels, len(ordered))):
        for cuts in combinations(range(1, len(ordered)), count):
            ends = (0, *cuts, len(ordered))
            error = 0.0
            for first, last in pairwise(ends):
                part = ordered[first:last]
                mean = sum(part) / len(part)
                error += sum((x - mean) ** 2 for x in part)
            best = min(best, error)
    return best


def inq_value(w: float, s: float, levels: int) -> float:
    """INQ's value of one weight, by the inequalities of its definition.

    Parameters
    ----------
    w : float
        The weight.
    s : float
        Largest magnitude of the layer.
    levels : int
        Odd.

    Examples
    --------
    >>> [inq_value(w, 0.8, 5) for w in (0.24, 0.25, 0.75, -0.74)]
    [0.0, 0.5, 1.0, -0.5]
    """
    if s == 0:
        return 0.0
    n1 = math.floor(math.log2(4 * s / 3))
    n2 = n1 - (levels - 3) // 2
    value = 0.0
    below = 0.0
    for n in range(n2, n1 + 1):
        if (below + 2.0**n) / 2 <= abs(w):
            value = 2.0**n
        below = 2.0**n
    return -value if w < 0 else value


def uniform(bucket: Sequence[float], levels: int) -> list[float]:
    """DistilQuant's rounding of one bucket; halves go to the even index.

    Examples
    --------
    >>> uniform([0.0, 0.25, 0.75, 1.0], 3)
    [0.0, 0.0, 1.0, 1.0]
    """
    low, scale = min(bucket), max(bucket) - min(bucket)
    if scale < 1e-10:
        scale = 1.0
    return [round((x - low) / scale * (levels - 1)) / (levels - 1) * scale + low for x in bucket]


def affine(w: Sequence[float], levels: int) -> list[float]:
    """Uniform affine rounding of a tensor whose range is stretched to hold 0.

    Examples
    --------
    >>> affine([-1.0, 0.2, 3.0], 5)
    [-1.0, 0.0, 3.0]
    """
    low, high = min(0.0, *w), max(0.0, *w)
    if low == high:
        return [0.0 for _ in w]
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    return [step * (min(max(round(x / step) + zero, 0), levels - 1) - zero) for x in w]


def ttq(w: Sequence[float], threshold: float, positive: float, negative: float) -> list[float]:
    """TTQ's weight.

    Examples
    --------
    >>> ttq([1.0, 0.05, -0.5], 0.05, 2.0, 3.0)
    [2.0, 0.0, -3.0]
    """
    delta = threshold * max(abs(x) for x in w)
    return [positive if x > delta else -negative if x < -delta else 0.0 for x in w]


def partition(w: Sequence[float], frozen: Sequence[bool], portion: float) -> list[bool]:
    """INQ's partition: the largest free weight, the first of equal ones, until the portion is reached.

    Examples
    --------
    >>> partition([0.1, -0.9, 0.5, 0.2], [True, False, False, False], 0.5)
    [True, True, False, False]
    """
    mask = list(frozen)
    while sum(mask) < round(portion * len(w)):
        mask[max((i for i in range(len(w)) if not mask[i]), key=lambda i: abs(w[i]))] = True
    return mask


def lata(w: Sequence[float], D: Sequence[float], passes: int, tolerance: float) -> tuple[float, list[int]]:
    """LATa's alternation.

    Examples
    --------
    >>> lata([1.0, 0.9, 0.1], [1.0] * 3, 10, 1e-6)
    (0.95, [1, 1, 0])
    """
    threshold, alpha = 0.7 * sum(abs(x) for x in w) / len(w), 0.0
    for _ in range(passes):
        top = sum(d * abs(x) for x, d in zip(w, D, strict=True) if abs(x) > threshold)
        bottom = sum(d for x, d in zip(w, D, strict=True) if abs(x) > threshold)
        last, alpha = alpha, top / bottom if bottom else 0.0
        threshold = alpha / 2
        if abs(alpha - last) < tolerance:
            break
    return alpha, [(x > threshold) - (x < -threshold) for x in w]


def residual_terms(w: Sequence[float], max_terms: int, tolerance: float) -> tuple[list[float], int]:
    """TRN's sum for one block and how many terms it has; a term is the best of all thresholds and scales.

    Examples
    --------
    >>> residual_terms([4.0, 1.0, -1.0, 1.0], 2, 0.1)
    ([4.0, 1.0, -1.0, 1.0], 2)
    """
    rest, count = list(w), 0
    while count < max_terms and math.hypot(*rest) > tolerance * math.hypot(*w):
        tried = []
        for threshold in [0.0, *(abs(x) for x in rest)]:
            kept = [abs(x) for x in rest if abs(x) > threshold]
            alpha = sum(kept) / len(kept) if kept else 0.0
            left = [x - alpha * ((x > threshold) - (x < -threshold)) for x in rest]
            tried.append((math.hypot(*left), left))
        rest, count = min(tried, key=lambda one: one[0])[1], count + 1
    return [x - r for x, r in zip(w, rest, strict=True)], count
