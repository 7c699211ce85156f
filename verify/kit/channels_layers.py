"""The three channels of layers, updates, networks, quantizers and solvers: exact numbers, the library, loops.

As in `channels`, a value ships only if all agree. Gradients of the first channel are those of the numbers
themselves; the library's are written by hand; the loops' are differences of the naive twins' outputs. Whole
networks go through the library's own `update` and `ldnq`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise, product
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import MOVING, WEIGHTED
from refldnq.verify.kit.families import _tiny, solvers
from refldnq.verify.kit.families._layers import GRADIENTS, backward, forward
from refldnq.verify.kit.families._numbers import fractions, rounded
from refldnq.verify.kit.families._scalar import values
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.reference_layers import BEHIND
from refldnq.verify.naive import layers as naive

Inputs = Mapping[str, Any]
Answers = dict[str, Any]

OPS = ("forward", "backward", "update_grad", "network", "solve", "quantizer")
"""The operations that have three channels here."""

CLOSE = 2.0**-36
"""Largest difference of the library from the right answers, as a share of the largest entry, times the
condition number (chosen here)."""

STEP = 2.0**-17
"""Step of difference quotients, near the cube root of u: their error is some 1e-10."""

COARSE = 1e-7
"""As `CLOSE`, of what the loops get from difference quotients."""

TILT = 2.0**-12
"""How much later pixels are lowered where equal ones are compared: the first of them wins, by definition."""


def disagreements(case: Case) -> tuple[str, ...]:
    """What is wrong with the answers of a case by any channel: one line each, nothing if all agree.

    Examples
    --------
    >>> from refldnq.verify.kit.families import layers
    >>> disagreements(next(iter(layers.cases())))
    ()
    """
    lines = []
    for name, array in exact(case.op, case.inputs).items():
        if not np.array_equal(array, case.outputs[name]):
            lines.append(f"{case.id}: {name} is not the correctly rounded exact answer")
    for channel, answer in (("library", library), ("loops", loops)):
        found = answer(case.op, case.inputs)
        for name, want in case.outputs.items():
            allowed = COARSE if channel == "loops" else CLOSE * max(case.kappa, 1.0)
            codes = np.asarray(want).dtype.kind == "i"
            if not _near(found[name], want, 0.0 if codes else allowed):
                lines.append(f"{case.id}: {name} of the {channel} differs")
    return tuple(lines)


def _near(got: Any, want: Any, allowed: float) -> bool:
    a, b = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    if a.shape != b.shape:
        return False
    return bool(np.abs(a - b).max(initial=0.0) <= allowed * np.abs(b).max(initial=0.0))


# Exact numbers -----------------------------------------------------------------------------------------


def exact(op: str, inputs: Inputs) -> Answers:
    """The first channel, rounded once."""
    if op == "quantizer":
        codes, alpha, *_ = solvers.quantize(inputs)
        W, levels = np.asarray(inputs["W"]), fractions(inputs["values"])
        G = rounded((alpha * levels[codes]).reshape(W.shape))
        return {"Q": codes.reshape(W.shape), "alpha": float(alpha), "G": G}
    if op == "solve":
        codes, alpha, _ = solvers.solve(inputs)
        H, W, levels = (fractions(inputs[key]) for key in ("H", "W", "values"))
        f = solvers.objective(H, W, alpha * levels[codes])
        return {"Q": codes, "alpha": float(alpha), "objective": float(f)}
    if op == "network":
        found = _tiny.network(inputs).outputs
    else:
        found = {"forward": forward, "backward": backward, "update_grad": _tiny.update_grad}[op](inputs)
    return {name: array if array.dtype != object else rounded(values(array)) for name, array in found.items()}


# The library -------------------------------------------------------------------------------------------


def library(op: str, inputs: Inputs) -> Answers:
    """The second channel: layers and solvers behind the reference; `update` and `ldnq` for the network."""
    if op == "update_grad":
        return _library_update(inputs)
    if op == "network":
        return _library_network(inputs)
    found: Answers = getattr(Reference(), op)(**inputs)
    return found


def library_network(inputs: Inputs, prefix: str = "") -> Any:
    """The kit's network as the library's."""
    from refldnq.layers import BatchNorm, Conv2d, Flatten, Linear, ReLU
    from refldnq.network import Network, Node

    weights = {name: np.asarray(inputs[f"{prefix}{name}_weight"]) for name in WEIGHTED}
    m, c, kh, kw = weights["conv"].shape
    stride, padding = (tuple(int(v) for v in inputs[name]) for name in ("stride", "padding"))
    fc1, fc2 = (Linear(weights[name].shape[1], weights[name].shape[0]) for name in ("fc1", "fc2"))
    nodes = (
        Node("conv", Conv2d(c, m, (kh, kw), stride, padding, bias=False), ("input",)),  # type: ignore[arg-type]
        Node("bn", BatchNorm(m, eps=float(inputs["eps"])), ("conv",)),
        Node("relu1", ReLU(), ("bn",)),
        Node("flatten", Flatten(), ("relu1",)),
        Node("fc1", fc1, ("flatten",)),
        Node("relu2", ReLU(), ("fc1",)),
        Node("fc2", fc2, ("relu2",)),
    )
    names = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    params = {
        node.name: {
            key: np.asarray(inputs[f"{prefix}{node.name}_{names[key]}"])
            for key in node.layer.parameter_shapes()
        }
        for node in nodes
        if node.layer.parameter_shapes()
    }
    return Network(nodes, params, np.asarray(inputs["X"]).shape[1:])


def _library_update(inputs: Inputs) -> Answers:
    # A step of plain gradient descent at rate 1 on all images moves by the gradient.
    from refldnq.loss import output_error
    from refldnq.update import Copy, UpdateSettings, update

    student, teacher = library_network(inputs), library_network(inputs, "teacher_")
    X = np.asarray(inputs["X"])
    frozen, batch = int(inputs["frozen"]), inputs["statistics"] == "batch"
    cut = 0 if frozen == 0 else student.position(WEIGHTED[frozen - 1]) + 1
    target = teacher.forward(X)
    settings = UpdateSettings(
        epochs=1,
        batch_size=len(X),
        optimizer="sgd",
        momentum=0.0,
        learning_rate=1.0,
        schedule="constant",
        statistics="batch" if batch else "running",
        copies=1,
        pool=1,
    )
    live = student.advance(student.start(X), 0, cut)
    moved = update(student, cut, [Copy(live, target)], settings, np.random.default_rng(0)).network
    answers: Answers = {
        "loss": output_error(student.forward(X, mode="train" if batch else "eval"), target)[0]
    }
    for name in BEHIND[frozen]:
        layer, key = name.split("_")
        answers[f"d{name}"] = student.params[layer][key] - moved.params[layer][key]
    return answers


def _library_network(inputs: Inputs) -> Answers:
    from refldnq.codebook import scaled
    from refldnq.ldnq import ldnq
    from refldnq.ldnq_settings import LdnqSettings
    from refldnq.progress import Progress
    from refldnq.solvers.admm_settings import AdmmSettings
    from refldnq.update import UpdateSettings

    network, X, steps = library_network(inputs), np.asarray(inputs["X"]), int(inputs["steps"])
    update = UpdateSettings(
        epochs=max(steps, 1),
        batch_size=len(X),
        optimizer="sgd",
        momentum=0.0,
        learning_rate=float(inputs["rate"]) or 1.0,
        schedule="constant",
        statistics="running",
        copies=1,
        pool=1,
    )
    how = AdmmSettings(rho=float(inputs["rho"]), rho_scale="absolute", iterations=int(inputs["K"]))
    settings = LdnqSettings(
        codebook=scaled(inputs["values"]),
        solver=inputs["solver"],
        solver_settings=how if inputs["solver"] == "admm" else None,
        update=update if steps else None,
    )
    states: list[Progress] = []
    ldnq(network, X, settings, np.random.default_rng(0), on_layer=states.append)
    answers: Answers = {}
    before = network
    for name, state in zip(WEIGHTED, states, strict=True):
        layer = before[name].layer
        seen = np.concatenate([one[0] for one in before.inputs_of(name, X)])
        answers[f"H_{name}"] = layer.hessian(seen)[0]
        answers[f"W_{name}"] = layer.pack(before.params[name])[0]
        answers[f"Q_{name}"] = layer_codes(layer, state.quantized[name].codes)
        answers[f"alpha_{name}"] = state.quantized[name].alpha
        before = state.network
    answers["losses"] = np.array([state.reports[-1].update_loss for state in states])
    if steps:  # nothing moves behind the last layer: its loss is the final error
        answers["losses"][-1] = states[-1].reports[-1].output_error
    for name in ("bn_weight", "bn_bias", "fc1_bias", "fc2_bias"):
        owner, key = name.split("_")
        answers[name] = before.params[owner][key]
    return {**answers, "y": before.forward(X)}


def layer_codes(layer: Any, codes: Array) -> Array:
    """Codes as (d, m), from those of a model, which have the weight's shape or are packed."""
    return np.asarray(codes[0] if codes.ndim == 3 else codes.reshape(codes.shape[0], -1).T)


# Loops -------------------------------------------------------------------------------------------------


def loops(op: str, inputs: Inputs) -> Answers:
    """The third channel: naive twins, differences for derivatives, all codes tried for optima."""
    operations: Mapping[str, Callable[[Inputs], Answers]] = {
        "forward": _loop_forward,
        "backward": _loop_backward,
        "update_grad": _loop_update,
        "network": _loop_network,
        "solve": _loop_solve,
        "quantizer": _loop_quantizer,
    }
    return operations[op](inputs)


def _pair(given: Any) -> tuple[int, int]:
    return int(given[0]), int(given[1])


def _loop_forward(inputs: Inputs) -> Answers:
    x, kind = np.asarray(inputs["x"]), inputs["layer"]
    weight, bias = (np.asarray(inputs[name]) if name in inputs else None for name in ("weight", "bias"))
    if kind == "linear" and weight is not None:
        return {"y": naive.linear(x, weight, bias)}
    if kind == "conv2d" and weight is not None:
        return {"y": naive.conv2d(x, weight, bias, **_geometry(inputs), groups=int(inputs.get("groups", 1)))}
    if kind == "batchnorm" and weight is not None and bias is not None:
        mean, var = np.asarray(inputs["running_mean"]), np.asarray(inputs["running_var"])
        eps = float(inputs["eps"])
        if inputs.get("mode", "eval") == "eval":
            return {"y": naive.batch_norm(x, weight, bias, mean, var, eps)}
        new = naive.batch_norm_statistics(x, mean, var, float(inputs["momentum"]))
        y = naive.batch_norm(x, weight, bias, *naive.batch_moments(x), eps)
        return {"y": y, "new_running_mean": new[0], "new_running_var": new[1]}
    if kind in ("maxpool", "avgpool"):
        window: dict[str, Any] = {
            "kernel": _pair(inputs["kernel"]),
            "stride": _pair(inputs["stride"]),
            "padding": tuple(int(v) for v in inputs["padding"]),
            "ceil_mode": bool(inputs["ceil_mode"]),
        }
        if kind == "maxpool":
            return {"y": naive.max_pool2d(x, **window)[0]}
        return {"y": naive.avg_pool2d(x, **window, count_include_pad=bool(inputs["count_include_pad"]))}
    others: Mapping[str, Callable[[], Array]] = {
        "relu": lambda: naive.relu(x),
        "flatten": lambda: naive.flatten(x),
        "globalpool": lambda: naive.global_avg_pool(x),
        "add": lambda: naive.add(x, np.asarray(inputs["x2"])),
        "concat": lambda: naive.concat(x, np.asarray(inputs["x2"])),
        "dropout": lambda: naive.dropout(x, _loop_mask(inputs)),
        "zeropad": lambda: naive.zero_pad2d(x, tuple(int(v) for v in inputs["padding"])),  # type: ignore[arg-type]
        "shortcut": lambda: naive.subsample_shortcut(x, int(inputs["out_channels"]), _pair(inputs["stride"])),
    }
    return {"y": others[kind]()}


def _loop_mask(inputs: Inputs) -> Array | None:
    if inputs.get("mode", "eval") == "eval":
        return None
    return np.array([[k / (1 - inputs["p"]) for k in row] for row in inputs["mask"]])


def _geometry(inputs: Inputs) -> dict[str, Any]:
    return {
        "stride": _pair(inputs["stride"]),
        "padding": tuple(int(v) for v in inputs["padding"]),
        "dilation": _pair(inputs.get("dilation", (1, 1))),
    }


def differences(function: Callable[[Array], float], at: Array) -> Array:
    """Central difference quotients in every entry.

    Examples
    --------
    >>> differences(lambda x: float(x[0] * x[1]), np.array([2.0, 3.0])).round(9)
    array([3., 2.])
    """
    found = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[index] += sign * STEP
            ends.append(function(moved))
        found[index] = (ends[0] - ends[1]) / (2 * STEP)
    return found


def _loop_backward(inputs: Inputs) -> Answers:
    dy, x = np.asarray(inputs["dy"]), np.asarray(inputs["x"])
    base = dict(inputs)
    if inputs["layer"] == "relu":  # at 0 the derivative is that of the left
        base["x"] = np.where(x == 0, -TILT, x)
    if inputs["layer"] == "maxpool":
        base["x"] = x - TILT * np.arange(x[0, 0].size).reshape(x.shape[2:])

    def of(name: str) -> Callable[[Array], float]:
        return lambda array: float((dy * _loop_forward({**base, name: array})["y"]).sum())

    names = [name for name in GRADIENTS if name in inputs and np.ndim(inputs[name]) and np.size(inputs[name])]
    return {GRADIENTS[name]: differences(of(name), np.asarray(base[name])) for name in names}


def _loop_output(arrays: Mapping[str, Any], inputs: Inputs, *, mode: str = "eval", stop: str = "") -> Array:
    x = np.asarray(inputs["X"])
    if stop == "conv":
        return x
    y = naive.conv2d(x, arrays["conv_weight"], **_geometry(inputs))
    mean, var = (arrays["bn_mean"], arrays["bn_var"]) if mode == "eval" else naive.batch_moments(y)
    y = naive.batch_norm(y, arrays["bn_weight"], arrays["bn_bias"], mean, var, float(inputs["eps"]))
    x = naive.flatten(naive.relu(y))
    if stop == "fc1":
        return x
    x = naive.relu(naive.linear(x, arrays["fc1_weight"], arrays["fc1_bias"]))
    return x if stop == "fc2" else naive.linear(x, arrays["fc2_weight"], arrays["fc2_bias"])


def _loop_error(arrays: Mapping[str, Any], inputs: Inputs, target: Array, mode: str) -> float:
    y = _loop_output(arrays, inputs, mode=mode)
    total: Any = 0.0
    for index in np.ndindex(y.shape):
        total += (y[index] - target[index]) ** 2
    return float(total / len(y))  # [LDNQ] (6)


def _loop_gradient(
    arrays: Mapping[str, Any], inputs: Inputs, target: Array, mode: str, names: tuple[str, ...]
) -> dict[str, Array]:
    def of(name: str) -> Callable[[Array], float]:
        return lambda array: _loop_error({**arrays, name: array}, inputs, target, mode)

    return {name: differences(of(name), np.asarray(arrays[name])) for name in names}


def _loop_arrays(inputs: Inputs, prefix: str = "") -> dict[str, Array]:
    return {name: np.asarray(inputs[prefix + name]) for name in (*MOVING, "bn_mean", "bn_var")}


def _loop_update(inputs: Inputs) -> Answers:
    arrays = _loop_arrays(inputs)
    target = _loop_output(_loop_arrays(inputs, "teacher_"), inputs)
    mode = "train" if inputs["statistics"] == "batch" else "eval"
    found = _loop_gradient(arrays, inputs, target, mode, BEHIND[int(inputs["frozen"])])
    return {"loss": _loop_error(arrays, inputs, target, mode), **{f"d{k}": v for k, v in found.items()}}


def _loop_network(inputs: Inputs) -> Answers:
    arrays = _loop_arrays(inputs)
    target = _loop_output(arrays, inputs)
    answers: Answers = {}
    losses: list[float] = []
    for count, layer in enumerate(WEIGHTED, start=1):
        x, weight = _loop_output(arrays, inputs, stop=layer), arrays[f"{layer}_weight"]
        if layer == "conv":
            H = naive.conv2d_hessian(x, kernel=_pair(weight.shape[2:]), **_geometry(inputs))[0]
        else:
            H = naive.linear_hessian(x)[0]
        W = weight.reshape(len(weight), -1).T
        codes, alpha = _loop_codes(H, W, inputs)
        G = alpha * np.asarray(inputs["values"])[codes]
        arrays = {**arrays, f"{layer}_weight": G.T.reshape(weight.shape)}
        answers.update({f"H_{layer}": H, f"W_{layer}": W, f"Q_{layer}": codes, f"alpha_{layer}": alpha})
        for _ in range(int(inputs["steps"])):
            losses.append(_loop_error(arrays, inputs, target, "eval"))
            found = _loop_gradient(arrays, inputs, target, "eval", BEHIND[count])
            arrays = {
                **arrays,
                **{name: arrays[name] - float(inputs["rate"]) * found[name] for name in found},
            }
    answers.update({name: arrays[name] for name in ("bn_weight", "bn_bias", "fc1_bias", "fc2_bias")})
    return {**answers, "losses": np.array(losses), "y": _loop_output(arrays, inputs)}


def _loop_codes(H: Array, W: Array, inputs: Inputs) -> tuple[Array, float]:
    from refldnq.verify.naive.admm import admm
    from refldnq.verify.naive.projection import nearest

    levels = np.asarray(inputs["values"])
    if inputs["solver"] == "direct":
        alpha = sum(abs(w) for w in W.ravel()) / W.size
        codes = [nearest(w, alpha, levels.tolist()) for w in W.ravel()]
        return np.array(codes).reshape(W.shape), float(alpha)
    states = admm(H, W, levels, float(inputs["rho"]), int(inputs["K"]))
    best = min(states, key=lambda state: state.objective)
    return _codes_of(best.G / best.alpha, levels), float(best.alpha)


def _codes_of(Q: Array, levels: Array) -> Array:
    return np.array([int(np.argmin([abs(q - level) for level in levels])) for q in Q.ravel()]).reshape(
        Q.shape
    )


def _loop_solve(inputs: Inputs) -> Answers:
    from refldnq.verify.naive import solvers as twins
    from refldnq.verify.naive.hessian import objective

    H, W, levels = (np.asarray(inputs[name]) for name in ("H", "W", "values"))
    name, alpha = inputs["solver"], 1.0
    columns: Mapping[str, Callable[[Array], Array]] = {
        "gptq": lambda w: twins.gptq(H, w, levels),
        "ldlq": lambda w: twins.gptq(H, w, levels),
        "gpfq": lambda w: twins.gpfq(np.linalg.cholesky(H).T, w, levels),
        "coordinate": lambda w: _sweeps(H, w, levels),
    }
    if name in columns:
        codes = np.stack([_codes_of(columns[name](w), levels) for w in W.T], axis=1)
    elif name in ("admm", "direct"):
        codes, alpha = _loop_codes(H, W, inputs)
    else:
        codes, alpha = _tried(H, W, levels, free=inputs["kind"] == "scaled")
    return {"Q": codes, "alpha": alpha, "objective": objective(H, W, alpha * levels[codes])}


def _sweeps(H: Array, w: Array, levels: Array) -> Array:
    from refldnq.verify.naive.solvers import coordinate_sweep, nearest

    g = np.array([levels[nearest(levels, t)] for t in w])
    while True:
        new = coordinate_sweep(H, w, g, levels)
        if np.array_equal(new, g):
            return g
        g = new


def _tried(H: Array, W: Array, levels: Array, *, free: bool) -> tuple[Array, float]:
    best: tuple[float, Array, float] | None = None
    for picked in product(range(len(levels)), repeat=W.size):
        codes = np.array(picked).reshape(W.shape)
        Q, alpha = levels[codes], 1.0
        if free:
            bottom = float(np.trace(Q.T @ H @ Q))
            alpha = float(np.trace(Q.T @ H @ W)) / bottom if bottom > 0 else 0.0
            if alpha <= 0:
                continue
        f = float(np.trace((alpha * Q - W).T @ H @ (alpha * Q - W)))
        if best is None or f < best[0] - 1e-12:
            best = f, codes, alpha
    assert best is not None
    return best[1], best[2]


def _loop_quantizer(inputs: Inputs) -> Answers:
    from refldnq.verify.naive.projection import alternate, nearest

    W, levels = np.asarray(inputs["W"]), np.asarray(inputs["values"]).tolist()
    flat = W.ravel().tolist()
    alpha = sum(abs(w) for w in flat) / len(flat)
    codes = [nearest(w, alpha, levels) for w in flat]
    if inputs["method"] == "alternating":
        alpha, codes, _ = alternate(flat, levels, alpha)
    if inputs["method"] == "exact":
        alpha, codes = _swept(flat, levels)
    Q = np.array(codes).reshape(W.shape)
    return {"Q": Q, "alpha": alpha, "G": alpha * np.asarray(levels)[Q]}


def _swept(V: list[float], levels: list[float]) -> tuple[float, list[int]]:
    # The codes change only at scales v / middle: one scale between each two neighbours is enough.
    from refldnq.verify.naive.projection import best_scale, nearest, residual

    middles = [(low + high) / 2 for low, high in pairwise(levels)]
    breaks = sorted({v / middle for v in V for middle in middles if middle and v / middle > 0})
    best: tuple[float, float, list[int]] | None = None
    for low, high in zip([0.0, *breaks], breaks, strict=False):
        codes = [nearest(v, (low + high) / 2, levels) for v in V]
        Q = [levels[code] for code in codes]
        alpha = best_scale(V, Q)
        cost = residual(V, alpha, Q)
        if best is None or cost < best[0]:
            best = cost, alpha, codes
    assert best is not None
    return best[1], best[2]
