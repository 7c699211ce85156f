"""Theorem 1 as printed, and why it does not speak about a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refldnq.bounds.operators import patch_cover
from refldnq.layers import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Linear,
    MaxPool2d,
)
from refldnq.network import Network


def printed_bound(norms: Sequence[float], errors: Sequence[float]) -> float:
    r"""The right-hand side of (19) to the letter: the root of the error stands inside the product.

    .. math:: \sum_{k=1}^{L-1}\Big(\prod_{l=k+1}^{L}\|\hat\Theta_l\|_F\sqrt{E^k}\Big) + \sqrt{E^L}

    Parameters
    ----------
    norms : sequence of float
        Frobenius norms of the quantized weights, in order.
    errors : sequence of float
        :math:`\sqrt{E^l}` of (8).

    Returns
    -------
    float
        Infinite where it overflows.

    Examples
    --------
    One layer of three is wrong by 1/2, and the others pass that on; (19) says at most 1/4:

    >>> printed_bound([0.5, 1.0, 1.0], [0.5, 0.0, 0.0])
    0.25
    """
    with np.errstate(over="ignore"):
        terms = [
            np.prod([norm * error for norm in norms[k + 1 :]])  # [LDNQ] (19)
            for k, error in enumerate(errors[:-1])
        ]
        return float(np.sum(terms) + errors[-1])


def frobenius_bound(norms: Sequence[float], errors: Sequence[float]) -> float:
    r"""(19) with the root outside of the product: what the paper means.

    .. math:: \sum_{k=1}^{L}\Big(\prod_{l=k+1}^{L}\|\hat\Theta_l\|_F\Big)\sqrt{E^k}

    Parameters
    ----------
    norms, errors : sequence of float
        As for `printed_bound`.

    Returns
    -------
    float

    Examples
    --------
    >>> frobenius_bound([0.5, 1.0, 1.0], [0.5, 0.0, 0.0])
    0.5
    """
    with np.errstate(over="ignore"):
        return float(np.sum([np.prod(norms[k + 1 :]) * error for k, error in enumerate(errors)]))


def objections(original: Network, quantized: Network, changed: frozenset[str]) -> tuple[str, ...]:
    """Why the proof of (19), its root moved outside, does not cover a pair of networks; none if it does.

    Parameters
    ----------
    original, quantized : Network
        The pair.
    changed : frozenset of str
        Nodes whose arrays differ.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.models import build
    >>> network = build("cnn-digits", np.random.default_rng(0))
    >>> for reason in objections(network, network, frozenset()):
    ...     print(reason)
    convolution: the Frobenius norm of the kernel is no bound of the operator's norm
    batch normalization: its scale is left out
    """
    layers = [node.layer for node in original.nodes]
    found = []
    uses = [name for node in original.nodes for name in node.inputs]
    if any(isinstance(layer, Add | Concat) for layer in layers) or len(uses) != len(set(uses)):
        found.append("branches: the graph is no chain, errors add up where branches meet")
    covers = {
        node.name: patch_cover(node.layer, original.shapes[node.inputs[0]])
        for node in original.nodes
        if isinstance(node.layer, Conv2d)
    }
    if any(cover > 1 for cover in covers.values()):
        found.append("convolution: the Frobenius norm of the kernel is no bound of the operator's norm")
    if any(isinstance(layer, BatchNorm) for layer in layers):
        found.append("batch normalization: its scale is left out")
    if any(isinstance(original[name].layer, BatchNorm) for name in changed):
        found.append("batch normalization: its parameters differ, and no term says so")
    for node in original.nodes:
        if isinstance(node.layer, MaxPool2d | AvgPool2d):
            bound = node.layer.lipschitz({}, original.shapes[node.inputs[0]])[0]
            if bound > 1.0 + 1e-9:
                found.append(f"{node.name}: overlapping pooling can enlarge an error, by up to {bound:.3g}")
    for name in sorted(changed, key=original.position):
        old, new = original.params[name], quantized.params[name]
        layer = original[name].layer
        if isinstance(layer, Conv2d | Linear) and layer.bias and not np.array_equal(old["bias"], new["bias"]):
            found.append("biases differ, and no term says so")
            break
    return tuple(found)
