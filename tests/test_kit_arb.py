"""Cases certified by balls: what is written down is what python-flint proves; two other channels agree."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq.verify.kit import channels_layers, rules
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families import _arb, _balls, _layers, irrational
from refldnq.verify.kit.families._scalar import Number, values
from refldnq.verify.kit.reference import Reference

CASES = tuple(irrational.cases())
ANSWERED = tuple(case for case in CASES if case.error is None)


def near(got: Any, want: Any, allowed: float) -> bool:
    return bool(
        np.max(np.abs(np.asarray(got, dtype=float) - want)) <= allowed * max(1.0, np.max(np.abs(want)))
    )


def by_loops(inputs: Any) -> tuple[float, list[list[float]]]:
    """The losses by their definitions, entry by entry."""
    T = inputs["temperature"] if inputs["kind"] == "distillation" else 1.0

    def softmax(row: list[float]) -> list[float]:
        shifted = [math.exp(v / T - max(row) / T) for v in row]
        return [v / math.fsum(shifted) for v in shifted]

    n, total, dy = len(inputs["y"]), [], []
    for i, row in enumerate(inputs["y"].tolist()):
        q = softmax(row)
        if inputs["kind"] == "distillation":
            p = softmax(inputs["target"][i].tolist())
        else:
            p = [float(k == inputs["labels"][i]) for k in range(len(q))]
        total += [a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a]
        dy.append([T / n * (b - a) for a, b in zip(p, q, strict=True)])
    return T**2 / n * math.fsum(total), dy


def test_what_is_written_down_is_what_is_proved() -> None:
    pytest.importorskip("flint")
    written = Path(_balls.__file__).read_text("utf-8")
    assert "".join(written.split()).replace(",)", ")") == "".join(_arb.text().split()).replace(",)", ")")


def test_the_radii_are_far_below_what_an_answer_may_be_off_by() -> None:
    pytest.importorskip("flint")
    for case in ANSWERED:
        for name, array in _arb.balls(case.op, case.inputs).items():
            for ball, value, bound in zip(
                array.ravel(), case.outputs[name].ravel(), np.ravel(case.bound[name]), strict=True
            ):
                rounded, radius = _arb.rounded(ball)
                assert rounded == value and radius * abs(value) < 1e-40 * rules.FEW * 2.0**-53 * bound


def test_a_ball_that_is_too_wide_is_refused() -> None:
    flint = pytest.importorskip("flint")
    with pytest.raises(ValueError, match="must round to one number"):
        _arb.rounded(flint.arb(1, 1e-10))


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_other_channels_agree(case: Case) -> None:
    assert case.certified == "arb"
    found = getattr(Reference(), case.op)(**case.inputs)
    if case.op == "loss":
        loops = dict(zip(("loss", "dy"), by_loops(case.inputs), strict=True))
    else:
        loops = channels_layers.loops(case.op, case.inputs)
        exact = getattr(_layers, case.op)(case.inputs, near=True)
        for name, array in exact.items():  # fractions of 160 bits round to the same numbers
            assert np.array_equal(values(array).astype(float), case.outputs[name]), name
    for name, want in case.outputs.items():
        assert near(found[name], want, 2.0**-36) and near(loops[name], want, 1e-7), name
        planted = want + 1e-6 * max(1.0, float(np.max(np.abs(want))))
        assert not near(loops[name], planted, 1e-7)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_reference_passes(dtype: str) -> None:
    for case in ANSWERED:
        answers = getattr(Reference(dtype=dtype), case.op)(**case.inputs)
        assert [str(one) for one in rules.judge(case, answers, dtype) if not one.ok] == [], case.id


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_bounds_are_tight_enough_to_see_single_precision(case: Case) -> None:
    answers = {
        name: np.asarray(array, dtype=np.float32).astype(float) for name, array in case.outputs.items()
    }
    assert not all(one.ok for one in rules.judge(case, answers, "float64"))


def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    for case in ANSWERED:
        if case.op != "loss":
            continue
        y = torch.tensor(case.inputs["y"], requires_grad=True)
        if case.inputs["kind"] == "cross_entropy":
            loss = torch.nn.functional.cross_entropy(y, torch.tensor(case.inputs["labels"]))
        else:
            T = case.inputs["temperature"]
            logs = torch.log_softmax(torch.tensor(case.inputs["target"]) / T, 1)
            kl = torch.nn.functional.kl_div(
                torch.log_softmax(y / T, 1), logs, reduction="sum", log_target=True
            )
            loss = T**2 * kl / len(y)
        loss.backward()
        answers = {"loss": loss.detach().numpy(), "dy": y.grad.numpy()}
        assert all(one.ok for one in rules.judge(case, answers, "float64")), case.id


def test_a_near_root_is_near() -> None:
    root = Number(2).sqrt(near=True)
    assert abs(root.value**2 - 2) < 2 * 2.0**-150 and root.depth == 2
    assert Number(4).sqrt(near=True).value == 2
