"""The baselines' quantizers: brute force, naive twins, identities, ties and degenerate weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq._typing import Array
from refldnq.baselines import distilquant, dq, exnn, inq, lat, retrain, trn, ttq, vq
from refldnq.codebook import powers_of_two
from refldnq.projection import project
from refldnq.solvers import exact
from refldnq.verify.naive import baselines as naive

ROUNDING = 1e-12
"""Relative; a few dozen roundings of float64."""

numbers = st.integers(-8, 8).map(lambda k: k / 4)
"""Few distinct values: ties and zeros are frequent."""

weights = st.one_of(
    st.lists(numbers, min_size=1, max_size=6),
    st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=1, max_size=6),
).map(lambda values: np.array(values, dtype=np.float64))


def close(a: float, b: float, scale: float) -> None:
    if not (abs(a - b) <= ROUNDING * max(scale, 1e-300)):
        raise AssertionError(f"{a!r} and {b!r} differ, at a scale of {scale!r}")


def masses(w: Array, seed: int) -> Array:
    return np.random.default_rng(seed).uniform(0.25, 4.0, w.shape)


def fails(check: Callable[[], None]) -> None:
    with pytest.raises(AssertionError):
        check()


# ---------------------------------------------------------------------- LAT


def late_is_optimal(solve: Callable[[Array, Array], tuple[float, Array]], w: Array, D: Array) -> None:
    alpha, b = solve(w, D)
    energy = float(np.sum(D * w * w))
    close(float(np.sum(D * (alpha * b - w) ** 2)), naive.ternary_optimum(list(w), list(D)), energy)


@given(weights, st.integers(0, 9))
def test_late_is_the_best_of_all_ternary_codes(w: Array, seed: int) -> None:
    for D in (np.ones_like(w), masses(w, seed)):
        late_is_optimal(lat.late, w, D)
        error = project(w, powers_of_two(3), method="exact", weights=D).residual
        alpha, b = lat.late(w, D)
        close(float(np.sum(D * (alpha * b - w) ** 2)), error, float(np.sum(D * w * w)))


@given(weights, st.integers(0, 9))
def test_late_solves_the_layers_problem_of_a_diagonal_hessian(w: Array, seed: int) -> None:
    D = masses(w, seed)
    solution = exact.solve(np.diag(D)[None], w[None, :, None], powers_of_two(3))
    alpha, b = lat.late(w, D)
    close(0.5 * float(np.sum(D * (alpha * b - w) ** 2)), solution.objective, float(np.sum(D * w * w)))


@given(weights, st.integers(0, 9))
def test_two_scales_are_the_best_of_all_ternary_codes(w: Array, seed: int) -> None:
    D = masses(w, seed)
    positive, negative, b = lat.late_two_scales(w, D)
    G = np.where(b > 0, positive, np.where(b < 0, -negative, 0.0))
    best = naive.ternary_optimum(list(w), list(D), two_scales=True)
    close(float(np.sum(D * (G - w) ** 2)), best, float(np.sum(D * w * w)))
    assert np.array_equal(G, lat.quantize(w, D, "two-scale"))


def test_a_wrong_rule_is_not_taken_for_late() -> None:
    w, D = np.array([4.0, 1.0, -1.0, 1.0]), np.ones(4)
    late_is_optimal(lat.late, w, D)
    fails(lambda: late_is_optimal(lat.lata, np.array([5.0, 2.0, 0.0, 0.0]), D))  # a local optimum
    planted = lambda w, D: (0.5 * lat.late(w, D)[0], lat.late(w, D)[1])  # noqa: E731 - s in place of 2s
    fails(lambda: late_is_optimal(planted, w, D))


@given(weights, st.integers(0, 9))
def test_lata_never_rises_from_pass_to_pass(w: Array, seed: int) -> None:
    D = masses(w, seed)
    energy = float(np.sum(D * w * w))
    errors = []
    for passes in range(1, 6):
        alpha, b = lat.lata(w, D, passes=passes, tolerance=0.0)
        assert np.array_equal(b, np.sign(w) * (np.abs(w) > alpha / 2))
        errors.append(float(np.sum(D * (alpha * b - w) ** 2)))
    assert all(after <= before + ROUNDING * energy for before, after in pairwise(errors)), errors
    best = lat.late(w, D)
    assert errors[-1] >= float(np.sum(D * (best[0] * best[1] - w) ** 2)) - ROUNDING * energy


def test_lata_starts_at_seven_tenths_of_the_mean() -> None:
    w = np.array([1.0, 0.75, 0.2, 0.05])  # mean 0.5: the first codes are 1, 1, 0, 0
    assert lat.lata(w, np.ones(4), passes=1)[0] == 0.875
    # Just beyond 0.7 times the mean, just below it, and at it: not beyond.
    near = np.array([20.0, 7.0 + 2.0**-9, 7.0 - 2.0**-9, 6.0])  # mean 10
    assert lat.lata(near, np.ones(4), passes=1)[0] == 13.5 + 2.0**-10
    assert lat.lata(np.array([20.0, 7.0, 7.0, 6.0]), np.ones(4), passes=1)[0] == 20.0
    alpha, b = lat.lata(np.zeros(3), np.ones(3))
    assert alpha == 0 and not b.any()


@pytest.mark.parametrize("D", [np.array([1.0, 0.0]), np.array([1.0, -1.0]), np.array([np.nan, 1.0])])
def test_curvature_must_be_positive(D: Array) -> None:
    for solve in (lat.late, lat.lata):
        with pytest.raises(ValueError, match="`D`"):
            solve(np.ones(2), D)


# ---------------------------------------------------------------------- TTQ


@given(weights, st.floats(0.1, 3), st.floats(0.1, 3), st.sampled_from([0.05, 0.5]), st.integers(0, 9))
def test_ttqs_gradients_are_those_with_the_masks_held(
    w: Array, positive: float, negative: float, threshold: float, seed: int
) -> None:
    g = np.random.default_rng(seed).standard_normal(w.shape)
    check_ttq(ttq.gradients, w, g, positive, negative, threshold)


def check_ttq(
    gradients: Callable[..., tuple[Array, float, float]],
    w: Array,
    g: Array,
    positive: float,
    negative: float,
    threshold: float,
) -> None:
    dw, dpositive, dnegative = gradients(w, g, positive, negative, threshold)
    h = 0.5**10  # the loss below is linear in each argument: any step gives the slope up to rounding

    def loss(p: float, n: float) -> float:
        return float(g @ ttq.quantize(w, p, n, threshold))

    scale = float(np.abs(g).sum()) * 8 / h
    close((loss(positive + h, negative) - loss(positive - h, negative)) / (2 * h), dpositive, scale)
    close((loss(positive, negative + h) - loss(positive, negative - h)) / (2 * h), dnegative, scale)
    # The latent gradient is that of Wp w, w, Wn w with the masks held fixed.
    above, below = ttq.masks(w, threshold)

    def surrogate(v: Array) -> float:
        return float(g @ np.where(above, positive * v, np.where(below, negative * v, v)))

    for i in range(w.size):
        step = np.zeros_like(w)
        step[i] = h
        close((surrogate(w + step) - surrogate(w - step)) / (2 * h), float(dw[i]), scale * 8)


def test_the_sign_of_ttqs_negative_scale_is_seen() -> None:
    w, g = np.array([1.0, -1.0, -0.5, 0.01]), np.array([0.5, 1.0, 2.0, 4.0])

    def without_minus(*arguments: object) -> tuple[Array, float, float]:
        dw, dpositive, dnegative = ttq.gradients(*arguments)  # type: ignore[arg-type]
        return dw, dpositive, -dnegative

    check_ttq(ttq.gradients, w, g, 1.5, 0.5, 0.05)
    assert ttq.gradients(w, g, 1.5, 0.5)[2] == -3.0
    fails(lambda: check_ttq(without_minus, w, g, 1.5, 0.5, 0.05))


def test_ttqs_thresholds_and_starts() -> None:
    w = np.array([1.0, 0.05, 0.06, -0.05, -0.3, 0.0])
    assert ttq.quantize(w, 2.0, 3.0).tolist() == [2.0, 0.0, 2.0, 0.0, -3.0, 0.0]
    assert ttq.first_scales(w, ttq.TtqSettings()) == (1.0, 1.0)
    assert ttq.first_scales(w, ttq.TtqSettings(init="twn")) == pytest.approx((0.53, 0.3), rel=1e-12)
    assert not ttq.quantize(np.zeros(3), 1.0, 1.0).any()
    assert ttq.first_scales(np.array([2.0]), ttq.TtqSettings(init="twn")) == (2.0, 0.1)
    assert ttq.quantize(w.astype(np.float32), 2.0, 3.0).dtype == np.float32


# ---------------------------------------------------------------------- INQ


def inq_rounds(nearest: Callable[[Array, Array], Array], w: Array, levels: int) -> None:
    values = inq.powers(w, levels)
    got = values[nearest(w, values)]
    wanted = [naive.inq_value(float(x), float(np.abs(w).max()), levels) for x in w]
    if got.tolist() != wanted:
        raise AssertionError(f"{got} is not {wanted}")


@given(weights, st.sampled_from([3, 5, 7, 15, 17]))
def test_inq_rounds_to_powers_of_two_by_its_inequalities(w: Array, levels: int) -> None:
    inq_rounds(inq.nearest, w, levels)
    values = inq.powers(w, levels)
    assert len(values) == (levels if w.any() else 1)
    # Nearest, whatever the tie.
    distance = np.abs(w[:, None] - values).min(axis=1)
    assert np.array_equal(np.abs(w - values[inq.nearest(w, values)]), distance)


def test_inqs_ties_go_up_and_a_strict_rule_is_seen() -> None:
    w = np.array([1.0, 0.75, 0.25, -0.25, -0.75, 0.2499])
    assert inq.powers(w, 5).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    values = inq.powers(w, 5)
    assert values[inq.nearest(w, values)].tolist() == [1.0, 1.0, 0.5, -0.5, -1.0, 0.0]

    def strict(w: Array, values: Array) -> Array:
        return inq.nearest(np.nextafter(w, 0.0), values)

    inq_rounds(inq.nearest, w, 5)
    fails(lambda: inq_rounds(strict, w, 5))


@pytest.mark.parametrize(("s", "n1"), [(0.75, 0), (0.7499, -1), (1.5, 1), (1.0, 0), (1.49, 0), (3e-5, -15)])
def test_inqs_largest_power(s: float, n1: int) -> None:
    assert inq.powers(np.array([s, -s / 2]), 3).tolist() == [-(2.0**n1), 0.0, 2.0**n1]


@given(weights, st.integers(0, 9), st.floats(0, 1), st.floats(0, 1))
def test_inqs_partition_takes_the_largest_and_keeps_the_frozen(
    w: Array, seed: int, first: float, second: float
) -> None:
    frozen = inq.partition(w, np.zeros(w.shape, dtype=bool), min(first, second))
    moved = np.where(frozen, w, w * np.random.default_rng(seed).uniform(0.1, 9, w.shape))
    mask = inq.partition(moved, frozen, max(first, second))
    assert mask[frozen].all() and int(mask.sum()) == round(max(first, second) * w.size)
    new, rest = np.abs(moved[mask & ~frozen]), np.abs(moved[~mask])
    assert not new.size or not rest.size or new.min() >= rest.max()


@pytest.mark.parametrize("levels", [1, 4, 129])
def test_inq_refuses_what_is_no_odd_number(levels: int) -> None:
    with pytest.raises(ValueError, match="`levels` must be an odd number from 3 to 127 for INQ"):
        inq.powers(np.ones(2), levels)


# ---------------------------------------------------------------------- TRN


def fgq_is_best(fgq: Callable[[Array], tuple[Array, Array]], v: Array) -> None:
    t, alpha = fgq(v)
    for row, codes, scale in zip(v, t, alpha, strict=True):
        kept = codes != 0
        if not kept.any():
            assert not row.any() and scale == 0
            continue
        energy = float(row @ row)
        close(float(np.abs(row[kept]).sum() ** 2 / kept.sum()), naive.fgq_score(list(row)), energy)
        close(float(np.sum((row - scale * codes) ** 2)), energy - naive.fgq_score(list(row)), energy)
        close(float(scale), float(np.abs(row[kept]).mean()), float(np.abs(row).max()))
        if not (np.abs(row[kept]).min() > np.abs(row[~kept]).max(initial=-1.0)):
            raise AssertionError("no threshold gives these codes")


@given(weights)
def test_fgq_takes_the_best_of_all_thresholds(w: Array) -> None:
    fgq_is_best(trn.fgq, np.stack([w, -w[::-1]]))
    best = naive.ternary_optimum(list(w), [1.0] * w.size)
    t, alpha = trn.fgq(w[None])
    close(float(np.sum((w - alpha * t) ** 2)), best, float(w @ w))


def test_a_fixed_threshold_is_not_taken_for_fgq() -> None:
    def twn(v: Array) -> tuple[Array, Array]:
        kept = np.abs(v) > 0.7 * np.abs(v).mean(axis=1, keepdims=True)
        return np.sign(v) * kept, (np.abs(v) * kept).sum(axis=1) / kept.sum(axis=1)

    v = np.array([[4.0, 3.0, -3.0, 3.0, 0.1]])
    fgq_is_best(trn.fgq, v)
    fgq_is_best(twn, v)  # here it is the best one
    fails(lambda: fgq_is_best(twn, np.array([[3.0, 1.0, 0.0, 0.0]])))


@given(st.integers(0, 99), st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.3]))
def test_trns_residual_falls_with_every_term(seed: int, max_terms: int, tolerance: float) -> None:
    w = np.random.default_rng(seed).standard_normal((4, 9))
    w[0] = 0.0
    found = trn.residual_terms(w, max_terms, tolerance)
    assert np.allclose(np.linalg.norm(w - found.G, axis=1), found.norms[-1], rtol=0, atol=1e-13)
    for before, after in pairwise(found.norms):
        assert (after <= before).all()
        going = before > tolerance * found.norms[0]
        assert (after[going] < before[going]).all() and np.array_equal(after[~going], before[~going])
    enough = found.norms[-1] <= tolerance * found.norms[0]
    assert (enough | (found.terms == max_terms)).all() and found.terms[0] == 0


def test_trns_blocks_lie_along_the_input_channels() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 150, 2, 2))
    G, terms = trn.quantize(weight, 2, trn.TrnSettings(tolerance=0.0))
    for o, i, j in np.ndindex(3, 2, 2):
        for first in (0, 64, 128):
            block = weight[o, first : first + 64, i, j]
            alone = trn.residual_terms(block[None], 2, 0.0)
            assert np.array_equal(G[o, first : first + 64, i, j], alone.G[0])
    assert (terms == 2).all() and G.flags.c_contiguous
    # One block, one change: the others stay.
    weight[1, 70, 0, 1] += 1.0
    changed = trn.quantize(weight, 2, trn.TrnSettings(tolerance=0.0))[0] != G
    where = np.zeros_like(changed)
    where[1, 64:128, 0, 1] = True
    assert changed.any() and not changed[~where].any()
    linear = trn.quantize(weight[:, :, 0, 0], 1)[0]
    assert np.array_equal(linear, trn.quantize(weight, 1)[0][:, :, 0, 0])


# ---------------------------------------------------------------------- DistilQuant


def buckets_by_themselves(quantize: Callable[..., Array], w: Array, levels: int, size: int) -> None:
    got = quantize(w, levels, size)
    for first in range(0, w.size, size):
        wanted = naive.uniform(list(w[first : first + size]), levels)
        if not np.array_equal(got[first : first + size], wanted):
            raise AssertionError(f"{got[first : first + size]} is not {wanted}")


@given(weights, st.sampled_from([2, 3, 5, 16]), st.integers(1, 4))
def test_distilquants_buckets_are_rounded_by_themselves(w: Array, levels: int, size: int) -> None:
    buckets_by_themselves(distilquant.quantize, w, levels, size)
    again = distilquant.quantize(w, levels, size)
    for first in range(0, w.size, size):
        part, rounded = w[first : first + size], again[first : first + size]
        assert len(np.unique(rounded)) <= levels
        scale = float(np.abs(part).max())
        close(float(rounded.min()), float(part.min()), scale)
        close(float(rounded.max()), float(part.max()), scale)


def test_distilquants_padding_does_not_widen_the_last_bucket() -> None:
    w = np.array([0.0, 1.0, 2.0, 3.0, 5.0])

    def with_zeros(w: Array, levels: int, size: int) -> Array:
        return distilquant.quantize(np.append(w, np.zeros(-w.size % size)), levels, size)[: w.size]

    buckets_by_themselves(distilquant.quantize, w, 3, 2)
    fails(lambda: buckets_by_themselves(with_zeros, np.array([0.0, 1.0, 4.0, 5.0, 5.5]), 3, 3))


def test_distilquants_narrow_buckets_halves_and_odd_sizes() -> None:
    narrow = np.array([1.0, 1.0 + 9e-11])
    assert distilquant.quantize(narrow, 3).tolist() == [1.0, 1.0]
    wide = np.array([1.0, 1.0 + 1.1e-10])
    assert np.array_equal(distilquant.quantize(wide, 3), wide)
    # 0.5 and 1.5 in units of the step go to the even neighbours 0 and 2.
    assert distilquant.quantize(np.array([0.0, 1.0, 3.0, 4.0]), 3).tolist() == [0.0, 0.0, 4.0, 4.0]
    w = np.random.default_rng(0).standard_normal((3, 7, 3, 3))
    assert np.array_equal(
        distilquant.quantize(w, 4, 50), distilquant.quantize(w.ravel(), 4, 50).reshape(w.shape)
    )
    assert distilquant.quantize(w.astype(np.float32), 4).dtype == np.float32


def test_weights_at_the_ends_of_the_type_are_refused_or_right() -> None:
    with pytest.raises(ValueError, match="`w` must be large enough for 17 powers"):
        inq.powers(np.array([5e-324]), 17)
    assert (inq.powers(np.array([2.0**-1060]), 17) != 0).sum() == 16
    with pytest.raises(ValueError, match="`range of w`"):
        distilquant.quantize(np.array([1e308, -1e308]), 3)
    t, alpha = trn.fgq(np.zeros((2, 0)))
    assert t.shape == (2, 0) and alpha.tolist() == [0.0, 0.0]


def test_distilquants_loss_and_its_gradient() -> None:
    rng = np.random.default_rng(0)
    y, teacher, labels = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), np.array([0, 2, 1, 1])
    for mean in ("images", "elements"):
        settings = distilquant.DistilQuantSettings(mean=mean)
        value, dy = distilquant.loss(y, teacher, labels, settings)
        p, q = (np.exp(z / 2) / np.exp(z / 2).sum(axis=1, keepdims=True) for z in (teacher, y))
        kl = np.sum(p * np.log(p / q)) / (4 if mean == "images" else 12)
        ce = -np.mean(np.log(np.exp(y) / np.exp(y).sum(axis=1, keepdims=True))[np.arange(4), labels])
        close(value, 0.7 * 4 * kl + 0.3 * ce, value)
        step = rng.standard_normal(y.shape)
        slope = [distilquant.loss(y + s * step, teacher, labels, settings)[0] for s in (1e-5, -1e-5)]
        assert abs((slope[0] - slope[1]) / 2e-5 - float(np.sum(dy * step))) <= 1e-9
        assert not abs((slope[0] - slope[1]) / 2e-5 - 2 * float(np.sum(dy * step))) <= 1e-9


# ---------------------------------------------------------------------- VQ


def partition_is_best(values: Array, codes: Array, w: Array, levels: int) -> None:
    best = naive.best_partition(list(w), levels)
    close(float(np.sum((values[codes] - w) ** 2)), best, float(w @ w))


@given(weights, st.integers(2, 5), st.integers(0, 9))
def test_vqs_exact_partition_is_the_best_and_lloyd_is_never_better(w: Array, levels: int, seed: int) -> None:
    best = vq.quantize(w, levels, np.random.default_rng(seed), variant="exact")
    lloyd = vq.quantize(w, levels, np.random.default_rng(seed))
    partition_is_best(best.values, best.codes, w, levels)
    error = float(np.sum((lloyd.values[lloyd.codes] - w) ** 2))
    assert error >= best.residual - ROUNDING * float(w @ w)
    # Lloyd ends at a fixed point: every value is its cluster's mean, every weight in the nearest cluster.
    for k, value in enumerate(lloyd.values):
        if (lloyd.codes == k).any():
            close(float(value), float(w[lloyd.codes == k].mean()), float(np.abs(w).max()))
    nearest = np.abs(w[:, None] - lloyd.values).min(axis=1)
    assert (np.abs(w - lloyd.values[lloyd.codes]) <= nearest + 1e-12).all()


def test_a_worse_partition_is_seen_and_lloyd_depends_on_its_start() -> None:
    w = np.array([0.0, 1.0, 5.0, 6.0])
    partition_is_best(np.array([0.5, 5.5]), np.array([0, 0, 1, 1]), w, 2)
    fails(lambda: partition_is_best(np.array([0.0, 4.0]), np.array([0, 1, 1, 1]), w, 2))
    sample = np.random.default_rng(0).standard_normal(400)
    one, two = (vq.quantize(sample, 9, np.random.default_rng(seed)) for seed in (0, 0))
    assert np.array_equal(one.values, two.values) and one.guarantee == "local"
    assert vq.quantize(sample, 9, np.random.default_rng(0), variant="exact").guarantee == "global"


def test_the_gradient_of_the_values_is_the_sum_over_the_cluster() -> None:
    rng = np.random.default_rng(0)
    codes, g, values = rng.integers(0, 3, (2, 5, 4)), rng.standard_normal((2, 5, 4)), rng.standard_normal(4)
    slope = retrain.values_gradient(g, codes, 4)
    for k in range(4):
        step = np.eye(4)[k] * 0.25
        up, down = (float(np.sum(g * table[codes])) for table in (values + step, values - step))
        close((up - down) / 0.5, float(slope[k]), float(np.abs(g).sum()))
    assert slope[3] == 0 and not np.allclose(slope[:3], [g[codes == k].mean() for k in range(3)])


# ---------------------------------------------------------------------- DQ, ExNN


@given(weights, st.sampled_from([2, 3, 8, 16, 32]))
def test_uniform_affine_rounding_by_its_definition(w: Array, levels: int) -> None:
    S, Z, q = dq.affine(w, levels)
    got = S * (q.astype(np.float64) - Z)
    for x, y in zip(got, naive.affine(list(w), levels), strict=True):
        close(float(x), y, float(np.abs(w).max()))
    # A rounding of Z moves the ends by at most half a step.
    assert (np.abs(got - w) <= S * (1 + 1e-9)).all() and 0 <= Z < levels
    assert q.min() >= 0 and q.max() < levels
    assert not got[w == 0].any()  # 0 stays 0


def test_direct_rounding_is_at_the_mean_with_the_published_midpoints() -> None:
    w = np.array([0.4, 0.6, 1.4, 1.6, 2.9, 3.1, 5.9, 6.1, -0.6])
    padded = np.append(w, np.sign(1.0) * (2 * w.size - np.abs(w).sum()) * np.ones(1))  # any mean will do
    code = dq.encode(padded[None, :, None], 9, "mean")
    alpha = float(np.abs(padded).mean())
    assert float(code.alpha) == pytest.approx(alpha, rel=1e-15)
    for x, y in zip(padded, code.weight().ravel(), strict=True):
        ratio = abs(x) / alpha
        level = sum(step for limit, step in ((0.5, 1), (1.5, 1), (3, 2), (6, 4)) if ratio > limit)
        close(float(y), float(np.sign(x)) * alpha * level, alpha)


@given(weights, st.sampled_from([3, 5, 7, 9]))
def test_exnns_projection_is_a_fixed_point(w: Array, levels: int) -> None:
    lam = np.random.default_rng(0).standard_normal(w.shape)
    V = w + lam
    found = exnn.proximal(w, lam, levels)
    Q = found.values[found.codes]
    alpha = float(found.alpha)
    if Q.any():
        close(alpha, float(V @ Q / (Q @ Q)), float(np.abs(V).max()))
        distance = np.abs(V[:, None] - alpha * found.values).min(axis=1)
        assert (np.abs(V - alpha * Q) <= distance + 1e-12 * np.abs(V).max()).all()
    zero = exnn.proximal(np.zeros(3), np.zeros(3), levels)
    assert not zero.G.any()


def test_exnns_penalty_has_the_gradient_of_half_rho_times_the_square() -> None:
    rng = np.random.default_rng(0)
    w, G, lam, step = rng.standard_normal((4, 6))
    slope = float(exnn.penalty_gradient(w, G, lam, 3.0) @ step)

    def penalty(s: float) -> float:
        return 1.5 * float(np.sum((w + s * step - G + lam) ** 2))

    assert abs((penalty(1e-3) - penalty(-1e-3)) / 2e-3 - slope) <= 1e-9 * abs(slope)


DEGENERATE = {"zero": np.zeros(5), "constant": np.full(5, -0.3), "single": np.array([0.7])}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_weights_are_quantized(case: str, dtype: type[np.floating]) -> None:
    w = DEGENERATE[case].astype(dtype)
    D = np.ones_like(w)
    results = {
        "lata": lat.quantize(w, D, "approximate"),
        "late": lat.quantize(w, D, "exact"),
        "two": lat.quantize(w, D, "two-scale"),
        "vq": (lambda f: f.values[f.codes])(vq.quantize(w, 3, np.random.default_rng(0))),
        "distilquant": distilquant.quantize(w, 3),
        "trn": trn.quantize(w.reshape(1, -1), 1)[0].ravel(),
        "exnn": exnn.proximal(w, np.zeros_like(w), 3).G,
    }
    for name, G in results.items():  # constant and single weights are ternary: nothing is lost
        assert np.allclose(G, w, rtol=1e-6, atol=0), name
    values = inq.powers(w, 3)
    assert np.array_equal(np.sign(values[inq.nearest(w, values)]), np.sign(w))
    assert np.array_equal(np.sign(ttq.quantize(w, 1.0, 1.0)), np.sign(w))
