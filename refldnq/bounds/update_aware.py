r"""What the reports of a run add: the bound that covers the weights update.

A file knows the last network only. A run's reports know, for its own calibration images and after every
step l, the output error :math:`D_l^2` and the layer error :math:`E^l` that the solver left. The update after
step l moves the layers behind l; after the last step there are none, so

.. math:: \hat\varepsilon^L = D_L \le D_{L-1} + \Lambda\sqrt{E^L},

with :math:`\Lambda` the constant from the last quantized layer's output to the network's (1 if it is the last
node). The step must change nothing but the last layer's weight, from the one it had when :math:`D_{L-1}` was
measured, and :math:`E^L` must be of all images that D is of; otherwise there is no bound. In between,
:math:`D_l - D_{l-1}` is what step l cost, its update included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from refldnq.bounds.units import constants, gains, partition
from refldnq.network import Network


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateAware:
    """The bound (U) from a run's reports, on the run's calibration images.

    Parameters
    ----------
    available : bool
        Whether the file tells enough.
    reason : str
        Why not; empty if it does.
    value : float
        The bound; NaN if not available.
    true_error : float
        D_L on the calibration images; NaN if not available.
    layers : tuple of str
        The run's layers.
    outputs : tuple of float
        D_l after each of them.
    errors : tuple of float
        The roots of E^l.
    holds : bool
        Whether ``true_error <= value``, with the slack of float32 sums.
    """

    available: bool
    reason: str = ""
    value: float = math.nan
    true_error: float = math.nan
    layers: tuple[str, ...] = ()
    outputs: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    holds: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing contradicts the bound: it holds, or there is none."""
        return self.holds or not self.available

    @property
    def tightness(self) -> float:
        """Bound over true error."""
        return self.value / self.true_error if self.true_error > 0 else math.nan


SLACK = 1e-3
"""Relative; the reports' networks ran in float32: 1e-7 an operation, and norms of differences of outputs that
agree to 1e-3 or so. Chosen here."""


def update_aware(quantized: Network, provenance: Mapping[str, Any]) -> UpdateAware:
    """The bound (U), if the model file holds the reports of its run.

    Parameters
    ----------
    quantized : Network
        The quantized network.
    provenance : mapping of str to JSON value
        The model file's.

    Returns
    -------
    UpdateAware

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.models import build
    >>> update_aware(build("mlp-digits", np.random.default_rng(0)), {}).reason
    'the file holds no layer reports'
    """
    reports = provenance.get("layers")
    if not isinstance(reports, list) or not reports:
        return UpdateAware(available=False, reason="the file holds no layer reports")
    try:
        names = tuple(str(report["name"]) for report in reports)
        outputs = tuple(math.sqrt(float(report["output_error"])) for report in reports)
        errors = tuple(math.sqrt(float(report["error"])) for report in reports)
    except (KeyError, TypeError, ValueError):
        return UpdateAware(available=False, reason="the layer reports hold no output and layer errors")
    known = UpdateAware(available=False, layers=names, outputs=outputs, errors=errors)
    request = provenance.get("request")
    request = request if isinstance(request, Mapping) else {}
    reason = _objection(quantized, request, names[-1])
    if reason:
        return replace(known, reason=reason)
    units = partition(quantized, "nodes")
    gain = gains(units, constants(units, quantized.params, quantized.shapes), [names[-1]])[names[-1]]
    before = outputs[-2] if len(outputs) > 1 else 0.0
    value = before + gain * errors[-1]
    return replace(
        known,
        available=True,
        value=value,
        true_error=outputs[-1],
        holds=outputs[-1] <= value * (1.0 + SLACK),
    )


def _objection(quantized: Network, request: Mapping[str, Any], last: str) -> str:
    # Why the last step of a run with this request proves no bound; empty if it does.
    settings = request.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    cascades, few = settings.get("cascades"), settings.get("hessian_images")
    reason = ""
    if request.get("fine_tune") is not None:
        reason = "the network was trained with labels after its last report"
    elif settings.get("profile") == "released-2019" and settings.get("update"):
        reason = "the released code's update also moves layers in front of the last one"
    elif settings.get("reestimate") == "end":
        reason = "the statistics of batch normalization were computed anew after the last layer"
    elif settings.get("code_epochs"):
        reason = "codes moved after the last layer"
    elif settings.get("final_epochs"):
        reason = "batch normalization or scales moved after the last layer"
    elif settings.get("absorb") or settings.get("correct_bias"):
        reason = "batch normalization or biases behind a layer were changed with it"
    elif isinstance(cascades, int) and cascades > 1:
        reason = "in a repeated cascade the output before a layer is of the layer already quantized"
    elif isinstance(few, int) and not _at_most(request.get("images"), few):
        reason = f"the layer errors are of the first {few} images only"
    elif last not in quantized.weighted:
        reason = f"the last report's layer {last!r} is not in the network"
    elif any(name in quantized.params for name in _behind(quantized, last)) and settings.get("update"):
        reason = f"the update after {last!r} moved layers behind it"
    return reason


def _at_most(count: object, most: int) -> bool:
    # Whether the file says that there were no more images than `most`.
    return isinstance(count, int) and count <= most


def _behind(network: Network, name: str) -> list[str]:
    return [node.name for node in network.nodes[network.position(name) + 1 :]]
