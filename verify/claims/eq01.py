r"""(1): the augmented Lagrangian L_ρ(x, y, z) = f(x) + g(z) + yᵀh(x, z) + (ρ/2)‖h(x, z)‖².

A definition, and the right one: on h = 0 it is the objective, off h = 0 it is unbounded in y, and its slope
in (x, z) is that of the ordinary Lagrangian with the multiplier y + ρh, which is what makes (5) the step of
the multiplier. Convergence theory of ADMM asks for an affine h; all uses in the paper have h = x - z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import inner
from refldnq.verify.claims._splitting import Splitting, problem, slope, splittings
from refldnq.verify.claims.base import Claim, Instance, Mutation, Statement

Formula = Callable[[Splitting, Any, Any, Any], Any]
"""A Lagrangian as a function of the problem, x, z and y."""


def augmented(own: Splitting, x: Any, z: Any, y: Any) -> Any:
    """(1)."""
    h = own.h(x, z)
    return own.f(x) + own.g(z) + inner(y, h) + own.rho / 2 * inner(h, h)  # [LDNQ] (1)


def is_augmented_lagrangian(instance: Instance, *, formula: Formula) -> bool:
    """Whether a formula has the four properties that define the augmented Lagrangian."""
    own = problem(instance, EXACT)
    x, z, y = (instance[name] for name in "xzy")
    h = own.h(x, z)
    feasible = replace(own, c=own.A @ x + own.B @ z)
    multiplier = y + own.rho * h
    return bool(
        formula(feasible, x, z, y) == own.f(x) + own.g(z)
        and formula(own, x, z, y + h) - formula(own, x, z, y) == inner(h, h)
        and all(slope(lambda v: formula(own, v, z, y), x) == own.f_gradient(x) + own.A.T @ multiplier)
        and all(slope(lambda v: formula(own, x, v, y), z) == own.g_gradient(z) + own.B.T @ multiplier)
    )


def _wrong(formula: Formula) -> dict[str, Statement]:
    return {"printed": replace(PRINTED, holds=partial(is_augmented_lagrangian, formula=formula))}


def _without_half(own: Splitting, x: Any, z: Any, y: Any) -> Any:
    h = own.h(x, z)
    return augmented(own, x, z, y) + own.rho / 2 * inner(h, h)


def _minus(own: Splitting, x: Any, z: Any, y: Any) -> Any:
    return augmented(own, x, z, -y)


def _unpenalized(own: Splitting, x: Any, z: Any, y: Any) -> Any:
    return augmented(replace(own, rho=0 * own.rho), x, z, y)


PRINTED = Statement(
    latex=r"L_\rho(\mathbf x,\mathbf y,\mathbf z)=f(\mathbf x)+g(\mathbf z)+\mathbf y^\top h(\mathbf x,"
    r"\mathbf z)"
    r"+\tfrac\rho2\|h(\mathbf x,\mathbf z)\|_2^2",
    words="the augmented Lagrangian is f + g + y'h + (rho/2)|h|^2",
    holds=partial(is_augmented_lagrangian, formula=augmented),
)

CLAIM = Claim(
    id="eq01",
    title="The augmented Lagrangian",
    source="(1)",
    printed=PRINTED,
    verdict="true",
    reason="the definition, with the properties it must have; h must be affine for ADMM's theory",
    proof=r"""
(1) is a definition; what can be right or wrong is whether it serves its purpose.

*The problem is its saddle.* Where $h(x,z)=0$, $L_\rho=f+g$ for all $y$ and $\rho$. Where $h\ne0$,
$L_\rho(x,y+th,z)=L_\rho(x,y,z)+t\|h\|^2\to\infty$. Hence $\sup_yL_\rho$ is $f+g$ on the constraint and
$+\infty$ off it, and $\min_{x,z}\sup_yL_\rho$ is the constrained problem.

*The factor one half.* $\nabla_xL_\rho=\nabla f+(\partial_xh)^\top(y+\rho h)$, and likewise in $z$: the slope
of the ordinary Lagrangian at the multiplier $y+\rho h$. So a point that minimizes $L_\rho(\cdot,y)$ is
stationary for the Lagrangian with $y^+=y+\rho h$, which is (5) for $\lambda=y/\rho$. With another factor it
would not be.

*What (1) does not say.* For an affine $h$ and convex $f,g$ the function is convex in $x$ and in $z$. For
another $h$ it need not be: $f=0$, $h=x^2-z$, $\rho=1$, $y=0$, $z=1$ gives $\frac12(x^2-1)^2$, which is $0$ at
$x=\pm1$ and $\frac12$ between them. All problems of the paper have $h=x-z$.
""",
    checks=(
        on_all("objective, growth in y, slopes in x and z", lambda: splittings(101, 60)),
        on_all("the same for h = x - z", lambda: splittings(102, 30, consensus=True)),
    ),
    mutations=(
        Mutation(name="the penalty without its half", changes=_wrong(_without_half)),
        Mutation(name="minus before the multiplier", changes=_wrong(_minus)),
        Mutation(name="no penalty", changes=_wrong(_unpenalized)),
    ),
)
