"""What the paper leaves open about its ADMM, and two named ways of settling it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._rows import Method, Rule
from refldnq.codebook import Ties


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmmSettings:
    """What the paper leaves open.

    The defaults are the profile ``paper``: this project's reading of the text.

    Parameters
    ----------
    rho : float, optional
        The penalty, in units of `rho_scale`.
    rho_scale : {'mean_diagonal', 'lambda_max', 'h00', 'absolute'}, optional
        Mean of the blocks' diagonals, their largest eigenvalue, H[0, 0] of the first group, or 1.
    iterations : int, optional
        Most iterations.
    projection : {'alternating', 'exact'}, optional
        The projection step: (16)-(17) as printed, or its global optimum.
    warm_start : bool, optional
        Whether the alternation starts at the last iteration's α.
    cold_start : {'mean_v', 'mean_w'}, optional
        Where it starts otherwise: at the mean of |V|, or of |W| as in the released code.
    max_passes, alpha_tolerance, keep_best_pass, ties : optional
        See `refldnq.projection.project`.
    start : {'projection', 'direct', 'guaranteed'}, optional
        G⁰ = P(W) and λ⁰ = 0; G⁰ = the rounding at α = mean|W| and λ⁰ = 0; G⁰ = P(W) and λ⁰ = -H(G⁰ - W)/ρ,
        from where f(G^k) ≤ f(G⁰) for every k if the result's guarantee is not ``none``.
    returned : {'best', 'last'}, optional
        Which G: that of least f among the start and all iterations, or the last.
    refit_alpha : bool, optional
        Whether the returned scale is replaced by the best one for its codes, tr(QᵀHW)/tr(QᵀHQ).
    stop : {'none', 'fixed_point', 'ascend3'}, optional
        Do all iterations; stop at a fixed point; or, as the released code, after three iterations in a row
        that do not improve tr(δᵀHδ), twice f, by more than `stop_tolerance`. Then the best G is replaced
        under the same condition only.
    stop_tolerance : float, optional
        An absolute number, hence not scale invariant.
    per_channel : bool, optional
        One α for each output channel in place of one a layer.
    singular : {'raise', 'lstsq'}, optional
        What happens if H + ρI is not positive definite in float64 or ρ is 0: an error, or solutions of least
        squares and least norm, with a note in the result.

    Raises
    ------
    ValueError
        If a setting is out of range; ρ must be positive.
    TypeError
        If a number has the wrong type.

    Examples
    --------
    >>> AdmmSettings.profile("released-2019").rho_scale
    'h00'
    """

    rho: float = 1.0
    rho_scale: Literal["mean_diagonal", "lambda_max", "h00", "absolute"] = "mean_diagonal"
    iterations: int = 100
    projection: Method = "alternating"
    warm_start: bool = True
    cold_start: Literal["mean_v", "mean_w"] = "mean_v"
    max_passes: int | None = None
    alpha_tolerance: float | None = None
    keep_best_pass: bool = False
    ties: Ties = "smaller"
    start: Literal["projection", "direct", "guaranteed"] = "projection"
    returned: Literal["best", "last"] = "best"
    refit_alpha: bool = False
    stop: Literal["none", "fixed_point", "ascend3"] = "none"
    stop_tolerance: float = 1e-3
    per_channel: bool = False
    singular: Literal["raise", "lstsq"] = "raise"

    def __post_init__(self) -> None:
        check_number("rho", self.rho, above=0)
        check_choice("rho_scale", self.rho_scale, ("mean_diagonal", "lambda_max", "h00", "absolute"))
        check_integer("iterations", self.iterations, at_least=0)
        check_choice("cold_start", self.cold_start, ("mean_v", "mean_w"))
        check_choice("start", self.start, ("projection", "direct", "guaranteed"))
        check_choice("returned", self.returned, ("best", "last"))
        check_choice("stop", self.stop, ("none", "fixed_point", "ascend3"))
        check_number("stop_tolerance", self.stop_tolerance, at_least=0)
        check_choice("singular", self.singular, ("raise", "lstsq"))
        check_choice("projection", self.projection, ("alternating", "exact"))
        _ = self.rule  # building it checks its fields

    @property
    def rule(self) -> Rule:
        """The projection's part of the settings."""
        return Rule(
            method=self.projection,
            max_passes=self.max_passes,
            alpha_tolerance=self.alpha_tolerance,
            keep_best_pass=self.keep_best_pass,
            ties=self.ties,
        )

    @classmethod
    def profile(cls, name: Literal["paper", "released-2019"], **changes: Any) -> AdmmSettings:
        """Return a named set of settings, some of them changed.

        Parameters
        ----------
        name : {'paper', 'released-2019'}
            The defaults; or what the authors' released code does (csyhhu/L-DNQ, commit 3094004).
        **changes
            Settings by name.

        Returns
        -------
        AdmmSettings
            The settings.

        Raises
        ------
        ValueError
            If there is no such profile or a change is out of range.

        Notes
        -----
        The released code: ρ = H[0, 0]; start at the rounding with α = mean|W|; every projection starts at
        that α again, does at most 10 updates until α changes by less than 1e-3 (written 10e-4), and keeps the
        pass of least ‖V - G‖; inequalities strict on both sides; the best G is returned and replaced by an
        improvement of tr(δᵀHδ) by more than 1e-3 only; three iterations without one stop it; ``lstsq`` where
        ``solve`` fails. What that code feeds in as H is not the solver's business.

        Examples
        --------
        >>> AdmmSettings.profile("paper", iterations=10).iterations
        10
        """
        check_choice("name", name, ("paper", "released-2019"))
        settings = cls()
        if name == "released-2019":
            settings = cls(
                rho_scale="h00",
                warm_start=False,
                cold_start="mean_w",
                max_passes=10,
                alpha_tolerance=1e-3,
                keep_best_pass=True,
                ties="zero",
                start="direct",
                stop="ascend3",
                singular="lstsq",
            )
        return replace(settings, **changes)
