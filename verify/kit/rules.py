"""Pass or fail: backward errors, bounds by element and decision margins; never a bare relative tolerance.

u is the unit roundoff of the declared type, N the length of a sum. A tolerance grows with N inside a proven
bound, never with the size of an array. Every test is written so that NaN fails it.

=============  ==============================================================================================
compared as    an answer is right if
=============  ==============================================================================================
``exact``      it is equal; floats to the right answer rounded to the declared type
``ulp``        its error is at most 4 u bound, each entry
``dot``        its error is at most (N + 4) u bound, each entry; of α, twice that; of G = αQ, that of α times
               the code's magnitude, and u times G's
``backward``   the residual of its system is at most 30 d u times the magnitudes in it, each column
``own``        an objective: it is that of the codes and the scale answered, as a sum in whatever order
``code``       it is equal where the margin exceeds (2N + 16) u; nearer to a threshold it is one of the codes
               that the case allows, or where rounding may lead the alternation; of ``stop`` the two answers
               are judged together: a run must be able to end with both (`ends`)
=============  ==============================================================================================

A trajectory of ADMM is judged by its certificate (`trajectory`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from refldnq._checks import check_choice
from refldnq._typing import Array, Float64Array
from refldnq.verify.kit.contract import TRAJECTORIES, positions

if TYPE_CHECKING:
    from refldnq.verify.kit.cases import Case

BACKWARD = 30.0
"""Most units d·u of a residual: the threshold of LAPACK's own tests (LAPACK Working Note 41)."""

FEW = 4.0
"""Roundings of an answer compared by ``ulp``."""

WARN = 8.0
"""A sum whose error exceeds this times √N roundings is right, but worse than random roundings make it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What was found of one answer.

    Parameters
    ----------
    name : str
        The answer.
    ok : bool
        Whether it is right.
    message : str
        What was got and wanted where it is first wrong, or what is remarkable of a right one.
    ratio : float
        Its largest error in the units of the rule; infinite if it cannot be measured.
    limit : float
        Largest ratio of a right answer.
    licensed : bool
        Whether it is right on another branch than expected, where rounding decides.
    """

    name: str
    ok: bool
    message: str = ""
    ratio: float = 0.0
    limit: float = 0.0
    licensed: bool = False

    def __str__(self) -> str:
        return self.message or f"{self.name}: {'right' if self.ok else 'wrong'}"


class UnusableError(Exception):
    """An answer cannot be compared at all."""


def judge(case: Case, answers: Mapping[str, Any], dtype: str) -> list[Judgement]:
    """Judge all answers to a case.

    Parameters
    ----------
    case : Case
        The question.
    answers : mapping
        Answers by name, in the paper's conventions; what the case does not ask for is not looked at. The name
        ``error`` says that the inputs were refused.
    dtype : {'float64', 'float32'}
        The type that the implementation declares.

    Returns
    -------
    list of Judgement
        One for every answer that the case asks for, at least one.

    Raises
    ------
    ValueError
        If `dtype` is unknown, or the case compares by a sum of unknown length.

    Examples
    --------
    >>> from refldnq.verify.kit.cases import Case
    >>> one = np.ones(1)
    >>> case = Case(op="dual", id="dual/a", comment="", tier="certified", inputs={"lam": one, "Theta": one,
    ...     "G": one}, outputs={"lam_new": one}, compare={"lam_new": "ulp"}, bound={"lam_new": 3 * one})
    >>> judge(case, {"lam_new": one + 4e-16}, "float64")[0].ok
    True
    >>> print(judge(case, {"lam_new": 2 * one}, "float64")[0])
    lam_new[0]: got 2, want 1; ratio 3e+15 > 4
    """
    check_choice("dtype", dtype, ("float32", "float64"))
    if not isinstance(answers, Mapping):
        return [_wrong("answers", f"answers must be given by name, got {type(answers).__name__}")]
    refused = "error" in answers
    if case.error is not None:
        message = "" if refused else f"must be refused ({case.error}), got an answer"
        return [Judgement(name="error", ok=refused, message=message)]
    if refused:
        return [_wrong(name, f"{name}: the inputs were refused: {answers['error']}") for name in case.outputs]
    with np.errstate(all="ignore"):
        return _Judge(case, answers, dtype).all()


class _Judge:
    def __init__(self, case: Case, answers: Mapping[str, Any], dtype: str) -> None:
        self.case, self.answers, self.dtype = case, answers, dtype
        self.u = unit_roundoff(dtype)

    def all(self) -> list[Judgement]:
        case = self.case
        readable: dict[str, Array] = {}
        found: dict[str, Judgement] = {}
        right = case.outputs
        if case.op in TRAJECTORIES:
            from refldnq.verify.kit.trajectory import expected

            right = expected(case, self.answers)
        for name, want in right.items():
            try:
                readable[name] = read(name, self.answers, want)
            except UnusableError as problem:
                found[name] = _wrong(name, str(problem))
        if case.op in TRAJECTORIES:
            from refldnq.verify.kit.trajectory import certificate

            if not found:
                return certificate(case, readable, self.dtype)
            broken = ", ".join(found)  # a trajectory is judged as a whole
            found |= {name: _wrong(name, f"{name}: not judged without {broken}") for name in readable}
        elif "Q" in readable and case.compare.get("Q") == "code":
            found |= self.codes(readable)
        elif case.op == "stop" and not found:
            found |= self.ended(readable)
        for name, got in readable.items():
            if name not in found:
                own = case.compare[name] == "own"
                found[name] = self.own(name, got, readable) if own else self.one(name, got)
        return [found[name] for name in case.outputs]

    def own(self, name: str, got: Array, readable: Mapping[str, Array]) -> Judgement:
        """An objective against that of the scale and the codes beside it."""
        if not {"Q", "alpha"} <= readable.keys():
            return _wrong(name, f"{name}: not judged without Q and alpha")
        H, W, values = (np.asarray(self.case.inputs[key], dtype=np.float64) for key in ("H", "W", "values"))
        codes = readable["Q"]
        if np.any((codes < 0) | (codes >= len(values))):
            return _wrong(name, f"{name}: not judged with codes of no level")
        f, bound = quadratic(H, W, readable["alpha"] * values[codes])
        return within(name, got, np.asarray(f), np.asarray(bound), quadratic_limit(W), self.u)

    def one(self, name: str, got: Array) -> Judgement:
        case, want = self.case, np.asarray(self.case.outputs[name])
        how = case.compare[name]
        if how == "exact":
            return equal(name, got, want, self.dtype)
        if how == "backward":
            return self.solved(name, got, want)
        if how == "code":
            return self.coded(name, got, want)
        bound = np.asarray(case.bound.get(name, np.abs(want)), dtype=np.float64)
        if how == "ulp":
            return within(name, got, want, bound, FEW, self.u)
        length = self.length()
        return self.summed(name, got, want, bound, length)

    def summed(self, name: str, got: Array, want: Array, bound: Array, length: int) -> Judgement:
        # Of α (17) twice the roundings of a sum; of G = αQ those and that of the product.
        twice = 2.0 if name in ("alpha", "G", "result") else 1.0
        limit = twice * (length + 4)
        if name in ("G", "result"):
            bound = bound + np.abs(want) / limit
        found = within(name, got, want, bound, limit, self.u)
        if found.ok and found.ratio > WARN * math.sqrt(length):
            words = (
                f"{name}: right, but its ratio {found.ratio:.2g} exceeds {WARN:g} times the root of {length}"
            )
            return Judgement(name=name, ok=True, message=words, ratio=found.ratio, limit=limit)
        return found

    def length(self) -> int:
        inputs, op = self.case.inputs, self.case.op
        if op == "hessian":
            return int(np.asarray(inputs["X"]).shape[0]) * positions(inputs)
        for sized, name in (("project", "V"), ("quantizer", "W"), ("solve", "W"), ("admm", "W_bar")):
            if op == sized:
                return int(np.size(inputs[name]))
        raise ValueError(f"`compare` of {self.case.id} must not be 'dot': the length of its sums is unknown.")

    def solved(self, name: str, got: Array, want: Array) -> Judgement:
        given = {
            key: np.asarray(self.case.inputs[key], dtype=np.float64) for key in ("H", "W_bar", "G", "lam")
        }
        return residual(name, got, **given, rho=float(self.case.inputs["rho"]), u=self.u, want=want)

    def coded(self, name: str, got: Array, want: Array) -> Judgement:
        case = self.case
        margin = np.asarray(case.margin.get(name, np.inf), dtype=np.float64)
        allowed = np.asarray(case.allowed.get(name, np.left_shift(1, np.asarray(want).astype(np.int64))))
        clear = margin > decision_limit(want.size, self.u)
        right = (got >= 0) & (got < 63)
        right &= (np.right_shift(allowed, np.where(right, got, 0).astype(np.int64)) & 1) == 1
        right = (got == want) | (right & ~clear)
        if np.all(right):
            return Judgement(name=name, ok=True, licensed=bool(np.any(got != want)))
        at = _first(~right)
        where = np.broadcast_to(margin, want.shape)[at]
        return Judgement(
            name=name,
            ok=False,
            message=f"{_entry(name, at)}: got code {got[at]}, want {want[at]}; margin {where:.2g}",
            ratio=math.inf,
        )

    def ended(self, readable: Mapping[str, Array]) -> dict[str, Judgement]:
        """The end of a run and the point that it keeps: a pair, not one and the other."""
        from refldnq.verify.kit.ends import ends

        pairs = ends(self.case.inputs, self.dtype)
        got = {name: int(readable[name]) for name in ("iterations", "best")}
        want = {name: int(self.case.outputs[name]) for name in got}
        if tuple(got.values()) in pairs:
            return {
                name: Judgement(name=name, ok=True, licensed=got[name] != value)
                for name, value in want.items()
            }
        known = got["iterations"] in {iterations for iterations, _ in pairs}
        why = {name: f"{name}: got {got[name]}, want {want[name]}" for name in got if got[name] != want[name]}
        if known:  # then it is the other answer that does not belong to it
            why = {"best": f"best: got {got['best']}; no run of {got['iterations']} iterations keeps that"}
        return {
            name: _wrong(name, why[name]) if name in why else Judgement(name=name, ok=True) for name in got
        }

    def codes(self, readable: Mapping[str, Array]) -> dict[str, Judgement]:
        """Judgements of codes, α and G where the codes are not those expected; else of the codes alone."""
        case, got = self.case, readable["Q"]
        found = self.coded("Q", got, np.asarray(case.outputs["Q"]))
        if found.ok and not found.licensed:
            return {"Q": found}
        if case.op != "project" or not np.min(case.margin["Q"]) <= decision_limit(got.size, self.u):
            return {"Q": found}
        from refldnq.verify.kit.trajectory import branch

        on_branch = branch(case.inputs, readable, self.u)
        if on_branch is None:
            return {
                "Q": Judgement(name="Q", ok=False, message=found.message or "Q: not a branch", ratio=math.inf)
            }
        judged = {"Q": Judgement(name="Q", ok=True, message="Q: another branch", licensed=True), **on_branch}
        if "passes" in case.outputs:
            judged["passes"] = Judgement(name="passes", ok=True, message="passes: another branch")
        return judged


def unit_roundoff(dtype: str) -> float:
    """U of the type.

    Examples
    --------
    >>> unit_roundoff("float64") == 2.0**-53
    True
    """
    return float(np.finfo(dtype).eps) / 2


def decision_limit(size: int, u: float) -> float:
    """The relative margin above which rounding decides no code: (2N + 16) u, above what α may be off by."""
    return (2 * size + 16) * u


def read(name: str, answers: Mapping[str, Any], want: Any) -> Array:
    """An answer as an array that can be compared: there, of a type of numbers, of the right shape, finite."""
    right = np.asarray(want)
    if name not in answers:
        others = ", ".join(str(one)[:40] for one in list(answers)[:5])
        raise UnusableError(f"{name}: missing; answered: {others or 'nothing'}")
    try:
        got = np.asarray(answers[name])
    except Exception as error:
        raise UnusableError(f"{name}: no array ({type(error).__name__})") from error
    kinds = "iu" if right.dtype.kind in "iu" else "b" if right.dtype.kind == "b" else "fiu"
    if got.dtype.kind not in kinds:
        wanted = "integers" if kinds == "iu" else "truth values" if kinds == "b" else "real numbers"
        raise UnusableError(f"{name}: must hold {wanted}, got type {got.dtype}")
    if got.shape != right.shape:
        raise UnusableError(f"{name}: must have shape {right.shape}, got {got.shape}")
    if got.dtype.kind == "f":
        got = got.astype(np.float64)
        if not np.all(np.isfinite(got)):
            at = _first(~np.isfinite(got))
            raise UnusableError(f"{_entry(name, at)}: got {got[at]}, want {right[at]:.6g}")
    return got


def equal(name: str, got: Array, want: Array, dtype: str) -> Judgement:
    """Equality; of floats with the right answer rounded to the type."""
    if want.dtype.kind == "f":
        want = want.astype(dtype).astype(np.float64)
    same = got == want
    if np.all(same):
        return Judgement(name=name, ok=True)
    at = _first(~np.asarray(same))
    message = f"{_entry(name, at)}: got {_short(got[at])}, want {_short(want[at])}, exactly"
    return Judgement(name=name, ok=False, message=message, ratio=math.inf)


def within(name: str, got: Array, want: Array, bound: Array, limit: float, u: float) -> Judgement:
    """|Δ| ≤ limit · u · bound in each entry.

    Examples
    --------
    >>> one = np.ones(2)
    >>> within("H", one, one + 2**-52, one, 4.0, 2**-53).ratio
    2.0
    >>> within("H", one, one + 1e-9, 0 * one, 4.0, 2**-53).ratio
    inf
    """
    difference = np.abs(got.astype(np.float64) - want)
    unit = u * np.broadcast_to(bound, difference.shape)
    ratio = np.divide(difference, unit, out=np.where(difference == 0, 0.0, np.inf), where=unit > 0)
    most = float(np.max(ratio)) if ratio.size else 0.0
    if np.all(ratio <= limit):
        return Judgement(name=name, ok=True, ratio=most, limit=limit)
    at = _first(~(ratio <= limit))
    message = f"{_entry(name, at)}: got {_short(got[at])}, want {_short(want[at])}; "
    message += f"ratio {ratio[at]:.2g} > {limit:g}"
    return Judgement(name=name, ok=False, message=message, ratio=most, limit=limit)


def residual(
    name: str,
    theta: Array,
    *,
    H: Array,
    W_bar: Array,
    G: Array,
    lam: Array,
    rho: float,
    u: float,
    want: Array | None = None,
) -> Judgement:
    """The backward error of Θ in (15), each column a system of its own.

    Parameters
    ----------
    name : str
        Of the answer.
    theta : Array, shape (d, m)
        The answer.
    H, W_bar, G, lam, rho
        The system's.
    u : float
        Unit roundoff.
    want : Array, optional
        The right answer: how many digits agree is reported and never judged.

    Returns
    -------
    Judgement

    Notes
    -----
    The residual is computed by products and sums in twice the precision, with an error far below u.

    Examples
    --------
    >>> I, w = np.eye(1), np.full((1, 1), 3.0)
    >>> residual("Theta", w / 2, H=I, W_bar=w, G=0 * w, lam=0 * w, rho=1.0, u=2**-53).ratio
    0.0
    """
    theta = theta.astype(np.float64)
    shift = [(rho, G), (-rho, lam), (-rho, theta)]
    rest = twofold(H, W_bar - theta, W_bar, theta, shift)
    H_, W_, T_ = np.abs(H), np.abs(W_bar), np.abs(theta)
    size = H_ @ (T_ + W_) + abs(rho) * (T_ + np.abs(G) + np.abs(lam))
    unit = len(H) * u * np.linalg.norm(size, axis=0)
    left = np.linalg.norm(rest, axis=0)
    ratio = np.divide(left, unit, out=np.where(left == 0, 0.0, np.inf), where=unit > 0)
    most = float(np.max(ratio)) if ratio.size else 0.0
    digits = "" if want is None else f"; {_digits(theta, want)} digits agree"
    if np.all(ratio <= BACKWARD):
        return Judgement(
            name=name, ok=True, message=f"{name}: residual {most:.2g}{digits}", ratio=most, limit=BACKWARD
        )
    column = int(_first(~(ratio <= BACKWARD))[0])
    row = 0 if want is None else int(np.argmax(np.abs(theta[:, column] - want[:, column])))
    message = f"{name}[{row}, {column}]: got {_short(theta[row, column])}"
    message += "" if want is None else f", want {_short(want[row, column])}"
    message += f"; residual {ratio[column]:.2g} > {BACKWARD:g}{digits}"
    return Judgement(name=name, ok=False, message=message, ratio=most, limit=BACKWARD)


def twofold(
    H: Array, difference: Array, W: Array, theta: Array, terms: list[tuple[float, Array]]
) -> Float64Array:
    """H (W - Θ) + Σ factor · array, as if in twice the precision (Ogita, Rump and Oishi 2005, Dot2).

    Parameters
    ----------
    H : Array, shape (d, d)
        A matrix.
    difference : Array, shape (d, m)
        W - Θ, rounded; what was rounded away is added.
    W, theta : Array, shape (d, m)
        Its parts.
    terms : list of (float, Array of shape (d, m))
        What is added.

    Examples
    --------
    >>> one = np.ones((1, 1))
    >>> float(twofold(one, one - 2**-60, one, one * 2**-60, [(-1.0, one)])[0, 0]) == -(2**-60)
    True
    """
    lost = _sum_error(W, -theta, difference)
    total = np.zeros(difference.shape)
    rest = H @ lost
    products = [(H[:, k : k + 1], difference[k : k + 1]) for k in range(len(H))]
    for a, b in [*products, *((np.asarray(factor), array) for factor, array in terms)]:
        product = a * b
        rest = rest + _product_error(a, b, product)
        new = total + product
        rest = rest + _sum_error(total, product, new)
        total = new
    return np.asarray(total + rest)


def _sum_error(a: Array, b: Array, total: Array) -> Array:
    # a + b = total + this, exactly (Knuth).
    back = total - a
    return np.asarray((a - (total - back)) + (b - back))


def _product_error(a: Array, b: Array, product: Array) -> Array:
    # a b = product + this, exactly (Dekker, with Veltkamp's splitting).
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return np.asarray(a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2))


def _split(a: Array) -> tuple[Array, Array]:
    large = a * 134217729.0  # 2**27 + 1
    high = large - (large - a)
    return high, a - high


def quadratic(H: Array, W: Array, G: Array) -> tuple[float, float]:
    """f(G) = ½ tr (G - W)ᵀ H (G - W) (10), and the same of magnitudes |G| + |W| and |H|.

    Examples
    --------
    >>> quadratic(np.eye(2), np.ones((2, 1)), np.zeros((2, 1)))
    (1.0, 1.0)
    """
    D, size = G - W, np.abs(G) + np.abs(W)
    value = math.fsum((D * (H @ D)).ravel().tolist()) / 2
    return value, float((size * (np.abs(H) @ size)).sum()) / 2


def quadratic_limit(W: Array) -> float:
    """Roundings of f(G) in whatever order: the inner sum, the outer one, differences and inputs."""
    return float(W.shape[-2] + W.size + 8)


def _wrong(name: str, message: str) -> Judgement:
    return Judgement(name=name, ok=False, message=message, ratio=math.inf)


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0]) if np.ndim(mask) else ()


def _entry(name: str, at: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, at))}]" if at else name


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def _digits(got: Array, want: Array) -> int:
    largest = float(np.max(np.abs(want), initial=0.0))
    off = float(np.max(np.abs(got - want), initial=0.0))
    return 16 if off == 0 else max(0, min(16, int(-math.log10(off / (largest or 1.0)))))
