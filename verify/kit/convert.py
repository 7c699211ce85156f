"""Questions under other conventions: the same inputs, the right answers found anew.

What an implementation declares otherwise than the paper is what it always does. `to_paper` converts answers
where the difference has an inverse; here the question is answered again, in rational arithmetic, as the
implementation understands it. A declared unit of ρ, padding, start, projection or stopping rule is then
tested as any other, and an undeclared one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import MATTERS, Conventions, Question, geometry
from refldnq.verify.kit.families._exact import Exact, alternate, nearest, optimum, solve
from refldnq.verify.kit.families._numbers import fractions, rounded

Inputs = Mapping[str, Any]

FROM_RULE: Mapping[str, str] = {
    "restart": "restart",
    "alpha0": "alpha_start",
    "passes": "passes",
    "alpha_tolerance": "alpha_tolerance",
    "kept_pass": "kept_pass",
    "ties": "ties",
    "stop": "stop",
    "refit": "refit",
}
"""By convention: the input of ADMM that says the same."""

REMADE = ("patches", "hessian", "proximal", "admm")
"""Operations whose right answers are found anew."""


def under(case: Question, conventions: Conventions) -> Question | str:
    """The question as an implementation with these conventions understands it.

    Parameters
    ----------
    case : Question
        Under the paper's conventions, unless it says otherwise.
    conventions : Conventions
        What was declared.

    Returns
    -------
    Question or str
        The same object if nothing depends on the difference; a case of the same id with its `conventions`,
        the inputs as they are understood, and the right answers to them; or why there is none.

    Notes
    -----
    The implementation is asked with the inputs of the original; those of the converted case are for the
    judge, and for replays of the reference, which has the paper's conventions and is told the rest.

    Examples
    --------
    >>> from refldnq.verify.kit.cases import all_cases
    >>> case = next(one for one in all_cases() if one.id == "proximal/small")
    >>> under(case, Conventions(ties="larger")) is case
    True
    >>> changed = under(case, Conventions(rho="mean_diagonal"))
    >>> unit = np.trace(case.inputs["H"]) / len(case.inputs["H"])
    >>> float(changed.inputs["rho"] / unit - case.inputs["rho"])
    0.0
    """
    known = [name for name in case.conventions if hasattr(conventions, name)]
    stated = Conventions.of({name: case.conventions[name] for name in known})
    other = [name for name in conventions.differences(stated) if _matters(name, case)]
    if not other:
        return case
    what = f"declared otherwise: {', '.join(other)}"
    if case.error is not None:
        return what if "padding" in other or ("start" in other and _start_is_wrong(case.inputs)) else case
    if known or case.op not in REMADE or not isinstance(case, Case) or case.certified != "exact-Q":
        return what
    found = _remade(case, conventions)
    return f"{what}: {found}" if isinstance(found, str) else found


@lru_cache(maxsize=4096)
def _remade(case: Case, conventions: Conventions) -> Case | str:
    remake = _admm if case.op == "admm" else _window if case.op in ("patches", "hessian") else _proximal
    try:
        inputs = remake(dict(case.inputs), conventions)
        found: Exact = solve(case.op, inputs)
    except (ValueError, ZeroDivisionError, TypeError) as error:
        return str(error)
    outputs = {name: rounded(value) for name, value in found.outputs.items()}
    names = conventions.differences(Conventions())
    return replace(
        case,
        conventions={name: getattr(conventions, name) for name in names},
        catches=(),
        inputs=inputs,
        outputs=outputs,
        compare=found.compare,
        bound={name: rounded(value) for name, value in found.bound.items()},
        margin=found.margin,
        allowed=found.allowed,
        trace={name: rounded(value) for name, value in found.trace.items()},
        kappa=found.kappa,
        scored=any(np.any(array) for array in outputs.values()),
    )


def _window(inputs: dict[str, Any], conventions: Conventions) -> dict[str, Any]:
    from refldnq.verify.kit.reference import same_padding

    kernel, stride, _, dilation = geometry(inputs)
    size = np.asarray(inputs["X"]).shape[2:]
    return {**inputs, "padding": np.array(same_padding(size, kernel, stride, dilation))}


def _proximal(inputs: dict[str, Any], conventions: Conventions) -> dict[str, Any]:
    rho = float(inputs["rho"]) * unit_of_rho(inputs["H"], conventions.rho)
    if not rho > 0:
        raise ValueError(f"rho is {rho:g}")
    return {**inputs, "rho": rho}


def unit_of_rho(H: Any, kind: str) -> float:
    """The unit of ρ for one block, correctly rounded but for that of the largest eigenvalue.

    Examples
    --------
    >>> [unit_of_rho(np.diag([1.0, 3.0]), kind) for kind in ("absolute", "h00", "mean_diagonal")]
    [1.0, 1.0, 2.0]
    """
    units: Mapping[str, Callable[[], Any]] = {
        "absolute": lambda: 1,
        "h00": lambda: H[0, 0],
        "mean_diagonal": lambda: sum(fractions(np.diag(H))) / len(H),
        "lambda_max": lambda: np.linalg.eigvalsh(H)[-1],
    }
    return float(units[kind]())


def _start_is_wrong(inputs: Inputs) -> bool:
    # Whether the inputs are refused for a start that is then not looked at.
    return not all(np.isfinite(inputs[name]).all() for name in ("G0", "lam0") if name in inputs)


def _admm(inputs: dict[str, Any], conventions: Conventions) -> dict[str, Any]:
    paper = Conventions()
    changed = {name: getattr(conventions, name) for name in conventions.differences(paper)}
    found = _proximal(inputs, conventions)
    found |= {rule: changed[name] for name, rule in FROM_RULE.items() if name in changed}
    found |= {name: changed[name] for name in ("projection", "returned") if name in changed}
    found["distinct"] = False  # the certificate takes any point that is as good
    return found if conventions.start == paper.start else {**found, **_start(found, conventions)}


def _start(inputs: Inputs, conventions: Conventions) -> dict[str, Any]:
    # G⁰ and λ⁰, rounded: what follows starts from these numbers.
    W, values = fractions(inputs["W_bar"]), fractions(inputs["values"])
    flat = W.ravel()
    if conventions.start == "direct":
        alpha = sum(abs(flat)) / len(flat)
        codes = nearest(flat, alpha, values, conventions.ties)[0]
    elif inputs["projection"] == "exact":
        point = optimum(flat, values, conventions.ties, distinct=False)
        codes, alpha = point.codes, point.alpha
    else:
        point = alternate(
            flat,
            values,
            Fraction(0),
            conventions.passes,
            conventions.ties,
            tolerance=Fraction(conventions.alpha_tolerance),
            best=conventions.kept_pass == "best",
        )
        codes, alpha = point.codes, point.alpha
    G0 = rounded((alpha * values[codes]).reshape(W.shape))
    rho = type(flat[0])(inputs["rho"])
    lam0 = (
        -(fractions(inputs["H"]) @ (fractions(G0) - W)) / rho if conventions.start == "guaranteed" else 0 * W
    )
    return {"G0": G0, "lam0": rounded(lam0)}


def _matters(convention: str, case: Question) -> bool:
    # Whether the right answer can depend on it. Often SAME is what the case pads anyway.
    from refldnq.verify.kit.reference import same_padding

    if convention not in MATTERS.get(case.op, ()):
        return False
    inputs = case.inputs
    if convention == "ties" and case.op in ("quantizer", "solve"):
        margin: Any = getattr(case, "margin", {}).get("Q", 0.0)
        return bool(np.min(margin) == 0)
    if convention in _ADMM_ONLY and inputs.get("solver", "admm") != "admm":
        return False
    if convention != "padding" or "X" not in inputs or "weight_shape" not in inputs:
        return True
    size = np.asarray(inputs["X"]).shape[2:]
    kernel, stride, padding, dilation = geometry(inputs)
    return len(size) == 2 and same_padding(size, kernel, stride, dilation) != padding


_ADMM_ONLY = tuple(name for name in MATTERS["admm"] if name != "ties")
