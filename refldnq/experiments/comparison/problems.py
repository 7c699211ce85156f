"""The same layer problems for every solver: what the reference network's own inputs make of (10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from refldnq._typing import Array
from refldnq.cascade import ratio
from refldnq.codebook import Codebook
from refldnq.hessian import accumulate_hessian, layer_error
from refldnq.layers.base import LinearMap
from refldnq.network import Network
from refldnq.solvers.base import default_settings, get_solver
from refldnq.solvers.lower_bound import BoundSettings, lower_bound


@dataclass(frozen=True, kw_only=True)
class ComparedProblem:
    """One layer's problem (10) and what the solvers made of it.

    Parameters
    ----------
    layer : str
        Its name.
    errors : mapping of str to float
        By solver: the objective, divided by that of zero weights.
    bound : float
        A certified lower bound of it; 0 says nothing.
    trace : tuple of float
        The paper's ADMM: the same after 0, 1, ... iterations.
    """

    layer: str
    errors: dict[str, float]
    bound: float
    trace: tuple[float, ...]


def layer_problems(
    network: Network,
    images: Array,
    codebook: Codebook,
    solvers: Sequence[str],
    *,
    per_channel: bool = False,
    batch_size: int = 100,
) -> tuple[ComparedProblem, ...]:
    """Every layer's problem, by every solver with its default settings but for the number of scales.

    Parameters
    ----------
    network : Network
        The reference network.
    images : Array, shape (n, *input_shape)
        Preprocessed calibration images.
    codebook : Codebook
        The levels of all layers.
    solvers : sequence of str
        Names; ``"admm"`` runs in any case.
    per_channel : bool, optional
        One scale for each output channel, for the bound too.
    batch_size : int, optional
        Images at a time.

    Returns
    -------
    tuple of ComparedProblem
        In the order of the layers.
    """
    found = []
    for name in network.weighted:
        layer = network[name].layer
        assert isinstance(layer, LinearMap)
        inputs = (x for (x,) in network.inputs_of(name, images, batch_size=batch_size))
        H = accumulate_hessian(layer, inputs).blocks
        W = layer.pack(network.params[name]).astype(np.float64)
        whole = layer_error(H, W, np.zeros_like(W))
        solutions = {
            solver: get_solver(solver)(
                H, W, codebook, replace(default_settings(solver), per_channel=per_channel)
            )
            for solver in dict.fromkeys(("admm", *solvers))
        }
        bound = lower_bound(H, W, codebook, BoundSettings(per_channel=per_channel)).value
        found.append(
            ComparedProblem(
                layer=name,
                errors={solver: ratio(solution.objective, whole) for solver, solution in solutions.items()},
                bound=ratio(bound, whole),
                trace=tuple(ratio(float(f), whole) for f in solutions["admm"].trace.objective),
            )
        )
    return tuple(found)
