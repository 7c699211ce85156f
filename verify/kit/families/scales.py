"""One scale for each output channel: projections, ADMM and solvers, by columns in rational arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._exact import admm, project
from refldnq.verify.kit.families._make import CLEAR, refuse
from refldnq.verify.kit.families._numbers import draws, fractions, rounded
from refldnq.verify.kit.families._problems import POWERS, correlated, weight
from refldnq.verify.kit.families.admm import generic
from refldnq.verify.kit.families.solvers import condition, objective, solve

Inputs = Mapping[str, Any]

SHARED = "channels-share-a-scale"


def projected(inputs: Inputs) -> dict[str, Array]:
    """Codes, scales and G of all columns, margins, nearly right codes, and sizes of the scales' terms."""
    V = np.asarray(inputs["V"])
    starts = np.broadcast_to(np.asarray(inputs["alpha0"]), V.shape[1:])
    columns = [project({**inputs, "V": v, "alpha0": a}) for v, a in zip(V.T, starts, strict=True)]
    found = {name: np.stack([one.outputs[name] for one in columns], axis=1) for name in ("Q", "G")}
    found["alpha"] = np.array([one.outputs["alpha"].item() for one in columns], dtype=object)
    found["bound"] = np.array([one.bound["alpha"].item() for one in columns], dtype=object)
    found["margin"] = np.stack([one.margin["Q"] for one in columns], axis=1)
    found["allowed"] = np.stack([one.allowed["Q"] for one in columns], axis=1)
    return found


def run(inputs: Inputs) -> dict[str, Any]:
    """The trajectories of all columns side by side, and the best iteration of all together.

    Returns
    -------
    dict
        ``outputs``, ``compare``, ``bound``, ``margin``, ``allowed`` and ``trace`` as a case has them.
    """
    names = ("W_bar", "G0", "lam0")
    columns = [
        admm({**inputs, **{name: np.asarray(inputs[name])[:, o : o + 1] for name in names}})
        for o in range(np.shape(inputs["W_bar"])[1])
    ]

    def beside(part: str, name: str) -> Array:
        return np.concatenate([getattr(one, part)[name] for one in columns], axis=2)

    outputs = {name: beside("outputs", name) for name in ("Theta", "V", "Q", "G", "lam")}
    outputs["alpha"] = np.stack([one.outputs["alpha"] for one in columns], axis=1)
    E = np.sum([one.outputs["E"] for one in columns], axis=0)
    best = min(range(len(E)), key=lambda k: E[k])
    points = np.concatenate([fractions(inputs["G0"])[None], outputs["G"]])
    chosen = best if inputs["returned"] == "best" else -1
    rivals = [value for k, value in enumerate(E) if k != best]
    bound = {name: beside("bound", name) for name in ("V", "G", "lam")}
    bound["alpha"] = np.stack([one.bound["alpha"] for one in columns], axis=1)
    bound["E"] = np.sum([one.bound["E"] for one in columns], axis=0)
    first = abs(fractions(inputs["G0"]))[None]
    bound["result"] = np.concatenate([first, bound["G"]])[chosen]
    return {
        "outputs": {**outputs, "E": E, "best": np.array(best, dtype=np.int64), "result": points[chosen]},
        "bound": bound,
        "margin": {
            "Q": beside("margin", "Q"),
            "best": np.array(float((min(rivals) - E[best]) / min(rivals))),
        },
        "allowed": {"Q": beside("allowed", "Q")},
        "compare": dict(columns[0].compare),
        "trace": {
            **{
                name: np.concatenate([one.trace[name] for one in columns], axis=2)
                for name in ("G_in", "L_in", "Theta", "V", "Q", "G", "L")
            },
            **{name: np.stack([one.trace[name] for one in columns], axis=1) for name in ("alpha", "passes")},
            "E": E[1:],
            "best": np.array([int(np.argmin(E[: k + 1])) for k in range(1, len(E))]),
        },
    }


def _clear(name: str, margins: Any) -> None:
    if not np.min(margins) >= CLEAR:
        raise ValueError(f"`inputs` of {name} must have margins of {CLEAR}, got {np.min(margins)}.")


def _projection(
    name: str, comment: str, inputs: dict[str, Any], catches: str, *, tier: str = "certified"
) -> Case:
    found = projected(inputs)
    _clear(f"project_channels/{name}", found["margin"])
    # α is a quotient of two sums of a column, as `rules` has it: twice d + 4 roundings, one more of G.
    scale = found["bound"] * Fraction(2 * len(inputs["V"]) + 9, 4)
    sizes: Any = abs(fractions(inputs["values"])[found["Q"]])
    return Case(
        op="project_channels",
        id=f"project_channels/{name}",
        comment=comment,
        tier=tier,
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={"Q": found["Q"], "alpha": rounded(found["alpha"]), "G": rounded(found["G"])},
        compare={"Q": "code", "alpha": "ulp", "G": "ulp"},
        bound={"alpha": rounded(scale), "G": rounded(sizes * scale)},
        margin={"Q": found["margin"]},
        allowed={"Q": found["allowed"]},
    )


def _projections() -> Iterator[Case]:
    rule = {"kind": "alternating", "passes": -1, "ties": "smaller"}
    wide = weight(905, 6, 3) * np.array([1.0, 8.0, 0.125])
    yield _projection(
        "different-sizes",
        "columns of sizes 1, 8 and 1/8",
        {"V": wide, "values": POWERS[3], "alpha0": np.zeros(3), **rule},
        SHARED,
    )
    square = weight(911, 4, 4) * np.array([1.0, 2.0, 0.5, 4.0])
    yield _projection(
        "square",
        "as many rows as columns: a scale a row has the right shape",
        {"V": square, "values": POWERS[5], "alpha0": np.zeros(4), **rule},
        f"{SHARED} channels-are-rows",
    )
    local = np.array([[4.0, 1.25], [1.0, 1.0], [1.0, 0.75], [1.0, 0.875]])
    yield _projection(
        "own-starts",
        "the first column would send the second to another fixed point",
        {"V": local[:, ::-1].copy(), "values": POWERS[3], "alpha0": np.array([0.0, 4.5]), **rule},
        f"{SHARED} channels-start-carried",
    )
    yield _projection(
        "optimum",
        "the exact projection of each column",
        {"V": weight(917, 5, 2) * np.array([1.0, 16.0]), "values": POWERS[3], "alpha0": np.zeros(2), **rule}
        | {"kind": "exact"},
        SHARED,
    )
    spoiled = np.where(wide == wide[0, 0], np.inf, wide)
    yield refuse(
        "project_channels",
        "infinity",
        "one entry is infinite",
        {"V": spoiled, "values": POWERS[3], "alpha0": np.zeros(3), **rule},
        "non-finite-accepted",
    )


def _trajectory(name: str, comment: str, inputs: dict[str, Any], catches: str) -> Case:
    found = run(inputs)
    for margin in found["margin"].values():
        _clear(f"admm_channels/{name}", margin)
    return Case(
        op="admm_channels",
        id=f"admm_channels/{name}",
        comment=comment,
        tier="certified",
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={key: rounded(value) for key, value in found["outputs"].items()},
        compare=found["compare"],
        bound={key: rounded(value) for key, value in found["bound"].items()},
        margin=found["margin"],
        allowed=found["allowed"],
        trace={key: rounded(value) for key, value in found["trace"].items()},
        kappa=condition(
            fractions(inputs["H"]) + Fraction(inputs["rho"]) * fractions(np.eye(len(inputs["H"])))
        ),
    )


def _trajectories() -> Iterator[Case]:
    for name, comment, problem in (
        ("three-levels", "3 levels, two columns", generic(SEEDS[0], 8, 3, 2, 3, 1.0, 6)),
        ("seven-levels", "7 levels, three columns", generic(SEEDS[1], 16, 4, 3, 7, 1.5, 5)),
    ):
        sizes = np.array([1.0, 4.0, 0.5])[: problem["W_bar"].shape[1]]
        scaled = {key: problem[key] * sizes for key in ("W_bar", "G0", "lam0")}
        yield _trajectory(name, comment, {**problem, **scaled}, f"{SHARED} channels-best-each")
    good = generic(SEEDS[0], 8, 3, 2, 3, 1.0, 3)
    spoiled = np.where(good["W_bar"] == good["W_bar"][0, 0], np.nan, good["W_bar"])
    yield refuse("admm_channels", "nan", "a weight is NaN", {**good, "W_bar": spoiled}, "non-finite-accepted")


SEEDS = (407, 413)
"""Seeds of problems in which nothing lies near a threshold."""


def solved(inputs: Inputs) -> tuple[Array, Array, Array]:
    """Codes, scales and margins of every column by itself."""
    found = [
        solve({**inputs, "W": np.asarray(inputs["W"])[:, o : o + 1]}) for o in range(inputs["W"].shape[1])
    ]
    codes, margin = (np.concatenate([one[i] for one in found], axis=1) for i in (0, 2))
    return codes, np.array([one[1] for one in found], dtype=object), margin


def _solution(name: str, comment: str, inputs: dict[str, Any], catches: str) -> Case:
    codes, alpha, margin = solved(inputs)
    _clear(f"solve_channels/{name}", margin)
    H, W, levels = (fractions(inputs[key]) for key in ("H", "W", "values"))
    G, kappa = levels[codes] * alpha, condition(H)
    # As for one scale: a mean, or a quotient of quadratic forms.
    roundings = 2 * len(W) + 8 if inputs["solver"] == "direct" else int(np.ceil(kappa)) * 30 * len(W)
    scale = abs(alpha) * roundings
    free = inputs["solver"] != "direct"
    return Case(
        op="solve_channels",
        id=f"solve_channels/{name}",
        comment=comment,
        tier="certified",
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={
            "Q": codes,
            "alpha": rounded(alpha),
            "objective": rounded(np.array(objective(H, W, G), dtype=object)),
        },
        compare={"Q": "code", "alpha": "ulp", "objective": "own"},
        bound={"alpha": rounded(scale / 4)},
        margin={} if free else {"Q": margin},
        allowed={} if free else {"Q": np.left_shift(1, codes.astype(np.int64))},
        kappa=kappa,
    )


def _solutions() -> Iterator[Case]:
    for solver, comment in (
        ("direct", "α = mean|w| of each column"),
        ("exact", "each column's optimum over all codes and scales"),
    ):
        W = weight(921, 4, 3) * np.array([1.0, 8.0, 0.25])
        given = {"H": correlated(604, 16, 4), "W": W, "values": POWERS[3], "kind": "scaled", "solver": solver}
        yield _solution(f"{solver}-three-columns", comment, given, SHARED)
    bad = {**given, "H": draws(930, (4, 4), -2, 2) * np.nan}
    yield refuse("solve_channels", "nan", "H is NaN", bad)


def cases() -> Iterator[Case]:
    """Projections, trajectories, solvers."""
    yield from _projections()
    yield from _trajectories()
    yield from _solutions()
