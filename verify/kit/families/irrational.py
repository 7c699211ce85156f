"""Cases whose answers are no fractions: roots, exponentials and logarithms, certified by balls.

The answers stand in `_balls`; how far an answer may be off is found by the numbers that count their roundings
(of roots), or by a bound of the terms (of logarithms).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._layers import backward, forward
from refldnq.verify.kit.families._make import refuse
from refldnq.verify.kit.families._numbers import draws
from refldnq.verify.kit.families._scalar import bounds

Inputs = Mapping[str, Any]

_BATCHNORM = "batchnorm-eps-missing batchnorm-eps-outside"
_LOSS = "loss-of-sum loss-in-bits"
_KL = f"{_LOSS} distillation-without-temperature distillation-not-squared distillation-reversed"


def _affine(mode: str, eps: float, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    c = shape[1]
    return {
        "layer": "batchnorm",
        "x": draws(seed, shape, -24, 24, 8),
        "weight": np.array([1.5, -0.75, 2.0])[:c],
        "bias": np.array([0.5, -0.25, 0.125])[:c],
        "running_mean": np.array([0.25, -1.5, 0.5])[:c],
        "running_var": np.array([2.0, 0.0078125, 1.25])[:c],
        "eps": eps,
        "momentum": 0.125,
        "mode": mode,
    }


@cache
def questions() -> dict[str, dict[str, Any]]:
    """What is asked, by id."""
    train, evaluated = (_affine(mode, 2.0**-7, (2, 3, 2, 2), 940) for mode in ("train", "eval"))
    narrow = _affine("train", 2.0**-10, (5, 2), 950)
    logits, target = draws(960, (3, 4), -40, 40, 8), draws(961, (3, 4), -40, 40, 8)
    labels = np.array([2, 0, 3])
    kl = {"kind": "distillation", "target": target, "labels": labels}
    return {
        "forward/batchnorm-root-train": train,
        "backward/batchnorm-root-train": {**train, "dy": draws(941, (2, 3, 2, 2), -7, 7, 2)},
        "forward/batchnorm-root-eval": evaluated,
        "backward/batchnorm-root-eval": {**evaluated, "dy": draws(942, (2, 3, 2, 2), -7, 7, 2)},
        "forward/batchnorm-root-features": narrow,
        "backward/batchnorm-root-features": {**narrow, "dy": draws(951, (5, 2), -7, 7, 2)},
        "loss/distillation": {**kl, "y": logits, "temperature": 2.0},
        "loss/distillation-plain": {**kl, "y": logits[::-1].copy(), "temperature": 1.0},
        "loss/cross-entropy": {**kl, "kind": "cross_entropy", "y": logits, "temperature": 1.0},
        "loss/large-logits": {
            **kl,
            "kind": "cross_entropy",
            "y": draws(962, (3, 4), -8, 8) * 4 + 4096.0,
            "temperature": 1.0,
        },
    }


COMMENTS: Mapping[str, tuple[str, str]] = {
    "forward/batchnorm-root-train": (
        "train mode, ε = 2**-7: a root that is no fraction",
        f"{_BATCHNORM} batchnorm-unbiased batchnorm-always-eval",
    ),
    "backward/batchnorm-root-train": (
        "its gradients, through mean and variance",
        f"{_BATCHNORM} batchnorm-statistics-constant batchnorm-variance-constant",
    ),
    "forward/batchnorm-root-eval": (
        "eval mode, one running variance as small as ε",
        f"{_BATCHNORM} batchnorm-always-train",
    ),
    "backward/batchnorm-root-eval": ("its gradients", f"{_BATCHNORM} batchnorm-scale-gradient-unnormalized"),
    "forward/batchnorm-root-features": ("features, ε = 2**-10", f"{_BATCHNORM} batchnorm-unbiased"),
    "backward/batchnorm-root-features": ("its gradients", f"{_BATCHNORM} batchnorm-variance-constant"),
    "loss/distillation": ("class probabilities at temperature 2", _KL),
    "loss/distillation-plain": ("at temperature 1", f"{_LOSS} distillation-reversed"),
    "loss/cross-entropy": ("three images, four classes", _LOSS),
    "loss/large-logits": ("logits near 4096: their exponentials overflow", f"{_LOSS} loss-overflows"),
}
"""By id: what it shows, and what it catches."""


def _loss_bounds(inputs: Inputs, outputs: Mapping[str, Array]) -> dict[str, Array]:
    # log softmax is off by few roundings of the logits' size, plus those of a sum of k terms; probabilities
    # by that share of themselves.
    y, n = np.asarray(inputs["y"]), len(inputs["y"])
    kl = inputs["kind"] == "distillation"
    temperature = float(inputs["temperature"]) if kl else 1.0
    tables = [y / temperature] + ([np.asarray(inputs["target"]) / temperature] if kl else [])
    spread = 8 * max(float(np.abs(table).max()) for table in tables) + y.shape[1] + 12
    logs = [table - table.max(axis=1, keepdims=True) for table in tables]
    logs = [table - np.log(np.exp(table).sum(axis=1, keepdims=True)) for table in logs]
    other = np.exp(logs[1]) if kl else np.eye(y.shape[1])[np.asarray(inputs["labels"])]
    terms = other * (sum(np.abs(table) for table in logs) + len(logs))
    loss = temperature**2 * terms.sum() / n * spread / 4
    dy = temperature / n * (np.exp(logs[0]) + other) * spread / 4
    # To few digits, so that no library's exponential matters.
    return {
        "loss": np.array(float(f"{loss:.3e}")),
        "dy": np.array([[float(f"{v:.3e}") for v in row] for row in dy]),
    }


def make_certified(id_: str) -> Case:
    """A case whose answers come from `_balls`."""
    from refldnq.verify.kit.families._balls import BALLS  # which is made from the questions

    inputs, op = questions()[id_], id_.partition("/")[0]
    comment, catches = COMMENTS[id_]
    if op == "loss":
        shapes: Mapping[str, tuple[int, ...]] = {"loss": (), "dy": np.shape(inputs["y"])}
    else:
        near = forward(inputs, near=True) if op == "forward" else backward(inputs, near=True)
        shapes = {name: array.shape for name, array in near.items()}
    outputs = {
        name: np.array([float.fromhex(one) for one in BALLS[id_][name]]).reshape(shape)
        for name, shape in shapes.items()
    }
    bound = (
        _loss_bounds(inputs, outputs) if op == "loss" else {name: bounds(one) for name, one in near.items()}
    )
    return Case(
        op=op,
        id=id_,
        comment=comment,
        tier="certified",
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs=outputs,
        compare=dict.fromkeys(outputs, "ulp"),
        bound=bound,
        certified="arb",
    )


def cases() -> Iterator[Case]:
    """All of them, and what the losses must refuse."""
    for id_ in questions():
        yield make_certified(id_)
    given = questions()["loss/distillation"]
    spoiled = np.where(given["y"] == given["y"][0, 0], np.nan, given["y"])
    yield refuse("loss", "nan", "a logit is NaN", {**given, "y": spoiled}, "non-finite-accepted")
