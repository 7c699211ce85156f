"""Networks: cuts, gradients through a residual graph, replacing arrays, errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import close

from refldnq._typing import Array, NetworkParams, Params
from refldnq.layers import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    Mode,
    ReLU,
    SubsampleShortcut,
    Tape,
)
from refldnq.network import INPUT, Network, Node

INPUT_SHAPE = (2, 7, 6)

NODES = (
    Node("conv0", Conv2d(2, 4, 3, padding=1), (INPUT,)),
    Node("norm0", BatchNorm(4, eps=0.1), ("conv0",)),
    Node("relu0", ReLU(), ("norm0",)),
    Node("conv1", Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), ("relu0",)),
    Node("norm1", BatchNorm(6, eps=0.1), ("conv1",)),
    Node("shortcut", SubsampleShortcut(4, 6), ("relu0",)),
    Node("sum", Add(), ("norm1", "shortcut")),
    Node("relu1", ReLU(), ("sum",)),
    Node("max", MaxPool2d(3, 2, 1), ("relu0",)),
    Node("cat", Concat(), ("relu1", "max")),
    Node("avg", AvgPool2d(2, 1), ("cat",)),
    Node("twice", Add(), ("avg", "avg")),
    Node("global", GlobalAvgPool(), ("twice",)),
    Node("flat", Flatten(), ("global",)),
    Node("drop", Dropout(), ("flat",)),
    Node("fc", Linear(10, 3), ("drop",)),
)
"""Two branches, an output used three times, one node that takes the same output twice."""


def draw_params(nodes: tuple[Node, ...], seed: int) -> dict[str, dict[str, Array]]:
    rng = np.random.default_rng(seed)
    params = {}
    for node in nodes:
        shapes = node.layer.parameter_shapes()
        if shapes:
            params[node.name] = {
                name: rng.random(shape) + 0.5 if name == "running_var" else rng.standard_normal(shape)
                for name, shape in shapes.items()
            }
    return params


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(NODES, draw_params(NODES, 1), INPUT_SHAPE)


@pytest.fixture(scope="module")
def x() -> Array:
    return np.random.default_rng(2).standard_normal((3, *INPUT_SHAPE))


END = len(NODES)


# ---------------------------------------------------------------------- cuts


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("cut", range(END + 1))
def test_resuming_at_a_cut_gives_the_same_bits(network: Network, x: Array, cut: int, mode: Mode) -> None:
    live = network.advance(network.start(x), 0, cut, mode=mode)
    assert tuple(live) == network.alive(cut)
    resumed = network.advance(live, cut, END, mode=mode)
    assert set(resumed) == {"fc"}
    assert np.array_equal(resumed["fc"], network.forward(x, mode=mode))


@pytest.mark.parametrize("cut", range(END + 1))
def test_a_change_behind_a_cut_is_seen(network: Network, x: Array, cut: int) -> None:
    """The previous test can fail: every output that is kept at a cut matters."""
    live = network.advance(network.start(x), 0, cut)
    for name in live:
        changed = {**live, name: live[name] + 0.5}
        assert not np.array_equal(network.advance(changed, cut, END)["fc"], network.forward(x))


def test_alive_keeps_what_later_nodes_need(network: Network) -> None:
    assert network.alive(0) == (INPUT,)
    assert network.alive(5) == ("relu0", "norm1")
    assert network.alive(9) == ("relu1", "max")
    assert network.alive(END) == ("fc",)


def test_advance_leaves_its_argument_alone(network: Network, x: Array) -> None:
    live = network.advance(network.start(x), 0, 4)
    before = {name: array.copy() for name, array in live.items()}
    network.advance(live, 4, END)
    assert live.keys() == before.keys()
    assert all(np.array_equal(live[name], before[name]) for name in live)


def test_record_gives_the_bits_of_advance(network: Network, x: Array) -> None:
    run = network.record(network.start(x), 0, END)
    assert np.array_equal(run.live["fc"], network.forward(x))
    assert len(run.tapes) == END
    assert run.statistics == {}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
def test_batches_do_not_change_the_output(network: Network, x: Array, batch_size: int) -> None:
    close(network.forward(x, batch_size=batch_size), network.forward(x), 1e-13)


def test_forward_is_the_composition_of_layers(network: Network, x: Array) -> None:
    values = {INPUT: x}
    for node in NODES:
        values[node.name], _ = node.layer.forward(
            network.params.get(node.name, {}), *(values[name] for name in node.inputs)
        )
        assert values[node.name].shape[1:] == network.shapes[node.name]
    assert np.array_equal(network.forward(x), values["fc"])


def test_inputs_of(network: Network, x: Array) -> None:
    parts = list(network.inputs_of("sum", x, batch_size=2))
    assert [part[0].shape[0] for part in parts] == [2, 1]
    live = network.advance(network.start(x), 0, network.position("sum"))
    for k, name in enumerate(NODES[network.position("sum")].inputs):
        close(np.concatenate([part[k] for part in parts]), live[name], 1e-13)
    ((first,),) = network.inputs_of("conv0", x)
    assert np.array_equal(first, x)


# ---------------------------------------------------------------------- gradients


def objective(network: Network, x: Array, v: Array, params: NetworkParams, mode: Mode) -> float:
    live = network.advance({INPUT: x}, 0, END, mode=mode, params=params)
    return float((live["fc"] * v).sum())


def gradient_error(network: Network, x: Array, mode: Mode) -> float:
    """Largest error of directional derivatives, by central differences, in the input and in every array."""
    rng = np.random.default_rng(3)
    run = network.record(network.start(x), 0, END, mode=mode)
    v = rng.standard_normal(run.live["fc"].shape)
    dx, dparams = network.backward(run, {"fc": v}, wrt_inputs=True)
    step = 1e-6

    def error(ahead: float, behind: float, slope: float) -> float:
        return abs((ahead - behind) / (2 * step) - slope) / max(1.0, abs(slope))

    d = rng.standard_normal(x.shape)
    ahead, behind = (objective(network, x + s * d, v, network.params, mode) for s in (step, -step))
    worst = error(ahead, behind, float((dx[INPUT] * d).sum()))
    for name, arrays in dparams.items():
        for key, gradient in arrays.items():
            d = rng.standard_normal(gradient.shape)
            values = []
            for s in (step, -step):
                own = {**network.params[name], key: network.params[name][key] + s * d}
                values.append(objective(network, x, v, {**network.params, name: own}, mode))
            worst = max(worst, error(values[0], values[1], float((gradient * d).sum())))
    return worst


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_backward_is_the_derivative(network: Network, x: Array, mode: Mode) -> None:
    """Central differences with step 1e-6: some 1e-9 of rounding and truncation; kinks are further away."""
    assert gradient_error(network, x, mode) <= 1e-7


class AddFirstGradientOnly(Add):
    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (dy, *[np.zeros_like(dy)] * (tape[1] - 1)), {}


class Overwriting(Network):
    """A network that forgets to add up the gradients of an output that is used more than once."""

    def backward(self, run: Any, dlive: Any, **options: Any) -> Any:
        relu0 = self.position("relu0")
        head = dataclasses.replace(run, stop=relu0 + 1, tapes=run.tapes[: relu0 + 1])
        tail = dataclasses.replace(run, start=relu0 + 1, tapes=run.tapes[relu0 + 1 :])
        below, dparams = super().backward(tail, dlive, wrt_inputs=True)
        dx, more = super().backward(head, {"relu0": below["relu0"] / 2}, wrt_inputs=True)
        return dx, {**dparams, **more}


def test_planted_bugs_are_caught_by_the_derivative(network: Network, x: Array) -> None:
    nodes = tuple(
        dataclasses.replace(node, layer=AddFirstGradientOnly()) if node.name == "sum" else node
        for node in NODES
    )
    assert not gradient_error(Network(nodes, network.params, INPUT_SHAPE), x, "eval") <= 1e-3
    assert not gradient_error(Overwriting(NODES, network.params, INPUT_SHAPE), x, "eval") <= 1e-3


@pytest.mark.parametrize("cut", range(END + 1))
def test_backward_of_two_runs_is_that_of_one(network: Network, x: Array, cut: int) -> None:
    v = np.random.default_rng(4).standard_normal((x.shape[0], 3))
    run = network.record(network.start(x), 0, END)
    dx, dparams = network.backward(run, {"fc": v}, wrt_inputs=True)
    head = network.record(network.start(x), 0, cut)
    tail = network.record(head.live, cut, END)
    below, behind = network.backward(tail, {"fc": v}, wrt_inputs=True)
    assert set(below) == set(network.alive(cut))
    dx2, before = network.backward(head, below, wrt_inputs=True)
    close(dx2[INPUT], dx[INPUT], 1e-13)
    both = {**before, **behind}
    assert both.keys() == dparams.keys()
    for name, arrays in dparams.items():
        for key in arrays:
            close(both[name][key], arrays[key], 1e-13)


@pytest.mark.parametrize("moving", [("fc",), ("conv1", "norm0"), ("norm1",), ()])
def test_moving_chooses_the_gradients(network: Network, x: Array, moving: tuple[str, ...]) -> None:
    run = network.record(network.start(x), 0, END)
    v = np.ones((x.shape[0], 3))
    _, every = network.backward(run, {"fc": v})
    dx, chosen = network.backward(run, {"fc": v}, moving=moving)
    assert dx == {}
    assert set(chosen) == set(moving)
    for name, arrays in chosen.items():
        assert all(np.array_equal(array, every[name][key]) for key, array in arrays.items())


def test_backward_does_not_descend_below_what_moves(network: Network, x: Array) -> None:
    """A layer under everything that moves gets no call: the cost of the update falls with the cut."""

    class Forbidden(Flatten):
        def backward(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("called")

    nodes = tuple(
        dataclasses.replace(node, layer=Forbidden()) if node.name == "flat" else node for node in NODES
    )
    other = Network(nodes, network.params, INPUT_SHAPE)
    run = other.record(other.start(x), 0, END)
    _, dparams = other.backward(run, {"fc": np.ones((x.shape[0], 3))}, moving=("fc",))
    assert set(dparams) == {"fc"}
    with pytest.raises(AssertionError, match="called"):
        other.backward(run, {"fc": np.ones((x.shape[0], 3))}, moving=("conv0",))


def test_dropout_masks_come_with_the_parameters(network: Network, x: Array) -> None:
    mask = Dropout().mask(np.random.default_rng(5), (x.shape[0], 10))
    params = {**network.params, "drop": {"mask": mask}}
    run = network.record(network.start(x), 0, END, params=params)
    (flat,) = next(network.inputs_of("drop", x))
    fc = network.params["fc"]
    close(run.live["fc"], (flat * mask) @ fc["weight"].T + fc["bias"], 1e-13)
    v = np.ones((x.shape[0], 3))
    _, dparams = network.backward(run, {"fc": v}, params=params)
    assert "drop" not in dparams
    close(dparams["fc"]["weight"], v.T @ (flat * mask), 1e-13)


def test_train_mode_reports_new_statistics(network: Network, x: Array) -> None:
    run = network.record(network.start(x), 0, END, mode="train")
    assert set(run.statistics) == {"norm0", "norm1"}
    (z,) = next(network.inputs_of("norm0", x))
    old = network.params["norm0"]
    mean = 0.9 * old["running_mean"] + 0.1 * z.mean(axis=(0, 2, 3))
    variance = 0.9 * old["running_var"] + 0.1 * z.var(axis=(0, 2, 3), ddof=1)
    close(run.statistics["norm0"]["running_mean"], mean, 1e-13)
    close(run.statistics["norm0"]["running_var"], variance, 1e-13)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-4)])
def test_network_is_that_of_torch(
    network: Network, x: Array, mode: Mode, dtype: str, tolerance: float
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    functional = torch.nn.functional
    network, x = network.astype(dtype), x.astype(dtype)
    p = {
        name: {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
        for name, arrays in network.params.items()
    }
    for name, arrays in p.items():
        for key, tensor in arrays.items():
            tensor.requires_grad_(key not in network[name].layer.buffers)
    point = torch.from_numpy(x.copy()).requires_grad_()

    def norm(z: Any, name: str) -> Any:
        own = p[name]
        return functional.batch_norm(
            z,
            own["running_mean"],
            own["running_var"],
            own["weight"],
            own["bias"],
            training=mode == "train",
            eps=0.1,
        )

    relu0 = functional.relu(
        norm(functional.conv2d(point, p["conv0"]["weight"], p["conv0"]["bias"], padding=1), "norm0")
    )
    branch = norm(functional.conv2d(relu0, p["conv1"]["weight"], stride=2, padding=1, groups=2), "norm1")
    relu1 = functional.relu(branch + functional.pad(relu0[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)))
    cat = torch.cat([relu1, functional.max_pool2d(relu0, 3, 2, 1)], dim=1)
    flat = 2 * functional.avg_pool2d(cat, 2, 1).mean(dim=(2, 3))
    y = functional.linear(flat, p["fc"]["weight"], p["fc"]["bias"])
    run = network.record(network.start(x), 0, END, mode=mode)
    assert run.live["fc"].dtype == dtype
    close(run.live["fc"], y.detach().numpy(), tolerance)
    v = np.random.default_rng(6).standard_normal(y.shape).astype(dtype)
    y.backward(torch.from_numpy(v))
    dx, dparams = network.backward(run, {"fc": v}, wrt_inputs=True)
    close(dx[INPUT], point.grad.numpy(), tolerance)
    for name, arrays in dparams.items():
        for key, gradient in arrays.items():
            assert gradient.dtype == dtype
            close(gradient, p[name][key].grad.numpy(), tolerance)
    for name, statistics in run.statistics.items():
        for key, array in statistics.items():
            close(array, p[name][key].detach().numpy(), tolerance)


# ---------------------------------------------------------------------- values


def test_weighted_names_what_can_be_quantized(network: Network) -> None:
    assert network.weighted == ("conv0", "conv1", "fc")


def test_replace_changes_only_what_it_names(network: Network, x: Array) -> None:
    weight = np.zeros_like(network.params["fc"]["weight"])
    other = network.replace({"fc": {"weight": weight}})
    close(other.forward(x), np.broadcast_to(network.params["fc"]["bias"], (x.shape[0], 3)), 0.0)
    assert other.params["fc"]["weight"] is weight
    assert other.params["fc"]["bias"] is network.params["fc"]["bias"]
    assert other.params["conv0"]["weight"] is network.params["conv0"]["weight"]
    assert network.params["fc"]["weight"].any()


def test_parameters_cannot_be_exchanged_in_place(network: Network) -> None:
    with pytest.raises(TypeError):
        network.params["fc"] = {}  # type: ignore[index]
    with pytest.raises(TypeError):
        network.params["fc"]["weight"] = np.zeros((3, 10))  # type: ignore[index]


def test_astype(network: Network, x: Array) -> None:
    single = network.astype(np.float32)
    assert single.dtype == np.float32 and network.dtype == np.float64
    y = single.forward(x.astype(np.float32))
    assert y.dtype == np.float32
    close(y, network.forward(x), 1e-4)


def test_a_network_without_parameters_is_float64() -> None:
    assert Network((Node("relu", ReLU(), (INPUT,)),), {}, (2,)).dtype == np.float64


# ---------------------------------------------------------------------- errors

FC = {"weight": np.zeros((2, 3)), "bias": np.zeros(2)}


def small(params: Any = None, **changes: Any) -> Network:
    node = Node("fc", Linear(3, 2), (INPUT,))
    arguments = {"nodes": (node,), "params": {"fc": FC} if params is None else params, "input_shape": (3,)}
    return Network(**{**arguments, **changes})


def relu(name: str, *inputs: str) -> Node:
    return Node(name, ReLU(), inputs)


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no-nodes": (lambda: Network((), {}, (3,)), ValueError, "at least one node"),
    "same-name": (
        lambda: Network((relu("a", INPUT), relu("a", INPUT)), {}, (3,)),
        ValueError,
        "different names, got 'a' twice",
    ),
    "name-of-the-input": (lambda: Network((relu(INPUT, INPUT),), {}, (3,)), ValueError, "different names"),
    "order": (
        lambda: Network((relu("a", "b"), relu("b", INPUT)), {}, (3,)),
        ValueError,
        "topological order; 'a' takes 'b'",
    ),
    "arity": (
        lambda: Network((relu("a", INPUT, INPUT),), {}, (3,)),
        ValueError,
        r"must have 1 input\(s\), got 2",
    ),
    "no-input": (
        lambda: Network((Node("a", Add(), ()),), {}, (3,)),
        ValueError,
        r"one or more input\(s\), got 0",
    ),
    "params-missing": (lambda: small({}), ValueError, r"missing or superfluous: \['fc'\]"),
    "params-superfluous": (
        lambda: small({"fc": FC, "b": {}}),
        ValueError,
        r"missing or superfluous: \['b'\]",
    ),
    "array-missing": (lambda: small({"fc": {"weight": FC["weight"]}}), ValueError, "must hold"),
    "array-shape": (
        lambda: small({"fc": {**FC, "bias": np.zeros(3)}}),
        ValueError,
        r"must have shape \(2,\), got \(3,\)",
    ),
    "array-nan": (
        lambda: small({"fc": {**FC, "bias": np.array([0.0, np.nan])}}),
        ValueError,
        "must be finite",
    ),
    "array-integers": (
        lambda: small({"fc": {**FC, "bias": np.zeros(2, int)}}),
        TypeError,
        "float32 or float64",
    ),
    "array-types": (
        lambda: small({"fc": {**FC, "bias": np.zeros(2, np.float32)}}),
        TypeError,
        "must have one type",
    ),
    "x-shape": (lambda: small().forward(np.zeros((1, 4))), ValueError, r"`x` must have shape \(n, 3\)"),
    "x-type": (
        lambda: small().forward(np.zeros((1, 3), np.float32)),
        TypeError,
        "the network's type float64",
    ),
    "x-integers": (lambda: small().forward(np.zeros((1, 3), int)), TypeError, "float32 or float64"),
    "x-nan": (lambda: small().forward(np.full((1, 3), np.nan)), ValueError, "`x` must be finite"),
    "x-nan-late": (
        lambda: small().forward(np.vstack([np.zeros((4, 3)), np.full((1, 3), np.inf)]), batch_size=2),
        ValueError,
        "`x` must be finite",
    ),
    "batch-size": (lambda: small().forward(np.zeros((1, 3)), batch_size=0), ValueError, "`batch_size`"),
    "inputs-of-unknown": (lambda: list(small().inputs_of("b", np.zeros((1, 3)))), KeyError, "'b'"),
    "position-unknown": (lambda: small()["b"], KeyError, "'b'"),
    "replace-unknown-layer": (lambda: small().replace({"b": FC}), KeyError, "'b'"),
    "replace-unknown-array": (lambda: small().replace({"fc": {"scale": np.ones(1)}}), KeyError, "'scale'"),
    "replace-shape": (lambda: small().replace({"fc": {"bias": np.zeros(3)}}), ValueError, "must have shape"),
    "shapes": (lambda: small(input_shape=(4,)).shapes, ValueError, r"got \(n, 4\)"),
}


@pytest.mark.parametrize(("call", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments_are_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_dead_end_is_refused() -> None:
    nodes = (Node("aux", ReLU(), ("input",)), Node("out", ReLU(), ("input",)))
    with pytest.raises(ValueError, match="`nodes` must all lead to the last one, 'aux' does not"):
        Network(nodes, {}, (2,))


def test_groups_name_every_array_once() -> None:
    nodes = (
        Node("conv", Conv2d(1, 2, 1), ("input",)),
        Node("bn", BatchNorm(2), ("conv",)),
        Node("out", ReLU(), ("bn",)),
    )
    params = {
        node.name: {k: np.ones(s) for k, s in node.layer.parameter_shapes().items()} for node in nodes[:2]
    }
    groups = Network(nodes, params, (1, 2, 2)).groups
    assert groups["weights"] == (("conv", "weight"),) and groups["biases"] == (("conv", "bias"),)
    assert set(groups["affine"]) == {("bn", "weight"), ("bn", "bias")}
    assert set(groups["statistics"]) == {("bn", "running_mean"), ("bn", "running_var")}
