"""The reference's layers, updates, whole networks and solvers, with a knob for each of their faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from refldnq._checks import check_choice
from refldnq._typing import Array
from refldnq.layers import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    SubsampleShortcut,
    ZeroPad2d,
)
from refldnq.loss import output_error
from refldnq.verify.kit.contract import LAYER_KINDS, MOVING, WEIGHTED
from refldnq.verify.kit.knobs import Knobs

Answers = dict[str, Array]
Pull = Callable[[Array], Answers]
"""From the gradient of the output to the gradients by answer name."""

BEHIND: Mapping[int, tuple[str, ...]] = {0: MOVING, 1: MOVING[1:], 2: MOVING[5:], 3: ()}
"""Arrays behind the first so many frozen layers; the bias of a frozen layer stands."""

_BATCHNORM = ("bn_eps", "bn_variance", "bn_running", "bn_momentum", "bn_backward", "bn_scale_grad")


class LayerSteps(ABC):
    """The operations ``forward``, ``backward``, ``update_grad``, ``network``, ``quantizer`` and ``solve``."""

    knobs: Knobs
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, array: Any) -> Array:
        """An input in the type of the computation."""

    # -- one layer --------------------------------------------------------------------------------------

    def forward(self, **inputs: Any) -> Answers:
        """The output of one layer; in train mode the new running statistics too."""
        return self._layer(inputs)[0]

    def backward(self, **inputs: Any) -> Answers:
        """The gradients of one layer's inputs and parameters."""
        return self._layer(inputs)[1](self.read(inputs["dy"]))

    def _layer(self, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        kind = str(inputs["layer"])
        check_choice("layer", kind, LAYER_KINDS)
        names = ("x", "x2", "weight", "bias", "running_mean", "running_var")
        arrays = {name: self.read(inputs[name]) for name in names if name in inputs and np.ndim(inputs[name])}
        steps: Mapping[str, Callable[[Answers, Mapping[str, Any]], tuple[Answers, Pull]]] = {
            "linear": self._weighted,
            "conv2d": self._weighted,
            "batchnorm": self._batchnorm,
            "relu": self._relu,
            "maxpool": self._maxpool,
            "avgpool": self._avgpool,
            "flatten": self._flatten,
            "shortcut": self._shortcut,
            "globalpool": self._simple,
            "add": self._simple,
            "concat": self._concat,
            "dropout": self._dropout,
            "zeropad": self._simple,
        }
        return steps[kind](arrays, inputs)

    def _run(
        self, layer: Layer, params: Mapping[str, Array], *x: Array, mode: Any = "eval"
    ) -> tuple[Answers, Pull]:
        # The library's layer.
        layer.output_shape(*(one.shape[1:] for one in x))
        y, tape = layer.forward(params, *x, mode=mode)
        new = layer.new_statistics(params, tape)

        def pull(dy: Array) -> Answers:
            dxs, dparams = layer.backward(params, dy, tape)
            return {
                **dict(zip(("dx", "dx2"), dxs, strict=False)),
                **{f"d{name}": array for name, array in dparams.items()},
            }

        return {"y": y, **{f"new_{name}": array for name, array in new.items()}}, pull

    def _weighted(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        knobs, x, weight = self.knobs, arrays["x"], arrays["weight"]
        bias = knobs.layer_bias == "given" and arrays.get("bias", np.zeros(0)).size > 0
        params = {"weight": weight, **({"bias": arrays["bias"]} if bias else {})}
        if inputs["layer"] == "linear":
            if knobs.layer_kernel == "transposed" and weight.shape[0] == weight.shape[1]:
                params["weight"] = np.ascontiguousarray(weight.T)
            answers, pull = self._run(Linear(weight.shape[1], weight.shape[0], bias), params, x)
            return answers, self._changed_gradients(pull, params, {}, x)
        groups = int(inputs.get("groups", 1))
        shape = {
            "in_channels": weight.shape[1] * groups,
            "out_channels": weight.shape[0],
            "kernel_size": tuple(int(k) for k in weight.shape[2:]),
            "stride": _pair(inputs["stride"]),
            "padding": tuple(int(side) for side in inputs["padding"]),
            "dilation": _pair(inputs.get("dilation", (1, 1))),
            "groups": groups,
            "bias": bias,
        }
        if knobs.layer_stride == "swapped":
            shape["stride"] = shape["stride"][::-1]
        if knobs.layer_dilation == "ignored":
            shape["dilation"] = (1, 1)
        if knobs.layer_kernel == "flipped":
            params["weight"] = np.ascontiguousarray(weight[:, :, ::-1, ::-1])
        if knobs.layer_kernel == "transposed" and weight.shape[2] == weight.shape[3]:
            params["weight"] = np.ascontiguousarray(weight.swapaxes(2, 3))
        if knobs.layer_groups == "interleaved" and groups > 1:
            n, c, h, w = x.shape
            x = np.ascontiguousarray(
                x.reshape(n, c // groups, groups, h, w).swapaxes(1, 2).reshape(n, c, h, w)
            )
        answers, pull = self._run(Conv2d(**shape), params, x)
        return answers, self._changed_gradients(pull, params, shape, x)

    def _changed_gradients(self, pull: Pull, params: Answers, shape: Mapping[str, Any], x: Array) -> Pull:
        knobs = self.knobs

        def wrong(dy: Array) -> Answers:
            found = pull(dy)
            if knobs.layer_bias == "lost":
                found["dbias"] = dy.sum(axis=(0, *range(2, dy.ndim)))
            if knobs.bias_grad == "missing" and "dbias" in found:
                found["dbias"] = np.zeros_like(found["dbias"])
            if knobs.bias_grad == "mean" and "dbias" in found:
                found["dbias"] = found["dbias"] / dy[:, 0].size
            if knobs.weight_grad == "mean":
                found["dweight"] = found["dweight"] / len(x)
            if shape and knobs.input_kernel == "flipped":
                turned = {"weight": np.ascontiguousarray(params["weight"][:, :, ::-1, ::-1])}
                found["dx"] = self._run(Conv2d(**{**shape, "bias": False}), turned, x)[1](dy)["dx"]
            if shape and knobs.input_stride == "ignored":
                found["dx"] = _dense_input_gradient(params["weight"], dy, x, shape)
            return found

        return wrong

    def _batchnorm(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        knobs, x = self.knobs, arrays["x"]
        mode = {"given": str(inputs.get("mode", "eval")), "batch": "train", "running": "eval"}[knobs.bn_mode]
        layer = BatchNorm(x.shape[1], eps=float(inputs["eps"]), momentum=float(inputs.get("momentum", 0.1)))
        params = {name: arrays[name] for name in ("weight", "bias", "running_mean", "running_var")}
        if not any(name in _BATCHNORM for name in knobs.turned()):
            return self._run(layer, params, x, mode=mode)
        axes = (0, *range(2, x.ndim))
        count = x.size // x.shape[1]

        def spread(a: Array) -> Array:
            return a.reshape(1, -1, *[1] * (x.ndim - 2))

        mean, variance = params["running_mean"], params["running_var"]
        new = layer.momentum if knobs.bn_momentum == "of the batch" else 1 - layer.momentum
        answers: Answers = {}
        if mode == "train":
            mean, variance = x.mean(axis=axes), x.var(axis=axes)
            unbiased = variance * (count / (count - 1))
            moved = unbiased if knobs.bn_running == "unbiased" else variance
            for name, value in (("running_mean", mean), ("running_var", moved)):
                answers[f"new_{name}"] = ((1 - new) * params[name] + new * value).astype(self.dtype)
            variance = variance if knobs.bn_variance == "biased" else unbiased
        if knobs.bn_eps == "outside":
            inverse = 1 / (np.sqrt(variance) + layer.eps)
        else:
            inverse = 1 / np.sqrt(variance + (layer.eps if knobs.bn_eps == "inside" else 0.0))
        hat = (x - spread(mean)) * spread(inverse)
        scale = spread(params["weight"] * inverse)

        def pull(dy: Array) -> Answers:
            products = dy * (x - spread(mean) if knobs.bn_scale_grad == "centred" else hat)
            dx = scale * dy
            if mode == "train" and knobs.bn_backward != "constant statistics":
                dx = dx - scale * spread(dy.mean(axis=axes))
                if knobs.bn_backward != "constant variance":
                    dx = dx - scale * hat * spread((dy * hat).mean(axis=axes))
            found = {"dx": dx, "dweight": products.sum(axis=axes), "dbias": dy.sum(axis=axes)}
            return {name: np.asarray(array, dtype=self.dtype) for name, array in found.items()}

        y = hat * spread(params["weight"]) + spread(params["bias"])
        return {"y": np.asarray(y, dtype=self.dtype), **answers}, pull

    def _relu(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        x, knobs = arrays["x"], self.knobs
        answers, pull = self._run(ReLU(), {}, x)
        if knobs.relu_slope:
            slope = np.where(x > 0, self.dtype.type(1), self.dtype.type(knobs.relu_slope))
            return {"y": x * slope}, lambda dy: {"dx": dy * slope}

        def wrong(dy: Array) -> Answers:
            if knobs.relu_kept == "gradient":
                return {"dx": np.maximum(dy, 0)}
            dx = pull(dy)["dx"]
            return {"dx": np.where(x == 0, self.dtype.type(knobs.relu_at_zero) * dy, dx)}

        return answers, pull if knobs.relu_at_zero == 0 and knobs.relu_kept == "input" else wrong

    def _pooled(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "kernel_size": _pair(inputs["kernel"]),
            "stride": _pair(inputs["stride" if self.knobs.pool_stride == "given" else "kernel"]),
            "padding": tuple(int(side) for side in inputs["padding"]),
            "ceil_mode": self.knobs.pool_ceil == "given" and bool(inputs.get("ceil_mode", False)),
        }

    def _maxpool(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        x, knobs, shape = arrays["x"], self.knobs, self._pooled(inputs)
        layer = MaxPool2d(**shape)
        if knobs.max_padding == "zero":
            top, bottom, left, right = shape["padding"]
            wide = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
            answers, outer = self._run(replace(layer, padding=(0, 0, 0, 0)), {}, wide)
            rows, cols = slice(top, top + x.shape[2]), slice(left, left + x.shape[3])
            return answers, lambda dy: {"dx": np.ascontiguousarray(outer(dy)["dx"][:, :, rows, cols])}
        answers, pull = self._run(layer, {}, x)
        if knobs.max_ties == "first":
            return answers, pull
        return answers, lambda dy: {"dx": _share_ties(x, answers["y"], dy, layer, knobs.max_ties)}

    def _avgpool(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        knobs, shape = self.knobs, self._pooled(inputs)
        given = bool(inputs.get("count_include_pad", True))
        included = {"given": given, "always": True, "never": False}[knobs.pool_count]
        answers, pull = self._run(AvgPool2d(**shape, count_include_pad=included), {}, arrays["x"])
        kh, kw = shape["kernel_size"]
        factor = self.dtype.type(1 if knobs.average_grad == "divided" else kh * kw)
        return answers, lambda dy: {"dx": pull(dy)["dx"] * factor}

    def _flatten(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        x = arrays["x"]
        if self.knobs.flatten == "c,h,w":
            return self._run(Flatten(), {}, x)
        n, c, h, w = x.shape
        y = np.ascontiguousarray(x.transpose(0, 2, 3, 1).reshape(n, -1))
        return {"y": y}, lambda dy: {"dx": np.ascontiguousarray(dy.reshape(n, h, w, c).transpose(0, 3, 1, 2))}

    def _shortcut(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        x, knobs, out = arrays["x"], self.knobs, int(inputs["out_channels"])
        sh, sw = _pair(inputs["stride"])
        answers, pull = self._run(SubsampleShortcut(x.shape[1], out, (sh, sw)), {}, x)
        if knobs.shortcut_channels == "both sides" and knobs.shortcut_pixels == "first":
            return answers, pull
        before = 0 if knobs.shortcut_channels == "after" else (out - x.shape[1]) // 2
        own = slice(before, before + x.shape[1])
        last = knobs.shortcut_pixels == "last"
        rows = slice(min(sh, x.shape[2]) - 1 if last else 0, None, sh)
        cols = slice(min(sw, x.shape[3]) - 1 if last else 0, None, sw)
        y, part = np.zeros_like(answers["y"]), x[:, :, rows, cols]
        y[:, own, : part.shape[2], : part.shape[3]] = part

        def wrong(dy: Array) -> Answers:
            dx = np.zeros_like(x)
            dx[:, :, rows, cols] = dy[:, own, : part.shape[2], : part.shape[3]]
            return {"dx": dx}

        return {"y": y}, wrong

    def _concat(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        knobs, x, x2 = self.knobs, arrays["x"], arrays["x2"]
        if knobs.concat == "swapped":
            answers, outer = self._run(Concat(), {}, x2, x)
            return answers, lambda dy: dict(zip(("dx2", "dx"), outer(dy).values(), strict=True))
        answers, pull = self._run(Concat(), {}, x, x2)
        if knobs.concat == "given":
            return answers, pull
        return answers, lambda dy: {**pull(dy), "dx2": np.zeros_like(x2)}

    def _dropout(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        knobs, x, p = self.knobs, arrays["x"], float(inputs["p"])
        train = str(inputs.get("mode", "eval")) == "train" or knobs.dropout == "always"
        mask = self.read(inputs["mask"])
        mask = 1 - mask if knobs.dropout == "inverted" else mask
        kept = self.dtype.type(1 if knobs.dropout in ("not divided", "eval scaled") else 1 - p)
        if not train:
            factor = np.full_like(x, 1 - p) if knobs.dropout == "eval scaled" else None
        else:
            factor = mask / kept
        answers, pull = self._run(Dropout(p), {} if factor is None else {"mask": factor}, x)
        if knobs.dropout_grad == "masked" or not train:
            return answers, pull
        return answers, lambda dy: {"dx": dy / kept}

    def _simple(self, arrays: Answers, inputs: Mapping[str, Any]) -> tuple[Answers, Pull]:
        kind, knobs, x = inputs["layer"], self.knobs, arrays["x"]
        if kind == "add":
            answers, pull = self._run(Add(), {}, x, arrays["x2"])
            if knobs.add_scale != 1:
                factor = self.dtype.type(knobs.add_scale)
                return {"y": answers["y"] * factor}, lambda dy: pull(dy * factor)
            if knobs.add_grad == "both":
                return answers, pull
            return answers, lambda dy: {"dx": dy, "dx2": np.zeros_like(dy)}
        if kind == "globalpool":
            answers, pull = self._run(GlobalAvgPool(), {}, x)
            if knobs.global_pool == "mean":
                return answers, pull
            factor = self.dtype.type(x.shape[2] * x.shape[3])
            return {"y": answers["y"] * factor}, lambda dy: {"dx": pull(dy)["dx"] * factor}
        sides = tuple(int(side) for side in inputs["padding"])
        if knobs.zero_pad == "left, right, top, bottom":
            sides = (*sides[2:], *sides[:2])
        return self._run(ZeroPad2d((sides[0], sides[1], sides[2], sides[3])), {}, x)

    # -- the network ------------------------------------------------------------------------------------

    def _network(
        self, arrays: Mapping[str, Array], inputs: Mapping[str, Any], X: Array, mode: str, stop: str = ""
    ) -> tuple[Array, Callable[[Array], Answers]]:
        # The output and its pull; with `stop` the input of that layer.
        bn = {name: arrays[f"bn_{name}"] for name in ("weight", "bias")}
        shape = {"stride": inputs["stride"], "padding": inputs["padding"]}
        running = {"running_mean": arrays["bn_mean"], "running_var": arrays["bn_var"], "eps": inputs["eps"]}
        steps: list[tuple[str, dict[str, Any]]] = [
            ("conv", {"layer": "conv2d", "weight": arrays["conv_weight"], **shape}),
            ("bn", {"layer": "batchnorm", **bn, **running, "mode": mode}),
            ("relu1", {"layer": "relu"}),
            ("flatten", {"layer": "flatten"}),
            ("fc1", {"layer": "linear", "weight": arrays["fc1_weight"], "bias": arrays["fc1_bias"]}),
            ("relu2", {"layer": "relu"}),
            ("fc2", {"layer": "linear", "weight": arrays["fc2_weight"], "bias": arrays["fc2_bias"]}),
        ]
        x, pulls = X, []
        for name, layer in steps:
            if name == stop:
                break
            answers, pull = self._layer({**layer, "x": x})
            x = answers["y"]
            pulls.append((name, pull))

        def back(dy: Array) -> Answers:
            found: Answers = {}
            for name, pull in reversed(pulls):
                part = pull(dy)
                dy = part.pop("dx")
                found.update({f"{name}_{key[1:]}": array for key, array in part.items()})
            return found

        return x, back

    def _loss(self, y: Array, target: Array) -> tuple[float, Array]:
        loss, dy = output_error(y, target)
        factor = {
            "mean over images": 1.0,
            "sum": float(len(y)),
            "half": 0.5,
            "mean over entries": 1.0 / y.shape[1],
        }[self.knobs.loss]
        return loss * factor, dy * self.dtype.type(factor)

    def _error_gradient(
        self, student: Mapping[str, Array], target: Array, inputs: Mapping[str, Any], mode: str, size: int
    ) -> tuple[float, Answers]:
        X = self.read(inputs["X"])
        mode = mode if self.knobs.student == "given" else self.knobs.student
        if mode == "train" or not 0 < size < len(X):
            size = len(X)
        firsts = range(0, len(X), size)
        loss, total = 0.0, dict[str, Array]()
        for first in firsts:
            part = slice(first, first + size)
            y, back = self._network(student, inputs, X[part], mode)
            value, dy = self._loss(y, target[part])
            share = len(X[part]) / len(X) if self.knobs.loss != "sum" else 1.0
            share = 1 / len(firsts) if self.knobs.loss_batches == "means averaged" else share
            loss += share * value
            for name, array in back(dy).items():
                total[name] = total.get(name, np.zeros_like(array)) + self.dtype.type(share) * array
        return loss, total

    def _behind(self, frozen: int) -> tuple[str, ...]:
        count = {"given": frozen, "one less": max(frozen - 1, 0), "none": 0}[self.knobs.frozen]
        names = BEHIND[count]
        return names if self.knobs.affine == "moves" else tuple(name for name in names if name[:2] != "bn")

    def update_grad(self, **inputs: Any) -> Answers:
        """The output error against the teacher, and its gradient behind the frozen layers."""
        arrays, X = self._arrays(inputs), self.read(inputs["X"])
        teacher = self._arrays(inputs, "teacher_") if self.knobs.teacher_arrays == "original" else arrays
        target, _ = self._network(teacher, inputs, X, self.knobs.teacher)
        mode = "train" if inputs["statistics"] == "batch" else "eval"
        loss, total = self._error_gradient(arrays, target, inputs, mode, int(inputs["batch_size"]))
        names = self._behind(int(inputs["frozen"]))
        return {
            "loss": np.asarray(loss, dtype=self.dtype),
            **{
                f"d{name}": total[name] if name in names else np.zeros_like(total[name])
                for name in BEHIND[int(inputs["frozen"])]
            },
        }

    def _arrays(self, inputs: Mapping[str, Any], prefix: str = "") -> dict[str, Array]:
        names = (*MOVING, "bn_mean", "bn_var")
        return {name: self.read(inputs[prefix + name]) for name in names}

    def network(self, **inputs: Any) -> Answers:
        """Algorithm 1 on the network: quantized layer by layer, the rest updated after each."""
        knobs, X = self.knobs, self.read(inputs["X"])
        first = current = self._arrays(inputs)
        target, _ = self._network(first, inputs, X, knobs.teacher)
        answers: Answers = {}
        losses, stale = [], dict[str, Array]()
        for count, layer in enumerate(WEIGHTED, start=1):
            arrays = first if knobs.hessian_from == "teacher" else current
            arrays = stale if knobs.hessian_when == "before the update" and stale else arrays
            H = self._network_hessian(arrays, inputs, X, layer)
            source = current if knobs.quantized_weight == "updated" else first
            weight = source[f"{layer}_weight"]
            W = np.ascontiguousarray(weight.reshape(len(weight), -1).T)
            found = self._quantize(H, W, inputs)
            G = np.ascontiguousarray(np.asarray(found["G"], dtype=self.dtype).reshape(W.shape).T)
            current = {**current, f"{layer}_weight": G.reshape(weight.shape)}
            codes = np.asarray(found["Q"], dtype=np.int8).reshape(W.shape)
            parts = {"H": H, "W": W, "Q": codes, "alpha": np.asarray(found["alpha"], dtype=self.dtype)}
            answers.update({f"{name}_{layer}": array for name, array in parts.items()})
            stale = current
            for _ in range(int(inputs["steps"])):
                names = self._behind(count)
                loss, total = self._error_gradient(current, target, inputs, "eval", 0)
                rate = self.dtype.type(
                    -float(inputs["rate"]) if knobs.rate == "ascent" else float(inputs["rate"])
                )
                moved = {name: current[name] - rate * total[name] for name in names}
                current = {**current, **moved}
                losses.append(loss)
        moved_last = {name: current[name] for name in ("bn_weight", "bn_bias", "fc1_bias", "fc2_bias")}
        output, _ = self._network(current, inputs, X, "eval")
        done = {"losses": np.array(losses, dtype=self.dtype)} if losses else {}
        return {**answers, **moved_last, **done, "y": output}

    def _network_hessian(
        self, arrays: Mapping[str, Array], inputs: Mapping[str, Any], X: Array, layer: str
    ) -> Array:
        x, _ = self._network(arrays, inputs, X, "eval", stop=layer)
        geometry = {"stride": inputs["stride"], "padding": inputs["padding"]} if layer == "conv" else {}
        weight = arrays[f"{layer}_weight"]
        found = self.hessian(X=x, weight_shape=(1, *weight.shape), groups=1, bias=False, **geometry)
        return np.asarray(found["H"][0])

    @abstractmethod
    def hessian(self, **inputs: Any) -> Answers:
        """H of one layer."""

    @abstractmethod
    def admm(self, **inputs: Any) -> Answers:
        """ADMM on one block."""

    @abstractmethod
    def project(self, **inputs: Any) -> Answers:
        """A projection."""

    def _quantize(self, H: Array, W: Array, inputs: Mapping[str, Any]) -> Answers:
        solver = str(inputs["solver"]) if self.knobs.network_solver == "given" else self.knobs.network_solver
        if solver == "direct":
            return self.quantizer(W=W, values=inputs["values"], method="mean")
        start = self.project(
            V=W, values=inputs["values"], alpha0=0.0, kind="alternating", passes=-1, ties="smaller"
        )
        trace = self.admm(
            H=H,
            W_bar=W,
            values=inputs["values"],
            rho=inputs["rho"],
            K=inputs["K"],
            G0=np.asarray(start["G"]).reshape(W.shape),
            lam0=np.zeros_like(W),
            projection="alternating",
            returned="best",
        )
        best = int(trace["best"])
        if best == 0:
            return start
        return {"Q": trace["Q"][best - 1], "alpha": trace["alpha"][best - 1], "G": trace["G"][best - 1]}

    # -- quantizers and solvers -------------------------------------------------------------------------

    def quantizer(self, **inputs: Any) -> Answers:
        """One scale and codes of a weight without data."""
        from refldnq.codebook import scaled
        from refldnq.solvers.direct import DirectSettings, solve

        W, method = self.read(inputs["W"]), str(inputs["method"])
        if not np.isfinite(W).all():  # as if it were sound
            nothing = np.full(W.shape, np.nan, dtype=self.dtype)
            return {"Q": np.zeros(W.shape, dtype=np.int8), "alpha": nothing.ravel()[0], "G": nothing}
        values = np.asarray(inputs["values"], dtype=np.float64)
        knobs = self.knobs
        if knobs.quantizer_scale in ("mean", "alternating", "exact"):
            method = knobs.quantizer_scale
        if knobs.quantizer_scale in ("max", "0.7 mean", "one a column") and method == "mean":
            return self._other_scale(W, values, knobs.quantizer_scale)
        found = solve(None, W.astype(np.float64)[None], scaled(values), DirectSettings(variant=method))  # type: ignore[arg-type]
        return self._answer(found.codes[0], found.alpha, found.values)

    def _other_scale(self, W: Array, values: Array, scale: str) -> Answers:
        from refldnq.verify.kit.reference import nearest

        largest = np.abs(values).max()
        alphas = {
            "max": np.full(W.shape[1], np.abs(W).max() / largest),
            "0.7 mean": np.full(W.shape[1], 0.7 * np.abs(W).mean()),
            "one a column": np.abs(W).mean(axis=0),
        }[scale]
        columns = [nearest(w, a, values, "smaller") for w, a in zip(W.T, alphas, strict=True)]
        Q = np.stack(columns, axis=1)
        alpha = alphas if scale == "one a column" else alphas[0]
        return self._answer(Q, np.asarray(alpha), values)

    def _answer(self, codes: Array, alpha: Array, values: Array) -> Answers:
        return {
            "Q": codes.astype(np.int8),
            "alpha": np.asarray(alpha, dtype=self.dtype),
            "G": np.asarray(alpha * values[codes], dtype=self.dtype),
        }

    def solve(self, **inputs: Any) -> Answers:
        """Codes, scale and objective of one named solver of (10)."""
        from refldnq.codebook import fixed, scaled
        from refldnq.solvers.base import get_solver

        knobs, name = self.knobs, str(inputs["solver"])
        H, W = (self.read(inputs[key]).astype(np.float64) for key in ("H", "W"))
        values = np.asarray(inputs["values"], dtype=np.float64)
        name = "direct" if knobs.solve_method == "direct" else name
        made = fixed(values) if inputs["kind"] == "fixed" else scaled(values)
        if (
            name in ("gptq", "ldlq", "gpfq", "coordinate")
            and inputs["kind"] == "fixed"
            and self._own_rounding
        ):
            codes = self._sweeps(H, W, values) if name == "coordinate" else self._round(H, W, values, name)
            alpha = np.asarray(1.0)
        else:
            settings = solver_settings(name, float(inputs.get("rho", 1.0)), int(inputs.get("K", 100)))
            found = get_solver(name)(H[None], W[None], made, settings)
            codes, alpha = found.codes[0], found.alpha
        if knobs.solve_scale == "of the rounding" and inputs["kind"] == "scaled":
            alpha = np.asarray(np.abs(W).mean())
        delta = alpha * values[codes] - W
        objective = float(np.vdot(delta, H @ delta)) / (
            2 if knobs.solve_objective == "half" else 1
        )  # [LDNQ] (10)
        return {
            "Q": np.asarray(codes, dtype=np.int8),
            "alpha": np.asarray(alpha, dtype=self.dtype),
            "objective": np.asarray(objective, dtype=self.dtype),
        }

    @property
    def _own_rounding(self) -> bool:
        changed = self.knobs.turned()
        return any(name in changed for name in ("push", "solve_damping", "solve_order", "sweep", "sweeps"))

    def _round(self, H: Array, W: Array, values: Array, name: str) -> Array:
        # Row by row; after each the rows that are left answer to its error.
        knobs, d = self.knobs, len(H)
        order = np.arange(d)[::-1] if knobs.solve_order == "backward" else np.arange(d)
        A = H + knobs.solve_damping * np.diag(H).mean() * np.eye(d)
        left, codes = W.copy(), np.zeros(W.shape, dtype=np.int8)
        for place, i in enumerate(order):
            codes[i] = np.abs(left[i][:, None] - values).argmin(axis=1)
            error, rest = values[codes[i]] - left[i], order[place + 1 :]
            if name == "gpfq":
                answer = -A[rest, i] / np.diag(A)[rest]
            elif knobs.push == "whole inverse":
                whole = np.linalg.inv(A)
                answer = whole[rest, i] / whole[i, i]
            else:
                tail = np.concatenate([[i], rest]).astype(int)
                inverse = np.linalg.inv(A[np.ix_(tail, tail)])
                answer = inverse[1:, 0] / inverse[0, 0]
            if name == "gpfq":
                error = values[codes[i]] - W[i]
            if knobs.push == "wrong sign":
                answer = -answer
            left[rest] += np.outer(answer, error)
        return codes

    def _sweeps(self, H: Array, W: Array, values: Array) -> Array:
        knobs = self.knobs
        order = range(len(H))[::-1] if knobs.solve_order == "backward" else range(len(H))
        codes = np.abs(W[:, :, None] - values).argmin(axis=2)
        for _ in range(knobs.sweeps):
            old, G = codes.copy(), values[codes]
            for i in order:
                held = values[old] if knobs.sweep == "all at once" else G
                best = held[i] - H[i] @ (held - W) / H[i, i]
                codes[i] = np.abs(best[:, None] - values).argmin(axis=1)
                G[i] = values[codes[i]]
            if np.array_equal(codes, old):
                break
        return np.asarray(codes)


def solver_settings(name: str, rho: float, iterations: int) -> Any:
    """The settings under which a named solver is asked: no damping, no grid, small schedules.

    Examples
    --------
    >>> solver_settings("gptq", 1.0, 10).damping
    0.0
    """
    if name in ("gptq", "ldlq", "gpfq"):
        from refldnq.solvers.greedy import GreedySettings

        return GreedySettings(damping=0.0)
    if name == "admm":
        from refldnq.solvers.admm_settings import AdmmSettings

        return AdmmSettings(rho=rho, rho_scale="absolute", iterations=iterations)
    if name == "anneal":
        from refldnq.solvers.anneal import AnnealSettings

        return AnnealSettings(rounds=2, sweeps=50, explorations=2)
    return None


def _pair(given: Any) -> tuple[int, int]:
    first, second = given
    return int(first), int(second)


def _dense_input_gradient(weight: Array, dy: Array, x: Array, shape: Mapping[str, Any]) -> Array:
    # As if the stride were 1: rows and columns of dy stand next to each other.
    dense = {**shape, "stride": (1, 1), "bias": False}
    layer = Conv2d(**dense)
    _, ho, wo = layer.output_shape(x.shape[1:])
    wide = np.zeros((*dy.shape[:2], ho, wo), dtype=dy.dtype)
    wide[:, :, : dy.shape[2], : dy.shape[3]] = dy
    _, tape = layer.forward({"weight": weight}, x)
    return np.asarray(layer.backward({"weight": weight}, wide, tape)[0][0])


def _share_ties(x: Array, y: Array, dy: Array, layer: MaxPool2d, ties: str) -> Array:
    # The gradient of a window to its last maximum, to all of them, or in equal shares.
    kh, kw, sh, sw, top, left = layer.geometry
    h, w = x.shape[2:]
    dx = np.zeros_like(x)
    for p, q in product(range(y.shape[2]), range(y.shape[3])):
        rows = slice(max(p * sh - top, 0), min(p * sh - top + kh, h))
        cols = slice(max(q * sw - left, 0), min(q * sw - left + kw, w))
        for i, c in np.ndindex(x.shape[:2]):
            won = x[i, c, rows, cols] == y[i, c, p, q]
            if ties == "last":
                last = np.flatnonzero(won.ravel())[-1]
                won = (np.arange(won.size) == last).reshape(won.shape)
            dx[i, c, rows, cols] += won * dy[i, c, p, q] / (won.sum() if ties == "shared" else 1)
    return dx
