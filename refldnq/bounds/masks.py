r"""Active sets: where two evaluations of a network can differ, and where a difference can matter.

For one image, a *support* of a node is a set of entries outside of which the output difference is 0, and its
*relevant* entries are those on which the final difference depends. Behind a ReLU the support is
:math:`\{z > 0\} \cup \{\hat z > 0\}`; in front of it only those entries are relevant; in front of a
max-pooling only the places of the maxima of the two evaluations are (the difference of the maxima is a convex
combination of the differences there, see `secant`). A layer with weights then acts as the submatrix of its
relevant rows and supported columns, whose norm is at most the full one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.bounds.rounding import raised
from refldnq.bounds.units import Unit, folded, scale_and_shift
from refldnq.layers import BatchNorm, Conv2d, Linear, MaxPool2d, ReLU
from refldnq.layers.base import LinearMap, Tape
from refldnq.layers.norms import spectral_norm_upper
from refldnq.network import INPUT, Network

Masks = Mapping[str, Array]
"""Boolean arrays of the activations' shapes, by node."""

MOST_ENTRIES = 1 << 14
"""Weights of a linear layer up to which every image's submatrix gets a spectral norm of its own; chosen here:
a few milliseconds an image."""


def supports(network: Network, values: Mapping[str, Array], values_hat: Mapping[str, Array]) -> Masks:
    """For each node entries outside of which the two evaluations agree.

    Parameters
    ----------
    network : Network
        The graph.
    values, values_hat : mapping of str to Array
        All activations of the two evaluations.

    Returns
    -------
    mapping of str to Array of bool
    """
    masks: dict[str, Array] = {INPUT: np.zeros(values[INPUT].shape, bool)}
    for node in network.nodes:
        layer = node.layer
        if isinstance(layer, LinearMap | BatchNorm):
            masks[node.name] = np.ones(values[node.name].shape, bool)
        elif isinstance(layer, ReLU):
            above = (values[node.inputs[0]] > 0) | (values_hat[node.inputs[0]] > 0)
            masks[node.name] = masks[node.inputs[0]] & above
        else:
            spread, _ = layer.forward({}, *(masks[name].astype(np.float64) for name in node.inputs))
            masks[node.name] = spread > 0
    return masks


def relevance(
    network: Network,
    values: Mapping[str, Array],
    values_hat: Mapping[str, Array],
    tapes: Mapping[str, tuple[Tape, Tape]],
) -> Masks:
    """For each node the entries on which the difference of the final outputs depends.

    Parameters
    ----------
    network : Network
        The graph.
    values, values_hat : mapping of str to Array
        All activations of the two evaluations.
    tapes : mapping of str to tuple
        Of both evaluations, by node.

    Returns
    -------
    mapping of str to Array of bool
    """
    masks = {name: np.zeros(value.shape, bool) for name, value in values.items()}
    masks[network.nodes[-1].name][...] = True
    for node in reversed(network.nodes):
        own, layer = masks[node.name], node.layer
        if isinstance(layer, LinearMap):
            masks[node.inputs[0]][...] = True
        elif isinstance(layer, BatchNorm):
            masks[node.inputs[0]] |= own
        elif isinstance(layer, ReLU):
            z, z_hat = values[node.inputs[0]], values_hat[node.inputs[0]]
            masks[node.inputs[0]] |= own & ((z > 0) | (z_hat > 0))
        else:
            for tape in tapes[node.name] if isinstance(layer, MaxPool2d) else tapes[node.name][1:]:
                back, _ = layer.backward({}, own.astype(np.float64), tape)
                for name, part in zip(node.inputs, back, strict=True):
                    masks[name] |= part > 0
    return masks


def masked_norms(
    unit: Unit, params: NetworkParams, full: tuple[float, ...], support: Masks, relevant: Masks
) -> tuple[Float64Array, ...]:
    """For each input of a unit, one constant an image: the norm of the submatrix that acts.

    Parameters
    ----------
    unit : Unit
        A node, or a layer with weights and its batch normalization.
    params : mapping
        The parameters that carry the error.
    full : tuple of float
        The constants of the full operators; the results never exceed them.
    support, relevant : mapping of str to Array
        From `supports` and `relevance`.

    Returns
    -------
    tuple of Array, shape (n,)
    """
    head, wanted = unit.nodes[0], relevant[unit.name]
    count = len(wanted)
    constant = tuple(np.full(count, bound) for bound in full)
    if isinstance(head.layer, LinearMap):
        given = support[head.inputs[0]]
        if isinstance(head.layer, Linear):
            own = _linear(folded(unit, params), given, wanted)
        elif isinstance(head.layer, Conv2d):
            own = _convolution(head.layer, folded(unit, params), given, wanted)
        else:
            return constant
        return (np.minimum(constant[0], own),)
    if isinstance(head.layer, BatchNorm):
        scale, _ = scale_and_shift(head.layer, params[head.name])
        acting = wanted & support[head.inputs[0]]
        channels = acting.reshape(*acting.shape[:2], -1).any(axis=2)
        return (np.minimum(constant[0], (np.abs(scale) * channels).max(axis=1)),)
    return constant


def _linear(weight: Float64Array, given: Array, wanted: Array) -> Float64Array:
    if weight.size > MOST_ENTRIES:
        return np.full(len(given), np.inf)
    norms = [
        spectral_norm_upper(weight[np.ix_(rows, cols)]) if rows.any() and cols.any() else 0.0
        for rows, cols in zip(wanted, given, strict=True)
    ]
    # The weight may be a product with a scale: one rounding a number.
    return np.array([raised(norm, weight.size) for norm in norms])


def _convolution(layer: Conv2d, weight: Float64Array, given: Array, wanted: Array) -> Float64Array:
    # The root of the largest row sum times the largest column sum of magnitudes of the submatrix.
    params = {"weight": np.abs(weight)}
    if layer.bias:
        params["bias"] = np.zeros(layer.out_channels)
    from_inputs, tape = layer.forward(params, given.astype(np.float64))
    (from_outputs,), _ = layer.backward(params, wanted.astype(np.float64), tape, wrt_params=False)
    rows = (from_inputs * wanted).reshape(len(given), -1).max(axis=1)
    cols = (from_outputs * given).reshape(len(given), -1).max(axis=1)
    # Backward adds the products over all outputs and taps that a pixel reaches.
    terms = weight.shape[0] * int(np.prod(weight.shape[2:])) + layer.patch_size
    return np.array([raised(float(norm), terms) for norm in np.sqrt(rows * cols)])


def masked_size(values: Array, relevant: Array) -> Float64Array:
    """The norm of the relevant entries, one an image.

    Examples
    --------
    >>> import numpy as np
    >>> masked_size(np.array([[3.0, 4.0]]), np.array([[True, False]]))
    array([3.])
    """
    return sizes(values * relevant)


def sizes(values: Array) -> Float64Array:
    """The Euclidean norm of every image's entries.

    Examples
    --------
    >>> import numpy as np
    >>> sizes(np.array([[[3.0], [4.0]]]))
    array([5.])
    """
    flat = values.reshape(len(values), -1)
    norms: Float64Array = np.sqrt(np.einsum("ij,ij->i", flat, flat))
    return norms


def carry(
    units: Sequence[Unit],
    norms: Mapping[str, tuple[Float64Array, ...]],
    local: Mapping[str, Float64Array],
    count: int,
) -> Float64Array:
    """The rule of `units`, image by image: the bound at the last unit's output.

    Parameters
    ----------
    units : sequence of Unit
        In topological order.
    norms : mapping of str to tuple of Array
        Constants, one an input and image.
    local : mapping of str to Array
        Local errors, one an image; 0 for units that are absent.
    count : int
        Number of images.

    Returns
    -------
    Array, shape (count,)
    """
    errors = {INPUT: np.zeros(count)}
    for unit in units:
        total = local.get(unit.name, np.zeros(count)).copy()
        for name, norm in zip(unit.inputs, norms[unit.name], strict=True):
            total += norm * errors[name]
        errors[unit.name] = total
    return errors[units[-1].name]
