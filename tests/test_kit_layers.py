"""Cases of layers, updates, networks, quantizers and solvers: three channels, faults, planted bugs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from refldnq.verify.kit import channels_layers, rules
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import LAYER_KINDS
from refldnq.verify.kit.families import layers, networks, solvers
from refldnq.verify.kit.families._scalar import Number, gradients
from refldnq.verify.kit.faults import turn
from refldnq.verify.kit.faults_layers import LAYER_FAULTS
from refldnq.verify.kit.reference import Reference


def _cases() -> Iterator[Case]:
    yield from layers.cases()
    yield from networks.cases()
    yield from solvers.cases()


CASES = tuple(_cases())
ANSWERED = tuple(case for case in CASES if case.error is None)


def _passes(case: Case, reference: Reference) -> bool:
    with np.errstate(all="ignore"):
        try:
            answers = getattr(reference, case.op)(**case.inputs)
        except (ValueError, TypeError, ArithmeticError, LookupError):
            return case.error is not None
        return case.error is None and all(one.ok for one in rules.judge(case, answers, reference.dtype.name))


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_three_channels_agree(case: Case) -> None:
    assert channels_layers.disagreements(case) == ()


@pytest.mark.parametrize("id_", ["forward/conv", "backward/maxpool-ties", "update_grad/all", "network/admm"])
def test_a_planted_error_of_the_answers_is_seen(id_: str) -> None:
    case = next(case for case in CASES if case.id == id_)
    name = next(iter(case.outputs))
    spoiled = np.array(case.outputs[name], dtype=np.float64)
    spoiled.flat[0] += 1e-3
    wrong = replace(case, outputs={**case.outputs, name: spoiled})
    assert len(channels_layers.disagreements(wrong)) == 3  # no channel goes along


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_reference_passes_every_case(dtype: str) -> None:
    reference = Reference(dtype=dtype)
    assert [case.id for case in CASES if not _passes(case, reference)] == []


def test_every_fault_fails_a_case_and_every_promise_is_kept() -> None:
    for fault in LAYER_FAULTS:
        knobs = turn([fault.id])
        assert knobs is not None
        mine = [case for case in ANSWERED if case.op in fault.ops]
        caught = {case.id for case in mine if not _passes(case, Reference(knobs))}
        assert caught, fault.id
        promised = {case.id for case in ANSWERED if fault.id in case.catches}
        assert promised <= caught, fault.id


def test_every_kind_of_layer_has_a_case_forward_or_backward() -> None:
    assert {case.inputs["layer"] for case in ANSWERED if "layer" in case.inputs} == set(LAYER_KINDS)


def test_the_cases_are_the_same_each_time() -> None:
    for first, second in zip(CASES, _cases(), strict=True):
        assert first.id == second.id
        for name, array in first.outputs.items():
            assert np.array_equal(array, second.outputs[name])


def test_gptq_and_ldlq_have_the_same_answers() -> None:
    by_id = {case.id: case for case in CASES}
    for name in ("fixed", "seven-levels"):
        gptq, ldlq = by_id[f"solve/gptq-{name}"], by_id[f"solve/ldlq-{name}"]
        assert np.array_equal(gptq.outputs["Q"], ldlq.outputs["Q"])


def test_derivatives_of_numbers_are_exact() -> None:
    x, y = Number(Fraction(9, 4)), Number(-2)
    z = (x.sqrt() * y - x / y) * x
    dx, dy = gradients([z], [Number(1)], [x, y])
    # z = x^(3/2) y - x²/y
    assert dx.value == Fraction(3, 2) * Fraction(3, 2) * -2 + Fraction(9, 4)
    assert dy.value == Fraction(27, 8) + Fraction(81, 16) / 4
    with pytest.raises(ValueError, match="square"):
        Number(2).sqrt()
