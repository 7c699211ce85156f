"""The reference behind the adapter contract, with a knob for every fault of the catalogue.

With all knobs at their defaults it is the library: its patches, its projection, its factorization. A turned
knob replaces one line by a wrong one (or by another right one: `solver`, `backwards`, float32), so that the
same code is a known-bad implementation in the self-test and an explanation in reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from refldnq import __version__
from refldnq._typing import Array
from refldnq.im2col import Window, im2col
from refldnq.verify.kit.contract import OPERATIONS, Info, geometry, kernel_shape
from refldnq.verify.kit.families._exact import RULES
from refldnq.verify.kit.knobs import Knobs
from refldnq.verify.kit.reference_baselines import BaselineStep
from refldnq.verify.kit.reference_channels import ChannelSteps
from refldnq.verify.kit.reference_layers import LayerSteps
from refldnq.verify.kit.reference_loss import LossStep
from refldnq.verify.kit.reference_stop import Stopping, StopStep

_PROJECTION = (
    "guard",
    "ties",
    "thresholds",
    "levels",
    "scale_rule",
    "scale_start",
    "empty",
    "passes",
    "tolerance",
    "method",
    "sign",
    "final",
    "codes",
)
"""Knobs of the projection: with all at their defaults, the library projects."""


class Reference(LayerSteps, ChannelSteps, BaselineStep, StopStep, LossStep):
    """An adapter around the library, right by default.

    Parameters
    ----------
    knobs : Knobs, optional
        What is turned.
    dtype : {'float64', 'float32'}, optional
        In which everything is computed.

    Examples
    --------
    >>> right = Reference().dual(lam=np.ones(2), Theta=np.ones(2), G=np.zeros(2))
    >>> wrong = Reference(Knobs(dual="lam-Theta+G")).dual(lam=np.ones(2), Theta=np.ones(2), G=np.zeros(2))
    >>> right["lam_new"], wrong["lam_new"]
    (array([2., 2.]), array([0., 0.]))
    """

    def __init__(self, knobs: Knobs | None = None, dtype: str = "float64") -> None:
        self.knobs = Knobs() if knobs is None else knobs
        self.dtype = np.dtype(dtype)

    def info(self) -> Info:
        """Every operation, the paper's conventions."""
        return Info(
            name="refldnq",
            version=__version__,
            dtype=self.dtype.name,
            capabilities=frozenset(OPERATIONS),
        )

    def echo(self, X: Array) -> Array:
        """The array back."""
        return X

    def read(self, array: Any) -> Array:
        """An input in the type of the computation; infinities and NaN are refused."""
        values = np.asarray(array).astype(self.dtype)
        if self.knobs.guard != "non-finite accepted" and not np.isfinite(values).all():
            raise ValueError("inputs must be finite, got NaN or infinity.")
        return values

    # -- patches, Hessian, packing ---------------------------------------------------------------------

    def patches(self, **inputs: Any) -> dict[str, Array]:
        """Patches (n, P, g, d), rows (c, kh, kw), the constant 1 last."""
        knobs, X = self.knobs, self.read(inputs["X"])
        if X.ndim == 2:
            X = X[:, :, None, None]
        groups = int(inputs.get("groups", 1))
        channels, kh, kw = kernel_shape(inputs)
        n, c, h, w = X.shape
        if c != groups * channels:
            raise ValueError(f"`X` must have {groups * channels} channels, got {c}.")
        window, X = self._window(inputs, X)
        if min(window.output(*X.shape[2:])) < 1:
            raise ValueError(f"`X` must be at least as large as the window, got {(h, w)}.")
        split = im2col(X, window)
        ho, wo = window.output(*X.shape[2:])
        if knobs.groups == "interleaved":
            split = split.reshape(n, channels, groups, kh, kw, ho, wo).swapaxes(1, 2)
        split = split.reshape(n, groups, channels, kh, kw, ho, wo)
        split = _turn_taps(split, knobs.taps, 3, 4)
        if knobs.positions == "columns":
            split = np.swapaxes(split, 5, 6)
        if knobs.row_order == "kh,kw,c":
            split = np.moveaxis(split, 2, 4)
        rows = split.reshape(n, groups, channels * kh * kw, ho * wo).transpose(0, 3, 1, 2)
        if bool(inputs.get("bias", False)):
            rows = _constant(rows, knobs.bias_slot)
        return {"patches": np.ascontiguousarray(rows)}

    def _window(self, inputs: Mapping[str, Any], X: Array) -> tuple[Window, Array]:
        knobs = self.knobs
        kernel, stride, padding, dilation = geometry(inputs)
        stride = {"given": stride, "ignored": (1, 1), "swapped": stride[::-1]}[knobs.stride]
        dilation = (1, 1) if knobs.dilation == "ignored" else dilation
        if knobs.padding == "same":
            padding = same_padding(X.shape[2:], kernel, stride, dilation)
        elif knobs.padding == "swapped":
            padding = (*padding[2:], *padding[:2])
        elif knobs.padding == "none":
            padding = (0, 0, 0, 0)
        elif knobs.padding == "halved":
            padding = (padding[0], padding[0], padding[2], padding[2])
        if knobs.pad_value != "zero":
            top, bottom, left, right = padding
            X = np.pad(X, ((0, 0), (0, 0), (top, bottom), (left, right)), mode="edge")
            padding = (0, 0, 0, 0)
        return Window(kernel, stride, padding, dilation), X

    def hessian(self, **inputs: Any) -> dict[str, Array]:
        """(2/n) times the sum of outer products of all patches, (g, d, d)."""
        knobs, rows = self.knobs, self.patches(**inputs)["patches"]
        n, p = rows.shape[:2]
        if n == 0 and knobs.empty_guard == "off":  # a mean of nothing
            return {"H": np.full((rows.shape[2], *rows.shape[3:] * 2), np.nan, dtype=self.dtype)}
        if n == 0:
            raise ValueError("`X` must have images.")
        if knobs.precision == "half":
            rows = rows.astype(np.float16).astype(self.dtype)
        if knobs.precision == "single":
            rows = rows.astype(np.float32)
        if knobs.pooled:
            rows = rows.sum(axis=1, keepdims=True)
        if knobs.centred:
            rows = rows - rows.mean(axis=(0, 1))
        if knobs.backwards:
            rows = rows[::-1, ::-1]
        if knobs.batches == "last dropped":
            rows = rows[: n - n % 2] if n > 1 else rows
        if knobs.batches == "means averaged":
            parts = [rows[i : i + 2] for i in range(0, n, 2)]
            total = sum(_gram(part) / len(part) for part in parts) * (n / len(parts))
        else:
            total = sum(_gram(part) for part in np.array_split(rows, knobs.threads))
        factor = {
            "2/n": 2 / n,
            "1/n": 1 / n,
            "2": 2.0,
            "1": 1.0,
            "2/(n*p)": 2 / (n * p),
            "1/(n*p)": 1 / (n * p),
            "2/(n-1)": 2 / max(n - 1, 1),
            "4/n": 4 / n,
        }[knobs.scale]
        H = np.asarray(total * total.dtype.type(factor * knobs.surplus), dtype=self.dtype)
        return {"H": _fill(H, knobs)}

    def pack(self, **inputs: Any) -> dict[str, Array]:
        """The weight as (g, d, m), rows (c, kh, kw), the bias row last."""
        knobs, weight = self.knobs, self.read(inputs["weight"])
        groups = int(inputs["groups"]) if "groups" in inputs else weight.shape[0] if weight.ndim == 5 else 1
        channels, kh, kw = kernel_shape({"weight": weight})
        split = weight.reshape(groups, -1, channels, kh, kw)
        m = split.shape[1]
        if knobs.pack_groups == "interleaved":
            split = weight.reshape(m, groups, channels, kh, kw).swapaxes(0, 1)
        split = _turn_taps(split, knobs.pack_taps, 3, 4)
        if knobs.pack_order == "kh,kw,c":
            split = np.moveaxis(split, 2, 4)
        d = channels * kh * kw
        if knobs.pack_axes == "reshaped":
            packed = split.reshape(groups, d, m)
        else:
            packed = split.reshape(groups, m, d).transpose(0, 2, 1)
        bias = inputs.get("bias")
        if bias is not None and np.ndim(bias) > 0 and np.size(bias) and knobs.pack_bias != "none":
            row = self.read(bias).reshape(groups, 1, m)
            packed = np.concatenate([row, packed] if knobs.pack_bias == "first" else [packed, row], axis=1)
        return {"W": np.ascontiguousarray(packed)}

    # -- the three steps of ADMM -----------------------------------------------------------------------

    def proximal(self, **inputs: Any) -> dict[str, Array]:
        """Θ of (15): (H + ρI) Θ = H W̄ + ρ(G - λ)."""
        H, W, G, lam = (self.read(inputs[name]) for name in ("H", "W_bar", "G", "lam"))
        rho = self.dtype.type(inputs["rho"])
        if self.knobs.rho_guard == "on" and not rho > 0:
            raise ValueError(f"`rho` must be greater than 0, got {rho}.")
        knobs, eye = self.knobs, np.eye(len(H), dtype=self.dtype)
        if knobs.rho_unit == "h00":
            rho = rho * H[0, 0]
        rights: dict[str, Callable[[], Array]] = {
            "HW+rho(G-lam)": lambda: H @ W + rho * (G - lam),  # [LDNQ] (15)
            "HW+rho(G+lam)": lambda: H @ W + rho * (G + lam),
            "HW+rho*G-lam": lambda: H @ W + rho * G - lam,
            "HW+(G-lam)": lambda: H @ W + (G - lam),
            "W+rho(G-lam)": lambda: W + rho * (G - lam),
            "HW+rho(W-lam)": lambda: H @ W + rho * (W - lam),
            "HW+rho*G": lambda: H @ W + rho * G,
            "HW-rho(G-lam)": lambda: H @ W - rho * (G - lam),
            "rho(G-lam)": lambda: rho * (G - lam),
        }
        lefts: dict[str, Callable[[], Array]] = {
            "H+rho": lambda: H + rho * eye,
            "H+1": lambda: H + eye,
            "H": lambda: H,
            "H/2+rho": lambda: H / 2 + rho * eye,
            "H+rho/2": lambda: H + rho / 2 * eye,
            "2H+rho": lambda: 2 * H + rho * eye,
            "diag(H)+rho": lambda: np.diag(np.diag(H)) + rho * eye,
            "H+rho*ones": lambda: H + rho,
        }
        if knobs.solver == "woodbury":
            return {"Theta": _woodbury(H, W, G - lam, rho)}
        left, right = lefts[knobs.left](), rights[knobs.right]()
        if knobs.solve == "one sweep":
            return {"Theta": W + (right - left @ W) / np.diag(left)[:, None]}
        if knobs.left == "H/2+rho":  # the objective without its factor: both H are halved
            right = right - H @ W / 2
        return {"Theta": self._solve(left, right)}

    def _solve(self, left: Array, right: Array) -> Array:
        knobs = self.knobs
        if knobs.solve == "single":
            return np.linalg.solve(left.astype(np.float32), right.astype(np.float32)).astype(self.dtype)
        if knobs.solve == "inverse":
            return np.asarray(np.linalg.inv(left) @ right)
        if knobs.solve == "truncated":
            return np.asarray(np.linalg.pinv(left, rcond=0.1) @ right)
        if knobs.rho_unit == "h00" and not np.any(left[0]):  # ρ = 0, a dead input: no unique Θ
            return np.asarray(np.linalg.lstsq(left, right)[0], dtype=self.dtype)
        if knobs.solver == "lu" or knobs.guard != "on" or knobs.rho_guard != "on":
            return np.asarray(np.linalg.solve(left, right))
        if knobs.solver == "eigh":
            values, vectors = np.linalg.eigh(left)
            return np.asarray(vectors @ ((vectors.T @ right) / values[:, None]))
        return np.asarray(cho_solve(cho_factor(left, lower=True), right), dtype=self.dtype)

    def project(self, **inputs: Any) -> dict[str, Array]:
        """Codes, α, G and the number of updates of (16)-(17)."""
        knobs = self.knobs
        V = self.read(inputs["V"]).ravel()
        values = np.asarray(inputs["values"], dtype=np.float64)
        start = inputs.get("alpha0")
        asked = 0.0 if start is None else float(start)
        alpha0 = asked if asked > 0 else None
        given = int(inputs.get("passes", -1))
        kind, ties = str(inputs.get("kind", "alternating")), str(inputs.get("ties", "smaller"))
        kind = kind if knobs.method == "given" else knobs.method
        ties = ties if knobs.ties == "given" else knobs.ties
        released = given if given >= 0 else 10
        passes = {"given": given, "none": 0, "one": 1, "two": 2, "released": released}[knobs.passes]
        tolerance, best = float(inputs.get("alpha_tolerance", 0.0)), inputs.get("kept_pass", "last") == "best"
        if knobs.passes == "released":
            tolerance, best = 1e-3, True
        neutral = all(knobs.turned().get(name) is None for name in _PROJECTION)
        if V.size == 0 and knobs.empty_guard == "off":
            return {"Q": V.astype(np.int8), "alpha": np.asarray(np.nan), "G": V, "passes": np.asarray(0)}
        if V.size == 0:
            raise ValueError("`V` must hold at least one value, got none.")
        library = kind == "exact" or tolerance or best or (neutral and self._plain)
        if library and np.isfinite(V).all():
            return self._library(V, values, alpha0, kind, passes, ties, tolerance, best)
        return self._alternate(V, values.astype(self.dtype), alpha0, passes, ties)

    @property
    def _plain(self) -> bool:
        return self.dtype == np.float64 and not self.knobs.backwards and self.knobs.threads == 1

    def _library(
        self,
        V: Array,
        values: Array,
        alpha0: float | None,
        kind: str,
        passes: int,
        ties: str,
        tolerance: float,
        best: bool,
    ) -> dict[str, Array]:
        from refldnq.codebook import scaled
        from refldnq.projection import project

        exact = kind == "exact"
        found = project(
            V,
            scaled(values),
            method="exact" if exact else "alternating",
            alpha0=None if exact else alpha0,
            max_passes=None if passes < 0 or exact else passes,
            alpha_tolerance=tolerance if tolerance and not exact else None,
            keep_best_pass=best and not exact,
            ties=ties if ties in ("smaller", "larger", "zero") else "smaller",  # type: ignore[arg-type]
        )
        return {
            "Q": found.codes,
            "alpha": np.asarray(found.alpha, dtype=self.dtype),
            "G": found.G.astype(self.dtype),
            "passes": np.asarray(found.passes, dtype=np.int64),
        }

    def _alternate(
        self, V: Array, values: Array, alpha0: float | None, most: int, ties: str
    ) -> dict[str, Array]:
        knobs, one = self.knobs, self.dtype.type
        values, codes_of = _change_levels(values, knobs.levels)
        magnitudes = np.abs(values[values != 0])
        default = np.abs(V).mean() / magnitudes.min()
        alpha = one(
            {"given": alpha0 or default, "mean": default, "max": np.abs(V).max(), "one": 1.0}[
                knobs.scale_start
            ]
        )
        rounded = np.abs(V) if knobs.sign == "lost" else V
        count, direction, restarted, codes = 0, 0.0, False, np.zeros(len(V), dtype=np.int8)
        while alpha > 0 or count == 0:
            codes = nearest(rounded, alpha, values, ties, knobs.thresholds)  # [LDNQ] (17), Q = Proj(V/α)
            if most == 0 or knobs.scale_rule == "never":
                break
            new = one(self._scale(V, values[codes]))
            if knobs.empty == "divide" and not values[codes].any():
                alpha = one(np.nan)
                break
            again = new == 0 and not restarted and default != alpha and knobs.empty == "restart"
            if again:
                new, restarted = one(default), True
            step = float(new - alpha)
            count += step != 0
            settled = new == 0 or step * direction < 0 or step == 0 or abs(step) < knobs.tolerance
            stop = bool(settled and not again) or 0 <= most <= count
            alpha, direction = new, 0.0 if again else float(np.sign(step))
            if stop:
                break
        if knobs.final == "rounded again":
            codes = nearest(rounded, alpha, values, ties, knobs.thresholds)
        G = np.asarray(alpha * values[codes], dtype=self.dtype)
        codes = codes_of[codes]
        zero = int(codes_of[np.argmin(np.abs(values))])
        if alpha == 0 or not values[np.searchsorted(codes_of, codes)].any():
            if not np.isnan(alpha):
                alpha, G, codes = one(0.0), np.zeros_like(G), np.full_like(codes, zero)
        if knobs.codes == "values":
            codes = np.asarray(np.sign(G) * np.abs(codes.astype(int) - zero), dtype=np.int8)
        return {
            "Q": codes.astype(np.int8),
            "alpha": np.asarray(alpha, dtype=self.dtype),
            "G": G,
            "passes": np.asarray(count, dtype=np.int64),
        }

    def _scale(self, V: Array, Q: Array) -> float:
        if self.knobs.backwards:
            V, Q = V[::-1], Q[::-1]
        parts = list(zip(*(np.array_split(a, self.knobs.threads) for a in (V, Q)), strict=True))
        top, bottom = float(sum(v @ q for v, q in parts)), float(sum(q @ q for _, q in parts))
        if bottom == 0 or top <= 0:
            return 0.0
        rule = self.knobs.scale_rule
        if rule == "mean":
            return float(np.abs(V).sum() / np.abs(Q).sum())
        if rule == "mean of kept":
            return float(np.abs(V[Q != 0]).mean())
        if rule == "over norm of V":
            return float(V @ V) / top
        return top / bottom  # [LDNQ] (17), α = VᵀQ/QᵀQ

    def dual(self, **inputs: Any) -> dict[str, Array]:
        """λ of (18): λ + Θ - G."""
        lam, Theta, G = (self.read(inputs[name]) for name in ("lam", "Theta", "G"))
        steps: dict[str, Callable[[], Array]] = {
            "lam+Theta-G": lambda: lam + Theta - G,  # [LDNQ] (18)
            "lam-Theta+G": lambda: lam - Theta + G,
            "lam+2(Theta-G)": lambda: lam + 2 * (Theta - G),
            "lam+1.6(Theta-G)": lambda: lam + self.dtype.type(1.6) * (Theta - G),
            "Theta-G": lambda: Theta - G,
            "lam": lambda: lam,
            "lam+Theta": lambda: lam + Theta,
            "lam-G": lambda: lam - G,
        }
        return {"lam_new": steps[self.knobs.dual]()}

    # -- ADMM -------------------------------------------------------------------------------------------

    def admm(self, **inputs: Any) -> dict[str, Array]:
        """The trace of K iterations of (15)-(18) and what is returned.

        The first projection starts at `alpha0` if that is given, else at mean|V|; later ones at the last α.
        Under other conventions the inputs have more names, those of `RULES`.
        """
        knobs = self.knobs
        rule = {**RULES, **{name: inputs[name] for name in RULES if name in inputs}}
        H, W, G, lam = (self.read(inputs[name]) for name in ("H", "W_bar", "G0", "lam0"))
        values, rho = np.asarray(inputs["values"], dtype=np.float64), float(inputs["rho"])
        kind, returned = str(inputs.get("projection", "alternating")), str(inputs.get("returned", "best"))
        returned = returned if knobs.returned == "given" else knobs.returned
        if knobs.start == "W":
            G = W.copy()
        if knobs.start == "zero dual":
            lam = np.zeros_like(lam)
        energies = [self._objective(H, W, G, G)]
        steps: dict[str, list[Array]] = {name: [] for name in ("Theta", "V", "Q", "alpha", "G", "lam")}
        starts = {"mean of V": 0.0, "mean_v": 0.0}
        starts |= dict.fromkeys(("mean of W", "mean_w"), float(np.abs(W).mean()))
        first = float(inputs.get("alpha0", 0.0)) or starts[str(rule["alpha_start"])]
        alpha, theta, points = first, W, [G]
        unit = 0.5 if knobs.objective == "2f(G)" else 1.0  # the rule is one of 2f, whatever is called f
        rule_of = str(rule["stop"] if knobs.stop == "none" else knobs.stop)
        stopping = Stopping(rule_of, W, unit * energies[0])
        for k in range(int(inputs["K"]) + knobs.count):
            held = theta if knobs.proximal_from == "Theta" and k else G
            own = lam if knobs.dual_kept else np.zeros_like(lam)
            theta = self.proximal(H=H, W_bar=W, G=held, lam=own, rho=rho)["Theta"]
            shift = {"Theta+lam": lam, "Theta-lam": -lam, "Theta": 0 * lam}[knobs.shifted]
            V = theta + shift
            alpha = first if rule["restart"] == "cold" else alpha
            alpha = alpha if knobs.restart == "warm" else starts[knobs.restart]
            found = self._project_all(V, values, alpha, kind, rule)
            last, G = G, np.asarray(found["G"]).reshape(W.shape)
            alpha = float(found["alpha"]) if np.ndim(found["alpha"]) == 0 else 0.0
            lam = self.dual(lam=lam, Theta=theta, G=last if knobs.dual_point == "old" else G)["lam_new"]
            energies.append(self._objective(H, W, G, theta))
            points.append(G)
            for name, array in (("Theta", theta), ("V", V), ("G", G), ("lam", lam)):
                steps[name].append(array)
            steps["Q"].append(np.asarray(found["Q"], dtype=np.int8).reshape(W.shape))
            steps["alpha"].append(np.asarray(found["alpha"], dtype=self.dtype))
            rho *= knobs.rho_growth
            if stopping.after(unit * energies[-1], theta - G, G - last):
                break
        best = stopping.best
        if knobs.best_of_equals == "last":
            best = len(energies) - 1 - int(np.argmin(energies[::-1]))
        if knobs.buffer == "aliased":
            steps["G"] = [G] * len(steps["G"])
        result = {
            "best": points[best],
            "last": points[-1],
            "Theta": theta,
            "start": points[0],
            "nearest": min(points, key=lambda point: float(np.linalg.norm(point - W))),
        }[returned]
        if knobs.refit or rule["refit"]:
            bottom = float(np.vdot(result, H @ result))
            result = result * (max(float(np.vdot(result, H @ W)), 0.0) / bottom if bottom > 0 else 1.0)
        trace = {name: np.stack(list(arrays)) for name, arrays in steps.items()}
        return {**trace, "E": np.array(energies), "best": np.asarray(best), "result": result}

    def _project_all(
        self, V: Array, values: Array, alpha: float, kind: str, rule: Mapping[str, Any]
    ) -> dict[str, Array]:
        own = {name: rule[name] for name in ("passes", "ties", "alpha_tolerance", "kept_pass")}
        one = {"values": values, "alpha0": alpha, "kind": kind, **own}
        if self.knobs.scales == "layer":
            return self.project(V=V, **one)
        columns = [self.project(V=column, **{**one, "alpha0": 0.0}) for column in V.T]
        return {
            "G": np.stack([column["G"] for column in columns], axis=1),
            "Q": np.stack([column["Q"] for column in columns], axis=1),
            "alpha": np.array([column["alpha"] for column in columns]),
        }

    def _objective(self, H: Array, W: Array, G: Array, theta: Array) -> float:
        measure = self.knobs.objective
        difference = (theta if measure == "f(Theta)" else G) - W
        if measure == "norm":
            return float(np.vdot(difference, difference))
        value = float(np.vdot(difference, H @ difference))  # [LDNQ] (10)
        return value if measure == "2f(G)" else 0.5 * value


def same_padding(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    """TensorFlow's SAME as (top, bottom, left, right): an odd zero goes to the bottom and the right.

    Examples
    --------
    >>> same_padding((32, 32), (3, 3), (2, 2), (1, 1))
    (0, 1, 0, 1)
    """
    sides: list[int] = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]


def nearest(V: Array, alpha: Any, values: Array, ties: str, thresholds: str = "midpoint") -> Array:
    """Codes of the nearest of α·values, by comparison with α times the thresholds between neighbours.

    Parameters
    ----------
    V : Array, shape (N,)
        What is rounded.
    alpha : number
        The scale.
    values : Array, shape (k,)
        Ascending.
    ties : {'smaller', 'larger', 'zero', 'up', 'down'}
        Where a value on a threshold goes; the last two are faults.
    thresholds : {'midpoint', 'geometric', 'floor'}
        Where the thresholds are; the last two are faults.

    Returns
    -------
    Array, shape (N,), int8

    Examples
    --------
    >>> nearest(np.array([1.5, -1.5]), 1.0, np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), "smaller")
    array([3, 1], dtype=int8)
    """
    codes = np.zeros(V.shape, dtype=np.int8)
    zero = int(np.argmin(np.abs(values)))
    tied = np.zeros(V.shape, dtype=bool)
    for low, high in pairwise(values):
        middle = (low + high) / 2
        if thresholds == "geometric" and low * high > 0:
            middle = np.sign(low) * np.sqrt(low * high)
        if thresholds == "floor":
            middle = high if high > 0 else low
        limit = alpha * middle
        upward = {"smaller": middle <= 0, "zero": middle <= 0, "larger": middle >= 0}.get(ties, ties == "up")
        codes += (V >= limit if upward else V > limit).astype(np.int8)
        if ties == "zero" and low != 0 and high != 0 and len(values) <= 9:
            tied |= limit == V
    codes[tied] = zero
    return codes


def _change_levels(values: Array, levels: str) -> tuple[Array, Array]:
    # The levels that are used, and the code of each.
    codes, half = np.arange(len(values), dtype=np.int8), len(values) // 2
    if levels == "uniform":
        return (codes - half).astype(values.dtype), codes
    if levels == "short" and len(values) > 3:
        return values[1:-1], codes[1:-1]
    if levels == "no zero":
        return values[values != 0], codes[values != 0]
    if levels == "one-sided":
        return values[values >= 0], codes[values >= 0]
    return values, codes


def _turn_taps(split: Array, taps: str, rows: int, columns: int) -> Array:
    if taps == "flipped":
        return np.flip(split, (rows, columns))
    if taps == "transposed":
        return np.swapaxes(split, rows, columns)
    return split


def _constant(rows: Array, slot: str) -> Array:
    ones = np.ones((*rows.shape[:-1], 1), dtype=rows.dtype)
    if slot == "none":
        return rows
    return np.concatenate([ones, rows] if slot == "first" else [rows, ones], axis=-1)


def _woodbury(H: Array, W: Array, point: Array, rho: Any) -> Array:
    # (15) through the n x n system of H = UUᵀ, where H has rank n < d. Written as a step from W̄, so that
    # nothing is divided by a small ρ: Θ = W̄ + (I - U(ρI + UᵀU)⁻¹Uᵀ)(G - λ - W̄).
    values, vectors = np.linalg.eigh(H)
    kept = values > len(H) * np.finfo(H.dtype).eps * values[-1]
    U = vectors[:, kept] * np.sqrt(values[kept])
    step = point - W
    inner = U.T @ U + rho * np.eye(U.shape[1], dtype=H.dtype)
    return np.asarray(W + step - U @ np.linalg.solve(inner, U.T @ step))


def _gram(rows: Array) -> Array:
    # (n, p, g, d) -> (g, d, d)
    flat = rows.reshape(-1, *rows.shape[2:]).transpose(1, 0, 2)
    return np.asarray(flat.transpose(0, 2, 1) @ flat)


def _fill(H: Array, knobs: Knobs) -> Array:
    if knobs.filled == "upper":
        H = np.triu(H)
    elif knobs.filled == "diagonal":
        H = H * np.eye(H.shape[1], dtype=H.dtype)
    elif knobs.filled == "groups averaged":
        H = np.broadcast_to(H.mean(axis=0), H.shape).copy()
    if knobs.damping:
        mean = np.einsum("gii->g", H) / H.shape[1]
        H = H + (knobs.damping * mean)[:, None, None] * np.eye(H.shape[1], dtype=H.dtype)
    return H
