"""What an implementation tells the kit about itself, and how it is called.

An adapter is any object with `info()` and one method for each operation that it has, named as the operation
and called with keywords: the inputs of a case, by their names in `OPERATIONS`. It returns a mapping from the
names of the answers to arrays, or the one array if the operation has one answer. Unknown keywords must be
swallowed (``**_``): later suites may pass more.

Inputs that have no answer are refused by raising `ValueError` or a subclass, such as
`numpy.linalg.LinAlgError`, or what `Info.refusals` declares. Any other exception is a crash, and fails the
case. The kit sees the type only: a program that trips over NaN by a `ValueError`, such as
``int(float("nan"))`` or shapes that NumPy cannot broadcast, counts as one that refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._typing import Array

Answers = Mapping[str, Any]
"""Answers of one case by name."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of the method: what it is given, what it answers, and which steps come before it."""

    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    after: tuple[str, ...] = ()


_GEOMETRY = ("X", "weight_shape", "stride", "padding", "dilation", "groups", "bias")

LAYER_KINDS = (
    "linear",
    "conv2d",
    "batchnorm",
    "relu",
    "maxpool",
    "avgpool",
    "globalpool",
    "flatten",
    "add",
    "concat",
    "dropout",
    "zeropad",
    "shortcut",
)
"""Layers by name; ``shortcut`` takes every s-th pixel and puts new zero channels around the old ones,
the smaller half before. ``concat`` puts the channels of x2 behind those of x. ``dropout`` is given its
`mask`, 1 where an entry is kept, and the probability `p` of a zero: in train mode what is kept is divided by
1 - p, in eval mode nothing happens."""

_LAYER = (
    *("layer", "x", "x2", "weight", "bias", "running_mean", "running_var", "mode", "eps", "momentum"),
    *("mask", "p"),
    *("kernel", "stride", "padding", "dilation", "groups", "ceil_mode", "count_include_pad", "out_channels"),
)

BASELINE_METHODS = (
    "dq-affine",
    "vq-exact",
    "exnn",
    "ttq",
    "inq",
    "lata",
    "late",
    "lat-two-scale",
    "trn",
    "distilquant",
)
"""Methods of ``baseline``."""

WEIGHTED = ("conv", "fc1", "fc2")
"""The layers with weights of the network of `update_grad` and `network`."""

MOVING = ("conv_weight", "bn_weight", "bn_bias", "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")
"""Its arrays that an update can move, in order."""

TINY = (*MOVING[:3], "bn_mean", "bn_var", *MOVING[3:])
"""All its arrays, in order."""

_NETWORK = ("X", *TINY, "eps", "stride", "padding")

_MOVED = ("bn_weight", "bn_bias", "fc1_bias", "fc2_bias")

_STATES = ("Theta", "V", "Q", "alpha", "G", "lam", "E", "best", "result")

TRAJECTORIES = ("admm", "admm_channels")
"""Operations that answer a whole run, which is judged by its own transitions."""

OPERATIONS: Mapping[str, Operation] = {
    "patches": Operation(_GEOMETRY, ("patches",)),
    "hessian": Operation(_GEOMETRY, ("H",), ("patches",)),
    "pack": Operation(("weight", "bias", "groups"), ("W",)),
    "proximal": Operation(("H", "W_bar", "G", "lam", "rho"), ("Theta",)),
    "project": Operation(("V", "values", "alpha0", "kind", "passes", "ties"), ("Q", "alpha", "G", "passes")),
    "dual": Operation(("lam", "Theta", "G"), ("lam_new",)),
    "stop": Operation(
        ("rule", "E", "alpha", "most", "patience", "tolerance", "relative"), ("iterations", "best")
    ),
    "admm": Operation(
        ("H", "W_bar", "values", "rho", "K", "G0", "lam0", "projection", "returned"),
        _STATES,
        ("proximal", "project", "dual"),
    ),
    "project_channels": Operation(
        ("V", "values", "alpha0", "kind", "passes", "ties"), ("Q", "alpha", "G"), ("project",)
    ),
    "admm_channels": Operation(
        ("H", "W_bar", "values", "rho", "K", "G0", "lam0", "projection", "returned"),
        _STATES,
        ("proximal", "project_channels", "dual"),
    ),
    "quantizer": Operation(("W", "values", "method"), ("Q", "alpha", "G")),
    "baseline": Operation(
        (
            *("method", "W", "levels", "lam", "threshold", "positive", "negative", "g", "frozen", "portion"),
            *("D", "passes", "tolerance", "block", "max_terms", "bucket"),
        ),
        ("Q", "alpha", "zero", "values", "G", "dW", "dpositive", "dnegative", "mask", "terms"),
        ("project",),
    ),
    "solve": Operation(
        ("H", "W", "values", "kind", "solver", "rho", "K"), ("Q", "alpha", "objective"), ("admm", "quantizer")
    ),
    "solve_channels": Operation(
        ("H", "W", "values", "kind", "solver"), ("Q", "alpha", "objective"), ("project_channels",)
    ),
    "forward": Operation(_LAYER, ("y", "new_running_mean", "new_running_var")),
    "backward": Operation((*_LAYER, "dy"), ("dx", "dx2", "dweight", "dbias"), ("forward",)),
    "loss": Operation(("kind", "y", "target", "labels", "temperature"), ("loss", "dy")),
    "update_grad": Operation(
        (*_NETWORK, *(f"teacher_{name}" for name in TINY), "frozen", "statistics", "batch_size"),
        ("loss", *(f"d{name}" for name in MOVING)),
        ("forward", "backward"),
    ),
    "network": Operation(
        (*_NETWORK, "values", "solver", "rho", "K", "steps", "rate"),
        (
            *(f"{name}_{layer}" for layer in WEIGHTED for name in ("H", "W", "Q", "alpha")),
            *_MOVED,
            "losses",
            "y",
        ),
        ("hessian", "admm", "quantizer", "update_grad"),
    ),
}
"""All operations in the order of the method, which is the order of the report.

``stop``: after how many iterations a run ends, and which point is kept, from the objectives E of G⁰ and of
all `most` iterations or more and their scales alpha. Rule 'count': after `most`. 'patience': after so many
iterations in a row that do not improve on the best by *more* than `tolerance`; the best is replaced under the
same condition only. 'objective': when E changes by *less* than `tolerance`, 'alpha': when α does, from the
second iteration on. With `relative` the tolerance is that times the best E, or the value before. But for
'patience' the kept point is the first of least E.

``project_channels``, ``admm_channels`` and ``solve_channels`` are ``project``, ``admm`` and ``solve`` with
one scale for each output channel, a column of V (d, m) or W: alpha is (m,), of a trajectory (K, m), alpha0
(m,). Which iteration is the best is decided by the objective of all columns together.

An operation of layers answers what its layer has: ``dx2`` only of ``add`` and ``concat``, ``dbias`` only
where there is a bias.

``forward`` and ``backward``: one layer named by ``layer``, one of `LAYER_KINDS`; images (n, c, h, w), weights
(m, c/g, kh, kw) or (m, d), a mode 'eval' or 'train' of batch normalization, padding (top, bottom, left,
right).
Two derivatives are conventions: that of max(x, 0) at 0 is 0, and among equal pixels of a window the first one
in row-major order is the maximum.

``loss``: the mean over images of a loss of logits y (n, k), and its gradient. Kind 'cross_entropy': of
`labels`, in nats. 'distillation': T² KL(softmax(t/T) ‖ softmax(y/T)) at a `temperature` T from the logits t
of `target`. 'output_error': ‖y - t‖², (6).

``update_grad`` and ``network`` speak of one network: convolution without bias, batch normalization, ReLU,
flattening in order (c, h, w), a linear layer with bias, ReLU, a linear layer with bias. ``update_grad`` is
the gradient of the output error (1/n)‖f(X) - t‖² with respect to what lies behind the first `frozen` of the
three layers with weights; t is the output of the teacher, in eval mode. ``batch_size`` is the most images
that are processed at a time with running statistics; the answer is that of all images.

``network`` is Algorithm 1: for each of the three weights H from what the quantized layers before let through,
then the solver ('direct': α = mean|W| and nearest levels; 'admm': K iterations of (15)-(18) from the
alternating projection of W and λ = 0, the best G), then `steps` steps of plain gradient descent at `rate` on
the output error of all images, running statistics, of everything behind the layer but its own bias. ``W_*``
is the weight that was quantized, packed.

``quantizer``: a weight (d, m) to one scale and codes without data; method 'mean', 'alternating' or 'exact'.
``solve``: a named solver of (10) with shared scale (kind 'scaled') or none ('fixed').

``baseline``: the quantizer of one of `BASELINE_METHODS` on a weight (N,), of 'trn' (m, c, kh, kw). It is
given what the method needs, and answers what the method has; codes Q are indices of ascending values.

* 'dq-affine': the range, stretched to hold 0, in `levels` - 1 steps alpha; the code `zero` of 0 is
  round(-min/alpha), Q = clip(round(W/alpha) + zero, 0, levels - 1), halves to even; alpha = 0 if W is 0.
* 'vq-exact': the least sum of squares around the means of `levels` clusters, or as many as there are distinct
  weights; `values` are the means.
* 'exnn': the projection of W + lam onto α{0, ±1, ±2, ±4, ...}, as ``project`` at alpha0 = 0.
* 'ttq': `positive` where W > Δ, -`negative` where W < -Δ, else 0, with Δ = `threshold` max|W|. From the
  gradient g at that weight: dW is `positive` g, `negative` g, else g; dpositive = Σ g where W > Δ, and
  dnegative = -Σ g where W < -Δ.
* 'inq': `values` are {0, ±2^n2, ..., ±2^n1}, n1 = ⌊log2(4 max|W|/3)⌋, n2 = n1 - (`levels` - 3)/2, or {0}; Q
  is the nearest, halfway the larger magnitude. `mask`: the `frozen` and the largest others, `portion` N
  in all.
* 'lata': the scale and codes of least Σ D (αb - W)² by turns, b ≠ 0 where |W| > α/2: first where |W| exceeds
  0.7 of its mean; at most `passes` scales, or until one differs by less than `tolerance` from the last.
* 'late': the optimum of the same; 'lat-two-scale': of W ≥ 0 and W ≤ 0 each, alpha (2,) of both.
* 'trn': blocks of `block` input channels, the last may be shorter; terms α t of the nearest ternary t to what
  the terms before left are added until ‖r‖ ≤ `tolerance` ‖w‖, or `max_terms`; `terms` of each weight's block.
* 'distilquant': in order, every `bucket` weights (the last may be fewer) to `levels` equidistant values from
  the least to the largest, halves to the even one; by a range of 1 if it is below 1e-10.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conventions:
    """What the paper leaves open, as an implementation settles it.

    The defaults are the profile ``paper``. What is declared otherwise is what the implementation always does,
    whatever a case says. The kit converts its answers where the difference has an inverse (`h_scale`,
    `row_order`, `bias_slot`), or finds the right answer anew (`convert.under`). Where it can do neither, a
    case whose right answer depends on the difference is inapplicable, and counted as that.

    Parameters
    ----------
    h_scale : {'2/n', '1/n', '2', '1', '2/(n*p)', '1/(n*p)', '1.01/(n*p)'}
        What multiplies the sum of outer products: n images, p positions of each.
    row_order : {'c,kh,kw', 'kh,kw,c'}
        Order of the rows of patches, H and the packed weight.
    bias_slot : {'last', 'first'}
        Where the constant 1 stands.
    padding : {'explicit', 'same'}
        The layer's own padding, or TensorFlow's SAME.
    rho : {'absolute', 'h00', 'mean_diagonal', 'lambda_max'}
        The unit of ρ.
    alpha0 : {'mean_v', 'mean_w'}
        Where the first projection starts.
    restart : {'warm', 'cold'}
        Whether later projections start at the last α or at `alpha0` again.
    start : {'projection', 'direct', 'guaranteed'}
        G⁰ and λ⁰, as in `AdmmSettings`.
    projection : {'alternating', 'exact'}
        The projection inside ADMM.
    passes : int
        Most updates of α in one projection; -1: to the fixed point.
    alpha_tolerance : float
        An update of α that changes it by less ends the projection, an absolute number; 0: none does.
    kept_pass : {'last', 'best'}
        Which pass of a projection counts: the last, or that of least ‖V - G‖, α₀ and its codes included.
    ties : {'smaller', 'larger', 'zero'}
        Where a value halfway between two levels goes.
    stop : {'none', 'fixed_point', 'ascend3'}
        The stopping rule of ADMM, as in `AdmmSettings`: all K iterations; until ‖Θ - G‖ and the change of G
        are at most 1e-9 of ‖W‖; after three iterations in a row that do not improve 2f by more than 1e-3 on
        the best G, which is replaced under the same condition only.
    returned : {'best', 'last'}
        Which G comes back.
    refit : bool
        Whether α of the result is the best one in the norm of H.

    Raises
    ------
    ValueError
        If a convention has a value that the kit does not know.
    TypeError
        If `passes` is not an integer.

    Examples
    --------
    >>> Conventions(h_scale="1/n").differences(Conventions())
    ('h_scale',)
    >>> Conventions.profile("released-2019").ties
    'zero'
    """

    h_scale: str = "2/n"
    row_order: str = "c,kh,kw"
    bias_slot: str = "last"
    padding: str = "explicit"
    rho: str = "absolute"
    alpha0: str = "mean_v"
    restart: str = "warm"
    start: str = "projection"
    projection: str = "alternating"
    passes: int = -1
    alpha_tolerance: float = 0.0
    kept_pass: str = "last"
    ties: str = "smaller"
    stop: str = "none"
    returned: str = "best"
    refit: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        check_integer("passes", self.passes, at_least=-1)
        check_number("alpha_tolerance", self.alpha_tolerance, at_least=0)

    def differences(self, other: Conventions) -> tuple[str, ...]:
        """Names of the conventions that differ, in the order of the fields."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name))

    def to_json(self) -> dict[str, Any]:
        """The conventions by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> Conventions:
        """Conventions from a mapping, the paper's where it says nothing.

        Raises
        ------
        ValueError
            If a name or a value is unknown.
        """
        for name in known:
            check_choice("conventions", name, [one.name for one in fields(cls)])
        return cls(**known)

    @classmethod
    def profile(cls, name: Literal["paper", "released-2019"]) -> Conventions:
        """The paper's conventions as this project reads it, or those of the authors' code of 2019.

        Raises
        ------
        ValueError
            If there is no such profile.
        """
        check_choice("name", name, ("paper", "released-2019"))
        if name == "paper":
            return cls()
        return replace(
            cls(),
            h_scale="1.01/(n*p)",
            row_order="kh,kw,c",
            padding="same",
            rho="h00",
            alpha0="mean_w",
            restart="cold",
            start="direct",
            passes=10,
            alpha_tolerance=1e-3,
            kept_pass="best",
            ties="zero",
            stop="ascend3",
        )


CHOICES: Mapping[str, tuple[object, ...]] = {
    "h_scale": ("2/n", "1/n", "2", "1", "2/(n*p)", "1/(n*p)", "1.01/(n*p)"),
    "row_order": ("c,kh,kw", "kh,kw,c"),
    "bias_slot": ("last", "first"),
    "padding": ("explicit", "same"),
    "rho": ("absolute", "h00", "mean_diagonal", "lambda_max"),
    "alpha0": ("mean_v", "mean_w"),
    "restart": ("warm", "cold"),
    "start": ("projection", "direct", "guaranteed"),
    "projection": ("alternating", "exact"),
    "kept_pass": ("last", "best"),
    "ties": ("smaller", "larger", "zero"),
    "stop": ("none", "fixed_point", "ascend3"),
    "returned": ("best", "last"),
    "refit": (False, True),
}
"""Every convention and the values that it may have (`passes` and `alpha_tolerance` are numbers)."""

_TRAJECTORY = (
    *("rho", "alpha0", "restart", "start", "projection", "passes", "alpha_tolerance", "kept_pass", "ties"),
    *("stop", "returned", "refit"),
)

MATTERS: Mapping[str, tuple[str, ...]] = {
    "patches": ("padding",),
    "hessian": ("padding",),
    "proximal": ("rho",),
    "admm": _TRAJECTORY,
    "admm_channels": _TRAJECTORY,
    "quantizer": ("ties",),
    "solve": _TRAJECTORY,
    "network": ("h_scale", "row_order", "padding", *_TRAJECTORY),
}
"""Conventions without an inverse that can change the right answer of an operation. What is not listed is an
input: the start of `project`, its kind, passes and ties."""


CRASHES = (
    *(AttributeError, NameError, TypeError, AssertionError, ImportError, SyntaxError),
    *(MemoryError, RecursionError, SystemError),
)
"""Exceptions that say that a program is broken: they refuse nothing, whatever is declared."""

REPLIES = ("answer", "refusal", "crash", "unanswered")
"""What a call can come to. ``crash``: any exception that refuses nothing, `SystemExit` too. ``unanswered``:
`NotImplementedError`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a call of an implementation came to.

    Parameters
    ----------
    kind : str
        One of `REPLIES`.
    value : object, optional
        Of an answer: what was returned.
    error : BaseException, optional
        Of the others: what was raised.
    """

    kind: str
    value: Any = None
    error: BaseException | None = None

    @property
    def said(self) -> str:
        """What was raised, in a line.

        Examples
        --------
        >>> Reply(kind="refusal", error=ValueError("NaN")).said
        'ValueError: NaN'
        """
        return f"{type(self.error).__name__}: {self.error}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """What an adapter says of itself.

    Parameters
    ----------
    name, version : str
        Of the implementation.
    dtype : {'float64', 'float32'}
        In which it computes; the unit roundoff of all tolerances.
    capabilities : frozenset of str
        The operations that it has.
    conventions : Conventions, optional
        The paper's by default.
    refusals : tuple of type, optional
        Exceptions beside `ValueError` by which it refuses inputs, such as the one by which a binding reports
        errors of another language. One of `CRASHES` cannot be declared, nor a class of such ones by itself,
        nor `NotImplementedError`, which says that there is no answer.

    Raises
    ------
    ValueError
        If the type or a capability is unknown, or a refusal would hide crashes.
    TypeError
        If a refusal is no type of exception.

    Examples
    --------
    >>> Info(name="mine", version="1", dtype="float64", capabilities=frozenset({"train"}))
    Traceback (most recent call last):
        ...
    ValueError: `capabilities` must be one of 'patches', 'hessian', 'pack', 'proximal', 'project', 'dual', \
'stop', 'admm', 'project_channels', 'admm_channels', 'quantizer', 'baseline', 'solve', 'solve_channels', \
'forward', 'backward', 'loss', 'update_grad', 'network', got 'train'.
    """

    name: str
    version: str
    dtype: str
    capabilities: frozenset[str]
    conventions: Conventions = field(default_factory=Conventions)
    refusals: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, ("float32", "float64"))
        for capability in sorted(self.capabilities):
            check_choice("capabilities", capability, OPERATIONS)
        for refusal in self.refusals:
            if not (isinstance(refusal, type) and issubclass(refusal, Exception)):
                raise TypeError(f"`refusals` must hold types of exceptions, got {refusal!r}.")
            if refusal is Exception or issubclass(refusal, (*CRASHES, NotImplementedError)):
                raise ValueError(
                    f"`refusals` must not hold {refusal.__name__}: it would hide a crash or a gap."
                )

    def reply(self, call: Callable[[], Any]) -> Reply:
        """Make a call, and say what it came to: the one rule for what a refusal is.

        Parameters
        ----------
        call : callable
            The call of the implementation. What it returns is not looked at.

        Returns
        -------
        Reply
            A refusal is a `ValueError` or an exception of `refusals`. What ends more than the program, such
            as `KeyboardInterrupt`, passes through.

        Examples
        --------
        >>> known = Info(name="mine", version="1", dtype="float64", capabilities=frozenset())
        >>> known.reply(lambda: int("NaN")).kind, known.reply(lambda: 1 // 0).kind
        ('refusal', 'crash')
        >>> known.reply(lambda: 3)
        Reply(kind='answer', value=3, error=None)
        """
        try:
            return Reply(kind="answer", value=call())
        except NotImplementedError as error:
            return Reply(kind="unanswered", error=error)
        except (Exception, SystemExit) as error:
            refused = isinstance(error, (ValueError, *self.refusals)) and not isinstance(error, CRASHES)
            return Reply(kind="refusal" if refused else "crash", error=error)


class Question(Protocol):
    """What the runner reads of a case; `cases.Case` has more."""

    @property
    def op(self) -> str:
        """The operation."""
        ...

    @property
    def id(self) -> str:
        """A name that never changes."""
        ...

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Arguments by name."""
        ...

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The right answers by name."""
        ...

    @property
    def error(self) -> str | None:
        """What is wrong with the inputs, if they must be refused."""
        ...

    @property
    def conventions(self) -> Mapping[str, Any]:
        """Conventions of the answers where they are not the paper's."""
        ...

    @property
    def flags(self) -> tuple[str, ...]:
        """Labels; ``smoke`` says that the case need not catch a fault."""
        ...

    @property
    def kappa(self) -> float:
        """Condition number, for the comparison with replays."""
        ...

    @property
    def scored(self) -> bool:
        """Whether answers of zeros must fail."""
        ...


class Adapter(Protocol):
    """An implementation as the kit sees it; operations are methods of the names in `OPERATIONS`."""

    def info(self) -> Info:
        """Name, version, type, operations and conventions."""
        ...

    def echo(self, X: Array) -> Array:
        """The array back as the implementation reads it: shows reversed axes and lost precision."""
        ...


def to_paper(op: str, answers: Answers, inputs: Mapping[str, Any], conventions: Conventions) -> Answers:
    """Answers under the declared conventions, converted to the profile ``paper``.

    Parameters
    ----------
    op : str
        The operation.
    answers : mapping
        Answers by name; arrays that do not have the expected number of axes stay as they are.
    inputs : mapping
        The inputs of the case, for its geometry.
    conventions : Conventions
        What was declared.

    Returns
    -------
    mapping
        The converted answers.

    Examples
    --------
    >>> inputs = {"X": np.ones((4, 1, 1, 1)), "weight_shape": (1, 1, 1, 1, 1), "bias": False}
    >>> to_paper("hessian", {"H": np.array([[[1.0]]])}, inputs, Conventions(h_scale="1/n"))["H"]
    array([[[2.]]])
    """
    axes = {"patches": ("patches", (3,)), "hessian": ("H", (1, 2)), "pack": ("W", (1,))}
    if op not in axes or axes[op][0] not in answers:
        return answers
    name, along = axes[op]
    try:
        array = np.asarray(answers[name])
    except ValueError:  # rows of different lengths: the rules will say so
        return answers
    if array.ndim <= max(along) or array.dtype.kind not in "fiu":
        return answers
    order = _rows(array.shape[along[0]], inputs, conventions)
    for axis in along:
        if array.shape[axis] == len(order):
            array = np.take(array, order, axis=axis)
    if op == "hessian" and conventions.h_scale != "2/n":
        array = array * _factor(inputs, conventions.h_scale)
    return {**answers, name: array}


def _rows(size: int, inputs: Mapping[str, Any], conventions: Conventions) -> Array:
    # Entry i is where row i of the paper's order stands in the candidate's.
    shape = kernel_shape(inputs)
    channels, taps = shape[0], shape[1] * shape[2]
    extra = size - channels * taps
    order = np.arange(channels * taps)
    if conventions.row_order == "kh,kw,c":
        order = order.reshape(taps, channels).T.ravel()
    if extra != 1:
        return order
    if conventions.bias_slot == "first":
        return np.append(order + 1, 0)
    return np.append(order, channels * taps)


def kernel_shape(inputs: Mapping[str, Any]) -> tuple[int, int, int]:
    """(c/g, kh, kw) of a case's layer; (inputs, 1, 1) of a linear one.

    Examples
    --------
    >>> kernel_shape({"weight": np.zeros((4, 7))})
    (7, 1, 1)
    """
    shape = tuple(int(n) for n in inputs["weight_shape"]) if "weight_shape" in inputs else ()
    shape = shape or tuple(np.asarray(inputs["weight"]).shape)
    return (shape[-3], shape[-2], shape[-1]) if len(shape) >= 4 else (shape[-1], 1, 1)


def _factor(inputs: Mapping[str, Any], scale: str) -> float:
    n, p = int(np.asarray(inputs["X"]).shape[0]), positions(inputs)
    factors: Mapping[str, float] = {
        "1/n": 2.0,
        "2": 1.0 / n,
        "1": 2.0 / n,
        "2/(n*p)": 1.0 * p,
        "1/(n*p)": 2.0 * p,
        "1.01/(n*p)": 2.0 * p / 1.01,
    }
    return factors[scale]


def positions(inputs: Mapping[str, Any]) -> int:
    """Positions of the window in one image; 1 for a linear layer."""
    X = np.asarray(inputs["X"])
    if X.ndim < 4:
        return 1
    from refldnq.im2col import Window

    ho, wo = Window(*geometry(inputs)).output(X.shape[2], X.shape[3])
    return ho * wo


def geometry(
    inputs: Mapping[str, Any],
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int], tuple[int, int]]:
    """Kernel, stride, padding (top, bottom, left, right) and dilation of a case."""
    _, kh, kw = kernel_shape(inputs)
    sh, sw = (int(v) for v in inputs.get("stride", (1, 1)))
    top, bottom, left, right = (int(v) for v in inputs.get("padding", (0, 0, 0, 0)))
    dh, dw = (int(v) for v in inputs.get("dilation", (1, 1)))
    return (kh, kw), (sh, sw), (top, bottom, left, right), (dh, dw)
