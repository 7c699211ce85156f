"""Algorithm 1: layer-wise quantization of a network from unlabelled images.

For l = 1, ..., L: the Hessian of layer l from what the quantized prefix lets through (step 2), the discrete
problem (10) (step 3), the weights update of the rest (step 4). This module is that loop; the boxes live in
`hessian`, `solvers` and `update`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_float, check_integer, check_number
from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.batches import advance, split
from refldnq.cascade import Cascade, Copies, HeldOut, ratio
from refldnq.codebook import Codebook, powers_of_two
from refldnq.data.augment import augment
from refldnq.drift import DriftProblem
from refldnq.final import Scales, free_arrays
from refldnq.follower import follower, normalization, relu_behind, take_over
from refldnq.hessian import Hessian, accumulate_hessian, layer_error
from refldnq.layers.base import LinearMap
from refldnq.layers.batchnorm import BatchNorm
from refldnq.layers.linear import Linear
from refldnq.model import QuantizedWeight
from refldnq.network import Live, Network
from refldnq.released import HESSIAN_IMAGES, ReleasedUpdate, released_hessian, released_update
from refldnq.solvers.admm_settings import AdmmSettings
from refldnq.solvers.base import SOLVERS, WEIGHTED, Solution, default_settings, get_solver
from refldnq.solvers.lower_bound import BoundSettings, gap, lower_bound
from refldnq.straight import Codes
from refldnq.train import check_batches
from refldnq.update import Moving, UpdateResult, UpdateSettings, left_out, moving_arrays, update
from refldnq.versions import Versions

CHANNEL_HESSIANS = 1 << 27
"""Most entries of the Hessians of a layer's channels, 1 GiB (chosen here: solvers keep several such arrays;
the largest of the CIFAR residual networks has 2**24)."""

MOVED = (
    "codes moved after the last layer, so errors but the final output's, objective and bound are those of "
    "before; how many moved"
)
"""How the note begins that a layer's report has on codes that moved; their number follows."""

RIDGE = "the ridge's epsilon is"
"""How the note begins that a layer's report has on the ridge of its problem."""


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
        these have more than `CHANNEL_HESSIANS` entries are solved without; the report says so.
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
    How codes move at the end was chosen here by the output error of ResNet-20 in the profile ``best`` with
    one scale a channel, on 5,000 held-out training images, single runs from one state. It was 33.1 after the
    last update and 32.7 after 32 epochs more with codes fixed; with 96 epochs of moving codes before these
    29.5. Before codes that turn around stayed, with steps a third as long and blocks' outputs at 0.015, the
    same was 30.8, and 31.7 without mixtures. `code_rate`: after 48 epochs 31.2 where codes that turned around
    stayed at their running mean and blocks' outputs counted 0.015; twice the rate 33.7, a third 32.5.
    `code_intermediate`: after 48 epochs 31.1 with 0.015 and 30.8 with 0.15; where codes that turned around
    stayed at their running mean 31.2 with 0.015 and 30.6 with 0.05. ``benchmarks/study.py`` compares them
    with one scale a layer.
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


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What happened at one layer.

    Errors are per image, in squared units of what they compare, on the calibration images; the relative ones
    are divided by the mean squared norm of the reference.

    Parameters
    ----------
    name : str
        The layer.
    levels : int
        Number of values of the codebook.
    alpha : float or tuple of float
        The scale, or one a channel; after the last updates, if there are any, while the objective, its bound
        and errors but `output_error` are from before.
    zero_fraction : float
        Share of weights that are 0; after the last updates.
    error : float
        E^l of (8): with the quantized prefix's inputs, against the updated weights.
    relative_error : float
        E^l divided by its value at zero weights; infinite if that is 0 and E^l is not.
    objective : float
        What the solver minimized: E^l, but for the profile ``released-2019``, other targets and weighted
        channels or entries, whose problems are others.
    accumulated_error : float
        Of the pre-activation against the reference network's.
    relative_accumulated_error : float
        The same divided by the mean squared norm of the reference's pre-activation.
    output_error : float
        Of the final output against the reference network's, after the weights update.
    relative_output_error : float
        The same divided by the mean squared norm of the reference's output.
    iterations : int
        Iterations of the solver.
    converged : bool
        Whether the solver stopped at a fixed point.
    guarantee : str
        What is proved about the solver's result.
    rho, lambda_max : float
        The solver's penalty and the Hessian's largest eigenvalue; above it convergence is proved. NaN for
        solvers that have no penalty.
    certified : bool
        Whether rho > lambda_max is proved.
    notes : tuple of str
        What there is to say of the problem and its solution: fallbacks, degenerate inputs; with another
        target than ``weights`` the ridge's epsilon in the units of H, and what it is added to.
    rank, size : int
        Rank of the Hessian's blocks and their rows, summed over the groups; as `error`, of all rows alike.
    condition : float
        Largest condition number of a block on its range.
    dead_inputs : int
        Rows of the Hessian that are zero.
    update_loss : float
        Mean loss of the update's last epoch, by default the output error; NaN without an update, or if one
        was not kept because it helped none of the images left out. The last layer's is of the last updates.
    update_images : int
        Image passes of the update.
    seconds : float
        Wall-clock time of this layer's steps.
    lower_bound : float or None
        No point of the set has a smaller objective, certified; 0 says nothing; None: not asked for.
    gap : float or None
        By how much the objective can exceed the optimum, as a share of it; None without a certificate.
    held_out_error, relative_held_out_error : float or None
        `error` and `relative_error` on images that guided nothing; None without such images.
    """

    name: str
    levels: int
    alpha: float | tuple[float, ...]
    zero_fraction: float
    error: float
    relative_error: float
    objective: float
    accumulated_error: float
    relative_accumulated_error: float
    output_error: float
    relative_output_error: float
    iterations: int
    converged: bool
    guarantee: str
    rho: float
    lambda_max: float
    certified: bool
    notes: tuple[str, ...]
    rank: int
    size: int
    condition: float
    dead_inputs: int
    update_loss: float
    update_images: int
    seconds: float
    lower_bound: float | None = None
    gap: float | None = None
    held_out_error: float | None = None
    relative_held_out_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a run after a layer: all that is needed to go on from there.

    Parameters
    ----------
    network : Network
        With the first layers quantized and the others updated.
    quantized : mapping of str to QuantizedWeight
        The codes of the layers done.
    reports : tuple of LayerReport
        One a layer done, in each cascade; of a finished run those of the last one.
    total : int
        Number of layers to quantize, times the number of cascades.
    pending : bool, optional
        Whether all layers are done and what follows them, last updates or new statistics, is to come.
    """

    network: Network
    quantized: Mapping[str, QuantizedWeight]
    reports: tuple[LayerReport, ...]
    total: int
    pending: bool = False


def ldnq(
    network: Network,
    images: Array,
    settings: LdnqSettings,
    rng: np.random.Generator,
    *,
    on_layer: Callable[[Progress], None] | None = None,
    resume: Progress | None = None,
    held_out: Array | None = None,
    certificates: bool = False,
) -> Progress:
    """Quantize a network layer by layer (Algorithm 1, steps 1-5).

    Parameters
    ----------
    network : Network
        The well-trained network. It is the teacher and stays as it is.
    images : Array, shape (n, *input_shape)
        Unlabelled inputs, preprocessed, of the network's type.
    settings : LdnqSettings
        Levels, solver, update.
    rng : numpy.random.Generator
        Draws the augmented copies and the order of the images. Every layer has its own stream, so a resumed
        run draws what an uninterrupted one does if the generator is seeded alike.
    on_layer : callable, optional
        Called with the state after every layer, and once more if something follows the last one; what it does
        with it (checkpoint, progress) is its business.
    resume : Progress, optional
        A state that `on_layer` was given in a run with the same network, images, settings and seed.
    held_out : Array, shape (any, *input_shape), optional
        More preprocessed images. They guide nothing; the layers' errors on them are reported.
    certificates : bool, optional
        Whether a lower bound of every layer's problem is computed and reported; it changes no result.

    Returns
    -------
    Progress
        The final state.

    Raises
    ------
    ValueError
        If the images or the settings do not fit the network.
    TypeError
        If the images' type is not the network's.

    Notes
    -----
    Step 2 prints "from Θ^new and X"; the Hessian depends on the quantized prefix's output alone. Step 3's
    result is G, which lies in Ω, not the proximal variable. Step 4's teacher keeps the original parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Linear, ReLU
    >>> from refldnq.network import Node
    >>> rng = np.random.default_rng(0)
    >>> nodes = (
    ...     Node("fc1", Linear(4, 8), ("input",)),
    ...     Node("relu", ReLU(), ("fc1",)),
    ...     Node("fc2", Linear(8, 2), ("relu",)),
    ... )
    >>> params = {"fc1": {"weight": rng.standard_normal((8, 4)), "bias": np.zeros(8)},
    ...           "fc2": {"weight": rng.standard_normal((2, 8)), "bias": np.zeros(2)}}
    >>> settings = LdnqSettings(update=UpdateSettings(epochs=2, copies=1, pool=1))
    >>> network, images = Network(nodes, params, (4,)), rng.standard_normal((50, 4))
    >>> result = ldnq(network, images, settings, np.random.default_rng(1))
    >>> len(np.unique(result.network.params["fc2"]["weight"]))
    3
    """
    check_finite("images", check_float("images", images))
    if images.shape[0] < 1:
        raise ValueError("`images` must hold at least one image, got none.")
    settings.check(network, images.shape[0])
    names = settings.chosen(network)
    steps = names * settings.cascades
    copy_stream, *streams, final_stream = rng.spawn(2 + len(steps))
    state = resume or Progress(network=network, quantized={}, reports=(), total=len(steps))
    if [report.name for report in state.reports] != list(steps[: len(state.reports)]):
        raise ValueError(f"`resume` must come from a run over the layers {names}, got {state.reports}.")
    cascade = Cascade(network, state.network, images, settings.batch_size, _more(images, settings, rng))
    watched = None if held_out is None else HeldOut(held_out, images, settings.batch_size)
    versions = None
    if settings.update is not None and settings.profile == "paper":
        versions = Versions(network, images, settings.update, len(steps), copy_stream, settings.batch_size)
    if state.reports:
        cascade.move(state.network, state.network.position(state.reports[-1].name) + 1)
    for index in range(len(state.reports), len(steps)):  # [LDNQ] Algorithm 1, step 1
        if index % len(names) == 0:
            cascade.restart()
            if watched is not None:
                watched.restart()
        state = _quantize_layer(
            state, steps[index], cascade, watched, versions, settings, streams[index], certificates
        )
        state = replace(state, pending=settings.ends_later and index == len(steps) - 1)
        if on_layer is not None:
            on_layer(state)
    if state.pending:
        state = replace(_finish(state, cascade, settings, final_stream), pending=False)
        if on_layer is not None:
            on_layer(state)
    return replace(state, reports=_last_cascade(state.reports, len(names)))


def _more(images: Array, settings: LdnqSettings, rng: np.random.Generator) -> Array | None:
    """The versions beside the images themselves that make the problems."""
    if settings.hessian_versions == 1:
        return None
    if images.ndim != 4:
        raise ValueError(
            "`hessian_versions` must be 1 for inputs that are not images (n, c, h, w), got "
            f"{settings.hessian_versions} for shape {images.shape}."
        )
    how = settings.update or UpdateSettings()
    streams = rng.spawn(settings.hessian_versions - 1)
    return np.concatenate([augment(images, own, crop=how.crop, flip=how.flip) for own in streams])


def _regrouped(solution: Solution, shape: tuple[int, ...]) -> Solution:
    """The solution of g m problems of one column as one of g problems of m columns."""
    g, d, m = shape
    codes = np.ascontiguousarray(solution.codes.reshape(g, m, d).transpose(0, 2, 1))
    alpha = solution.alpha.reshape(g, m) if solution.alpha.ndim else solution.alpha
    return replace(solution, codes=codes, alpha=alpha)


def _last_cascade(reports: tuple[LayerReport, ...], count: int) -> tuple[LayerReport, ...]:
    """The reports of the last cascade, with the time and the image passes of all."""
    return tuple(
        replace(
            report,
            seconds=sum(other.seconds for other in reports if other.name == report.name),
            update_images=sum(other.update_images for other in reports if other.name == report.name),
        )
        for report in reports[-count:]
    )


def _last_updates(
    settings: LdnqSettings, images: Array, rng: np.random.Generator
) -> Iterator[tuple[UpdateSettings, Callable[..., Scales], np.random.Generator]]:
    """How the last updates go, what moves in them, and their streams of random numbers."""
    how = settings.update
    if how is None:
        return
    if settings.final_epochs:
        kind = Scales if settings.final_scales else _fixed_scales
        yield _with_epochs(how, settings.final_epochs), kind, rng  # [LDNQ] Algorithm 1, step 4, l = L
    if settings.code_epochs:
        # Without the noise of the batches' statistics: 41 in train mode was 26 in eval mode (ResNet-20).
        how, (moving, settling) = replace(how, statistics="running"), rng.spawn(2)
        pool = settings.code_epochs if images.ndim == 4 and how.pool > 1 else 1
        own = replace(
            how,
            epochs=settings.code_epochs,
            copies=pool,
            pool=pool,
            mix=settings.code_mix if pool > 1 and not how.validation else 0.0,
            intermediate=settings.code_intermediate,
            features="blocks",
        )
        yield own, partial(Codes, rate=settings.code_rate), moving
        yield _with_epochs(how, settings.settling_epochs), Scales, settling


def _fixed_scales(
    network: Network,
    quantized: Mapping[str, QuantizedWeight],
    fixed: Sequence[str],
    settings: UpdateSettings,
) -> Scales:
    """`Scales` of which none moves."""
    return Scales(network, quantized, tuple(quantized), settings)


def _with_epochs(how: UpdateSettings, epochs: int) -> UpdateSettings:
    return replace(how, epochs=epochs, copies=min(epochs, how.pool))


def _finish(state: Progress, cascade: Cascade, settings: LdnqSettings, rng: np.random.Generator) -> Progress:
    """What follows the last layer: the last updates, the new statistics; its report tells the new output."""
    began, teacher, images = time.perf_counter(), cascade.teacher, cascade.images
    reports = list(state.reports)
    fixed = [name for name in state.quantized if settings.levels.get(name, settings.codebook).kind == "fixed"]
    for how, kind, stream in _last_updates(settings, images, rng):
        versions = Versions(teacher, images, how, 1, stream, settings.batch_size)
        cascade.restart()
        copies = Copies(cascade, state.network, versions, 0, how.epochs)
        plain = copies.plain if how.validation else None
        moving = kind(state.network, state.quantized, fixed, how)
        result, codes = moving.update(copies, how, stream, plain=plain)
        del copies, plain  # and with them a version's activations
        reports = [_with_code(report, state.quantized[report.name], codes) for report in reports]
        state = replace(state, network=result.network, quantized=codes)
        passes = reports[-1].update_images + result.images
        loss = result.losses[-1] if result.losses else reports[-1].update_loss
        reports[-1] = replace(reports[-1], update_loss=loss, update_images=passes)
    if settings.reestimate == "end":
        state = replace(state, network=reestimate_statistics(state.network, images, settings.batch_size))
    if settings.ends_later:
        output = state.network.forward(images, batch_size=settings.batch_size)
        seconds = reports[-1].seconds + time.perf_counter() - began
        reports[-1] = _with_output(replace(reports[-1], seconds=seconds), output, cascade)
    return replace(state, reports=tuple(reports))


def _with_code(
    report: LayerReport, old: QuantizedWeight, quantized: Mapping[str, QuantizedWeight]
) -> LayerReport:
    code = quantized[report.name]
    moved = int((code.codes != old.codes).sum())
    note = f"{MOVED}: {moved}"
    return replace(
        report,
        alpha=_plain_alpha(code.alpha),
        zero_fraction=float(np.mean(code.weight() == 0)),
        notes=(*report.notes, note) if moved else report.notes,
    )


def _plain_alpha(alpha: Float64Array) -> float | tuple[float, ...]:
    return float(alpha) if alpha.ndim == 0 else tuple(float(a) for a in alpha.ravel())


def _quantize_layer(
    state: Progress,
    name: str,
    cascade: Cascade,
    watched: HeldOut | None,
    versions: Versions | None,
    settings: LdnqSettings,
    rng: np.random.Generator,
    certificates: bool,
) -> Progress:
    began = time.perf_counter()
    network = state.network
    position = network.position(name)
    layer = network[name].layer
    assert isinstance(layer, LinearMap)
    released = settings.profile == "released-2019"
    bias = "bias" in network.params[name] and (isinstance(layer, Linear) if released else settings.bias)
    cascade.move(network, position)
    x_hat, count = cascade.live[network[name].inputs[0]], settings.hessian_images or len(cascade.images)
    exact = accumulate_hessian(layer, split(x_hat[:count], settings.batch_size), bias=bias)  # step 2
    hessian = exact
    if settings.hessian_versions > 1 and settings.target == "weights":
        hessian = accumulate_hessian(layer, split(x_hat, settings.batch_size), bias=bias)
    if released:
        images = min(HESSIAN_IMAGES, x_hat.shape[0])
        hessian = Hessian(blocks=released_hessian(layer, x_hat, bias=bias), images=images)
    source = cascade.teacher if name in state.quantized else network
    packed = layer.pack(source.params[name], bias=bias).astype(np.float64)
    codebook = settings.levels.get(name, settings.codebook)
    blocks, wanted = hessian.blocks, packed
    behind = follower(network, name)
    absorbs = settings.absorb and (behind.norm is not None or "bias" in network.params[name])
    followed: DriftProblem | None = None
    counts_open = settings.closed_weight < 1 and relu_behind(
        cascade.teacher, behind.total or behind.norm or name
    )
    too_large = counts_open and packed.size * packed.shape[1] > CHANNEL_HESSIANS
    if settings.target != "weights":
        followed = cascade.drift(
            network,
            name,
            packed,
            ridge=settings.ridge,
            images=settings.hessian_images,
            bias=bias,
            centred=absorbs,
            behind=behind,
            block=settings.target == "block",
            closed=settings.closed_weight if counts_open and not too_large else 1.0,
        )
        blocks, wanted = followed.H, followed.W
    own = how = settings.resolved
    if absorbs and behind.norm is not None and codebook.kind == "scaled":
        how = replace(how, per_channel=True)
    weights = _channel_weights(network, name) if settings.channel_weights == "batchnorm" else None
    weighted = {} if weights is None else {"column_weights": weights.reshape(wanted.shape[0], -1)}
    solve = get_solver(settings.solver)
    solved = solve(blocks, wanted, codebook, how, **weighted)  # step 3
    if how is not own and not codebook.has_zero and not (np.asarray(solved.alpha) > 0).all():
        # A channel without a scale is 0, and this set has no code for it: one scale for all channels.
        solved = solve(blocks, wanted, codebook, own, **weighted)
    solution = solved if wanted.shape == packed.shape else _regrouped(solved, packed.shape)
    if followed is not None:
        solution = replace(solution, notes=(*solution.notes, _ridge_note(followed, solved)))
    if too_large:
        note = "closed ReLUs count like open ones: the Hessians of all channels would be too large"
        solution = replace(solution, notes=(*solution.notes, note))
    extras: dict[str, Any] = {}
    if certificates:
        quick = wanted.shape != packed.shape
        extras |= _certificate(blocks, wanted, codebook, solved, quick=quick, **weighted)
    if watched is not None:
        extras |= watched.errors(network, name, packed, solution.G, bias=bias)
    code = QuantizedWeight(codes=solution.codes, alpha=solution.alpha, values=solution.values, bias=bias)
    absorbed = None
    if absorbs and followed is not None:
        code, absorbed = _absorb(code, solved, followed, network, cascade.teacher, name, behind.norm)
        network = network.replace(absorbed.arrays)
    network = network.replace({name: code.arrays(network[name], network.dtype)})
    if settings.correct_bias and behind.norm is None and "bias" not in network.params[name]:
        solution = replace(solution, notes=(*solution.notes, "nothing behind the layer takes its mean error"))
    elif settings.correct_bias:
        absorbed = _bias_correction(network, cascade, name, behind.norm)
        network = network.replace(absorbed.arrays)
    cascade.move(network, position + 1)
    result = UpdateResult(network, (), 0, 0)
    if settings.update is not None and released:
        frozen = frozenset({name, *state.quantized})
        result = released_update(network, cascade.teacher, cascade.images, frozen, settings.released, rng)
        network = result.network
        cascade.restart()
        cascade.move(network, position + 1)
        if watched is not None:
            watched.restart()
    elif settings.update is not None and versions is not None:
        moving = Moving(free_arrays(network, position + 1, state.quantized, settings.update))
        if moving.arrays:  # behind the last layer nothing moves
            copies = Copies(cascade, network, versions, len(state.reports), settings.update.epochs)
            plain = copies.plain if settings.update.validation else None
            result = update(
                network, position + 1, copies, settings.update, rng, moving=moving, plain=plain
            )  # step 4
            network = result.network
            del copies, plain  # and with them a version's activations
    report = _report(name, codebook, exact, packed, solution, cascade)
    if absorbed is not None:
        n = len(cascade.images)
        report = absorbed.corrected(report, cascade.reference[name][:n], cascade.live[name][:n], code)
    report = _with_output(report, cascade.output(network), cascade)
    report = replace(
        report,
        update_loss=result.losses[-1] if result.losses else float("nan"),
        update_images=result.images,
        seconds=time.perf_counter() - began,
        **extras,
    )
    return replace(
        state,
        network=network,
        quantized={**state.quantized, name: code},
        reports=(*state.reports, report),
    )


def _ridge_note(problem: DriftProblem, solution: Solution) -> str:
    """The ridge and what it is added to: of the objective, their sum less a constant, neither can be read."""
    drift = max(0.0, problem.error(solution.G))  # a difference of sums, 0 up to rounding
    return (
        f"{RIDGE} {problem.epsilon:.9g} in the units of H; without the ridge |Z - XG|^2 / n, "
        f"as the problem counts it, is {drift:.9g}"
    )


@dataclass(frozen=True)
class _Absorbed:
    """Taken over by what stands behind a layer: the pre-activation is scale times the layer's own + shift."""

    arrays: NetworkParams
    scale: Float64Array
    shift: Float64Array

    def corrected(self, report: LayerReport, z: Array, z_hat: Array, code: QuantizedWeight) -> LayerReport:
        """The report with the layer's own scale, and the error of the true pre-activation."""
        axes = (1, -1) + (1,) * (z.ndim - 2)
        error = _mean_square(z_hat * self.scale.reshape(axes) + self.shift.reshape(axes) - z)
        return replace(
            report,
            alpha=_plain_alpha(code.alpha),
            accumulated_error=error,
            relative_accumulated_error=ratio(error, _mean_square(z)),
        )


def _bias_correction(network: Network, cascade: Cascade, name: str, norm: str | None) -> _Absorbed:
    """What takes back the mean error of a layer's pre-activation.

    The bias correction of Nagel et al. 2019 ("Data-free quantization through weight equalization and bias
    correction"), b + E[z] - E[z_hat], with the means of the calibration images.
    """
    constant = cascade.mean_error(network, name)
    one = np.ones(len(constant))
    if norm is None:  # the new bias is in the pre-activation already
        arrays = take_over(network, cascade.teacher, name, one, constant, norm=None)
        return _Absorbed(arrays, one, np.zeros(len(constant)))
    # From the reference's mean, since the student's may have been corrected or updated before.
    mean = cascade.teacher.params[norm]["running_mean"] - constant
    return _Absorbed({norm: {"running_mean": mean.astype(network.dtype)}}, one, constant)


def _absorb(
    code: QuantizedWeight,
    solution: Solution,
    problem: DriftProblem,
    network: Network,
    teacher: Network,
    name: str,
    norm: str | None,
) -> tuple[QuantizedWeight, _Absorbed]:
    """One scale in place of each channel's own, and the arrays behind the layer that make up for it.

    Channels keep their scales where no normalization can take them over, or where the set has no code for 0,
    which is what a channel without a scale needs.
    """
    constant = problem.constant(solution.G).ravel()
    ratios = np.ones(len(constant))
    if code.alpha.ndim and norm is not None and ((code.values == 0).any() or (code.alpha > 0).all()):
        alpha, codes = code.alpha, code.codes.copy()
        one = float(alpha[alpha > 0].mean()) if (alpha > 0).any() else 0.0
        ratios = np.divide(one, alpha, out=np.ones_like(alpha), where=alpha > 0).ravel()
        for zero in np.flatnonzero(code.values == 0):  # what has no scale is 0, whatever the layer's scale
            codes = np.where(alpha[:, None, :] > 0, codes, np.int8(zero))
        code = replace(code, codes=codes, alpha=np.asarray(one))
    arrays = take_over(network, teacher, name, ratios, constant, norm=norm)
    kept = network.params[name].get("bias")
    bias = np.zeros(len(constant)) if kept is None or norm is None else kept.astype(np.float64)
    # Without a normalization the new bias is in the pre-activation already.
    shift = bias * (1 - 1 / ratios) + constant if norm is not None else np.zeros(len(constant))
    return code, _Absorbed(arrays, 1 / ratios, shift)


def _channel_weights(network: Network, name: str) -> Float64Array | None:
    """The squares of the scales that batch normalization gives a layer's outputs, (g, m), or None.

    None if something else than one batch normalization takes the layer's output.
    """
    norm, layer = follower(network, name).norm, network[name].layer
    if norm is None:
        return None
    assert isinstance(layer, LinearMap)
    squares = normalization(network, norm)[0] ** 2
    groups = layer.pack(network.params[name]).shape[0]
    # A channel that the normalization switches off still needs a weight: the least that counts.
    weights: Float64Array = np.maximum(squares, 1e-12 * squares.max() + 1e-300).reshape(groups, -1)
    return weights


def _certificate(
    blocks: Float64Array,
    packed: Float64Array,
    codebook: Codebook,
    solution: Solution,
    *,
    quick: bool,
    column_weights: Array | None = None,
) -> dict[str, float | None]:
    per_channel = np.ndim(solution.alpha) > 0
    how = BoundSettings(per_channel=per_channel)
    # With a Hessian for every channel Newton's method would take longer than all the rest.
    how = replace(how, steps=0) if quick else how
    bound = lower_bound(blocks, packed, codebook, how, column_weights=column_weights).value
    within = gap(solution.objective, bound)
    return {"lower_bound": bound, "gap": within if np.isfinite(within) else None}


def _report(
    name: str,
    codebook: Codebook,
    hessian: Hessian,
    packed: Float64Array,
    solution: Solution,
    cascade: Cascade,
) -> LayerReport:
    n = len(cascade.images)
    z, z_hat = cascade.reference[name][:n], cascade.live[name][:n]
    error = layer_error(hessian.blocks, packed, solution.G)
    return LayerReport(
        name=name,
        levels=codebook.levels,
        alpha=_plain_alpha(np.asarray(solution.alpha)),
        zero_fraction=float(np.mean(solution.G == 0)),
        error=error,
        relative_error=ratio(error, layer_error(hessian.blocks, packed, np.zeros_like(packed))),
        objective=solution.objective,
        accumulated_error=_mean_square(z_hat - z),
        relative_accumulated_error=ratio(_mean_square(z_hat - z), _mean_square(z)),
        output_error=float("nan"),
        relative_output_error=float("nan"),
        iterations=solution.iterations,
        converged=solution.converged,
        guarantee=solution.guarantee,
        rho=solution.rho,
        lambda_max=getattr(solution, "lambda_max", float("nan")),
        certified=getattr(solution, "certified", False),
        notes=solution.notes,
        rank=int(np.sum(hessian.rank)),
        size=int(hessian.blocks.shape[0] * hessian.blocks.shape[1]),
        condition=float(np.max(hessian.condition)),
        dead_inputs=int(np.sum(hessian.dead)),
        update_loss=float("nan"),
        update_images=0,
        seconds=0.0,
    )


def _with_output(report: LayerReport, y_hat: Array, cascade: Cascade) -> LayerReport:
    y = cascade.target
    error = _mean_square(y_hat - y)
    return replace(report, output_error=error, relative_output_error=ratio(error, _mean_square(y)))


def _mean_square(difference: Array) -> float:
    # (1/n) times the squared Frobenius norm, accumulated in float64.
    flat = difference.reshape(-1).astype(np.float64)
    return float(flat @ flat) / len(difference)


def reestimate_statistics(network: Network, images: Array, batch_size: int = 100) -> Network:
    """Batch normalization's running statistics computed anew, in order, from the images' exact moments.

    Parameters
    ----------
    network : Network
        Quantized or not.
    images : Array, shape (n, *input_shape)
        Preprocessed images.
    batch_size : int, optional
        Images at a time.

    Returns
    -------
    Network
        Every batch-norm layer normalizes what the layers before it, with *their* new statistics, give for
        `images`.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.network import Node
    >>> layer = BatchNorm(1)
    >>> old = {"bn": {key: np.ones(1) for key in layer.parameter_shapes()}}
    >>> network = Network((Node("bn", layer, ("input",)),), old, (1,))
    >>> new = reestimate_statistics(network, np.array([[1.0], [3.0]]))
    >>> float(new.params["bn"]["running_mean"][0]), float(new.params["bn"]["running_var"][0])
    (2.0, 2.0)
    """
    live: Live = network.start(images)
    cut = 0
    for position, node in enumerate(network.nodes):
        if not isinstance(node.layer, BatchNorm):
            continue
        live = advance(network, live, cut, position, batch_size)
        cut = position
        exact = replace(node.layer, momentum=1.0)  # the new statistics are the batch's alone
        _, tape = exact.forward(network.params[node.name], live[node.inputs[0]], mode="train")
        network = network.replace({node.name: exact.new_statistics(network.params[node.name], tape)})
    return network
