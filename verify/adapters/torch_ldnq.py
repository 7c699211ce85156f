"""L-DNQ in plain PyTorch behind the adapter contract: a template for an implementation of one's own.

Nothing of `refldnq`'s arithmetic is used: patches by `unfold`, factors by `torch.linalg`, derivatives by
autograd.

    refldnq kit run refldnq.verify.adapters.torch_ldnq:TorchLdnq
    refldnq kit run refldnq.verify.adapters.torch_ldnq:TorchLdnqSingle
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refldnq._typing import Array
from refldnq.verify.kit.contract import Info

DONE = frozenset({"patches", "hessian", "pack", "proximal", "project", "dual", "admm", "forward", "backward"})


class TorchLdnq:
    """The steps of the method in float64.

    Methods get a case's inputs by name and return NumPy arrays by name; a wrong input is refused by a
    `ValueError` before PyTorch trips over it, so that any error of PyTorch's own is seen as a mistake.

    Examples
    --------
    >>> adapter = TorchLdnq()
    >>> adapter.dual(lam=np.array([1.0]), Theta=np.array([2.0]), G=np.array([0.5]))["lam_new"]
    array([2.5])
    """

    dtype = torch.float64

    def info(self) -> Info:
        """What this implementation is."""
        return Info(
            name="torch-ldnq",
            version=torch.__version__,
            dtype=str(self.dtype).removeprefix("torch."),
            capabilities=DONE,
        )

    def echo(self, X: Array) -> Array:
        """The array back, through a tensor."""
        return np.asarray(torch.from_numpy(X).numpy())

    def tensor(self, array: Any) -> Tensor:
        """A finite input as a tensor of the type of the computation."""
        found = torch.as_tensor(np.asarray(array), dtype=self.dtype)
        if not torch.isfinite(found).all():
            raise ValueError("inputs must be finite.")
        return found

    # -- patches, Hessian, packing

    def rows(self, inputs: dict[str, Any]) -> Tensor:
        """Patches (n, P, g, d) in the order of the weight's rows, a constant 1 last if there is a bias."""
        X = self.tensor(inputs["X"])
        if X.ndim == 2:
            X = X[:, :, None, None]
        groups = int(inputs.get("groups", 1))
        shape = [int(size) for size in inputs["weight_shape"]]
        kh, kw = shape[-2:] if len(shape) >= 4 else (1, 1)
        channels = shape[-3] if len(shape) >= 4 else shape[-1]
        if X.shape[1] != groups * channels:
            raise ValueError(f"X must have {groups * channels} channels, got {X.shape[1]}.")
        top, bottom, left, right = (int(size) for size in inputs.get("padding", (0, 0, 0, 0)))
        stride = tuple(int(size) for size in inputs.get("stride", (1, 1)))
        dilation = tuple(int(size) for size in inputs.get("dilation", (1, 1)))
        padded = functional.pad(X, (left, right, top, bottom))
        window = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
        if padded.shape[2] < window[0] or padded.shape[3] < window[1]:
            raise ValueError(f"X must be at least as large as the window {window}.")
        split = functional.unfold(padded, (kh, kw), dilation=dilation, stride=stride)
        n, _, positions = split.shape
        rows = split.reshape(n, groups, channels * kh * kw, positions).permute(0, 3, 1, 2)
        if bool(inputs.get("bias", False)):
            rows = torch.cat([rows, torch.ones_like(rows[..., :1])], dim=-1)
        return rows

    def patches(self, **inputs: Any) -> dict[str, Array]:
        """Rows of the design matrix."""
        return {"patches": self.rows(inputs).numpy()}

    def hessian(self, **inputs: Any) -> dict[str, Array]:
        """(2/n) XᵀX, one block a group."""
        rows = self.rows(inputs)
        if len(rows) == 0:
            raise ValueError("X must have images.")
        X = rows.flatten(0, 1).transpose(0, 1)
        return {"H": (2 / rows.shape[0] * X.mT @ X).numpy()}

    def pack(self, **inputs: Any) -> dict[str, Array]:
        """The weight as (g, d, m), a bias row last."""
        weight = self.tensor(inputs["weight"])
        default = weight.shape[0] if weight.ndim == 5 else 1
        groups = int(inputs["groups"]) if "groups" in inputs else default
        kernel = weight.shape[-3:] if weight.ndim >= 4 else weight.shape[-1:]
        outputs = weight.numel() // max(1, kernel.numel())
        if groups < 1 or outputs % groups:
            raise ValueError(f"groups must divide the {outputs} output channels, got {groups}.")
        packed = weight.reshape(groups, -1, kernel.numel()).mT
        if inputs.get("bias") is not None and np.size(inputs["bias"]):
            bias = self.tensor(inputs["bias"])
            if bias.numel() != outputs:
                raise ValueError(f"bias must have {outputs} entries, got {bias.numel()}.")
            row = bias.reshape(groups, 1, -1)
            packed = torch.cat([packed, row], dim=1)
        return {"W": packed.contiguous().numpy()}

    # -- ADMM

    def solved(self, H: Tensor, W: Tensor, G: Tensor, lam: Tensor, rho: float) -> Tensor:
        """Θ of (15)."""
        factor = torch.linalg.cholesky(H + rho * torch.eye(len(H), dtype=self.dtype))
        return torch.cholesky_solve(H @ W + rho * (G - lam), factor)

    def proximal(self, **inputs: Any) -> dict[str, Array]:
        """Θ of (15)."""
        rho = float(inputs["rho"])
        if not rho > 0:
            raise ValueError(f"rho must be greater than 0, got {rho}.")
        H, W, G, lam = (self.tensor(inputs[name]) for name in ("H", "W_bar", "G", "lam"))
        return {"Theta": self.solved(H, W, G, lam, rho).numpy()}

    def codes(self, V: Tensor, alpha: Tensor, values: Tensor, ties: str) -> Tensor:
        """Nearest codes; a value on a threshold goes as `ties` says."""
        codes, tied = torch.zeros(V.shape, dtype=torch.int8), torch.zeros(V.shape, dtype=torch.bool)
        for low, high in pairwise(values):
            middle = (low + high) / 2
            limit = alpha * middle
            up = middle >= 0 if ties == "larger" else middle <= 0
            codes += (V >= limit if up else V > limit).to(torch.int8)
            if ties == "zero" and low != 0 and high != 0 and len(values) <= 9:
                tied |= limit == V
        codes[tied] = int(torch.argmin(values.abs()))
        return codes

    def scale(self, V: Tensor, Q: Tensor) -> Tensor:
        """The best scale of levels Q, 0 if there is none."""
        top, bottom = torch.dot(V, Q), torch.dot(Q, Q)
        return top / bottom if bottom > 0 and top > 0 else torch.zeros((), dtype=self.dtype)

    def alternate(
        self, V: Tensor, values: Tensor, alpha0: float, most: int, ties: str
    ) -> tuple[Tensor, Tensor, int]:
        """Codes, scale and the number of changes of the scale of (16)-(17)."""
        default = V.abs().mean() / values[values != 0].abs().min()
        alpha = torch.tensor(alpha0, dtype=self.dtype) if alpha0 > 0 else default
        codes = torch.full(V.shape, int(torch.argmin(values.abs())), dtype=torch.int8)
        count, direction, restarted = 0, 0.0, False
        while alpha > 0 or count == 0:
            codes = self.codes(V, alpha, values, ties)
            if most == 0:
                break
            new = self.scale(V, values[codes.long()])
            again = bool(new == 0 and not restarted and default != alpha)
            if again:  # every code is 0: once more from the default
                new, restarted = default, True
            step = float(new - alpha)
            count += step != 0
            settled = bool(new == 0) or step == 0 or step * direction < 0
            alpha, direction = new, 0.0 if again else float(np.sign(step))
            if (settled and not again) or 0 <= most <= count:
                break
        if alpha == 0 or not values[codes.long()].any():
            alpha = torch.zeros((), dtype=self.dtype)
            codes = torch.full_like(codes, int(torch.argmin(values.abs())))
        return codes, alpha, count

    def best(self, V: Tensor, values: Tensor, ties: str) -> tuple[Tensor, Tensor]:
        """Codes and scale of the nearest point, by trying every interval between two changes of the codes."""
        middles = (values[1:] + values[:-1]) / 2
        limits = (V.abs()[:, None] / middles[middles > 0]).flatten()
        limits = torch.unique(limits[limits > 0])
        between = torch.cat([limits[:1] / 2, (limits[1:] + limits[:-1]) / 2, limits[-1:] * 2])
        codes = torch.full(V.shape, int(torch.argmin(values.abs())), dtype=torch.int8)
        found = (float(V @ V), torch.zeros((), dtype=self.dtype))
        for alpha in between:
            trial = self.codes(V, alpha, values, ties)
            scale = self.scale(V, values[trial.long()])
            residual = V - scale * values[trial.long()]
            if float(residual @ residual) < found[0]:
                found, codes = (float(residual @ residual), scale), trial
        return codes, found[1]

    def project(self, **inputs: Any) -> dict[str, Array]:
        """Codes, scale and G of (16)-(17)."""
        V, values = self.tensor(inputs["V"]).flatten(), self.tensor(inputs["values"])
        if not V.numel():
            raise ValueError("V must hold at least one value.")
        ties = str(inputs.get("ties", "smaller"))
        passes = 0
        if str(inputs.get("kind", "alternating")) == "exact":
            codes, alpha = self.best(V, values, ties)
        else:
            start = inputs.get("alpha0")
            codes, alpha, passes = self.alternate(
                V, values, 0.0 if start is None else float(start), int(inputs.get("passes", -1)), ties
            )
        return {
            "Q": codes.numpy(),
            "alpha": alpha.numpy(),
            "G": (alpha * values[codes.long()]).numpy(),
            "passes": np.asarray(passes),
        }

    def dual(self, **inputs: Any) -> dict[str, Array]:
        """λ of (18)."""
        lam, Theta, G = (self.tensor(inputs[name]) for name in ("lam", "Theta", "G"))
        return {"lam_new": (lam + Theta - G).numpy()}

    def admm(self, **inputs: Any) -> dict[str, Array]:
        """K iterations of (15)-(18) with all that they pass through."""
        rho = float(inputs["rho"])
        if not rho > 0:
            raise ValueError(f"rho must be greater than 0, got {rho}.")
        H, W, G, lam = (self.tensor(inputs[name]) for name in ("H", "W_bar", "G0", "lam0"))
        values, exact = self.tensor(inputs["values"]), str(inputs.get("projection")) == "exact"

        def objective(point: Tensor) -> float:
            return float(0.5 * ((point - W) * (H @ (point - W))).sum())

        energies, points, alpha = [objective(G)], [G], torch.tensor(float(inputs.get("alpha0", 0.0)))
        steps: dict[str, list[Tensor]] = {name: [] for name in ("Theta", "V", "Q", "alpha", "G", "lam")}
        for _ in range(int(inputs["K"])):
            Theta = self.solved(H, W, G, lam, rho)
            V = Theta + lam
            if exact:
                codes, alpha = self.best(V.flatten(), values, "smaller")
            else:
                codes, alpha, _ = self.alternate(V.flatten(), values, float(alpha), -1, "smaller")
            G = (alpha * values[codes.long()]).reshape(W.shape)
            lam = lam + Theta - G
            energies.append(objective(G))
            points.append(G)
            found = (Theta, V, codes.reshape(W.shape), alpha, G, lam)
            for name, value in zip(steps, found, strict=True):
                steps[name].append(value)
        best = int(np.argmin(energies))
        result = points[best] if str(inputs.get("returned", "best")) == "best" else points[-1]
        trace = {name: torch.stack(own).numpy() for name, own in steps.items()}
        return {**trace, "E": np.array(energies), "best": np.asarray(best), "result": result.numpy()}

    # -- layers

    def layer(self, inputs: dict[str, Any], arrays: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The output of one layer, and what train mode makes of the running statistics."""
        kind, x = str(inputs["layer"]), arrays["x"]
        top, bottom, left, right = (int(size) for size in inputs.get("padding", (0, 0, 0, 0)))
        stride = tuple(int(size) for size in inputs.get("stride", (1, 1)))
        kernel = tuple(int(size) for size in inputs.get("kernel", (1, 1)))
        if kind == "linear":
            columns = arrays["weight"].shape[1]
            if x.ndim != 2 or x.shape[1] != columns:
                raise ValueError(f"x must have shape (n, {columns}), got {tuple(x.shape)}.")
            return functional.linear(x, arrays["weight"], arrays.get("bias")), {}
        if kind == "conv2d":
            dilation = tuple(int(size) for size in inputs.get("dilation", (1, 1)))
            padded = functional.pad(x, (left, right, top, bottom))
            groups = int(inputs.get("groups", 1))
            return functional.conv2d(
                padded, arrays["weight"], arrays.get("bias"), stride, 0, dilation, groups
            ), {}
        if kind == "batchnorm":
            return self.normalized(inputs, arrays)
        if kind == "relu":
            return functional.relu(x), {}
        if kind == "maxpool":
            padded = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
            return functional.max_pool2d(padded, kernel, stride, ceil_mode=bool(inputs.get("ceil_mode"))), {}
        if kind == "avgpool":
            return self.averaged(inputs, x, kernel, stride), {}
        if kind == "shortcut":
            return self.shortcut(x, stride, int(inputs["out_channels"])), {}
        if kind == "globalpool":
            return x.mean(dim=(2, 3), keepdim=True), {}
        if kind == "flatten":
            return x.flatten(1), {}
        if kind == "add":
            return x + arrays["x2"], {}
        if kind == "concat":
            return torch.cat([x, arrays["x2"]], dim=1), {}
        if kind == "dropout":
            train = str(inputs.get("mode", "eval")) == "train"
            return x * arrays["mask"] / (1 - float(inputs["p"])) if train else x.clone(), {}
        if kind == "zeropad":
            return functional.pad(x, (left, right, top, bottom)), {}
        raise NotImplementedError(kind)

    def averaged(
        self, inputs: dict[str, Any], x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        """Average pooling: sums of the padded image over the number of pixels that count."""
        top, bottom, left, right = (int(size) for size in inputs.get("padding", (0, 0, 0, 0)))
        inside = functional.pad(torch.ones_like(x[:1, :1]), (left, right, top, bottom))
        padded = functional.pad(x, (left, right, top, bottom))
        counted = torch.ones_like(inside) if bool(inputs.get("count_include_pad", True)) else inside
        ceil = bool(inputs.get("ceil_mode"))
        pool = functools.partial(
            functional.avg_pool2d, kernel_size=kernel, stride=stride, ceil_mode=ceil, divisor_override=1
        )
        return pool(padded) / pool(counted)

    def shortcut(self, x: Tensor, stride: tuple[int, ...], channels: int) -> Tensor:
        """Every s-th pixel, with zero channels around the old ones, the smaller half before."""
        more = channels - x.shape[1]
        return functional.pad(x[:, :, :: stride[0], :: stride[1]], (0, 0, 0, 0, more // 2, more - more // 2))

    def normalized(
        self, inputs: dict[str, Any], arrays: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch normalization."""
        mean, variance = arrays["running_mean"].clone(), arrays["running_var"].clone()
        train = str(inputs.get("mode", "eval")) == "train"
        y = functional.batch_norm(
            arrays["x"],
            mean,
            variance,
            arrays["weight"],
            arrays["bias"],
            train,
            float(inputs.get("momentum", 0.1)),
            float(inputs.get("eps", 1e-5)),
        )
        return y, {"new_running_mean": mean, "new_running_var": variance}

    def arrays(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The layer's arrays that a case has."""
        names = ("x", "x2", "weight", "bias", "running_mean", "running_var", "mask")
        given = {name: inputs[name] for name in names if inputs.get(name) is not None}
        return {name: self.tensor(array) for name, array in given.items() if np.size(array)}

    def forward(self, **inputs: Any) -> dict[str, Array]:
        """The output of a layer."""
        y, statistics = self.layer(inputs, self.arrays(inputs))
        return {"y": y.numpy(), **{name: array.numpy() for name, array in statistics.items()}}

    def backward(self, **inputs: Any) -> dict[str, Array]:
        """The gradients of ⟨dy, y⟩ by autograd."""
        arrays = self.arrays(inputs)
        learned = [name for name in ("x", "x2", "weight", "bias") if name in arrays]
        for name in learned:
            arrays[name].requires_grad_(True)
        y, _ = self.layer(inputs, arrays)
        dy = self.tensor(inputs["dy"])
        if dy.shape != y.shape:
            raise ValueError(f"dy must have shape {tuple(y.shape)}, got {tuple(dy.shape)}.")
        gradients = torch.autograd.grad(y, [arrays[name] for name in learned], dy)
        return {f"d{name}": own.numpy() for name, own in zip(learned, gradients, strict=True)}


class TorchLdnqSingle(TorchLdnq):
    """The same in float32."""

    dtype = torch.float32
