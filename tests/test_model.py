"""The model: what is checked when codes and network come together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq.layers import Conv2d, Linear, ReLU
from refldnq.layers.base import LinearMap
from refldnq.model import Model, QuantizedWeight
from refldnq.network import Network, Node

TERNARY = np.array([-1.0, 0.0, 1.0])


def code(shape: tuple[int, int, int] = (1, 3, 2), **changes: Any) -> QuantizedWeight:
    codes = np.random.default_rng(0).integers(0, 3, shape).astype(np.int8)
    return QuantizedWeight(**{"codes": codes, "alpha": np.array(0.3), "values": TERNARY, **changes})


def by_definition(code: QuantizedWeight) -> np.ndarray[Any, np.dtype[np.float64]]:
    g, d, m = code.codes.shape
    out = np.empty((g, d, m))
    for i, row, unit in np.ndindex(g, d, m):
        alpha = code.alpha[i, unit] if code.alpha.ndim else code.alpha
        out[i, row, unit] = alpha * code.values[code.codes[i, row, unit]]
    return out


@given(groups=st.integers(1, 3), rows=st.integers(1, 4), units=st.integers(1, 3), per_channel=st.booleans())
def test_a_weight_is_alpha_times_values_of_codes(
    groups: int, rows: int, units: int, per_channel: bool
) -> None:
    rng = np.random.default_rng(rows)
    alpha = rng.random((groups, units)) if per_channel else np.array(0.7)
    one = code((groups, rows, units), alpha=alpha, values=np.array([-2.0, 0.1, 3.0]))
    assert one.weight().dtype == np.float64 and np.array_equal(one.weight(), by_definition(one))
    # The comparison sees a scale that is forgotten.
    assert (
        not np.array_equal(one.weight() / one.weight().max(), by_definition(one)) or one.weight().max() == 1
    )


def test_a_python_float_is_an_alpha() -> None:
    assert code(alpha=0.5).alpha.shape == ()


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "codes of int64": (
        {"codes": np.zeros((1, 3, 2), int)},
        TypeError,
        "`codes` must be an array of int8, got int64",
    ),
    "codes a list": ({"codes": [[[0]]]}, TypeError, "`codes` must be an array of int8, got list"),
    "codes of two axes": ({"codes": np.zeros((3, 2), np.int8)}, ValueError, "`codes` must have shape"),
    "code too large": (
        {"codes": np.full((1, 3, 2), 3, np.int8)},
        ValueError,
        r"`codes` must lie in 0\.\.2, got 3",
    ),
    "code negative": (
        {"codes": np.full((1, 3, 2), -1, np.int8)},
        ValueError,
        r"`codes` must lie in 0\.\.2, got -1",
    ),
    "alpha of float32": (
        {"alpha": np.float32(1)},
        TypeError,
        "`alpha` must be an array of float64, got float32",
    ),
    "alpha NaN": ({"alpha": np.array(np.nan)}, ValueError, "`alpha` must be finite"),
    "alpha negative": ({"alpha": np.array(-0.1)}, ValueError, "`alpha` must not be negative, got -0.1"),
    "alpha misshapen": (
        {"alpha": np.ones((2, 1))},
        ValueError,
        r"`alpha` must have shape \(1, 2\), got \(2, 1\)",
    ),
    "values of float32": (
        {"values": TERNARY.astype(np.float32)},
        TypeError,
        "`values` must be an array of float64",
    ),
    "values infinite": ({"values": np.array([0, np.inf])}, ValueError, "`values` must be finite"),
    "values repeat": ({"values": np.array([0.0, 0.0, 1.0])}, ValueError, "`values` must ascend"),
    "values of two axes": ({"values": TERNARY[None]}, ValueError, "`values` must have shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_codes_are_named(case: str) -> None:
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        code(**changes)


def network(dtype: Any = np.float64) -> Network:
    nodes = (
        Node("conv", Conv2d(2, 4, 2, groups=2), ("input",)),
        Node("relu", ReLU(), ("conv",)),
    )
    rng = np.random.default_rng(1)
    params = {"conv": {"weight": rng.standard_normal((4, 1, 2, 2)), "bias": rng.standard_normal(4)}}
    return Network(nodes, params, (2, 3, 3)).astype(dtype)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_give_the_layers_arrays(bias: bool, dtype: Any) -> None:
    base = network(dtype)
    one = code((2, 4 + bias, 2), alpha=np.random.default_rng(2).random((2, 2)), bias=bias)
    arrays = one.arrays(base["conv"], base.dtype)
    assert set(arrays) == ({"weight", "bias"} if bias else {"weight"})
    assert all(array.dtype == dtype and array.flags.c_contiguous for array in arrays.values())
    layer = base["conv"].layer
    assert isinstance(layer, LinearMap)
    changed = base.replace({"conv": arrays})
    packed = layer.pack(changed.params["conv"], bias=bias)
    assert np.array_equal(packed, by_definition(one).astype(dtype))
    model = Model(network=changed, quantized={"conv": one})
    assert model.preprocess is None and model.classes is None and dict(model.provenance) == {}
    # One wrong bit anywhere is seen.
    for key, array in arrays.items():
        spoiled = array.copy()
        spoiled.flat[-1] = np.nextafter(spoiled.flat[-1], dtype(9))
        with pytest.raises(
            ValueError, match=rf"`quantized\['conv'\]` must give the network's {key} bit for bit"
        ):
            Model(network=changed.replace({"conv": {key: spoiled}}), quantized={"conv": one})


def test_a_zero_of_the_other_sign_is_another_bit() -> None:
    one = code((2, 4, 2), codes=np.ones((2, 4, 2), np.int8))
    base = network().replace({"conv": one.arrays(network()["conv"], np.dtype(np.float64))})
    Model(network=base, quantized={"conv": one})
    with pytest.raises(ValueError, match="bit for bit"):
        Model(
            network=base.replace({"conv": {"weight": -base.params["conv"]["weight"]}}),
            quantized={"conv": one},
        )


def test_codes_must_fit_their_layer() -> None:
    with pytest.raises(ValueError, match="`quantized` must name layers with weights, got 'relu'"):
        Model(network=network(), quantized={"relu": code()})
    with pytest.raises(KeyError, match="`name` must be a node of the network, got 'fc'"):
        Model(network=network(), quantized={"fc": code()})
    with pytest.raises(ValueError, match=r"`packed` must have shape \(2, 4, 2\), got \(1, 3, 2\)"):
        Model(network=network(), quantized={"conv": code()})
    plain = Network(
        (Node("fc", Linear(3, 2, bias=False), ("input",)),), {"fc": {"weight": np.ones((2, 3))}}, (3,)
    )
    with pytest.raises(ValueError, match="bias"):
        Model(network=plain, quantized={"fc": code((1, 4, 2), bias=True)})


def test_a_scale_too_large_for_the_network_is_refused() -> None:
    code = QuantizedWeight(
        codes=np.ones((1, 1, 1), np.int8), alpha=np.array(1e300), values=np.array([0.0, 1.0])
    )
    node = Node("fc", Linear(1, 1, bias=False), ("input",))
    assert code.arrays(node, np.dtype(np.float64))["weight"] == 1e300
    with pytest.raises(ValueError, match=r"`fc\.weight` must be finite, got inf"):
        code.arrays(node, np.dtype(np.float32))


def test_a_model_is_a_value() -> None:
    model = Model(network=network(), classes=("a", "b"))
    assert replace(model, classes=("b", "a")).classes == ("b", "a") and model.classes == ("a", "b")
    with pytest.raises(AttributeError):
        model.classes = None  # type: ignore[misc]
