"""The quantizer steps of the baselines, with a knob for each way to get one wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.families._problems import POWERS
from refldnq.verify.kit.knobs import Knobs

Answers = dict[str, Array]
Inputs = Mapping[str, Any]


class BaselineStep(ABC):
    """The operation ``baseline``: what each method makes of a weight, in the type of the computation."""

    knobs: Knobs
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, array: Any) -> Array:
        """An input in the type of the computation."""

    @abstractmethod
    def project(self, **inputs: Any) -> Answers:
        """A projection with one scale."""

    def baseline(self, **inputs: Any) -> Answers:
        """The answers of a method."""
        steps: Mapping[str, Callable[[Array, Inputs], Answers]] = {
            "dq-affine": self._affine,
            "vq-exact": self._clusters,
            "exnn": self._exnn,
            "ttq": self._ttq,
            "inq": self._inq,
            "lata": self._lata,
            "late": self._late,
            "lat-two-scale": self._late,
            "trn": self._terms,
            "distilquant": self._buckets,
        }
        found = steps[str(inputs["method"])](self.read(inputs["W"]), inputs)
        integers = {"Q": np.int8, "mask": np.int8, "zero": np.int64, "terms": np.int64}
        return {
            name: np.asarray(value).astype(integers.get(name, self.dtype)) for name, value in found.items()
        }

    # -- DQ, VQ, ExNN --------------------------------------------------------------------------------------

    def _affine(self, W: Array, inputs: Inputs) -> Answers:
        knobs, L = self.knobs, int(inputs["levels"])
        low, high = W.min(), W.max()
        if knobs.affine_range == "holds 0":
            low, high = min(low, low * 0), max(high, high * 0)
        S = (high - low) / self.dtype.type(L - (knobs.affine_steps == "levels - 1"))
        if S == 0 and knobs.affine_empty == "given":
            return {"Q": 0 * W, "alpha": S, "zero": S, "G": 0 * W}
        Z = _round(-low / S, knobs.affine_rounding)
        if knobs.affine_zero == "no code":
            q = np.clip(_round((W - low) / S, knobs.affine_rounding), 0, L - 1)
            return {"Q": q, "alpha": S, "zero": Z, "G": S * q + low}
        q = _round(W / S, knobs.affine_rounding) + Z
        if knobs.affine_clip == "on":
            q = np.clip(q, 0, L - 1)
        codes = np.nan_to_num(q)
        return {"Q": codes, "alpha": S, "zero": np.nan_to_num(Z), "G": S * (q - Z)}

    def _clusters(self, W: Array, inputs: Inputs) -> Answers:
        knobs, order = self.knobs, np.sort(W)
        distinct = np.unique(W)
        k = min(int(inputs["levels"]), len(distinct))
        ends = _optimal(order, distinct, k)
        if knobs.vq_start == "equidistant":
            ends = _lloyd(W, distinct, k)
        q = np.searchsorted(distinct[ends], W)
        middle = np.median if knobs.vq_value == "median" else np.mean
        values = np.array([middle(W[q == i]) for i in range(k)], dtype=self.dtype)
        if knobs.vq_zero == "kept":
            values[np.argmin(np.abs(values))] = 0
        return {"Q": q, "values": values, "G": values[q]}

    def _exnn(self, W: Array, inputs: Inputs) -> Answers:
        knobs, lam = self.knobs, self.read(inputs["lam"])
        V = W + {"added": lam, "subtracted": -lam, "forgotten": 0 * lam}[knobs.exnn_dual]
        passes = -1 if knobs.exnn_scale == "alternated" else 0
        given = {"values": POWERS[int(inputs["levels"])], "alpha0": 0.0, "kind": "alternating"}
        found = self.project(V=V, passes=passes, ties="smaller", **given)
        return {name: found[name] for name in ("Q", "alpha", "G")}

    # -- TTQ, INQ ------------------------------------------------------------------------------------------

    def _ttq(self, W: Array, inputs: Inputs) -> Answers:
        knobs, g, kind = self.knobs, self.read(inputs["g"]), self.dtype.type
        positive, negative = kind(inputs["positive"]), kind(inputs["negative"])
        size = np.abs(W).max() if knobs.ttq_size == "max" else np.abs(W).mean()
        delta = kind(inputs["threshold"]) * size
        above, below = W > delta, W < -delta
        if knobs.ttq_equals == "beyond":
            above, below = delta <= W, (-delta >= W) & (W < delta)
        G = np.where(above, positive, 0) - np.where(below, negative, 0)
        if knobs.ttq_sign == "its own":
            G = np.where(above, positive, 0) + np.where(below, negative, 0)
        shares = {
            "scaled": (positive, negative, 1),
            "by the positive": (positive, positive, 1),
            "signed": (positive, -negative, 1),
            "straight through": (1, 1, 1),
            "nothing in between": (positive, negative, 0),
        }[knobs.ttq_latent]
        dW = g * np.where(above, shares[0], np.where(below, shares[1], shares[2]))
        dpositive, dnegative = g[above].sum(), -g[below].sum()
        if knobs.ttq_minus == "omitted":
            dnegative = -dnegative
        if knobs.ttq_sums == "means":
            dpositive, dnegative = dpositive / max(above.sum(), 1), dnegative / max(below.sum(), 1)
        Q = 1 + above.astype(int) - below
        return {"Q": Q, "G": G, "dW": dW, "dpositive": dpositive, "dnegative": dnegative}

    def _inq(self, W: Array, inputs: Inputs) -> Answers:
        knobs, L = self.knobs, int(inputs["levels"])
        if L < 3 or L % 2 == 0:
            raise ValueError(f"`levels` must be odd and at least 3, got {L}.")
        a = np.abs(W)
        s, one = a.max(), self.dtype.type(1)
        magnitudes = np.zeros(1, dtype=self.dtype)
        if s > 0:
            top = 4 * s / 3 if knobs.inq_greatest == "of 4s/3" else s
            n1 = int(np.frexp(top)[1]) - 1  # ⌊log2⌋
            n2 = n1 - (L - 3) // 2 - (knobs.inq_least == "one more")
            magnitudes = np.append(magnitudes, [np.ldexp(one, n) for n in range(n2, n1 + 1)])
        halves = (magnitudes[:-1] + magnitudes[1:]) / 2
        if knobs.inq_nearest == "of the logarithms":
            halves[1:] = np.sqrt(magnitudes[1:-1] * magnitudes[2:])
        if knobs.inq_zero == "below the least" and len(halves):
            halves[0] = magnitudes[1]
        if knobs.inq_zero == "never":
            halves[:1] = -1
        step = np.searchsorted(halves, a, side="right" if knobs.inq_ties == "up" else "left")
        q = len(magnitudes) - 1 + np.where(W < 0, -step, step)
        values = np.concatenate([-magnitudes[:0:-1], magnitudes])
        return {"Q": q, "values": values, "G": values[q], "mask": self._portion(a, inputs)}

    def _portion(self, a: Array, inputs: Inputs) -> Array:
        knobs, frozen = self.knobs, np.asarray(inputs["frozen"]).astype(bool)
        if knobs.inq_frozen == "are forgotten":
            frozen = np.zeros_like(frozen)
        count = len(a) if knobs.inq_portion == "of all" else len(a) - int(frozen.sum())
        wanted = round(float(inputs["portion"]) * count)
        if knobs.inq_portion == "of all":
            wanted -= int(frozen.sum())
        keys = {"largest first": -a, "smallest first": a, "as they stand": 0 * a}[knobs.inq_order]
        order = np.argsort(np.where(frozen, np.inf, keys), kind="stable")
        mask = frozen.copy()
        mask[order[: max(wanted, 0)]] = True
        return mask

    # -- LAT -----------------------------------------------------------------------------------------------

    def _curvature(self, W: Array, inputs: Inputs) -> Array:
        D = self.read(inputs["D"])
        if self.knobs.lat_guard == "on" and not (D > 0).all():
            raise ValueError(f"`D` must be greater than 0, got {D.min()}.")
        return D if self.knobs.lat_weights == "curvature" else np.ones_like(D)

    def _lata(self, W: Array, inputs: Inputs) -> Answers:
        knobs, D, a = self.knobs, self._curvature(W, inputs), np.abs(W)
        start = {"0.7 of the mean": 0.7, "mean": 1.0}.get(knobs.lata_start)
        chosen = a > (self.dtype.type(start) * a.mean() if start else 0)
        alpha = self.dtype.type(0)
        for _ in range(int(inputs["passes"]) if knobs.lata_passes == "given" else 1):
            mass, last = D[chosen].sum(), alpha
            moment = (D * a)[chosen].sum()
            alpha = moment / mass if mass or knobs.lata_empty == "divided" else 0 * mass
            chosen = a > self.dtype.type(knobs.lata_threshold) * alpha
            if abs(alpha - last) < float(inputs["tolerance"]):
                break
        return self._signed(W, chosen, np.asarray(alpha))

    def _late(self, W: Array, inputs: Inputs) -> Answers:
        D = self._curvature(W, inputs)
        if inputs["method"] == "late":
            alpha, chosen = self._least(W, D)
            return self._signed(W, chosen, np.asarray(alpha))
        knobs = self.knobs
        if knobs.lat_scales == "shared":
            alpha, chosen = self._least(W, D)
            return self._signed(W, chosen, np.array([alpha, alpha]))
        (positive, above), (negative, below) = (self._least(f(W, 0), D) for f in (np.maximum, np.minimum))
        found = self._signed(W, above | below, np.array([positive, negative]))
        if knobs.lat_scales == "swapped":
            found["G"] = self._signed(W, above | below, np.array([negative, positive]))["G"]
        return found

    def _least(self, W: Array, D: Array) -> tuple[Any, Array]:
        knobs, a = self.knobs, np.abs(W)
        order = np.argsort(-(a if knobs.late_order == "magnitude" else D * a), kind="stable")
        mass = np.cumsum(D[order])
        s = np.cumsum((D * a)[order]) / mass / 2
        if knobs.late_order == "magnitude":
            feasible = np.flatnonzero((a[order] > s) & (s > np.append(a[order][1:], 0)))
        else:
            feasible = np.flatnonzero(s > 0)
        if not feasible.size:
            return self.dtype.type(0), np.zeros(W.shape, dtype=bool)
        score = s**2 * (mass if knobs.late_chosen != "by count" else np.arange(1, len(s) + 1))
        best = feasible[0 if knobs.late_chosen == "first" else np.argmax(score[feasible])]
        if knobs.late_chosen == "last":
            best = feasible[-1]
        chosen = np.zeros(W.shape, dtype=bool)
        chosen[order[: best + 1]] = True
        return self.dtype.type(knobs.late_scale) * s[best], chosen & (W != 0)

    def _signed(self, W: Array, chosen: Array, alpha: Array) -> Answers:
        b = chosen * (np.sign(W) if self.knobs.lat_signs == "kept" else 1)
        scales = np.broadcast_to(alpha, 2) if alpha.ndim == 0 else alpha
        G = np.where(b > 0, scales[0], np.where(b < 0, -scales[1], 0 * alpha.flat[0]))
        return {"Q": 1 + b, "alpha": alpha, "G": G}

    # -- TRN, DistilQuant ----------------------------------------------------------------------------------

    def _terms(self, W: Array, inputs: Inputs) -> Answers:
        axis, knobs, size = self.knobs.trn_axis, self.knobs, int(inputs["block"])
        last = {
            "input channels": lambda: np.moveaxis(W, 1, -1),
            "output channels": lambda: np.moveaxis(W, 0, -1),
        }
        rows = last[axis]() if axis in last else W.reshape(len(W), -1)
        G, terms = np.array(rows, order="C"), np.zeros(rows.shape, dtype=np.int64)
        flat, counts = G.reshape(-1, rows.shape[-1]), terms.reshape(-1, rows.shape[-1])
        for row, count in zip(flat, counts, strict=True):
            for first in range(0, len(row), size):
                part = slice(first, first + size)
                if knobs.trn_last == "left out" and first + size > len(row):
                    continue
                row[part], count[part] = self._block(row[part].copy(), inputs)
        back = {"input channels": 1, "output channels": 0}.get(axis)
        shaped = [np.moveaxis(x, -1, back) if back is not None else x.reshape(W.shape) for x in (G, terms)]
        return {"G": shaped[0], "terms": shaped[1]}

    def _block(self, w: Array, inputs: Inputs) -> tuple[Array, int]:
        knobs, tolerance = self.knobs, self.dtype.type(inputs["tolerance"])
        size = np.linalg.norm(w)
        limit = {
            "relative": tolerance * size,
            "absolute": tolerance,
            "of squares": np.sqrt(tolerance) * size,
        }[knobs.trn_limit]
        r, count = w.copy(), 0
        while count < int(inputs["max_terms"]):
            norm = np.linalg.norm(r)
            if norm < limit or (norm == limit and not (count == 0 and knobs.trn_empty == "a term")):
                break
            term = self._nearest(r)
            r = r - term if knobs.trn_terms == "of the residual" else w - term
            count += 1
        return w - r, count

    def _nearest(self, v: Array) -> Array:
        knobs, a = self.knobs, np.abs(v)
        order = np.sort(a)[::-1]
        if order[0] == 0:
            return 0 * v
        total, count = np.cumsum(order), np.arange(1, len(v) + 1)
        below = np.append(order[1:], 0)
        score = np.where(
            order > below, total / (np.sqrt(count) if knobs.trn_threshold == "best" else count), -1
        )
        best = int(np.argmax(score))
        threshold = below[best]
        if knobs.trn_threshold == "0.7 of the mean":
            threshold = self.dtype.type(0.7) * a.mean()
        chosen = a > threshold
        alpha = a[chosen].mean() if knobs.trn_scale == "of the chosen" else a.mean()
        return np.asarray(alpha * np.sign(v) * chosen)

    def _buckets(self, W: Array, inputs: Inputs) -> Answers:
        knobs, s = self.knobs, int(inputs["levels"])
        size = int(inputs["bucket"]) if knobs.distil_buckets == "given" else len(W)
        more = -len(W) % size
        padded = np.pad(W, (0, more), mode="edge") if knobs.distil_padding == "edge" else np.pad(W, (0, more))
        if knobs.distil_padding == "left out" and more:
            padded = padded[: len(W) - len(W) % size]
        rows = padded.reshape(-1, size)
        low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
        if knobs.distil_range == "symmetric":
            high = np.abs(rows).max(axis=1, keepdims=True)
            low = -high
        scale = high - low
        if knobs.distil_empty == "by one":
            scale = np.where(scale < 1e-10, self.dtype.type(1), scale)
        steps = self.dtype.type(s - (knobs.distil_steps == "levels - 1"))
        flat = (_round((rows - low) / scale * steps, knobs.distil_rounding) / steps * scale + low).ravel()
        return {"G": np.append(flat, W[len(flat) :])[: len(W)]}


def _round(y: Any, rule: str) -> Any:
    if rule == "half to even":
        return np.rint(y)
    return np.sign(y) * np.floor(np.abs(y) + 0.5) if rule == "half away from zero" else np.floor(y)


def _cost(part: Array) -> Any:
    return ((part - part.mean()) ** 2).sum()


def _optimal(order: Array, distinct: Array, k: int) -> list[int]:
    # The least sum of squares of k intervals, by dynamic programming: the last distinct value of each.
    upper = np.searchsorted(order, distinct, side="right")
    starts = [0, *upper]
    table: list[dict[int, Any]] = [{0: (0.0, [])}]
    for _ in range(k):
        row: dict[int, Any] = {}
        for end in range(1, len(distinct) + 1):
            before = [(cost, cuts, begin) for begin, (cost, cuts) in table[-1].items() if begin < end]
            if before:
                row[end] = min(
                    (
                        (cost + float(_cost(order[starts[begin] : starts[end]])), [*cuts, end - 1])
                        for cost, cuts, begin in before
                    ),
                    key=lambda one: one[0],
                )
        table.append(row)
    ends: list[int] = table[k][len(distinct)][1]
    return ends


def _lloyd(W: Array, distinct: Array, k: int) -> list[int]:
    # Lloyd's alternation from k equidistant values.
    means, q = np.linspace(distinct[0], distinct[-1], k, dtype=W.dtype), np.zeros(W.shape, dtype=int)
    for _ in range(100):
        q = np.searchsorted((means[:-1] + means[1:]) / 2, W)
        means = np.array([W[q == i].mean() if (q == i).any() else means[i] for i in range(k)], dtype=W.dtype)
    return [int(np.searchsorted(distinct, W[q <= i].max())) for i in range(k)]
