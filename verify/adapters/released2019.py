"""The authors' code of 2019 (csyhhu/L-DNQ) behind the adapter contract, from a copy that you have.

    export REFLDNQ_RELEASED_2019=/path/to/L-DNQ
    refldnq kit run refldnq.verify.adapters.released2019:Released2019
    refldnq kit run refldnq.verify.adapters.released2019:Released2019Declared

Every number comes from the authors' functions: `generate_hessian` on TensorFlow and the graphs that it is
made of, `ADMM_quantization`, `symmetric_projection`, `direct_quantize`, and `cascade_soft_update` on PyTorch.
Their files are read where they are, not copied and not changed. What stands between them and a machine of
today:

===========================  =================================================================================
shim                         reason
===========================  =================================================================================
`tensorflow` is              API names: TensorFlow 2 keeps ``placeholder``, ``Session`` and others there
`tensorflow.compat.v1`
a graph for every call       API: TensorFlow 2 is eager outside of graphs
``images.cuda()`` is         device: `generate_hessian` sends its images to a GPU
``images``
``stty size`` says 24 80     terminal: `train.py` asks for the width of its progress bars when it is imported
printing is swallowed        terminal: every step prints
===========================  =================================================================================

The caller's side is this module's, as `main.py` has it: layers are handed over by a stand-in for the network,
which knows its one layer's input; `generate_hessian` gets more than 101 batches, all of them the images of
the case; the stride is not enlarged. What passes inside a function is read from its variables while it runs.

Where a step has no function of its own (proximal, dual), it is seen in the trace of ADMM only. What the code
has no way to do (windows that are not square, dilation, groups, other sets, a given G⁰) is not answered.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import logging
import os
import sys
import types
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.layers import Conv2d
from refldnq.verify.kit.contract import TINY, Conventions, Info
from refldnq.verify.kit.reference_layers import BEHIND

VARIABLE = "REFLDNQ_RELEASED_2019"
"""The environment variable that says where the authors' repository lies."""

FILES = ("utils/hessian.py", "utils/quantization.py", "utils/train.py")
"""The files that are driven."""

NEEDS = ("tensorflow", "torch", "sklearn")
"""What they import."""

BATCHES = 250
"""Batches that `generate_hessian` is offered: 500 images in twos, as `main.py` has them."""

DONE = frozenset({"patches", "hessian", "pack", "project", "admm", "quantizer", "update_grad"})

NAME = "L-DNQ, the authors' code"

LAYER = "layer"
"""The name of the one layer."""


class NotAvailableError(ImportError):
    """The authors' code cannot be driven here; one line says why."""


def folder() -> Path:
    """Where the authors' code lies, from the environment.

    Raises
    ------
    NotAvailableError
        If nothing is said, or what is said is not their repository.
    """
    said = os.environ.get(VARIABLE, "")
    if not said:
        raise NotAvailableError(f"{VARIABLE} must be the path of a copy of csyhhu/L-DNQ, got nothing.")
    at = Path(said)
    for name in FILES:
        if not (at / name).is_file():
            raise NotAvailableError(
                f"{VARIABLE} must be the path of a copy of csyhhu/L-DNQ: no {name} in {said}."
            )
    return at


@dataclass(frozen=True)
class Code:
    """The authors' modules, loaded, and what they run on."""

    hessian: Any
    quantization: Any
    train: Any
    tf: Any
    torch: Any


@functools.cache
def load(at: Path) -> Code:
    """The authors' code from a folder; nothing is written there.

    Raises
    ------
    NotAvailableError
        If something that it imports is missing, or it cannot be loaded.
    """
    # TensorFlow tells of its kernels and of what is deprecated otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    missing = [name for name in NEEDS if not _present(name)]
    if missing:
        raise NotAvailableError(
            f"the authors' code needs {', '.join(missing)}: pip install refldnq[released]."
        )
    try:
        tf = importlib.import_module("tensorflow").compat.v1
        hessian, quantization, train = (_module(at / name, tf) for name in FILES)
    except Exception as error:
        raise NotAvailableError(
            f"the authors' code cannot be loaded: {type(error).__name__}: {error}."
        ) from error
    return Code(hessian, quantization, train, tf, importlib.import_module("torch"))


def _present(name: str) -> bool:
    with contextlib.suppress(ValueError):  # a stand-in without a specification
        return importlib.util.find_spec(name) is not None
    return name in sys.modules


def _module(file: Path, tf: Any) -> types.ModuleType:
    # The file as a module that nothing else can import. Compiled here: no bytecode is left in its folder.
    module = types.ModuleType(f"released2019.{file.stem}")
    module.__file__ = str(file)
    with _swapped(tf), quiet():
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def _swapped(tf: Any) -> Iterator[None]:
    # While a file is loaded, TensorFlow has its old names and the terminal a size.
    before, popen = sys.modules.get("tensorflow"), os.popen

    def answer(command: str, *rest: Any) -> Any:
        return io.StringIO("24 80\n") if command == "stty size" else popen(command, *rest)

    sys.modules["tensorflow"], os.popen = tf, answer  # type: ignore[assignment]
    try:
        yield
    finally:
        os.popen = popen
        if before is None:
            del sys.modules["tensorflow"]
        else:
            sys.modules["tensorflow"] = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed, and nothing warns: neither what is deprecated nor a division by 0."""
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Moment:
    """What a function knew when it returned: its variables, those of its caller, what it returned."""

    name: str
    own: Mapping[str, Any]
    caller: Mapping[str, Any]
    returned: Any


@contextlib.contextmanager
def watched(module: Any, *names: str) -> Iterator[list[Moment]]:
    """The moments at which functions of a module return; the interpreter's profiler tells of them."""
    codes = {getattr(module, name).__code__: name for name in names}
    moments: list[Moment] = []

    def see(frame: types.FrameType, event: str, returned: Any) -> None:
        if event == "return" and frame.f_code in codes:
            caller = {} if frame.f_back is None else dict(frame.f_back.f_locals)
            moments.append(Moment(codes[frame.f_code], dict(frame.f_locals), caller, returned))

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        yield moments
    finally:
        sys.setprofile(before)


class _OneLayer:
    # What generate_hessian asks of a network (in DataParallel): the input, kernel and stride of its layer.
    def __init__(self, kernel: int, stride: int, weight: Any) -> None:
        self.module = self
        self.layer_input: dict[str, Any] = {}
        self.layer_kernel, self.layer_stride = {LAYER: kernel}, {LAYER: stride}
        self._weight = weight

    def __call__(self, images: Any) -> None:
        self.layer_input[LAYER] = images

    def state_dict(self) -> dict[str, Any]:
        return {f"{LAYER}.weight": self._weight}

    def eval(self) -> None:
        pass

    def train(self) -> None:
        pass


@dataclass(frozen=True)
class CaseLayer:
    """A case's layer in the code's terms: R and C are convolutions without and with bias, F- and F linear."""

    X: Array
    kind: str
    kernel: int
    stride: int
    weight_shape: tuple[int, ...]

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> CaseLayer:
        """The layer of a case of `patches` or `hessian`.

        Raises
        ------
        NotImplementedError
            If the code has no such layer.
        """
        X, bias = np.asarray(inputs["X"], dtype=np.float32), bool(inputs.get("bias", False))
        groups, units, channels, kh, kw = (int(size) for size in inputs["weight_shape"])
        stride, dilation = (
            tuple(int(v) for v in inputs.get(name, (1, 1))) for name in ("stride", "dilation")
        )
        if kh != kw or stride[0] != stride[1] or dilation != (1, 1) or groups != 1:
            raise NotImplementedError("windows are square, without dilation and groups.")
        if X.ndim == 2:
            return cls(X, "F" if bias else "F-", 1, 1, (units, channels))
        return cls(X, "C" if bias else "R", kh, stride[0], (units, channels, kh, kw))


class Released2019:
    """The authors' code under the paper's conventions: every deviation is a failure.

    H is computed in float32, as the code has it; ADMM in float64.

    Raises
    ------
    NotAvailableError
        If the authors' code, TensorFlow or PyTorch is not here.
    """

    starts_by_itself = False
    """Whether a start that is given may be another one than the code's own, which it takes all the same."""

    def __init__(self) -> None:
        self.code = load(folder())

    def info(self) -> Info:
        """The paper's conventions."""
        return Info(name=NAME, version="2019", dtype="float32", capabilities=DONE)

    def echo(self, X: Array) -> Array:
        """The array back, through a tensor."""
        return np.asarray(self.code.torch.from_numpy(X).numpy())

    # -- the Hessian, on TensorFlow

    def patches(self, **inputs: Any) -> dict[str, Array]:
        """What the graph of the Hessian makes outer products of."""
        layer, code = CaseLayer.of(inputs), self.code
        with code.tf.Graph().as_default(), quiet():
            place, mean = self._graph(layer)
            rows = mean.op.inputs[0].op.inputs[0]  # mean of a · aᵀ over positions: a has an axis 1 behind
            if rows.shape[-2] != int(np.prod(layer.weight_shape[1:])) + (layer.kind in ("C", "F")):
                raise ValueError("`X` must have the channels of the weight.")  # as generate_hessian asserts
            with code.tf.Session() as session:
                found = session.run(rows, {place: self._as_read(layer)})
        return {"patches": np.asarray(found).reshape(len(layer.X), -1, 1, found.shape[-2])}

    def _graph(self, layer: CaseLayer) -> Any:
        module, shape = self.code.hessian, self._as_read(layer).shape
        if layer.kind == "R":
            return module.create_res_hessian_computing_tf_graph(shape, layer.kernel, layer.stride)
        if layer.kind == "C":
            return module.create_conv_hessian_computing_tf_graph(shape, layer.kernel, layer.stride)
        if layer.kind == "F":
            return module.create_fc_hessian_computing_tf_graph(shape)
        return module.create_fc_minus_hessian_computing_tf_graph(shape)

    def _as_read(self, layer: CaseLayer) -> Array:
        return layer.X.transpose(0, 2, 3, 1) if layer.X.ndim == 4 else layer.X

    def hessian(self, **inputs: Any) -> dict[str, Array]:
        """What `generate_hessian` returns for the layer; every batch has all its images."""
        layer = CaseLayer.of(inputs)
        return {"H": self.from_batches(layer, itertools.repeat(layer.X, BATCHES))[None]}

    def from_batches(self, layer: CaseLayer, batches: Iterable[Array]) -> Array:
        """What `generate_hessian` makes of batches of a layer's inputs, (d, d), float32."""
        code = self.code

        class Images(code.torch.Tensor):  # type: ignore[misc, name-defined]
            def cuda(self, *_: Any, **__: Any) -> Any:
                return self

        images = ((code.torch.from_numpy(X.copy()).as_subclass(Images), None) for X in batches)
        network = _OneLayer(layer.kernel, layer.stride, code.torch.zeros(layer.weight_shape))
        with code.tf.Graph().as_default(), quiet():
            H = code.hessian.generate_hessian(network, images, LAYER, layer.kind, stride_factor=1)
        return np.asarray(H)

    # -- the solver

    def pack(self, **inputs: Any) -> dict[str, Array]:
        """The matrix that `ADMM_quantization` makes of a kernel and a bias."""
        weight, bias = np.asarray(inputs["weight"], dtype=np.float64), inputs.get("bias")
        if int(inputs.get("groups", 1)) != 1 or weight.ndim > 4:
            raise NotImplementedError("there are no groups.")
        has = bias is not None and np.size(bias) > 0
        kind = ("C" if has else "R") if weight.ndim == 4 else ("F" if has else "F-")
        rows = int(np.prod(weight.shape[1:])) + has
        with quiet(), watched(self.code.quantization, "get_error") as moments:
            self.code.quantization.ADMM_quantization(
                LAYER, kind, weight, np.asarray(bias) if has else None, np.eye(rows), 3, ADMM_ite_times=0
            )
        return {"W": np.asarray(moments[0].own["theta_0"])[None]}

    def project(self, **inputs: Any) -> dict[str, Array]:
        """What `symmetric_projection` returns; it alternates, whatever is asked."""
        V, values = np.asarray(inputs["V"], dtype=np.float64).ravel(), np.asarray(inputs["values"])
        asked, passes = inputs.get("alpha0"), int(inputs.get("passes", -1))
        alpha0 = float(asked) if asked is not None and float(asked) > 0 else float(np.abs(V).mean())
        limit = {} if passes < 0 else {"proj_ite_times": passes}
        module = self.code.quantization
        with quiet(), watched(module, "quantize", "symmetric_projection") as moments:
            module.symmetric_projection(V, V, None, alpha0, levels_of(values), LAYER, None, **limit)
        return self._projected(moments, values)

    def _projected(self, moments: list[Moment], values: Array) -> dict[str, Array]:
        # The last call of symmetric_projection; α of G = 0 is 0.
        end = moments[-1]
        G, alpha = np.asarray(end.returned), float(end.own["proj_best_alpha"])
        if not G.any():
            alpha = 0.0
        scales = np.nan_to_num([float(moment.own["alpha"]) for moment in moments])  # 0/0 of an empty Q is 0
        return {
            "Q": codes_of(G, alpha, values),
            "alpha": np.asarray(alpha),
            "G": G,
            "passes": np.asarray(np.count_nonzero(np.diff(scales[1:]))),
        }

    def quantizer(self, **inputs: Any) -> dict[str, Array]:
        """`direct_quantize`, or the projection of W."""
        W, values = np.asarray(inputs["W"], dtype=np.float64), np.asarray(inputs["values"])
        if inputs["method"] == "alternating":
            found = self.project(V=W, values=values)
            return {name: array.reshape(W.shape) if array.ndim else array for name, array in found.items()}
        if inputs["method"] != "mean":
            raise NotImplementedError("direct quantization has α = mean|W|.")
        with quiet(), watched(self.code.quantization, "direct_quantize") as moments:
            G = self.code.quantization.direct_quantize(W, levels_of(values))
        alpha = float(moments[-1].own["alpha"])
        return {"Q": codes_of(G, alpha, values), "alpha": np.asarray(alpha), "G": G}

    def admm(self, **inputs: Any) -> dict[str, Array]:
        """The trace of `ADMM_quantization`, and what it returns."""
        H, W, G0, lam0 = (np.asarray(inputs[name], dtype=np.float64) for name in ("H", "W_bar", "G0", "lam0"))
        values, module = np.asarray(inputs["values"]), self.code.quantization
        levels = levels_of(values)
        with quiet():
            mean = np.abs(W).mean()
            own = mean * module.quantize(W, mean, 0, levels)
        if str(inputs.get("returned", "best")) != "best":
            raise NotImplementedError("the best G is returned.")
        if not self.starts_by_itself and (lam0.any() or not np.allclose(G0, own, rtol=1e-12, atol=0)):
            raise NotImplementedError("G⁰ and λ⁰ cannot be given.")
        names = ("ADMM_quantization", "get_error", "symmetric_projection", "quantize")
        with quiet(), watched(module, *names) as moments:
            module.ADMM_quantization(
                *(LAYER, "F-", W.T, None, H, levels),
                rho_factor=float(inputs["rho"]),  # it is multiplied by H[0, 0]
                ADMM_ite_times=int(inputs["K"]),
            )
        return self._trace(moments, values)

    def _trace(self, moments: list[Moment], values: Array) -> dict[str, Array]:
        # get_error is called for the start, then in turn for Θ and for G of every iteration.
        errors = [moment for moment in moments if moment.name == "get_error"]
        start, thetas, points = errors[0], errors[1::2], errors[2::2]
        duals = [np.asarray(moment.caller["dual"]) for moment in thetas[1:]]
        duals.append(np.asarray(moments[-1].own["dual"]))
        ends = [k for k, moment in enumerate(moments) if moment.name == "symmetric_projection"]
        projected = [self._projected(self._calls(moments, k), values) for k in ends]
        G = [np.asarray(moment.own["theta_B"]) for moment in (start, *points)]
        best = next(k for k, point in enumerate(G) if np.array_equal(point, self._kept(moments[-1])))
        return {
            "Theta": np.stack([np.asarray(moment.own["theta_B"]) for moment in thetas]),
            "V": np.stack([np.asarray(moments[k].own["V"]) for k in ends]),
            "Q": np.stack([one["Q"] for one in projected]),
            "alpha": np.stack([one["alpha"] for one in projected]),
            "G": np.stack(G[1:]),
            "lam": np.stack(duals),
            "E": np.array([float(moment.returned) for moment in (start, *points)]),
            "best": np.asarray(best),
            "result": self._kept(moments[-1]),
        }

    def _calls(self, moments: list[Moment], end: int) -> list[Moment]:
        inside = itertools.takewhile(lambda moment: moment.name == "quantize", reversed(moments[:end]))
        return [*reversed(list(inside)), moments[end]]

    def _kept(self, moment: Moment) -> Array:
        return np.asarray(moment.returned).T

    # -- the update, on PyTorch

    def update_grad(self, **inputs: Any) -> dict[str, Array]:
        """Loss and gradients of the first step of `cascade_soft_update`."""
        X, train = np.asarray(inputs["X"], dtype=np.float32), self.code.train
        if int(inputs["batch_size"]) < len(X):
            raise NotImplementedError("a step takes one batch, and the last, smaller one is dropped.")
        student, teacher = self._network(inputs, ""), self._network(inputs, "teacher_")
        batch = (self.code.torch.from_numpy(X), self.code.torch.zeros(len(X)))
        with quiet(), watched(train, "cascade_soft_update") as moments:
            train.cascade_soft_update(
                student, teacher, [batch], _Still(student), n_batch_used=0, use_cuda=False
            )
        parts = {"conv": student.conv, "bn": student.bn, "fc1": student.fc1, "fc2": student.fc2}
        found = {"loss": np.asarray(moments[-1].own["loss"].item())}
        for name in BEHIND[int(inputs["frozen"])]:
            part, _, array = name.partition("_")
            found[f"d{name}"] = getattr(parts[part], array).grad.numpy()
        return found

    def _network(self, inputs: Mapping[str, Any], prefix: str) -> Any:
        # The kit's network with the code's own kind of layers.
        torch, nn = self.code.torch, self.code.torch.nn
        arrays = {name: torch.from_numpy(np.array(inputs[prefix + name], dtype=np.float32)) for name in TINY}
        top, bottom, left, right = (int(size) for size in inputs["padding"])
        stride = tuple(int(size) for size in inputs["stride"])
        m, c, kh, kw = arrays["conv_weight"].shape
        layers = {
            "pad": nn.ZeroPad2d((left, right, top, bottom)),
            "conv": nn.Conv2d(c, m, (kh, kw), stride, bias=False),
            "bn": nn.BatchNorm2d(m, eps=float(inputs["eps"])),
            "relu1": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(*reversed(arrays["fc1_weight"].shape)),
            "relu2": nn.ReLU(),
            "fc2": nn.Linear(*reversed(arrays["fc2_weight"].shape)),
        }
        network = nn.Sequential(OrderedDict(layers))
        names = {"mean": "running_mean", "var": "running_var"}
        state = {}
        for name, array in arrays.items():
            part, _, own = name.partition("_")
            state[f"{part}.{names.get(own, own)}"] = array
        network.load_state_dict(state, strict=False)
        return network


class _Still:
    # An optimizer that clears gradients and moves nothing.
    def __init__(self, network: Any) -> None:
        self._network = network

    def zero_grad(self) -> None:
        self._network.zero_grad()

    def step(self) -> None:
        pass


class Released2019Declared(Released2019):
    """The authors' code under the conventions that it states openly: what fails is no matter of convention.

    Declared are the scale of H, SAME padding, ρ in units of H[0, 0], the start of ADMM and of its
    projections, their limit, ties and the stopping rule. The order of rows is not: H and the weights it
    stands between need one order, and the code's weights are in (c, kh, kw).
    """

    starts_by_itself = True

    def info(self) -> Info:
        """The profile `released-2019` but for the order of rows."""
        stated = replace(Conventions.profile("released-2019"), row_order="c,kh,kw")
        return replace(super().info(), name=f"{NAME}, conventions declared", conventions=stated)

    def project(self, **inputs: Any) -> dict[str, Array]:
        """As the code does, where the same is asked for.

        Raises
        ------
        NotImplementedError
            If another rule for ties or another end is asked for.
        """
        rule = "zero" if 3 < len(inputs["values"]) < 11 else "smaller"
        if str(inputs.get("ties", "smaller")) not in (rule, "zero") or int(inputs.get("passes", -1)) < 0:
            raise NotImplementedError("other ties and the fixed point cannot be asked for.")
        if str(inputs.get("kind", "alternating")) != "alternating":
            raise NotImplementedError("the projection alternates.")
        return super().project(**inputs)

    def admm(self, **inputs: Any) -> dict[str, Array]:
        """The trace of `ADMM_quantization`, from its own start.

        Raises
        ------
        NotImplementedError
            If the exact projection or the last G is asked for.
        """
        if str(inputs.get("projection", "alternating")) != "alternating":
            raise NotImplementedError("the projection alternates.")
        return super().admm(**inputs)


def layer_errors(
    released: Released2019, X: Array, weight: Array, *, stride: int = 1, padding: int = 1, levels: int = 3
) -> dict[str, float]:
    """What the authors' solver makes of a convolution with their Hessian and with the layer's own.

    Parameters
    ----------
    released : Released2019
        Their code.
    X : Array, shape (202, c, h, w)
        The layer's inputs; the code reads 101 batches of two.
    weight : Array, shape (m, c, k, k)
        Its weight.
    stride, padding : int, optional
        Of the layer, the same for rows and columns.
    levels : int, optional
        Of the set.

    Returns
    -------
    dict
        f(G)/f(0), with the f of the layer itself, by what G comes from: their direct quantization; their
        ADMM with ``their H``, with their H but its rows in the order of the weight, with the layer's H but
        its rows in their order, and with the layer's H. All H have their scale, so that ρ and the stopping
        rule are the same.
    """
    m, c, k, _ = weight.shape
    X = X[:202]
    pairs = np.array_split(X.astype(np.float32), len(X) // 2)
    theirs = released.from_batches(CaseLayer(pairs[0], "R", k, stride, (m, c, k, k)), pairs).astype(
        np.float64
    )
    layer = Conv2d(c, m, k, stride, padding, bias=False)
    right = layer.hessian(X.astype(np.float64))[0]
    _, ho, wo = layer.output_shape(X.shape[1:])
    own = 1.01 * right / (2 * ho * wo)
    theirs_of = (
        np.arange(c * k * k).reshape(k * k, c).T.ravel()
    )  # where row i of the weight stands in their H
    ours_of = np.argsort(theirs_of)
    W, code = weight.reshape(m, -1).T.astype(np.float64), released.code.quantization

    def error(kernel: Array) -> float:
        D = np.asarray(kernel).reshape(m, -1).T - W
        return float(np.vdot(D, right @ D) / np.vdot(W, right @ W))

    blocks = {
        "their H": theirs,
        "their H, rows as in W": theirs[np.ix_(theirs_of, theirs_of)],
        "the layer's H, rows as theirs": own[np.ix_(ours_of, ours_of)],
        "the layer's H": own,
    }
    with quiet():
        found = {"direct quantization": error(code.direct_quantize(weight.astype(np.float64), levels))}
        for name, H in blocks.items():
            found[name] = error(
                code.ADMM_quantization(LAYER, "R", weight.astype(np.float64), None, H, levels)
            )
    return found


def levels_of(values: Array) -> int:
    """The number of levels by which the code knows a set.

    Raises
    ------
    NotImplementedError
        If it does not know the set.

    Examples
    --------
    >>> levels_of(np.array([-1.0, 0.0, 1.0]))
    3
    """
    half = [2.0**k for k in range((len(values) - 1) // 2)]
    if len(values) not in (3, 5, 7, 9, 11) or not np.array_equal(
        values, [-v for v in half[::-1]] + [0.0, *half]
    ):
        raise NotImplementedError("sets are 0 and powers of two, of 3 to 11 levels.")
    return len(values)


def codes_of(G: Array, alpha: float, values: Array) -> Array:
    """Codes of a G = α values[Q].

    Examples
    --------
    >>> codes_of(np.array([0.5, -1.0]), 0.5, np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    array([3, 0], dtype=int8)
    """
    if not (np.isfinite(alpha) and alpha > 0):
        return np.full(G.shape, len(values) // 2, dtype=np.int8)
    return np.asarray(np.abs((G / alpha)[..., None] - values).argmin(axis=-1), dtype=np.int8)
