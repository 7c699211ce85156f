r"""The true final error of a quantized network, layer by layer, and the ladder of bounds on it.

With the same graph in both networks and the error :math:`\hat\varepsilon^L = \|\hat Y - Y\|_F/\sqrt n`:

=====================  =====================================================================================
``printed``            (19) to the letter, with the error (8): false in general
``printed_frobenius``  (19) as meant, root outside, the parallel error: holds for fully connected ReLU chains
``frobenius_*``        the graph rule of `units` with Frobenius norms of weights
``spectral_*``         the same with certified operator norms
``blocks_*``           the same for whole blocks, convolution, batch normalization and ReLU
``masks``              image by image, submatrices of the active sets
``hybrid``             :math:`\sum_k\|H_k-H_{k-1}\|`, :math:`H_k` the output with k layers quantized
``secant``             :math:`\sum_k\|J_k r_k\|`, the terms of the exact identity
=====================  =====================================================================================

An ending ``_parallel`` says: errors measured on the original network's inputs and carried by the quantized
network's norms; ``_cascade``: on the quantized network's inputs, as (8), carried by the original's. Proofs:

* The graph rule. For a unit with function F,
  :math:`F(\hat x;\hat\theta) - F(x;\theta) = [F(\hat x;\hat\theta) - F(x;\hat\theta)]
  + [F(x;\hat\theta) - F(x;\theta)]`; the first bracket is at most
  :math:`\sum_u\Lambda_u(\hat\theta)\varepsilon_u`, the second is the parallel local error. With
  :math:`F(\hat x;\theta)` in the middle one gets the cascade form. Changed batch normalization and biases are
  local errors like any other.
* ``hybrid``: the triangle inequality for :math:`\hat Y - Y = \sum_k (H_k - H_{k-1})`.
* ``secant``: with the linear maps of `secant`, :math:`e_v = \sum_u M_{uv}e_u + r_v` exactly, hence
  :math:`\hat Y - Y = \sum_k J_k r_k`, where :math:`J_k r_k` is what the k-th layer's errors become at the
  end. The identity is evaluated, and its residual reported.

Orders that are theorems are in `results.ORDER` and checked. Rounding: everything runs in float64;
see `results.Rung`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from refldnq._checks import check_finite, check_integer
from refldnq._typing import Array, Float64Array
from refldnq.bounds.errors import Batch, Sums
from refldnq.bounds.operators import printed_norm
from refldnq.bounds.pair import Pair, rounding
from refldnq.bounds.printed import frobenius_bound, objections, printed_bound
from refldnq.bounds.results import IDENTITY, ORDER, TITLES, Ladder, LayerBounds, Rung
from refldnq.bounds.rounding import gamma
from refldnq.bounds.units import Grain, Unit, gains
from refldnq.layers.base import LinearMap
from refldnq.network import INPUT, Network


def bound_ladder(original: Network, quantized: Network, images: Array, *, batch_size: int = 16) -> Ladder:
    """Measure the errors of a pair of networks and bound the final one.

    Parameters
    ----------
    original, quantized : Network
        The same graph with different parameters; evaluated in eval mode and float64, whatever their type.
    images : Array, shape (n, *input_shape)
        Preprocessed images.
    batch_size : int, optional
        Images at a time, which bounds memory: about three times the activations of so many images in one
        network. Chosen here (measured: 240 MB for a ResNet-20).

    Returns
    -------
    Ladder

    Raises
    ------
    ValueError
        If the graphs differ, the images do not fit, or there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Linear, ReLU
    >>> from refldnq.network import Node
    >>> nodes = (Node("a", Linear(1, 1, bias=False), ("input",)), Node("relu", ReLU(), ("a",)),
    ...          Node("b", Linear(1, 1, bias=False), ("relu",)))
    >>> one, half = ({name: {"weight": np.array([[w]])} for name in "ab"} for w in (1.0, 0.5))
    >>> ladder = bound_ladder(Network(nodes, one, (1,)), Network(nodes, half, (1,)), np.ones((1, 1)))
    >>> ladder.true_error, ladder.rung("secant").value, round(ladder.rung("printed").value, 9)
    (0.75, 0.75, 0.5)
    >>> ladder.sound, ladder.rung("printed").holds
    (True, False)
    """
    check_integer("batch_size", batch_size, at_least=1)
    if original.nodes != quantized.nodes or original.input_shape != quantized.input_shape:
        raise ValueError("`quantized` must have the graph of `original`; nodes or the input's shape differ.")
    if images.shape[0] < 1:
        raise ValueError("`images` must hold at least one image, got none.")
    check_finite("images", images)
    pair = Pair(original.astype(np.float64), quantized.astype(np.float64))
    x = images.astype(np.float64)
    sums = Sums()
    for first in range(0, len(x), batch_size):
        Batch(pair, x[first : first + batch_size]).measure(sums)
    return _assemble(pair, sums, len(x))


def _assemble(pair: Pair, sums: Sums, count: int) -> Ladder:
    true = sums.root_mean("true")
    names = [INPUT, *(node.name for node in pair.original.nodes)]
    widest = max(int(np.prod(shape)) for shape in pair.original.shapes.values())
    relative = 2.0 * gamma(widest + count + 4 * len(names) + 64)
    around = {name: np.asarray(sums.root_mean("size", name)) for name in names}
    reports = _layers(pair, sums)
    values: dict[str, tuple[float, float, tuple[str, ...]]] = {
        "secant": (sums.root_mean("secant"), sums.root_mean("residual"), ()),
        "hybrid": (sums.root_mean("hybrid"), 0.0, ()),
        "masks": (sums.root_mean("masks"), sums.root_mean("masks", "slack"), ()),
    }
    recipes: tuple[tuple[str, Grain], ...] = (
        ("blocks", "blocks"),
        ("spectral", "nodes"),
        ("frobenius", "nodes"),
    )
    for kind, grain in recipes:
        units = pair.units[grain]
        noise = {unit.name: float(rounding(unit, pair, around)) for unit in units}
        for side in ("parallel", "cascade"):
            gain = gains(units, pair.norms[kind][side], names)
            local = {unit.name: sums.root_mean("local", grain, side, unit.name) for unit in units}
            values[f"{kind}_{side}"] = (
                sum(gain[name] * error for name, error in local.items()),
                sum(gain[name] * error for name, error in noise.items()),
                (),
            )
    values.update(_printed(pair, sums, around))
    rungs = tuple(
        Rung(
            key=key,
            value=value,
            tightness=value / true if true > 0 else float("nan"),
            valid=not reasons,
            reasons=reasons,
            slack=slack,
            holds=bool(true <= value + slack),
        )
        for key in TITLES
        for value, noise, reasons in [values[key]]
        for slack in [0.0 if reasons else noise + relative * value]
    )
    return Ladder(
        images=count,
        true_error=true,
        output_norm=sums.root_mean("output"),
        layers=reports,
        rungs=rungs,
        residual=sums.root_mean("residual"),
        violated=_violated(true, sums.root_mean("residual"), rungs),
        relative_slack=relative,
    )


def _violated(true: float, residual: float, rungs: Sequence[Rung]) -> tuple[str, ...]:
    # The pairs of `ORDER` that do not hold, with the slack of both, and the identity. Rounding errors are of
    # the size of activations, not of their differences: where the networks are nearly equal they are all that
    # the residual has, and what the active sets let through is their bound.
    value = {rung.key: (rung.value, rung.slack) for rung in rungs}
    value["true"] = (true, 0.0)
    found = []
    for low, high in ORDER:
        (a, slack_a), (b, slack_b) = value[low], value[high]
        # Written so that NaN is a violation; an infinite upper rung is none.
        if not (a <= b + slack_a + slack_b):
            found.append(f"{low} {a:.6g} > {high} {b:.6g}")
    secant, carried = value["secant"][0], value["masks"][1]
    if not (residual <= IDENTITY * secant + carried):
        found.append(f"the exact identity's residual {residual:.6g} of {secant:.6g}")
    return tuple(found)


def _printed(
    pair: Pair, sums: Sums, around: Mapping[str, Float64Array]
) -> dict[str, tuple[float, float, tuple[str, ...]]]:
    weighted = pair.original.weighted
    norms = [printed_norm(pair.quantized.params[name]["weight"]) for name in weighted]
    cascade = [sums.root_mean("local", "nodes", "cascade", name) for name in weighted]
    parallel = [sums.root_mean("local", "nodes", "parallel", name) for name in weighted]
    reasons = objections(pair.original, pair.quantized, pair.changed)
    if not weighted:
        return {key: (0.0, 0.0, reasons) for key in ("printed", "printed_frobenius")}
    literal: tuple[str, ...] = (
        "the root of the error stands inside the product",
        "the error is (8)'s, on the quantized network's inputs",
    )
    literal = literal if len(weighted) > 1 else ()
    noise = [float(rounding(Unit((pair.original[name],)), pair, around)) for name in weighted]
    return {
        "printed": (printed_bound(norms, cascade), noise[-1], literal + reasons),
        "printed_frobenius": (frobenius_bound(norms, parallel), frobenius_bound(norms, noise), reasons),
    }


def _layers(pair: Pair, sums: Sums) -> tuple[LayerBounds, ...]:
    names = [node.name for node in pair.original.nodes]
    gain = gains(pair.units["nodes"], pair.norms["spectral"]["parallel"], names)
    blocks = {unit.nodes[0].name: unit.name for unit in pair.units["blocks"]}
    reports = []
    for name, members in pair.groups:
        # A group may begin with a node without arrays: the first one, if it comes before all weights.
        weights = pair.quantized.params.get(name, {}).get("weight")
        has_weights = isinstance(pair.original[name].layer, LinearMap) and weights is not None
        reports.append(
            LayerBounds(
                name=name,
                changed=members,
                parallel=sums.root_mean("local", "nodes", "parallel", name),
                cascade=sums.root_mean("local", "nodes", "cascade", name),
                block=sums.root_mean("local", "blocks", "parallel", blocks.get(name, name)),
                hybrid=sums.root_mean("hybrid", name),
                secant=sums.root_mean("secant", name),
                norm=pair.norms["spectral"]["parallel"][name][0],
                frobenius=pair.norms["frobenius"]["parallel"][name][0],
                printed=printed_norm(weights) if has_weights and weights is not None else float("nan"),
                gain=gain[name],
            )
        )
    return tuple(reports)
