"""What is told of a quantized layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from refldnq._typing import Array, Float64Array
from refldnq.cascade import Cascade, ratio
from refldnq.codebook import Codebook
from refldnq.hessian import Hessian, layer_error
from refldnq.model import QuantizedWeight
from refldnq.solvers.base import Solution

MOVED = (
    "codes moved after the last layer, so errors but the final output's, objective and bound are those of "
    "before; how many moved"
)
"""How the note begins that a layer's report has on codes that moved; their number follows."""

RIDGE = "the ridge's epsilon is"
"""How the note begins that a layer's report has on the ridge of its problem."""


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What happened at one layer.

    Errors are per image, in squared units of what they compare, on the calibration images; the relative ones
    are divided by the mean squared norm of the reference.

    Parameters
    ----------
    name : str
        The layer.
    levels : int
        Number of values of the codebook.
    alpha : float or tuple of float
        The scale, or one a channel; after the last updates, if there are any, while the objective, its bound
        and errors but `output_error` are from before.
    zero_fraction : float
        Share of weights that are 0; after the last updates.
    error : float
        E^l of (8): with the quantized prefix's inputs, against the updated weights.
    relative_error : float
        E^l divided by its value at zero weights; infinite if that is 0 and E^l is not.
    objective : float
        What the solver minimized: E^l, but for the profile ``released-2019``, other targets and weighted
        channels or entries, whose problems are others.
    accumulated_error : float
        Of the pre-activation against the reference network's.
    relative_accumulated_error : float
        The same divided by the mean squared norm of the reference's pre-activation.
    output_error : float
        Of the final output against the reference network's, after the weights update.
    relative_output_error : float
        The same divided by the mean squared norm of the reference's output.
    iterations : int
        Iterations of the solver.
    converged : bool
        Whether the solver stopped at a fixed point.
    guarantee : str
        What is proved about the solver's result.
    rho, lambda_max : float
        The solver's penalty and the Hessian's largest eigenvalue; above it convergence is proved. NaN for
        solvers that have no penalty.
    certified : bool
        Whether rho > lambda_max is proved.
    notes : tuple of str
        What there is to say of the problem and its solution: fallbacks, degenerate inputs; with another
        target than ``weights`` the ridge's epsilon in the units of H, and what it is added to.
    rank, size : int
        Rank of the Hessian's blocks and their rows, summed over the groups; as `error`, of all rows alike.
    condition : float
        Largest condition number of a block on its range.
    dead_inputs : int
        Rows of the Hessian that are zero.
    update_loss : float
        Mean loss of the update's last epoch, by default the output error; NaN without an update, or if one
        was not kept because it helped none of the images left out. The last layer's is of the last updates.
    update_images : int
        Image passes of the update.
    seconds : float
        Wall-clock time of this layer's steps.
    lower_bound : float or None
        No point of the set has a smaller objective, certified; 0 says nothing; None: not asked for.
    gap : float or None
        By how much the objective can exceed the optimum, as a share of it; None without a certificate.
    held_out_error, relative_held_out_error : float or None
        `error` and `relative_error` on images that guided nothing; None without such images.
    """

    name: str
    levels: int
    alpha: float | tuple[float, ...]
    zero_fraction: float
    error: float
    relative_error: float
    objective: float
    accumulated_error: float
    relative_accumulated_error: float
    output_error: float
    relative_output_error: float
    iterations: int
    converged: bool
    guarantee: str
    rho: float
    lambda_max: float
    certified: bool
    notes: tuple[str, ...]
    rank: int
    size: int
    condition: float
    dead_inputs: int
    update_loss: float
    update_images: int
    seconds: float
    lower_bound: float | None = None
    gap: float | None = None
    held_out_error: float | None = None
    relative_held_out_error: float | None = None


def layer_report(
    name: str,
    codebook: Codebook,
    hessian: Hessian,
    packed: Float64Array,
    solution: Solution,
    cascade: Cascade,
) -> LayerReport:
    """What there is to tell of a layer, but for the update and the error of the final output.

    Parameters
    ----------
    name : str
        The layer, up to behind which `cascade` is moved.
    codebook : Codebook
        Its levels.
    hessian : Hessian
        That of the layer error (8).
    packed : Array, shape (g, d, m), float64
        The weight of which (8) counts the change.
    solution : Solution
        In the shape of that weight.
    cascade : Cascade
        Teacher and student, the layer quantized.

    Returns
    -------
    LayerReport
        See `with_output` for the error of the final output.
    """
    n = len(cascade.images)
    z, z_hat = cascade.reference[name][:n], cascade.live[name][:n]
    error = layer_error(hessian.blocks, packed, solution.G)
    return LayerReport(
        name=name,
        levels=codebook.levels,
        alpha=plain_alpha(np.asarray(solution.alpha)),
        zero_fraction=float(np.mean(solution.G == 0)),
        error=error,
        relative_error=ratio(error, layer_error(hessian.blocks, packed, np.zeros_like(packed))),
        objective=solution.objective,
        accumulated_error=mean_square(z_hat - z),
        relative_accumulated_error=ratio(mean_square(z_hat - z), mean_square(z)),
        output_error=float("nan"),
        relative_output_error=float("nan"),
        iterations=solution.iterations,
        converged=solution.converged,
        guarantee=solution.guarantee,
        rho=solution.rho,
        lambda_max=getattr(solution, "lambda_max", float("nan")),
        certified=getattr(solution, "certified", False),
        notes=solution.notes,
        rank=int(np.sum(hessian.rank)),
        size=int(hessian.blocks.shape[0] * hessian.blocks.shape[1]),
        condition=float(np.max(hessian.condition)),
        dead_inputs=int(np.sum(hessian.dead)),
        update_loss=float("nan"),
        update_images=0,
        seconds=0.0,
    )


def with_output(report: LayerReport, y_hat: Array, cascade: Cascade) -> LayerReport:
    """The report with the error of the final output `y_hat`, (n, ...), for the images as they are."""
    y = cascade.target
    error = mean_square(y_hat - y)
    return replace(report, output_error=error, relative_output_error=ratio(error, mean_square(y)))


def with_code(
    report: LayerReport, old: QuantizedWeight, quantized: Mapping[str, QuantizedWeight]
) -> LayerReport:
    """The report with the scale and the zeros of codes that updates have moved, and how many they moved."""
    code = quantized[report.name]
    moved = int((code.codes != old.codes).sum())
    note = f"{MOVED}: {moved}"
    return replace(
        report,
        alpha=plain_alpha(code.alpha),
        zero_fraction=float(np.mean(code.weight() == 0)),
        notes=(*report.notes, note) if moved else report.notes,
    )


def plain_alpha(alpha: Float64Array) -> float | tuple[float, ...]:
    """A scale as reports have it: a number, or one a channel."""
    return float(alpha) if alpha.ndim == 0 else tuple(float(a) for a in alpha.ravel())


def mean_square(difference: Array) -> float:
    """1/n times the squared Frobenius norm of an array (n, ...), summed in float64."""
    flat = difference.reshape(-1).astype(np.float64)
    return float(flat @ flat) / len(difference)
