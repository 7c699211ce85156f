"""How Algorithm 1 goes: levels, solver, what a layer is quantized for, the updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from refldnq._checks import check_choice, check_integer, check_number
from refldnq.codebook import Codebook, powers_of_two
from refldnq.network import Network
from refldnq.released import ReleasedUpdate
from refldnq.solvers.admm_settings import AdmmSettings
from refldnq.solvers.base import SOLVERS, WEIGHTED, default_settings
from refldnq.train import check_batches
from refldnq.update import UpdateSettings, left_out, moving_arrays


@dataclass(frozen=True, kw_only=True)
class LdnqSettings:
    """How a network is quantized.

    Parameters
    ----------
    codebook : Codebook, optional
        The set of levels; three, {-1, 0, 1} times a free scale, as in the paper's tables, by default.
    solver : str, optional
        Name of the solver of (10); the paper's is ``"admm"``.
    solver_settings : object, optional
        The solver's own settings; None means its defaults, for ``"admm"`` the profile ``paper``.
    target : {'weights', 'drift', 'block'}, optional
        What a layer is quantized for: to stay near its own weights, (8) as in the paper; to give the
        reference network's pre-activation in spite of the quantized layers before it (module `drift`); or,
        for the last layer of a residual branch, the reference's sum in spite of the sum's other terms too.
    ridge : float, optional
        With another target than ``weights``, the pull to the layer's own weights, in units of the mean
        diagonal of H.
    absorb : bool, optional
        Whether the problem leaves to the batch normalization behind a layer, or to its bias, what these make
        up for: a factor and a constant for each channel (module `follower`). Needed for the target ``block``,
        not with the target ``weights``.
    channel_weights : {'none', 'batchnorm'}, optional
        How errors of output channels are weighted: alike, or by the square of the scale that the batch
        normalization behind the layer gives them.
    update : UpdateSettings or None, optional
        Step 4; None leaves it out (the paper's L-DNQ⁻).
    first, last : bool, optional
        Whether the first and the last layer are quantized; the paper quantizes all layers.
    skip : tuple of str, optional
        Names of layers that stay as they are; ``*`` matches any text, and every pattern must match a layer.
        Shortcuts that have weights are ``"*.downsample.*"`` in ResNets for ImageNet, ``"*.shortcut.*"`` in
        WRN and, with option B, in ResNets for CIFAR.
    bias : bool, optional
        Whether a bias is quantized as one more row of the weight, as the authors' released code does; the
        paper keeps biases.
    levels : mapping of str to Codebook, optional
        Codebooks of single layers in place of `codebook`.
    hessian_images : int or None, optional
        How many of the images, from the first, make the Hessian; None means all. (The paper: "about 200".)
    hessian_versions : int, optional
        Versions of every image in the layers' problems: one is the image as it is, the others are cropped and
        mirrored as the update's are. 1, as in the paper, is no augmentation. Not with `hessian_images`.
    closed_weight : float, optional
        With another target than ``weights``, how much an entry of the pre-activation counts where the
        reference's ReLU is closed that alone takes it, or the batch normalization or the sum behind it; over
        0 to 1. Below 1 every channel has a Hessian of its own (module `open_drift`), so layers for which
        these have more entries than `layer_problem.CHANNEL_HESSIANS` are solved without; the report says so.
    correct_bias : bool, optional
        Whether the mean by which the quantization of a layer and of those before it has moved each channel's
        pre-activation away from the reference network's is taken back, in closed form: by the running mean of
        the batch normalization that alone takes the layer's output, else by the layer's own bias; a layer
        without either stays as it is, and its report says so. An update in train mode replaces running means,
        and leaves of it what biases have taken. With few levels the means alone are not worth having
        (``benchmarks/README.md``). Not with `absorb`, which has constants of its own, `bias`, nor
        `reestimate`, which would replace the means.
    reestimate : {'none', 'end'}, optional
        Whether batch normalization's running statistics are computed anew from the images after the last
        layer.
    cascades : int, optional
        How often the layers are quantized, from the first to the last; by the paper once. From the second
        time on a layer starts from its original weights, its problem contains what the updates have moved
        since, and the layers behind it are quantized already when its update follows.
    final_epochs : int, optional
        Epochs of a last update, when all layers are quantized, of the scales and of what the settings of
        `update` move and is not quantized: batch normalization and, but for ``weights=False``, biases and
        other layers (module `final`). 0, as in the profile ``paper``, leaves it out.
    final_scales : bool, optional
        Whether scales move in it. Without, it is step 4 of Algorithm 1 behind the last layer, where nothing
        is left to learn but what is never quantized: batch normalization, "which is also updated in the
        quantized network", and, but for ``weights=False``, biases.
    code_epochs : int, optional
        Epochs in which, after that last update, all codes move too, by straight-through steps (module
        `straight`); a code that turns around stays. Every epoch has a version of its own, unless the update's
        `pool` is 1 or the inputs are no images. A third as many epochs, at least one, follow with codes
        fixed, where mixtures and blocks count only if `update` says so. In both batch normalization uses its
        running statistics, which `final_epochs` prepares best, whatever `update` says; `reestimate` must
        leave them. 0, as in the paper, leaves it out.
    code_rate : float, optional
        How far such a step of Adam moves an entry at first, as a share of the least distance of two levels.
    code_mix : float, optional
        `UpdateSettings.mix` while codes move; without effect where versions are of no use (`code_epochs`) and
        with `validation`.
    code_intermediate : float, optional
        `UpdateSettings.intermediate` while codes move, at every block, whatever `features` says; above 0 it
        takes the memory told of there.
    batch_size : int, optional
        Images at a time where no gradient is needed; it bounds memory and changes no result beyond rounding.
    profile : {'paper', 'released-2019'}, optional
        With the second, the Hessian, the treatment of linear layers' biases and the update are the released
        code's (module `released`); `update` then only says whether there is one, `bias` and `hessian_images`
        must be left alone.
    released : ReleasedUpdate, optional
        Settings of the released code's update; the profile ``paper`` does not use them.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    How codes move at the end was chosen here with one scale a channel, by single runs on training images
    outside the store of ``benchmarks/study.py``. That store compares the settings with one scale a layer, by
    the output error of ResNet-20 in the profile ``best`` on 5,000 held-out training images, seed 0: 33.0
    without this part, 30.5 with 48 epochs and 29.7 with 96; with 96 epochs 31.2 at a third of `code_rate` and
    at twice as much, 30.5 without mixtures. `code_intermediate` hardly matters there: 29.8 without and with
    0.015, 29.7 with 0.05, 30.0 with 0.15, so 0 is as good where memory is short. The 0.05 was chosen after 48
    epochs, when codes that turned around stayed at their running mean: 31.2 with 0.015, 30.6 with 0.05.
    """

    codebook: Codebook = field(default_factory=lambda: powers_of_two(3))
    solver: str = "admm"
    solver_settings: Any = None
    target: Literal["weights", "drift", "block"] = "weights"
    ridge: float = 0.01
    absorb: bool = False
    channel_weights: Literal["none", "batchnorm"] = "none"
    update: UpdateSettings | None = field(default_factory=UpdateSettings)
    first: bool = True
    last: bool = True
    skip: tuple[str, ...] = ()
    bias: bool = False
    levels: Mapping[str, Codebook] = field(default_factory=dict)
    hessian_images: int | None = None
    hessian_versions: int = field(default=1, metadata={"later": True})
    closed_weight: float = field(default=1.0, metadata={"later": True})
    correct_bias: bool = field(default=False, metadata={"later": True})
    reestimate: str = "none"
    cascades: int = 1
    final_epochs: int = 0
    final_scales: bool = field(default=True, metadata={"later": True})
    code_epochs: int = field(default=0, metadata={"later": True})
    code_rate: float = field(default=0.015, metadata={"later": True})
    code_mix: float = field(default=0.5, metadata={"later": True})
    code_intermediate: float = field(default=0.05, metadata={"later": True})
    batch_size: int = 100
    profile: Literal["paper", "released-2019"] = "paper"
    released: ReleasedUpdate = field(default_factory=ReleasedUpdate)

    def __post_init__(self) -> None:
        check_choice("target", self.target, ("weights", "drift", "block"))
        if self.absorb != (self.target == "block") and self.target != "drift":
            raise ValueError(
                "`absorb` must be True for the target 'block' and False for 'weights', got "
                f"{self.absorb} for {self.target!r}."
            )
        if self.absorb and (self.channel_weights != "none" or self.bias):
            raise ValueError(
                "`channel_weights` and `bias` must be left alone with `absorb`, which settles both, got "
                f"{self.channel_weights!r} and {self.bias}."
            )
        taken = self.absorb or self.bias or self.reestimate != "none" or self.profile == "released-2019"
        if self.correct_bias and taken:
            raise ValueError(
                "`correct_bias` must be False with `absorb`, `bias` and `reestimate` and in the profile "
                "released-2019, got True."
            )
        check_choice("solver", self.solver, SOLVERS)
        check_number("ridge", self.ridge, above=0)
        check_choice("channel_weights", self.channel_weights, ("none", "batchnorm"))
        if self.channel_weights != "none" and self.solver not in WEIGHTED:
            raise ValueError(
                f"`channel_weights` must be 'none' for the solver {self.solver!r}, got "
                f"{self.channel_weights!r}; those that weight channels are {', '.join(sorted(WEIGHTED))}."
            )
        if self.profile == "released-2019" and (self.target, self.channel_weights) != ("weights", "none"):
            raise ValueError(
                "`target` and `channel_weights` must be left alone in the profile released-2019, got "
                f"{self.target!r} and {self.channel_weights!r}."
            )
        if self.profile == "released-2019" and (self.bias or self.hessian_images is not None):
            raise ValueError(
                "`bias` and `hessian_images` must be left alone in the profile released-2019, which settles "
                f"both, got {self.bias} and {self.hessian_images}."
            )
        check_choice("profile", self.profile, ("paper", "released-2019"))
        if not check_number("closed_weight", self.closed_weight, above=0) <= 1:
            raise ValueError(f"`closed_weight` must be at most 1, got {self.closed_weight}.")
        if self.closed_weight < 1 and (self.target == "weights" or self.bias):
            raise ValueError(
                "`closed_weight` must be 1 for the target 'weights' and for quantized biases, got "
                f"{self.closed_weight}."
            )
        if check_integer("hessian_versions", self.hessian_versions, at_least=1) > 1 and (
            self.hessian_images is not None or self.profile == "released-2019"
        ):
            raise ValueError(
                "`hessian_versions` must be 1 with `hessian_images` and in the profile released-2019, got "
                f"{self.hessian_versions}."
            )
        check_choice("reestimate", self.reestimate, ("none", "end"))
        check_integer("batch_size", self.batch_size, at_least=1)
        if check_integer("cascades", self.cascades, at_least=1) > 1 and self.profile == "released-2019":
            raise ValueError(f"`cascades` must be 1 in the profile released-2019, got {self.cascades}.")
        for name in ("final_epochs", "code_epochs"):
            epochs = check_integer(name, getattr(self, name), at_least=0)
            if epochs and (self.update is None or self.profile == "released-2019"):
                raise ValueError(
                    f"`{name}` must be 0 without an update and in the profile released-2019, got {epochs}."
                )
        check_number("code_rate", self.code_rate, above=0)
        if not check_number("code_mix", self.code_mix, at_least=0) <= 0.5:
            raise ValueError(f"`code_mix` must be at most 0.5, got {self.code_mix}.")
        check_number("code_intermediate", self.code_intermediate, at_least=0)
        if self.code_epochs and self.reestimate != "none":
            raise ValueError(
                "`reestimate` must be 'none' with `code_epochs`, which fit codes and scales to the "
                f"statistics, got {self.reestimate!r}."
            )
        if self.hessian_images is not None:
            check_integer("hessian_images", self.hessian_images, at_least=1)

    @property
    def settling_epochs(self) -> int:
        """Epochs with codes fixed that follow those in which codes move: a third of them, at least one."""
        return max(1, self.code_epochs // 3) if self.code_epochs else 0

    @property
    def last_epochs(self) -> int:
        """Epochs behind the last layer."""
        return self.final_epochs + self.code_epochs + self.settling_epochs

    @property
    def ends_later(self) -> bool:
        """Whether something follows the last layer."""
        return self.last_epochs > 0 or self.reestimate == "end"

    @property
    def resolved(self) -> Any:
        """The solver's settings; None means the profile's for ``"admm"`` and others' defaults."""
        if self.solver_settings is not None:
            return self.solver_settings
        return AdmmSettings.profile(self.profile) if self.solver == "admm" else default_settings(self.solver)

    @property
    def explicit(self) -> LdnqSettings:
        """The same with the solver's settings written out: what a stored result is known by."""
        return replace(self, solver_settings=self.resolved)

    def chosen(self, network: Network) -> tuple[str, ...]:
        """Names of the layers of `network` that are quantized, in order.

        Raises
        ------
        ValueError
            If `skip` has a pattern of no layer, `levels` names a layer that is not quantized, or none is
            left.
        """
        names = network.weighted
        idle = [pattern for pattern in self.skip if not any(fnmatchcase(name, pattern) for name in names)]
        if idle:
            raise ValueError(
                f"`skip` must match layers of {list(names)}, got {idle[0]!r}, which matches none."
            )
        kept = {names[0]} if names and not self.first else set()
        kept |= {names[-1]} if names and not self.last else set()
        kept |= {name for name in names if any(fnmatchcase(name, pattern) for pattern in self.skip)}
        chosen = tuple(name for name in names if name not in kept)
        if not chosen:
            raise ValueError("`skip`, `first` and `last` must leave a layer to quantize, got none.")
        unknown = sorted(set(self.levels) - set(chosen))
        if unknown:
            raise ValueError(f"`levels` must name quantized layers, got {unknown}.")
        return chosen

    def check(self, network: Network, count: int) -> None:
        """Refuse what would end a run behind its first layer.

        Parameters
        ----------
        network : Network
            What is quantized.
        count : int
            Number of images.

        Raises
        ------
        ValueError
            If the update's batches are too small for batch normalization.
        """
        how = self.update
        if how is None:
            return
        if self.profile == "released-2019":
            size = min(self.released.batch_size, count)
            check_batches(network, 0, size, size)
        elif how.statistics == "batch":
            cut = 0 if self.final_epochs else network.position(self.chosen(network)[0]) + 1
            learnt = count - left_out(count, how.validation).size
            if self.final_epochs or moving_arrays(network, cut, how):
                check_batches(network, cut, learnt, how.batch_size)
