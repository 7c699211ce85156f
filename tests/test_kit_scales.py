"""One scale a channel in the conformance kit: three channels of computation agree, planted errors show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refldnq.codebook import scaled
from refldnq.projection import project
from refldnq.solvers.base import get_solver
from refldnq.solvers.direct import DirectSettings
from refldnq.solvers.exact import ExactSettings
from refldnq.verify.kit import channels, channels_layers, rules
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families import scales
from refldnq.verify.kit.reference import Reference
from refldnq.verify.naive.hessian import objective

CASES = tuple(scales.cases())
ANSWERED = tuple(case for case in CASES if case.error is None)


def columns(op: str, inputs: Mapping[str, Any], answer: Any) -> list[dict[str, Any]]:
    """What another channel answers to every column by itself."""
    names = {"project": ("V",), "admm": ("W_bar", "G0", "lam0"), "solve": ("W",)}[op]
    count = np.shape(inputs[names[0]])[1]
    found = []
    for o in range(count):
        part: dict[str, Any] = {name: np.asarray(inputs[name])[:, o : o + 1] for name in names}
        if op == "project":
            part = {"V": part["V"].ravel(), "alpha0": float(inputs["alpha0"][o])}
        more = {"rho": 1.0, "K": 0} if op == "solve" else {}
        found.append(dict(answer(op, {**inputs, **part, **more})))
    return found


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
@pytest.mark.parametrize("channel", ["library", "loops"])
def test_channels_agree(case: Case, channel: str) -> None:
    op = case.op.removesuffix("_channels")
    module = channels_layers if op == "solve" else channels
    parts = columns(op, case.inputs, getattr(module, channel))
    axis = {"project": 1, "admm": 2, "solve": 1}[op]
    for name in set(case.outputs) - {"E", "best", "result", "objective"}:
        shapes = [
            part[name] if np.ndim(part[name]) != 1 or name == "alpha" else part[name][:, None]
            for part in parts
        ]
        joined = np.stack(shapes, axis=-1) if name == "alpha" else np.concatenate(shapes, axis=axis)
        assert np.allclose(joined, case.outputs[name], rtol=1e-11, atol=1e-12), name
    if op == "admm":
        E = np.sum([part["E"] for part in parts], axis=0)
        assert np.allclose(E, case.outputs["E"], rtol=1e-12) and np.argmin(E) == case.outputs["best"]
        points = np.concatenate([case.inputs["G0"][None], case.outputs["G"]])
        assert np.array_equal(points[np.argmin(E)], case.outputs["result"])
    if op == "solve":
        G = case.outputs["alpha"] * case.inputs["values"][case.outputs["Q"]]
        assert np.isclose(objective(case.inputs["H"], case.inputs["W"], G), case.outputs["objective"])


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_the_library_has_the_same_with_its_own_setting(case: Case) -> None:
    inputs = case.inputs
    if case.op == "project_channels":
        starts = np.asarray(inputs["alpha0"])[None]
        if inputs["kind"] != "exact" and (starts > 0).all():
            found = project(inputs["V"][None], scaled(inputs["values"]), alpha0=starts, per_channel=True)
        else:
            found = project(
                inputs["V"][None], scaled(inputs["values"]), method=inputs["kind"], per_channel=True
            )
        if (starts > 0).any() and not (starts > 0).all():
            return  # the library takes all starts or none
        assert np.array_equal(found.codes[0], case.outputs["Q"])
        assert np.allclose(found.alpha[0], case.outputs["alpha"], rtol=1e-13)
    if case.op == "solve_channels":
        each: Any = {"direct": DirectSettings, "exact": ExactSettings}[inputs["solver"]]
        solved = get_solver(inputs["solver"])(
            inputs["H"][None], inputs["W"][None], scaled(inputs["values"]), each(per_channel=True)
        )
        assert np.array_equal(solved.codes[0], case.outputs["Q"])
        assert np.isclose(solved.objective, case.outputs["objective"], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_reference_passes(dtype: str) -> None:
    for case in ANSWERED:
        answers = getattr(Reference(dtype=dtype), case.op)(**case.inputs)
        assert [str(one) for one in rules.judge(case, answers, dtype) if not one.ok] == [], case.id


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_a_wrong_entry_of_one_column_fails(case: Case) -> None:
    for name, value in case.outputs.items():
        wrong = np.array(value)
        if case.op == "solve_channels" and name == "Q":
            continue  # judged by the objective
        wrong.flat[-1] += 1 if wrong.dtype.kind == "i" else 1e-6 * (1 + abs(wrong.flat[-1]))
        assert not all(one.ok for one in rules.judge(case, {**case.outputs, name: wrong}, "float64")), name


def test_margins_are_asked_for() -> None:
    case = next(case for case in ANSWERED if case.id == "project_channels/different-sizes")
    tied = {
        **case.inputs,
        "V": np.array([[1.0, 4.0], [0.5, 2.0]]),
        "alpha0": np.array([1.0, 4.0]),
        "passes": 0,
    }
    with pytest.raises(ValueError, match="must have margins"):
        scales._projection("tied", "", tied, "")
    assert replace(case).op == "project_channels"
