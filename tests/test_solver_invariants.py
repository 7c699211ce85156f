"""What holds for every solver there is: any set, one scale or one a channel, weighted columns or not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq._typing import Array, Float64Array
from refldnq.cli.quantize import quantize
from refldnq.codebook import Codebook, fixed, free, powers_of_two, scaled
from refldnq.hessian import accumulate_hessian, layer_error
from refldnq.layers import Conv2d
from refldnq.projection import project
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.admm_plus import AdmmPlusSettings
from refldnq.solvers.anneal import AnnealSettings
from refldnq.solvers.base import (
    ORDERED,
    SOLVERS,
    WEIGHTED,
    Solution,
    default_settings,
    get_solver,
)
from refldnq.solvers.blocks import BlocksSettings
from refldnq.solvers.coordinate import CoordinateSettings, descend, polish
from refldnq.solvers.direct import DirectSettings
from refldnq.solvers.exact import SLACK
from refldnq.solvers.greedy import GreedySettings
from refldnq.solvers.problem import Problem

D, M = 5, 3
"""Rows and columns of a group: small enough for the exact optimum."""

SHORT: dict[str, Any] = {
    "admm": AdmmSettings(iterations=20),
    "admm_plus": AdmmPlusSettings(iterations=20),
    "anneal": AnnealSettings(rounds=1, explorations=1, sweeps=15, start=AdmmPlusSettings(iterations=20)),
    "blocks": BlocksSettings(sweeps=12, scales=3, start=AdmmPlusSettings(iterations=20)),
    "direct": DirectSettings(variant="exact"),
    "gpfq": GreedySettings(damping=0.0, grid=5),
    "gptq": GreedySettings(grid=5),
    "ldlq": GreedySettings(grid=5),
}
"""Settings that take no time; the others' defaults do not."""

BOOKS: dict[str, Codebook] = {
    "ternary": powers_of_two(3),
    "five": powers_of_two(5),
    "lopsided": scaled([-1.0, 0.0, 2.0, 3.0]),
    "no zero": scaled([-1.0, 1.0]),
    "fixed": fixed([-0.5, 0.0, 0.75]),
    "free": free(3),
}

seeds = st.integers(0, 2**32 - 1)


def problem(seed: int, groups: int = 2, d: int = D, m: int = M) -> tuple[Float64Array, Array, Float64Array]:
    """Rows X (g, n, d), weights and column weights; the Hessian is `hessian(X)`."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((groups, 4 * d, d)) @ (np.eye(d) + 0.5 * rng.standard_normal((d, d)))
    return X, rng.standard_normal((groups, d, m)), rng.uniform(0.2, 5.0, (groups, m))


def hessian(X: Float64Array) -> Float64Array:
    H: Float64Array = 2 / X.shape[1] * X.transpose(0, 2, 1) @ X
    symmetric: Float64Array = 0.5 * (H + H.transpose(0, 2, 1))
    return symmetric


def takes(name: str, book: Codebook, per_channel: bool) -> bool:
    """Whether a solver has the case: free sets have no scale a channel, and no exact optimum."""
    return book.kind != "free" or not (per_channel or name == "exact")


def solve(
    name: str,
    H: Array,
    W: Array,
    book: Codebook,
    *,
    per_channel: bool = False,
    omega: Array | None = None,
    how: Any = None,
) -> Solution:
    chosen = replace(how or SHORT.get(name) or default_settings(name), per_channel=per_channel)
    weighted = {} if omega is None else {"column_weights": omega}
    return get_solver(name)(H, W, book, chosen, **weighted)


def cases(name: str, book: Codebook, omega: Array) -> list[dict[str, Any]]:
    """Options for every way in which the solver can be asked."""
    weights = [None, omega] if name in WEIGHTED else [None]
    return [
        {"per_channel": per_channel, "omega": own}
        for per_channel in (False, True)
        for own in weights
        if takes(name, book, per_channel)
    ]


def close(one: float, other: float, scale: float) -> bool:
    return abs(one - other) <= 1e-11 * scale


# ------------------------------------------------------------------ the objective is the error on the data


def is_the_weighted_error_on_the_data(name: str, seed: int, book: str) -> None:
    X, W, omega = problem(seed)
    codebook = BOOKS[book]
    for case in cases(name, codebook, omega):
        found = solve(name, hessian(X), W, codebook, **case)
        own = np.ones_like(omega) if case["omega"] is None else omega
        image = np.einsum("gnd,gdm->gnm", X, found.G - W)
        error = float(np.sum(own[:, None, :] * image**2)) / X.shape[1]  # [LDNQ] (8)
        whole = float(np.sum(own[:, None, :] * np.einsum("gnd,gdm->gnm", X, W) ** 2)) / X.shape[1]
        if not close(found.objective, error, whole):
            raise AssertionError((name, book, case, found.objective, error))
        assert found.codes.dtype == np.int8 and 0 <= found.codes.min()
        assert found.codes.max() < len(found.values) and (np.diff(found.values) >= 0).all()
        assert found.alpha.shape == ((2, M) if case["per_channel"] else ())
        if codebook.kind == "scaled":
            assert np.array_equal(found.values, codebook.values) and (found.alpha >= 0).all()
        else:
            assert (found.alpha == 1).all()
        if codebook.kind == "fixed":
            assert np.array_equal(found.values, codebook.values)


def is_not_below_the_exact_optimum(name: str, seed: int, book: str) -> None:
    X, W, _ = problem(seed, groups=1, m=2)
    codebook, H = BOOKS[book], hessian(X)
    if codebook.kind == "free":
        return
    # A column of weight 2 counts like two: so the optimum of a weighted problem is one without weights.
    columns = {False: [0, 1], True: [0, 1, 1]}
    least = {
        (weighted, own): solve("exact", H, W[:, :, columns[weighted]], codebook, per_channel=own)
        for weighted in columns
        for own in (False, True)
    }
    assert all(one.guarantee == "optimal" for one in least.values())
    for weighted, chosen in columns.items():
        whole = layer_error(H, W[:, :, chosen], np.zeros_like(W[:, :, chosen]))
        assert least[weighted, True].objective <= least[weighted, False].objective + SLACK * whole
    for case in cases(name, codebook, np.array([[1.0, 2.0]])):
        weighted = case["omega"] is not None
        own, chosen = W[:, :, columns[weighted]], columns[weighted]
        found = solve(name, H, W, codebook, **case)
        floor = least[weighted, case["per_channel"]].objective
        whole = layer_error(H, own, np.zeros_like(own))
        for reached in (layer_error(H, own, found.G[:, :, chosen]), found.objective):
            if not reached >= floor - SLACK * whole:
                raise AssertionError((name, book, case))


# ------------------------------------------------------------------ symmetries of the problem


def scales_with_powers_of_two(name: str, seed: int, book: str) -> None:
    X, W, omega = problem(seed)
    codebook, H, factor = BOOKS[book], hessian(X), 2.0 ** (seed % 41 - 20)
    for case in cases(name, codebook, omega):
        one = solve(name, H, W, codebook, **case)
        # A Cholesky factor has square roots: those of 2H are not a power of two times those of H.
        other = solve(name, factor**2 * H, W, codebook, **case)
        assert np.array_equal(one.codes, other.codes) and np.array_equal(one.alpha, other.alpha)
        assert np.array_equal(one.values, other.values) and other.objective == factor**2 * one.objective
        if codebook.kind == "fixed":
            continue
        other = solve(name, H, factor * W, codebook, **case)
        assert np.array_equal(one.codes, other.codes)
        assert np.array_equal(factor * one.G, other.G) and other.objective == factor**2 * one.objective
        if case["omega"] is not None:
            case = {**case, "omega": factor * omega}
            other = solve(name, H, W, codebook, **case)
            assert np.array_equal(one.codes, other.codes) and np.array_equal(one.G, other.G)
            assert other.objective == factor * one.objective


def does_not_depend_on_the_order_of_columns(name: str, seed: int, book: str) -> None:
    if name == "anneal":  # every column has a random stream of its own
        return
    X, W, omega = problem(seed)
    codebook, H, turn = BOOKS[book], hessian(X), np.random.default_rng(seed).permutation(M)
    for case in cases(name, codebook, omega):
        one = solve(name, H, W, codebook, **case)
        turned = {**case, "omega": None if case["omega"] is None else omega[:, turn].copy()}
        other = solve(name, H, W[:, :, turn].copy(), codebook, **turned)
        assert np.array_equal(one.codes[:, :, turn], other.codes)
        assert np.allclose(one.G[:, :, turn], other.G, rtol=1e-11, atol=1e-13)


def without_ties(name: str) -> Any:
    return AdmmPlusSettings(iterations=20, polish=False) if name == "admm_plus" else None


def does_not_depend_on_the_order_of_rows_unless_it_is_said(name: str, seed: int, book: str) -> None:
    if name in ORDERED and name != "admm_plus":
        return
    X, W, omega = problem(seed)
    codebook, H, turn = BOOKS[book], hessian(X), np.random.default_rng(seed).permutation(D)
    for case in cases(name, codebook, omega):
        one = solve(name, H, W, codebook, how=without_ties(name), **case)
        turned = np.ascontiguousarray(H[:, turn][:, :, turn])
        other = solve(name, turned, W[:, turn].copy(), codebook, how=without_ties(name), **case)
        assert np.array_equal(one.codes[:, turn], other.codes)
        assert np.allclose(one.G[:, turn], other.G, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", sorted(ORDERED))
def test_where_it_is_said_the_order_of_the_rows_matters(name: str) -> None:
    differ = []
    for seed in range(12):
        X, W, _ = problem(seed, d=12, m=4)
        H, turn = hessian(X), np.random.default_rng(seed).permutation(12)
        one = solve(name, H, W, powers_of_two(3))
        other = solve(name, np.ascontiguousarray(H[:, turn][:, :, turn]), W[:, turn].copy(), powers_of_two(3))
        differ.append(not np.array_equal(one.codes[:, turn], other.codes))
    assert any(differ)


def test_what_is_ordered_is_a_solver() -> None:
    assert ORDERED < set(SOLVERS) and WEIGHTED < set(SOLVERS)


def test_the_command_line_names_every_solver() -> None:
    (option,) = [param for param in quantize.params if param.name == "solver"]
    assert isinstance(option, click.Option) and option.help is not None
    assert set(SOLVERS) <= set(re.findall(r"\w+", option.help))


def is_the_same_for_a_streamed_hessian(name: str, seed: int, book: str) -> None:
    rng = np.random.default_rng(seed)
    layer = Conv2d(2, 2, 2, groups=2, bias=False)
    x, W = rng.standard_normal((12, 2, 4, 4)), rng.standard_normal((2, 4, 1))
    whole = accumulate_hessian(layer, [x]).blocks
    streamed = accumulate_hessian(layer, [x[:1], x[1:8], x[8:]]).blocks
    for case in cases(name, BOOKS[book], np.ones((2, 1))):
        one, other = (solve(name, H, W, BOOKS[book], **case) for H in (whole, streamed))
        assert np.array_equal(one.codes, other.codes)
        size = layer_error(whole, W, np.zeros_like(W))
        assert close(one.objective, other.objective, size), (one.objective, other.objective)
        # The iterates of `admm` creep up on a scale at which f is flat: rounding decides which of them is the
        # best, and scales of equal f are as far apart as the root of a rounding.
        rtol = 1e-6 if name == "admm" else 1e-10
        assert np.allclose(one.G, other.G, rtol=rtol, atol=1e-13)


# ------------------------------------------------------------------ weights of columns


def by_column(H: Array, W: Array, G: Array) -> Float64Array:
    """The layer error of every column, (g, m)."""
    difference = G - W
    errors: Float64Array = 0.5 * np.einsum("gdm,gde,gem->gm", difference, H, difference)
    return errors


def has_scales_of_its_own_whatever_the_weights(name: str, seed: int, book: str) -> None:
    if name not in WEIGHTED or not takes(name, BOOKS[book], per_channel=True):
        return
    X, W, weights = problem(seed)
    H, omega = hessian(X), np.exp2(np.round(np.log2(weights)))
    one = solve(name, H, W, BOOKS[book], per_channel=True)
    other = solve(name, H, W, BOOKS[book], per_channel=True, omega=omega)
    assert np.array_equal(one.codes, other.codes) and np.array_equal(one.alpha, other.alpha)
    whole = float((omega * by_column(H, W, 0 * W)).sum())
    if not close(other.objective, float((omega * by_column(H, W, one.G)).sum()), whole):
        raise AssertionError((name, book))


def takes_a_column_of_twice_the_weight_for_two(name: str, seed: int, book: str) -> None:
    if name not in WEIGHTED or name == "anneal":  # two columns walk two ways
        return
    X, W, _ = problem(seed, groups=1)
    H, omega = hessian(X), np.array([[1.0, 2.0, 1.0]])
    one = solve(name, H, W, BOOKS[book], omega=omega)
    twice = solve(name, H, W[:, :, [0, 1, 1, 2]].copy(), BOOKS[book])
    assert np.array_equal(one.codes, twice.codes[:, :, [0, 1, 3]])
    assert np.allclose(one.G, twice.G[:, :, [0, 1, 3]], rtol=1e-10, atol=1e-13)


# ------------------------------------------------------------------ descent from whatever start


def is_never_raised_by_descent(name: str, seed: int, book: str) -> None:
    X, W, omega = problem(seed)
    codebook, H = BOOKS[book], hessian(X)
    for case in cases(name, codebook, omega):
        own = Problem(H, W, codebook, per_channel=case["per_channel"], column_weights=case["omega"])
        start = own.point(solve(name, H, W, codebook, **case))
        before = own.objectives(start)
        point, objectives, _, _ = descend(
            own, start, CoordinateSettings(per_channel=case["per_channel"], order="diagonal")
        )
        assert (own.objectives(point) <= before).all() and (np.diff(objectives) <= 0).all()
        assert objectives[0] == own.objective(start) and objectives[-1] == own.objective(point)


def is_never_raised_by_polishing(name: str, seed: int, book: str) -> None:
    X, W, omega = problem(seed)
    codebook, H = BOOKS[book], hessian(X)
    whole = layer_error(H, W, np.zeros_like(W))
    for case in cases(name, codebook, omega):
        found = solve(name, H, W, codebook, **case)
        weights = {} if case["omega"] is None else {"column_weights": case["omega"]}
        polished = polish(H, W, codebook, found, **weights)
        # The start's own objective can be another sum of the same terms.
        assert polished.objective <= polished.trace.objective[0] <= found.objective + 1e-11 * 5.0 * whole
        own = np.ones_like(omega) if case["omega"] is None else omega
        parts = [own * by_column(H, W, G) for G in (found.G, polished.G)]
        if case["per_channel"]:  # no channel pays for another
            assert (parts[1] <= parts[0] + 1e-11 * 5.0 * whole).all()
        if not close(polished.objective, float(parts[1].sum()), 5.0 * whole):
            raise AssertionError((name, book, case, polished.objective))
        assert polished.converged and polished.settings.per_channel == case["per_channel"]
        assert polished.codes.shape == found.codes.shape and polished.alpha.shape == found.alpha.shape
        again = polish(H, W, codebook, polished, **weights)
        if codebook.kind != "free":  # its values have been sorted: their normal equations round otherwise
            assert again.iterations == 0 and np.array_equal(again.G, polished.G)


# ------------------------------------------------------------------ where the truth is the projection


def projections(name: str) -> Any:
    """Settings with which the solver gives the exact projection if H is a multiple of the identity."""
    guaranteed = AdmmSettings(projection="exact", rho=1.0, rho_scale="lambda_max", start="guaranteed")
    return {"admm": guaranteed, "direct": DirectSettings(variant="exact")}.get(name)


def is_the_projection_for_a_multiple_of_the_identity(name: str, seed: int, book: str) -> None:
    if name not in ("admm", "direct", "exact"):
        return
    W, codebook = np.random.default_rng(seed).standard_normal((1, D, M)), BOOKS[book]
    for case in cases(name, codebook, np.ones((1, M))):
        found = solve(name, 3.0 * np.eye(D)[None], W, codebook, how=projections(name), **case)
        wanted = project(W, codebook, method="exact", per_channel=case["per_channel"])
        assert np.array_equal(found.codes, wanted.codes)
        assert np.allclose(found.G, wanted.G, rtol=1e-12, atol=0)


def is_finite_without_data(name: str, seed: int, book: str) -> None:
    if not takes(name, BOOKS[book], per_channel=False):
        return
    W = np.random.default_rng(seed).standard_normal((1, D, M))
    found = solve(name, np.zeros((1, D, D)), W, BOOKS[book])
    assert found.objective == 0.0 and np.isfinite(found.G).all()


@given(seed=seeds, book=st.sampled_from(sorted(set(BOOKS) - {"free"})))
@settings(deadline=None, max_examples=20)
def test_the_exact_projection_is_the_best_that_does_not_see_the_data(seed: int, book: str) -> None:
    """Among all points of the set: enumerated, one column, so that its scale is a scale of the layer too."""
    W, codebook = np.random.default_rng(seed).standard_normal((1, D, 1)), BOOKS[book]
    found = solve("direct", np.eye(D)[None], W, codebook)
    every = codebook.values[np.indices((codebook.levels,) * D).reshape(D, -1)]
    scales = np.ones(every.shape[1])
    if codebook.kind == "scaled":
        square = (every**2).sum(axis=0)
        inner = np.maximum(W[0, :, 0] @ every, 0.0)
        scales = np.divide(inner, square, out=np.zeros_like(inner), where=square > 0)
    least = float((((scales * every) - W[0]) ** 2).sum(axis=0).min())
    if not abs(float(((found.G - W) ** 2).sum()) - least) <= 1e-12 * float((W**2).sum()):
        raise AssertionError((book, seed))


# ------------------------------------------------------------------ every solver, every check

CHECKS: dict[str, Callable[[str, int, str], None]] = {
    check.__name__: check
    for check in (
        is_the_weighted_error_on_the_data,
        is_not_below_the_exact_optimum,
        scales_with_powers_of_two,
        does_not_depend_on_the_order_of_columns,
        does_not_depend_on_the_order_of_rows_unless_it_is_said,
        is_the_same_for_a_streamed_hessian,
        has_scales_of_its_own_whatever_the_weights,
        takes_a_column_of_twice_the_weight_for_two,
        is_never_raised_by_descent,
        is_never_raised_by_polishing,
        is_the_projection_for_a_multiple_of_the_identity,
        is_finite_without_data,
    )
}
"""What holds for a solver's result; each takes the solver's name, a seed and a set's name."""


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", sorted(SOLVERS))
@given(seed=seeds)
@settings(deadline=None, max_examples=4)
def test_the_result(name: str, check: str, seed: int) -> None:
    for book in BOOKS:
        CHECKS[check](name, seed, book)


# ------------------------------------------------------------------ the checks see planted errors


def _without_half(right: Any) -> Any:
    return lambda self, point: 2 * right(self, point)


def _without_weights(right: Any) -> Any:
    return lambda self, own: own.ravel() if self.per_channel else own.sum(keepdims=True).ravel()


def _with_ridge(right: Any) -> Any:
    def refit(self: Problem, point: Any) -> Any:
        found = right(self, point)
        return replace(found, alpha=found.alpha + (1e-3 if self.codebook.kind == "scaled" else 0.0))

    return refit


def _at_another_scale(right: Any) -> Any:
    return lambda self, solution: replace(right(self, solution), alpha=1.5 * solution.alpha.ravel())


def _keeping_the_last(right: Any) -> Any:
    def keep(self: Problem, best: Any, least: Any, point: Any, own: Any) -> Any:
        return (best, least) if np.array_equal(own, least) else (point, own)

    return keep


@pytest.mark.parametrize(
    ("check", "name", "planted"),
    [
        ("is_the_weighted_error_on_the_data", "coordinate", {"objectives": _without_half}),
        ("is_the_weighted_error_on_the_data", "gptq", {"per_scale": _without_weights}),
        ("is_not_below_the_exact_optimum", "blocks", {"per_scale": _without_weights}),
        ("takes_a_column_of_twice_the_weight_for_two", "ldlq", {"per_scale": _without_weights}),
        ("scales_with_powers_of_two", "coordinate", {"refit": _with_ridge}),
        ("is_never_raised_by_descent", "exact", {"refit": _with_ridge, "keep": _keeping_the_last}),
        ("is_never_raised_by_polishing", "exact", {"refit": _with_ridge, "keep": _keeping_the_last}),
        ("is_never_raised_by_polishing", "gptq", {"per_scale": _without_weights}),
        ("is_never_raised_by_polishing", "direct", {"point": _at_another_scale}),
    ],
)
def test_planted_errors_are_seen(
    check: str, name: str, planted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, wrong in planted.items():
        monkeypatch.setattr(Problem, place, wrong(getattr(Problem, place)))
    with pytest.raises(AssertionError):
        for seed in range(5):
            for book in BOOKS:
                CHECKS[check](name, seed, book)
