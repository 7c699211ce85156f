"""What the batch normalization behind a layer, or its bias, takes over of its quantization.

Factors and constants of channels where the layer's problem leaves them open, or the mean error alone. Module
`follower` has the algebra; here it is settled for a solution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.cascade import Cascade, ratio
from refldnq.drift import DriftProblem
from refldnq.follower import take_over
from refldnq.layer_report import LayerReport, mean_square, plain_alpha
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.solvers.base import Solution


@dataclass(frozen=True)
class TakenOver:
    """Taken over by what stands behind a layer: the pre-activation is scale times the layer's own + shift.

    Parameters
    ----------
    arrays : mapping of str to mapping of str to Array
        New arrays of nodes, by node and name.
    scale, shift : Array, shape (c,), float64
        One each for every channel.
    """

    arrays: NetworkParams
    scale: Float64Array
    shift: Float64Array

    def corrected(self, report: LayerReport, z: Array, z_hat: Array, code: QuantizedWeight) -> LayerReport:
        """The report with the layer's own scale, and the error of the true pre-activation.

        Parameters
        ----------
        report : LayerReport
            As the solution has it.
        z, z_hat : Array, shape (n, c, ...)
            The layer's outputs in the teacher and in the student.
        code : QuantizedWeight
            The layer's.

        Returns
        -------
        LayerReport
        """
        axes = (1, -1) + (1,) * (z.ndim - 2)
        error = mean_square(z_hat * self.scale.reshape(axes) + self.shift.reshape(axes) - z)
        return replace(
            report,
            alpha=plain_alpha(code.alpha),
            accumulated_error=error,
            relative_accumulated_error=ratio(error, mean_square(z)),
        )


def bias_correction(network: Network, cascade: Cascade, name: str, norm: str | None) -> TakenOver:
    """What takes back the mean error of a layer's pre-activation.

    The bias correction of Nagel et al. 2019 ("Data-free quantization through weight equalization and bias
    correction"), b + E[z] - E[z_hat], with the means of the calibration images.

    Parameters
    ----------
    network : Network
        The student, the layer quantized.
    cascade : Cascade
        Teacher and student, moved to the layer.
    name : str
        The layer.
    norm : str or None
        The batch normalization that takes its output; None if its own bias takes the constant.

    Returns
    -------
    TakenOver
    """
    constant = cascade.mean_error(network, name)
    one = np.ones(len(constant))
    if norm is None:  # the new bias is in the pre-activation already
        arrays = take_over(network, cascade.teacher, name, one, constant, norm=None)
        return TakenOver(arrays, one, np.zeros(len(constant)))
    # From the reference's mean, since the student's may have been corrected or updated before.
    mean = cascade.teacher.params[norm]["running_mean"] - constant
    return TakenOver({norm: {"running_mean": mean.astype(network.dtype)}}, one, constant)


def absorb(
    code: QuantizedWeight,
    solution: Solution,
    problem: DriftProblem,
    network: Network,
    teacher: Network,
    name: str,
    norm: str | None,
) -> tuple[QuantizedWeight, TakenOver]:
    """One scale in place of each channel's own, and the arrays behind the layer that make up for it.

    Channels keep their scales where no normalization can take them over, or where the set has no code for 0,
    which is what a channel without a scale needs.

    Parameters
    ----------
    code : QuantizedWeight
        The solution in the shape of the layer's weight, (g, d, m).
    solution : Solution
        The same in the shape of `problem`.
    problem : DriftProblem
        What it solves.
    network, teacher : Network
        The student and the reference.
    name : str
        The layer.
    norm : str or None
        The batch normalization that alone takes its output; None if its own bias takes the constant.

    Returns
    -------
    QuantizedWeight
        With one scale, if the channels' can be taken over.
    TakenOver
        What makes up for it.
    """
    constant = problem.constant(solution.G).ravel()
    ratios = np.ones(len(constant))
    if code.alpha.ndim and norm is not None and ((code.values == 0).any() or (code.alpha > 0).all()):
        alpha, codes = code.alpha, code.codes.copy()
        one = float(alpha[alpha > 0].mean()) if (alpha > 0).any() else 0.0
        ratios = np.divide(one, alpha, out=np.ones_like(alpha), where=alpha > 0).ravel()
        for zero in np.flatnonzero(code.values == 0):  # what has no scale is 0, whatever the layer's scale
            codes = np.where(alpha[:, None, :] > 0, codes, np.int8(zero))
        code = replace(code, codes=codes, alpha=np.asarray(one))
    arrays = take_over(network, teacher, name, ratios, constant, norm=norm)
    kept = network.params[name].get("bias")
    bias = np.zeros(len(constant)) if kept is None or norm is None else kept.astype(np.float64)
    # Without a normalization the new bias is in the pre-activation already.
    shift = bias * (1 - 1 / ratios) + constant if norm is not None else np.zeros(len(constant))
    return code, TakenOver(arrays, 1 / ratios, shift)
