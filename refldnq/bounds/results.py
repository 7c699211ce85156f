"""What is known about a pair of networks: the errors of its layers and the bounds on the final one."""

from __future__ import annotations

from dataclasses import dataclass

ORDER = (
    ("true", "secant"),
    ("secant", "masks"),
    ("masks", "spectral_parallel"),
    ("blocks_parallel", "spectral_parallel"),
    ("spectral_parallel", "frobenius_parallel"),
    ("true", "hybrid"),
    ("hybrid", "blocks_cascade"),
    ("blocks_cascade", "spectral_cascade"),
    ("spectral_cascade", "frobenius_cascade"),
)
"""Pairs of which the first is never above the second."""

IDENTITY = 2.0**-26
"""The residual of the exact identity, relative to the sum of its terms, above which it does not hold: half of
float64's digits; the slack of the rung ``masks``, rounding carried to the end, is added. Chosen here; a wrong
slope shows at 1e-3, rounding at 1e-12 (56 layers)."""

TITLES = {
    "secant": "secant slopes, exact terms",
    "hybrid": "hybrid telescoping",
    "masks": "active sets, image by image",
    "blocks_parallel": "spectral, blocks, parallel",
    "blocks_cascade": "spectral, blocks, cascade",
    "spectral_parallel": "spectral, parallel",
    "spectral_cascade": "spectral, cascade",
    "frobenius_parallel": "Frobenius, corrected, parallel",
    "frobenius_cascade": "Frobenius, corrected, cascade",
    "printed_frobenius": "Frobenius, as the paper means it",
    "printed": "(19) as printed",
}
"""The rungs, tight ones first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    r"""One bound.

    Parameters
    ----------
    key : str
        Its name in `TITLES`.
    value : float
        The bound.
    tightness : float
        Bound over true error; NaN if that is 0.
    valid : bool
        Whether a proof covers this pair of networks.
    reasons : tuple of str
        If not, why.
    slack : float
        How far rounding may put the float64 value of a valid bound below the true error of the networks *as
        evaluated in float64*: every layer's output is the exact one of its inputs plus :math:`\eta_v`,
        :math:`\|\eta_v\| \le \gamma\,(\|\hat\theta\|_F\|x\| + \|b\|)`; the graph rule carries
        :math:`\eta` as it carries local errors. For ``secant`` the slack is the norm of the identity's
        residual, for ``hybrid`` there is none: both are triangle inequalities for computed arrays. What the
        sums and norms themselves round, relatively less than `Ladder.relative_slack`, is added.
    holds : bool
        Whether the true error is at most ``value + slack``; of a bound that is not valid the slack is 0.
    """

    key: str
    value: float
    tightness: float
    valid: bool
    reasons: tuple[str, ...]
    slack: float
    holds: bool

    @property
    def title(self) -> str:
        """In words."""
        return TITLES[self.key]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerBounds:
    r"""One quantized layer with what belongs to it: batch normalization and other changed nodes behind it.

    Parameters
    ----------
    name : str
        The layer.
    changed : tuple of str
        Nodes of the group whose arrays differ.
    parallel : float
        :math:`e_k = \|F(Y;\hat\theta) - F(Y;\theta)\|/\sqrt n`, on the original network's inputs, of the
        pre-activation; biases included.
    cascade : float
        :math:`c_k`, the same on the quantized network's inputs: the root of (8) with the original weights.
    block : float
        The parallel error behind the layer's batch normalization and ReLU.
    hybrid : float
        :math:`\|H_k - H_{k-1}\|/\sqrt n`: what quantizing this layer too does to the final output.
    secant : float
        :math:`\|J_k r_k\|/\sqrt n`: its term in the exact identity.
    norm, frobenius, printed : float
        Of the quantized weight: the certified operator norm, the corrected and the printed Frobenius norm.
    gain : float
        The most by which an error at the layer's output grows up to the final output (spectral).
    """

    name: str
    changed: tuple[str, ...]
    parallel: float
    cascade: float
    block: float
    hybrid: float
    secant: float
    norm: float
    frobenius: float
    printed: float
    gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    r"""The bounds for a pair of networks on some images.

    Parameters
    ----------
    images : int
        Their number n.
    true_error : float
        :math:`\hat\varepsilon^L`.
    output_norm : float
        :math:`\|Y\|_F/\sqrt n`, to compare with.
    layers : tuple of LayerBounds
        One a layer with weights to which changed nodes belong.
    rungs : tuple of Rung
        In the order of `TITLES`.
    residual : float
        :math:`\|\hat Y - Y - \sum_k J_k r_k\|_F/\sqrt n`: 0 but for rounding.
    violated : tuple of str
        What does not hold, pairs of `ORDER` and the exact identity; empty unless something is wrong.
    relative_slack : float
        Of sums and norms.
    """

    images: int
    true_error: float
    output_norm: float
    layers: tuple[LayerBounds, ...]
    rungs: tuple[Rung, ...]
    residual: float
    violated: tuple[str, ...]
    relative_slack: float

    def rung(self, key: str) -> Rung:
        """The rung called `key`.

        Raises
        ------
        KeyError
            If there is none.
        """
        for rung in self.rungs:
            if rung.key == key:
                return rung
        raise KeyError(f"`key` must be one of {list(TITLES)}, got {key!r}.")

    @property
    def best(self) -> Rung:
        """The smallest valid bound."""
        return min((rung for rung in self.rungs if rung.valid), key=lambda rung: rung.value)

    @property
    def sound(self) -> bool:
        """Whether all valid bounds hold and stand in the order that theorems give them."""
        return not self.violated and all(rung.holds for rung in self.rungs if rung.valid)
