"""A network with all that is needed to use it: preprocessing, classes, codes of quantized layers, origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refldnq._checks import check_finite, check_shape
from refldnq._typing import Array, Float64Array, Int8Array
from refldnq.data.preprocess import Preprocess
from refldnq.layers.base import LinearMap
from refldnq.network import Network, Node


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeight:
    """A layer's quantized weight: G = alpha * values[codes].

    Parameters
    ----------
    codes : Array, shape (g, d, m), int8
        Indices into `values`; rows in order (c, kh, kw), the bias row last if there is one.
    alpha : Array, shape () or (g, m), float64
        The scale, one for the layer or one a channel.
    values : Array, shape (k,), float64
        The values, ascending.
    bias : bool, optional
        Whether the last row is the layer's bias.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite, or a code is not an index into `values`.
    TypeError
        If a type is wrong.

    Examples
    --------
    >>> codes, values = np.array([[[0], [2]]], np.int8), np.array([-1.0, 0.0, 1.0])
    >>> QuantizedWeight(codes=codes, alpha=np.array(0.5), values=values).weight().ravel()
    array([-0.5,  0.5])
    """

    codes: Int8Array
    alpha: Float64Array
    values: Float64Array
    bias: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", np.asarray(self.alpha))
        for name, array, dtype in (
            ("codes", self.codes, np.int8),
            ("alpha", self.alpha, np.float64),
            ("values", self.values, np.float64),
        ):
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                kind = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"`{name}` must be an array of {np.dtype(dtype)}, got {kind}.")
            check_finite(name, array)
        check_shape("codes", self.codes, (None, None, None))
        check_shape("values", self.values, (None,))
        if self.alpha.ndim:
            check_shape("alpha", self.alpha, (self.codes.shape[0], self.codes.shape[2]))
        if (self.alpha < 0).any():
            raise ValueError(f"`alpha` must not be negative, got {self.alpha.min()}.")
        if (np.diff(self.values) <= 0).any():
            raise ValueError(f"`values` must ascend, got {self.values}.")
        if self.codes.size and not (self.codes.min() >= 0 and self.codes.max() < len(self.values)):
            raise ValueError(
                f"`codes` must lie in 0..{len(self.values) - 1}, got {self.codes.min()}..{self.codes.max()}."
            )

    def weight(self) -> Float64Array:
        """G, (g, d, m), float64."""
        alpha = self.alpha[:, None, :] if self.alpha.ndim else self.alpha
        weight: Float64Array = alpha * self.values[self.codes]
        return weight

    def arrays(self, node: Node, dtype: np.dtype[Any]) -> dict[str, Array]:
        """The arrays of the layer `node`, rounded to `dtype`.

        Raises
        ------
        ValueError
            If the node has no weight, its shape differs, or a number is too large for `dtype`.
        """
        if not isinstance(node.layer, LinearMap):
            raise ValueError(f"`quantized` must name layers with weights, got {node.name!r}.")
        unpacked = node.layer.unpack(self.weight(), bias=self.bias)
        with np.errstate(over="ignore"):  # refused below
            arrays = {key: np.ascontiguousarray(array, dtype=dtype) for key, array in unpacked.items()}
        for key, array in arrays.items():
            check_finite(f"{node.name}.{key}", array)
        return arrays


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What a model file holds.

    Parameters
    ----------
    network : Network
        The graph and its arrays.
    preprocess : Preprocess or None, optional
        From stored images to inputs; None if unknown.
    classes : tuple of str or None, optional
        What the outputs mean.
    quantized : mapping of str to QuantizedWeight, optional
        Codes of quantized layers; they give the network's arrays bit for bit.
    provenance : mapping, optional
        Where the model comes from; JSON values.

    Raises
    ------
    ValueError
        If a quantized layer's codes and arrays disagree.
    """

    network: Network
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] | None = None
    quantized: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, code in self.quantized.items():
            for key, array in code.arrays(self.network[name], self.network.dtype).items():
                # Bytes: 0 and -0 are equal as numbers.
                if array.tobytes() != self.network.params[name][key].tobytes():
                    raise ValueError(
                        f"`quantized[{name!r}]` must give the network's {key} bit for bit; it differs."
                    )
