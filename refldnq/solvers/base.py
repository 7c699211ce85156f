"""What every solver of the discrete problem (10) takes and returns, and how a solver is found by its name.

A solver minimizes f(G) = ½ tr((G-W)ᵀ H (G-W)) over G in Ω. It is a function

    solve(H (g, d, d), W (g, d, m), codebook, settings or None) -> Solution

where None means the solver's default settings. To add one: write a module in `refldnq.solvers` with a frozen
dataclass of settings, a constant `DEFAULT` of it and a function `solve`, and give it a line in `SOLVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np

from refldnq._checks import check_choice, check_finite, check_float, check_shape
from refldnq._typing import Array, Float64Array, Int8Array, Int64Array
from refldnq.codebook import Codebook
from refldnq.hessian import check_blocks

Guarantee = Literal["none", "descent", "convergence", "optimal"]
"""What is proved about a result.

``none``         nothing.
``descent``      the solver's Lyapunov function cannot rise.
``convergence``  the iterates converge to a fixed point.
``optimal``      no G in Ω has a smaller objective.
"""

SOLVERS: Mapping[str, str] = MappingProxyType(
    {
        "admm": "refldnq.solvers.admm",
        "admm_plus": "refldnq.solvers.admm_plus",
        "anneal": "refldnq.solvers.anneal",
        "blocks": "refldnq.solvers.blocks",
        "coordinate": "refldnq.solvers.coordinate",
        "direct": "refldnq.solvers.direct",
        "exact": "refldnq.solvers.exact",
        "gpfq": "refldnq.solvers.gpfq",
        "gptq": "refldnq.solvers.gptq",
        "ldlq": "refldnq.solvers.ldlq",
    }
)
"""The module of every solver by name; a module is imported when its solver is first asked for."""


WEIGHTED = frozenset({"admm_plus", "anneal", "blocks", "coordinate", "gpfq", "gptq", "ldlq"})
"""Names of the solvers that take `column_weights`."""

ORDERED = frozenset({"admm_plus", "anneal", "blocks", "coordinate", "gpfq", "gptq", "ldlq"})
"""Names of the solvers whose result depends on the order of the inputs: those that go from entry to entry, if
only in a final descent. The others do not, but for ties."""


def _no_floats() -> Float64Array:
    return np.empty(0)


def _no_integers() -> Int64Array:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What an iterative solver saw; what a solver does not have is empty.

    Parameters
    ----------
    objective : Array, shape (K+1,)
        f(G) of the start and after each of K iterations.
    alpha : Array, shape (K+1, ...)
        The scale, or one a channel.
    passes : Array, shape (K+1,), int64
        Updates of the scale in each projection.
    primal, dual : Array, shape (K,)
        ADMM's residuals ‖Θ - G‖ and ρ ‖G^{k+1} - G^k‖.
    lyapunov : Array, shape (K,)
        ADMM's function that cannot rise, before each iteration; empty if nothing is proved of it.
    """

    objective: Float64Array = field(default_factory=_no_floats)
    alpha: Float64Array = field(default_factory=_no_floats)
    passes: Int64Array = field(default_factory=_no_integers)
    primal: Float64Array = field(default_factory=_no_floats)
    dual: Float64Array = field(default_factory=_no_floats)
    lyapunov: Float64Array = field(default_factory=_no_floats)


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """A quantized weight and what is known about it.

    Parameters
    ----------
    codes : Array, shape (g, d, m), int8
        Indices into `values`.
    alpha : Array, shape () or (g, m), float64
        The scale.
    values : Array, shape (k,), float64
        The set's values, ascending.
    objective : float
        f(G) of (10); NaN if there was no Hessian.
    solver : str
        The solver's name.
    settings : object
        Its settings, as resolved.
    iterations : int
        Iterations done.
    converged : bool
        Whether the iteration ended at a fixed point; True for solvers that do not iterate.
    guarantee : {'none', 'descent', 'convergence', 'optimal'}
        What is proved about the result.
    rho : float
        The penalty; NaN for solvers that have none.
    notes : tuple of str
        What a reader of the result should know: fallbacks, damping, degenerate inputs.
    trace : Trace
        The course of the iteration.
    """

    codes: Int8Array
    alpha: Float64Array
    values: Float64Array
    objective: float
    solver: str
    settings: Any
    iterations: int = 0
    converged: bool = True
    guarantee: Guarantee = "none"
    rho: float = float("nan")
    notes: tuple[str, ...] = ()
    trace: Trace = field(default_factory=Trace)

    @property
    def G(self) -> Float64Array:  # noqa: N802 - the paper's symbol
        """The quantized weight alpha * values[codes], (g, d, m), float64."""
        alpha = self.alpha[:, None, :] if self.alpha.ndim else self.alpha
        weight: Float64Array = alpha * self.values[self.codes]
        return weight


class Solver(Protocol):
    """The signature of every solver."""

    def __call__(
        self, H: Float64Array, W: Array, codebook: Codebook, settings: Any = None, /, **weighted: Array
    ) -> Solution:
        """Minimize (10) over Ω; solvers in `WEIGHTED` take ``column_weights`` by name."""
        ...


def get_solver(name: str) -> Solver:
    """Look a solver up by its name.

    Parameters
    ----------
    name : str
        One of the names in `SOLVERS`.

    Returns
    -------
    callable
        ``solve(H, W, codebook, settings)``.

    Raises
    ------
    ValueError
        If there is no such solver.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> H, W = np.eye(2)[None], np.array([[[3.0], [1.0]]])
    >>> get_solver("direct")(H, W, powers_of_two(3), None).objective
    1.0
    """
    check_choice("name", name, SOLVERS)
    solve: Solver = import_module(SOLVERS[name]).solve
    return solve


def default_settings(name: str) -> Any:
    """The settings that a solver takes for None: a frozen dataclass of its own.

    Raises
    ------
    ValueError
        If there is no such solver.

    Examples
    --------
    >>> default_settings("direct").per_channel
    False
    """
    check_choice("name", name, SOLVERS)
    return import_module(SOLVERS[name]).DEFAULT


def check_problem(H: Array, W: Array) -> tuple[Float64Array, Float64Array]:
    """Refuse what is not a problem (10); return H, exactly symmetric, and W, both in float64.

    Raises
    ------
    ValueError
        If the shapes do not fit, H is not symmetric, or an entry is not finite.
    TypeError
        If H is not float64 or W not float.

    Examples
    --------
    >>> check_problem(np.eye(2)[None], np.ones((1, 3, 1)))
    Traceback (most recent call last):
        ...
    ValueError: `W` must have shape (1, 2, any), got (1, 3, 1).
    """
    check_blocks("H", H)
    check_shape("W", check_float("W", W), (H.shape[0], H.shape[1], None))
    check_finite("W", W)
    if W.shape[2] == 0:
        raise ValueError(f"`W` must have at least one column, got shape {W.shape}.")
    return 0.5 * (H + H.transpose(0, 2, 1)), np.ascontiguousarray(W, dtype=np.float64)


def check_column_weights(weights: Array | None, W: Array) -> Float64Array | None:
    """Refuse what are not weights of the columns of W, (g, d, m); return them, (g, m), in float64.

    Raises
    ------
    ValueError
        If the shape does not fit, or one is not finite or not greater than 0.
    TypeError
        If they are not float.

    Examples
    --------
    >>> check_column_weights(np.array([[1.0, 0.0]]), np.ones((1, 3, 2)))
    Traceback (most recent call last):
        ...
    ValueError: `column_weights` must be greater than 0, got 0.0.
    """
    if weights is None:
        return None
    check_shape("column_weights", check_float("column_weights", weights), (W.shape[0], W.shape[2]))
    check_finite("column_weights", weights)
    if not (weights > 0).all():
        raise ValueError(f"`column_weights` must be greater than 0, got {weights.min()}.")
    return np.asarray(weights, dtype=np.float64)


def pick_settings(settings: Any, kind: type[Any], default: Any) -> Any:
    """Return the settings, or the default for None.

    Raises
    ------
    TypeError
        If the settings are another solver's.

    Examples
    --------
    >>> pick_settings(None, int, 3)
    3
    """
    if settings is None:
        return default
    if not isinstance(settings, kind):
        raise TypeError(f"`settings` must be {kind.__name__}, got {type(settings).__name__}.")
    return settings
