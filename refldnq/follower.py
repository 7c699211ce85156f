r"""What stands behind a layer and takes over a part of its quantization.

A batch normalization behind a layer has a scale and a shift for each channel, which no quantization touches.
So a channel's weight matters up to a positive factor, and its pre-activation up to a constant:

.. math:: \gamma\frac{z - \mu}{\sqrt v} = \gamma\frac{r z + s - (r\mu + s)}{\sqrt{r^2 v}} \qquad (r > 0)

A layer with one scale :math:`\alpha` for all channels can have the codes of the best scale of *each*
channel, :math:`r_c = \alpha/\alpha_c`, but for :math:`\epsilon` beside the variance. A bias takes the
constant alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.layers.add import Add
from refldnq.layers.batchnorm import BatchNorm
from refldnq.layers.relu import ReLU
from refldnq.network import Network


@dataclass(frozen=True, slots=True)
class Follower:
    """Nodes behind a layer.

    Parameters
    ----------
    norm : str or None
        The batch normalization that alone takes the layer's output.
    total : str or None
        The sum that alone takes the normalization's.
    """

    norm: str | None = None
    total: str | None = None


def follower(network: Network, name: str) -> Follower:
    """What stands behind layer `name`.

    Examples
    --------
    >>> from refldnq.models import build
    >>> network = build("resnet20", np.random.default_rng(0))
    >>> follower(network, "layer1.0.conv2"), follower(network, "linear")
    (Follower(norm='layer1.0.bn2', total='layer1.0.add'), Follower(norm=None, total=None))
    """
    norm = _only_user(network, name, BatchNorm)
    return Follower(norm, None if norm is None else _only_user(network, norm, Add))


def _only_user(network: Network, name: str, kind: type[BatchNorm | Add | ReLU]) -> str | None:
    users = [node for node in network.nodes for source in node.inputs if source == name]
    return users[0].name if len(users) == 1 and isinstance(users[0].layer, kind) else None


def relu_behind(network: Network, name: str) -> bool:
    """Whether one ReLU alone takes the output of node `name`.

    Examples
    --------
    >>> from refldnq.models import build
    >>> network = build("resnet20", np.random.default_rng(0))
    >>> relu_behind(network, "layer1.0.add"), relu_behind(network, "linear")
    (True, False)
    """
    return _only_user(network, name, ReLU) is not None


def normalization(network: Network, norm: str) -> tuple[Float64Array, Float64Array]:
    """Scale and shift of a batch normalization in eval mode, (c,) each: y = scale z + shift."""
    params, layer = network.params[norm], network[norm].layer
    assert isinstance(layer, BatchNorm)
    own = {key: array.astype(np.float64) for key, array in params.items()}
    scale = own["weight"] / np.sqrt(own["running_var"] + layer.eps)
    return scale, own["bias"] - own["running_mean"] * scale


def wanted_branch(network: Network, norm: str, output: Array, z: Array) -> Array:
    """The pre-activation that a batch normalization makes `output` of.

    Parameters
    ----------
    network : Network
        Owns the normalization.
    norm : str
        Its name.
    output : Array, shape (n, c, ...)
        What it is to give.
    z : Array, shape (n, c, ...)
        Taken for channels that it switches off, whose scale is below a thousandth of the largest.

    Returns
    -------
    Array, shape (n, c, ...)
    """
    scale, shift = normalization(network, norm)
    on = np.abs(scale) > 1e-3 * np.abs(scale).max()
    safe = np.where(on, scale, 1.0)
    axes = (1, -1) + (1,) * (output.ndim - 2)
    found = (output - shift.reshape(axes)) / safe.reshape(axes)
    return np.where(on.reshape(axes), found, z).astype(z.dtype)


def take_over(
    network: Network,
    reference: Network,
    name: str,
    ratio: Float64Array,
    constant: Float64Array,
    *,
    norm: str | None,
) -> NetworkParams:
    r"""The arrays behind a layer that make up for factors and constants of its channels.

    Parameters
    ----------
    network : Network
        The student.
    reference : Network
        The network whose pre-activation z the layer has been quantized for.
    name : str
        The layer.
    ratio : Array, shape (c,)
        r: the layer gives r times what it should; 1 where there is no normalization.
    constant : Array, shape (c,)
        s, what is missing after the division by r.
    norm : str or None
        The normalization behind the layer; None if the layer's own bias takes the constant.

    Returns
    -------
    mapping of str to mapping of str to Array
        With a normalization: the reference's, for :math:`z = (\tilde z - b)/r + b + s` in place of z, where b
        is the layer's own bias. Without one: the layer's new bias.
    """
    own = network.params[name].get("bias")
    bias = np.zeros(len(ratio)) if own is None else own.astype(np.float64)
    if norm is None:
        return {name: {"bias": (bias + constant).astype(network.dtype)}}
    arrays = dict(reference.params[norm])
    mean = arrays["running_mean"].astype(np.float64)
    variance = arrays["running_var"].astype(np.float64)
    arrays["running_mean"] = (bias * (1 - ratio) + ratio * (mean - constant)).astype(network.dtype)
    arrays["running_var"] = (ratio**2 * variance).astype(network.dtype)
    return {norm: arrays}
