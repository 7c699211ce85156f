"""The kit on an implementation in PyTorch: it passes, and planted combinations of mistakes are named."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

from refldnq.verify.kit.cases import all_cases
from refldnq.verify.kit.report import to_text
from refldnq.verify.kit.runner import KitRun, run

torch = pytest.importorskip("torch", reason="needs PyTorch")

from refldnq.verify.adapters import torch_ldnq  # noqa: E402
from refldnq.verify.adapters.torch_ldnq import TorchLdnq, TorchLdnqSingle  # noqa: E402


def asked(adapter: Any) -> KitRun:
    return run(adapter, all_cases())


@pytest.mark.parametrize("make", [TorchLdnq, TorchLdnqSingle])
def test_it_passes_all_that_it_declares(make: Any) -> None:
    found = asked(make())
    assert found.exit_code == 0, to_text(found)
    ran = {outcome.case.op for outcome in found.outcomes if outcome.state == "pass"}
    assert ran == torch_ldnq.DONE
    assert found.count("pass") == found.ran >= 230


@pytest.mark.parametrize("make", [TorchLdnq, TorchLdnqSingle])
def test_it_refuses_by_checks_of_its_own(make: Any) -> None:
    """PyTorch's errors are declared nowhere: a wrong shape is found before PyTorch trips over it."""
    assert make().info().refusals == ()
    refused = [case for case in all_cases() if case.error is not None and case.op in torch_ldnq.DONE]
    found = run(make(), refused, diagnose=False)
    assert found.count("pass") == len(refused) >= 33, to_text(found)
    assert all(outcome.messages[0].startswith("refused by ValueError: ") for outcome in found.outcomes)


def test_its_examples() -> None:
    assert doctest.testmod(torch_ldnq).failed == 0


class RowsAndDual(TorchLdnq):
    """Two mistakes: patches as the code of 2019 has them, and a dual step taken twice."""

    planted = frozenset({"rows-kh-kw-c", "dual-twice"})

    def rows(self, inputs: dict[str, Any]) -> Any:
        rows = super().rows(inputs)
        shape = [int(size) for size in inputs["weight_shape"]]
        kernel = shape[-3:] if len(shape) >= 4 else [shape[-1], 1, 1]
        count = int(np.prod(kernel))
        order = torch.arange(count).reshape(kernel).permute(1, 2, 0).flatten()
        return torch.cat([rows[..., :count][..., order], rows[..., count:]], dim=-1)

    def dual(self, **inputs: Any) -> Any:
        lam, Theta, G = (self.tensor(inputs[name]) for name in ("lam", "Theta", "G"))
        return {"lam_new": lam.add(Theta - G, alpha=2.0).numpy()}


class FactorTiesAndBias(TorchLdnq):
    """Three: no factor 2 in H, ties away from 0, the bias row in front."""

    planted = frozenset({"h-without-2", "ties-larger", "pack-bias-first"})

    def hessian(self, **inputs: Any) -> Any:
        rows = self.rows(inputs)
        if not len(rows):
            raise ValueError("X must hold images.")
        return {"H": torch.einsum("npgi,npgj->gij", rows, rows).div(len(rows)).numpy()}

    def codes(self, V: Any, alpha: Any, values: Any, ties: str) -> Any:
        return super().codes(V, alpha, values, "larger")

    def pack(self, **inputs: Any) -> Any:
        W = super().pack(**inputs)["W"]
        has = inputs.get("bias") is not None and np.size(inputs["bias"]) > 0
        return {"W": np.roll(W, 1, axis=1) if has else W}


class ProximalAndLast(TorchLdnq):
    """Two: the dual enters (15) unscaled, and ADMM returns its last iterate."""

    planted = frozenset({"dual-unscaled", "admm-last"})

    def solved(self, H: Any, W: Any, G: Any, lam: Any, rho: float) -> Any:
        factor = torch.linalg.cholesky(H + rho * torch.eye(len(H), dtype=self.dtype))
        return torch.cholesky_solve(H @ W + rho * G - lam, factor)

    def admm(self, **inputs: Any) -> Any:
        return super().admm(**{**inputs, "returned": "last"})


class PaddingAndScale(TorchLdnq):
    """Two: paddings of rows and columns mixed up, and a scale that is the mean of what is kept."""

    planted = frozenset({"padding-swapped", "alpha-mean-kept"})

    def rows(self, inputs: dict[str, Any]) -> Any:
        padding = tuple(inputs.get("padding", (0, 0, 0, 0)))
        return super().rows({**inputs, "padding": (*padding[2:], *padding[:2])})

    def scale(self, V: Any, Q: Any) -> Any:
        right = super().scale(V, Q)
        return V[Q != 0].abs().mean() if right > 0 else right


class StrideRhoAndRelaxed(TorchLdnq):
    """Three: patches at every pixel, half of ρ on the left, and an over-relaxed dual step."""

    planted = frozenset({"stride-ignored", "rho-stale", "dual-relaxed"})

    def rows(self, inputs: dict[str, Any]) -> Any:
        return super().rows({**inputs, "stride": (1, 1)})

    def solved(self, H: Any, W: Any, G: Any, lam: Any, rho: float) -> Any:
        left = H.clone()
        left.diagonal().add_(rho / 2)
        return torch.linalg.solve(left, H @ W + rho * (G - lam))

    def dual(self, **inputs: Any) -> Any:
        lam, Theta, G = (self.tensor(inputs[name]) for name in ("lam", "Theta", "G"))
        return {"lam_new": torch.lerp(lam, lam + Theta - G, 1.6).numpy()}


class EpsilonAndRelu(TorchLdnq):
    """Two in the layers: ε beside the root, and a ReLU whose derivative at 0 is 1."""

    planted = frozenset({"batchnorm-eps-outside", "relu-derivative-one-at-zero"})

    def normalized(self, inputs: dict[str, Any], arrays: Any) -> Any:
        x = arrays["x"]
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        _, statistics = super().normalized(inputs, {k: own.detach() for k, own in arrays.items()})
        if str(inputs.get("mode", "eval")) == "train":
            mean, variance = x.mean(dim=axes), x.var(dim=axes, correction=0)
        else:
            mean, variance = arrays["running_mean"], arrays["running_var"]
        deviation = variance.sqrt() + float(inputs.get("eps", 1e-5))
        y = (x - mean.reshape(shape)) / deviation.reshape(shape)
        return y * arrays["weight"].reshape(shape) + arrays["bias"].reshape(shape), statistics

    def layer(self, inputs: dict[str, Any], arrays: Any) -> Any:
        if str(inputs["layer"]) == "relu":
            x = arrays["x"]
            return torch.where(x >= 0, x, torch.zeros_like(x)), {}
        return super().layer(inputs, arrays)


COMBINATIONS = (
    RowsAndDual,
    FactorTiesAndBias,
    ProximalAndLast,
    PaddingAndScale,
    StrideRhoAndRelaxed,
    EpsilonAndRelu,
)


@pytest.mark.parametrize("make", COMBINATIONS)
def test_planted_combinations_are_named(make: Any) -> None:
    found = asked(make())
    assert found.exit_code == 1
    named = {fault for explanation in found.explanations.values() for fault in explanation.faults}
    assert named == make.planted, to_text(found)
    text = to_text(found)
    assert all(fault in text for fault in make.planted)
