"""One small network: gradients of the output error, and Algorithm 1 from the first Hessian to the output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import TINY
from refldnq.verify.kit.families import _tiny
from refldnq.verify.kit.families._layers import forward
from refldnq.verify.kit.families._make import refuse
from refldnq.verify.kit.families._numbers import draws, rounded
from refldnq.verify.kit.families._problems import POWERS
from refldnq.verify.kit.families._scalar import bounds, values

EPS = 0.125
"""The ε of batch normalization; large, so that its place matters."""


def _arrays(seed: int, channels: int, units: int, positions: int, side: int = 2) -> dict[str, Any]:
    d = channels * positions
    roots = np.array([0.5, 2.0, 1.0])[:channels]
    return {
        "conv_weight": draws(seed, (channels, 1, side, side), -15, 16, 16),
        "bn_weight": np.array([1.0, -0.75, 1.5])[:channels],
        "bn_bias": np.array([0.5, 0.75, 0.25])[:channels],
        "bn_mean": np.array([0.125, -0.25, 0.5])[:channels],
        "bn_var": roots**2 - EPS,
        "fc1_weight": draws(seed + 1, (units, d), -15, 16, 16),
        "fc1_bias": draws(seed + 2, (units,), 3, 8, 8),
        "fc2_weight": draws(seed + 3, (3, units), -15, 16, 16),
        "fc2_bias": draws(seed + 4, (3,), -8, 8, 8),
    }


def _question(
    seed: int, n: int, channels: int, units: int, *, stride: int = 2, padding: Any = (0, 0, 0, 0)
) -> dict[str, Any]:
    X = draws(seed, (n, 1, 4, 4), -16, 16, 8)
    geometry = {"stride": np.array([stride, stride]), "padding": np.array(padding)}
    size = tuple((4 + sum(padding[2 * k : 2 * k + 2]) - 2) // stride + 1 for k in range(2))
    return {"X": X, **_arrays(seed + 1, channels, units, size[0] * size[1]), "eps": EPS, **geometry}


def _taught(question: dict[str, Any], seed: int) -> dict[str, Any]:
    # The teacher is the network as drawn; the student's first layer is quantized, the others have moved.
    student = dict(question)
    for k, name in enumerate(("bn_weight", "bn_bias", "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")):
        student[name] = question[name] + draws(seed + k, np.shape(question[name]), -4, 4, 32)
    weight = question["conv_weight"]
    student["conv_weight"] = np.where(np.abs(weight) < 0.3, 0.0, np.sign(weight)) * 0.5
    return {**student, **{f"teacher_{name}": question[name] for name in TINY}}


def _gradients() -> Iterator[Case]:
    loss = "loss-sum loss-half loss-mean-over-entries teacher-is-student teacher-in-train-mode"
    rows = (
        (
            "all",
            800,
            0,
            f"{loss} affine-frozen student-in-train-mode weight-gradient-mean bias-gradient-missing",
        ),
        ("behind-conv", 840, 1, f"{loss} affine-frozen batchnorm-eps-outside relu-clips-gradient"),
        ("behind-fc1", 860, 2, f"{loss} bias-gradient-missing weight-gradient-mean"),
    )
    for name, seed, frozen, catches in rows:
        question = _taught(_question(seed, 4, 2, 3), seed + 6)
        given = {**question, "frozen": frozen, "statistics": "running", "batch_size": 4}
        yield _gradient_case(name, f"running statistics, {frozen} layers frozen", given, catches)
    ragged = _taught(_question(820, 5, 2, 3), 826)
    yield _gradient_case(
        "ragged-batches",
        "five images in batches of three and two",
        {**ragged, "frozen": 1, "statistics": "running", "batch_size": 3},
        "loss-means-averaged",
    )
    yield _gradient_case(
        "batch-statistics",
        "the student in train mode, the teacher in eval mode",
        {
            **_trained(_taught(_question(860, 4, 1, 3), 866)),
            "frozen": 1,
            "statistics": "batch",
            "batch_size": 4,
        },
        "batchnorm-unbiased batchnorm-always-eval teacher-in-train-mode loss-half",
    )
    yield _gradient_case(
        "batch-statistics-all",
        "gradients through mean and variance to the first layer",
        {
            **_trained(_taught(_question(880, 4, 1, 3), 886)),
            "frozen": 0,
            "statistics": "batch",
            "batch_size": 4,
        },
        "batchnorm-statistics-constant batchnorm-variance-constant batchnorm-always-eval",
    )
    bad = dict(question)
    bad["X"] = np.where(question["X"] == question["X"][0, 0, 0, 0], np.nan, question["X"])
    yield refuse("update_grad", "nan", "pixels are NaN", {**given, "X": bad["X"]})


def _trained(question: dict[str, Any]) -> dict[str, Any]:
    # ε for which the root of the batch's variance is rational; the running variance follows.
    layer = {"layer": "conv2d", "x": question["X"], "weight": question["conv_weight"]}
    y = forward({**layer, "stride": question["stride"], "padding": question["padding"]})["y"]
    flat = [float(one.value) for one in y.ravel()]
    variance = float(np.var(flat))  # of dyadic numbers, sixteen or so: nothing rounds
    root = np.ceil(2 * np.sqrt(variance) + 0.5) / 2
    eps = float(root**2 - variance)
    var = np.array([np.ceil(2 * np.sqrt(eps) + 0.5) / 2]) ** 2 - eps
    return {**question, "eps": eps, "bn_var": var, "teacher_bn_var": var}


def _gradient_case(name: str, comment: str, inputs: dict[str, Any], catches: str) -> Case:
    found = _tiny.update_grad(inputs)
    return Case(
        op="update_grad",
        id=f"update_grad/{name}",
        comment=comment,
        tier="certified",
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={key: rounded(values(array)) for key, array in found.items()},
        compare=dict.fromkeys(found, "ulp"),
        bound={key: bounds(array) for key, array in found.items()},
    )


def _networks() -> Iterator[Case]:
    direct = {"values": POWERS[3], "solver": "direct", "rho": 1.0, "K": 0}
    yield _network_case(
        "direct",
        "no update: every layer rounded directly",
        {**_question(960, 4, 2, 3), **direct, "steps": 0, "rate": 0.0},
        "hessian-of-teacher quantizer-scale-max quantizer-scale-0.7-mean quantizer-scale-a-column",
    )
    yield _network_case(
        "direct-five-levels",
        "no update, five levels, padding and overlapping windows",
        {
            **_question(820, 2, 1, 3, padding=(1, 0, 0, 1)),
            **direct,
            "values": POWERS[5],
            "steps": 0,
            "rate": 0.0,
        },
        "hessian-of-teacher quantizer-too-good layer-kernel-flipped",
    )
    yield _network_case(
        "direct-updated",
        "a step of gradient descent behind every quantized layer",
        {**_question(1000, 4, 2, 3), **direct, "steps": 1, "rate": 2.0**-6},
        "update-ascends update-moves-frozen hessian-before-update update-discarded affine-frozen "
        "teacher-in-train-mode loss-half loss-sum loss-mean-over-entries hessian-of-teacher",
    )
    admm = {"values": POWERS[3], "solver": "admm", "steps": 0, "rate": 0.0}
    yield _network_case(
        "admm",
        "no update: two iterations of ADMM a layer",
        {**_question(924, 4, 1, 3), **admm, "rho": 16.0, "K": 2},
        "network-rounds-directly hessian-of-teacher",
    )


def _network_case(name: str, comment: str, inputs: dict[str, Any], catches: str) -> Case:
    run = _tiny.network(inputs)
    codes = [key for key in run.outputs if key.startswith("Q_")]
    others = {key: array for key, array in run.outputs.items() if key not in codes}
    return Case(
        op="network",
        id=f"network/{name}",
        comment=comment,
        tier="certified",
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={
            key: array if key in codes else rounded(values(array)) for key, array in run.outputs.items()
        },
        compare={key: "code" if key in codes else "ulp" for key in run.outputs},
        bound={key: bounds(array) for key, array in others.items()},
        margin=run.margin,
        allowed=run.allowed,
    )


def cases() -> Iterator[Case]:
    """Gradients, then whole runs."""
    yield from _gradients()
    yield from _networks()
