"""The baselines' steps are those of PyTorch's autograd with straight-through quantizers, for both losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from baseline_cases import IMAGES, LABELS, LAYERS, plain_network

from refldnq._typing import Array
from refldnq.baselines import BASELINES, LoopState, Schedule, distilquant, dq, exnn, inq, lat, ttq, vq
from refldnq.baselines.base import Runner
from refldnq.baselines.codes import packed
from refldnq.baselines.loop import begin, fit
from refldnq.baselines.retrain import Free, Retrain
from refldnq.baselines.runs import Trained
from refldnq.loss import LOSSES, LossName
from refldnq.network import Network
from refldnq.verify.naive import baselines as naive

torch = pytest.importorskip("torch")

LOSS_NAMES: tuple[LossName, ...] = ("cross_entropy", "squared_hinge")

STEP = Schedule(
    epochs=2,
    batch_size=24,
    learning_rate=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=0.01,
    decays="all",
    crop=0,
    flip=False,
    origin="an epoch is a step; the second one has momentum, and a curvature",
)


@dataclass(frozen=True)
class Case:
    """A method, how it is set, and what it minimizes."""

    name: str
    settings: Any = None
    loss: LossName = "cross_entropy"
    schedule: Schedule = STEP

    def __str__(self) -> str:
        return f"{self.name}-{self.loss}-{self.schedule.optimizer}-{self.schedule.nesterov}"


CASES = [
    *(Case(name, None, loss) for name in ("ttq", "late", "distilquant", "inq") for loss in LOSS_NAMES),
    Case("lata"),
    Case("lat-two-scale"),
    Case("ttq", ttq.TtqSettings(threshold=0.4, init="twn")),
    Case("ttq", schedule=replace(STEP, nesterov=False)),
    Case("late", schedule=replace(STEP, optimizer="adam")),
    Case(
        "distilquant", distilquant.DistilQuantSettings(share=1.0, temperature=3.0, bucket=50, mean="images")
    ),
]


def trained(name: str) -> Trained:
    how: Runner = BASELINES[name].run
    assert isinstance(how, Trained)
    return how


def two_steps(case: Case) -> tuple[LoopState, Network]:
    network, how = replace(plain_network(), loss=case.loss), trained(case.name)
    method = how.make(network, LAYERS, 3, case.settings or how.settings)
    rng = np.random.default_rng(0)
    return fit(method, IMAGES, LABELS, case.schedule, rng, begin(method, case.schedule, rng)), network


class Twin:
    """The tiny network in PyTorch."""

    def __init__(self, network: Network) -> None:
        self.loss = network.loss
        self.leaves = {
            (name, key): torch.tensor(array, requires_grad="running" not in key)
            for name, own in network.params.items()
            for key, array in own.items()
        }

    def forward(self, x: Any, weights: Mapping[str, Any], leaves: Mapping[tuple[str, str], Any]) -> Any:
        f = torch.nn.functional

        def norm(name: str, z: Any) -> Any:
            mean, var = leaves[name, "running_mean"].clone(), leaves[name, "running_var"].clone()
            scale, shift = leaves[name, "weight"], leaves[name, "bias"]
            return f.batch_norm(z, mean, var, scale, shift, training=True, eps=1e-5)

        a = f.relu(norm("bn1", f.conv2d(x, weights["conv1"], padding=1)))
        b = norm("bn2", f.conv2d(a, weights["conv2"], leaves["conv2", "bias"], padding=1))
        return f.linear((a + b).flatten(1), weights["fc"], leaves["fc", "bias"])

    def labelled(self, output: Any, y: Any) -> Any:
        if self.loss == "cross_entropy":
            return torch.nn.functional.cross_entropy(output, y)
        signs = 2.0 * torch.nn.functional.one_hot(y, output.shape[1]) - 1.0
        return torch.clamp(1.0 - signs * output, min=0.0).square().sum() / len(y)


def optimizer_of(schedule: Schedule, moving: list[Any]) -> Any:
    how = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
    if schedule.optimizer == "adam":
        return torch.optim.Adam(moving, **how)
    return torch.optim.SGD(moving, momentum=schedule.momentum, nesterov=schedule.nesterov, **how)


def through(w: Any, quantized: Array) -> Any:
    """The quantized weight forward, the identity backward."""
    return w + (torch.tensor(quantized) - w).detach()


def clip(leaves: Mapping[tuple[str, str], Any]) -> None:
    with torch.no_grad():
        for layer in LAYERS:
            leaves[layer, "weight"].clamp_(-1, 1)


def freeze(weight: Array, portion: float) -> tuple[Array, Array]:
    """INQ's first phase, weight by weight: which are quantized, and the weights then."""
    mask = np.array(naive.partition([float(v) for v in weight.ravel()], [False] * weight.size, portion))
    top = float(np.abs(weight).max())
    points = np.array([naive.inq_value(float(v), top, 3) for v in weight.ravel()])
    return mask.reshape(weight.shape), np.where(mask, points, weight.ravel()).reshape(weight.shape)


def torch_steps(case: Case) -> dict[tuple[str, str], Array]:
    network, name = replace(plain_network(), loss=case.loss), case.name
    # Defaults are numbers here, which the other side has from its own; LAT's variant is no number.
    settings: Any = case.settings or (trained(name).settings if name.startswith("lat") else None)
    twin, x, y = Twin(network), torch.tensor(IMAGES), torch.tensor(LABELS)
    leaves = dict(twin.leaves)
    moment = {layer: np.zeros_like(network.params[layer]["weight"]) for layer in LAYERS}
    frozen: dict[str, tuple[Array, Array]] = {}
    threshold = 0.05 if settings is None or name != "ttq" else settings.threshold
    for layer in LAYERS:
        array = network.params[layer]["weight"]
        if name == "ttq":
            above, below = (torch.tensor(mask) for mask in ttq.masks(array, threshold))
            for key, mask in ((ttq.POSITIVE, above), (ttq.NEGATIVE, below)):
                start = 1.0 if settings is None else float(np.abs(array[mask.numpy()]).mean())
                leaves[layer, key] = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        if name == "inq":
            frozen[layer] = freeze(array, inq.TERNARY_PORTIONS[0])
            leaves[layer, "weight"] = torch.tensor(frozen[layer][1], requires_grad=True)
    if name.startswith("lat"):
        clip(leaves)
    moving = [leaf for leaf in leaves.values() if leaf.requires_grad]
    optimizer = optimizer_of(case.schedule, moving)
    with torch.no_grad():
        teacher = torch.tensor(network.forward(IMAGES))
    for index in range(2):
        for group in optimizer.param_groups:
            group["lr"] = case.schedule.rate(index, 0, 1)
        weights = {}
        for layer in LAYERS:
            w = leaves[layer, "weight"]
            array = w.detach().numpy()
            if name == "ttq":
                # One function whose derivative is the published one: the masks are held.
                above, below = (torch.tensor(mask) for mask in ttq.masks(array, threshold))
                p, n = leaves[layer, ttq.POSITIVE], leaves[layer, ttq.NEGATIVE]
                scale = torch.where(above, p, torch.where(below, n, torch.ones_like(p))).detach()
                weights[layer] = p * above - n * below + scale * (w - w.detach())
            elif name.startswith("lat"):
                D = np.sqrt(moment[layer]) + 1e-8
                weights[layer] = through(w, lat.quantize(array, D, settings.variant))
            elif name == "distilquant":
                bucket = 256 if settings is None else settings.bucket
                weights[layer] = through(w, distilquant.quantize(array, 3, bucket))
            else:
                weights[layer] = w
            weights[layer].retain_grad()
        output = twin.forward(x, weights, leaves)
        loss = twin.labelled(output, y)
        if name == "distilquant":
            T, share, classes = (
                (2.0, 0.7, 3) if settings is None else (settings.temperature, settings.share, 1)
            )
            log = torch.log_softmax(output / T, 1)
            kl = torch.nn.functional.kl_div(log, torch.softmax(teacher / T, 1), reduction="batchmean")
            loss = share * T**2 * kl / classes + (1 - share) * loss
        optimizer.zero_grad()
        loss.backward()
        for layer in LAYERS:
            moment[layer] = 0.999 * moment[layer] + 0.001 * weights[layer].grad.numpy() ** 2
        optimizer.step()
        if name.startswith("lat"):
            clip(leaves)
        for layer, (mask, before) in frozen.items():
            with torch.no_grad():
                leaves[layer, "weight"][torch.tensor(mask)] = torch.tensor(before[mask])
    return {key: leaf.detach().numpy() for key, leaf in leaves.items() if leaf.requires_grad}


def compare(state: LoopState, wanted: Mapping[tuple[str, str], Array]) -> None:
    assert {(name, key) for name, own in state.point.latent.items() for key in own} == set(wanted)
    for (name, key), array in wanted.items():
        got = state.point.latent[name][key]
        if not (np.abs(got - array).max() <= 1e-10 * max(1.0, float(np.abs(array).max()))):
            raise AssertionError(f"{name}.{key} differs by {np.abs(got - array).max()}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_steps_are_those_of_autograd_with_straight_through_quantizers(case: Case) -> None:
    state, network = two_steps(case)
    wanted = torch_steps(case)
    compare(state, wanted)
    moved = [key for key in wanted if key[1] == "weight"]
    assert all(not np.array_equal(wanted[key], network.params[key[0]]["weight"]) for key in moved)


@pytest.mark.parametrize("name", ["ttq", "late", "distilquant", "inq"])
def test_cross_entropy_in_place_of_a_networks_own_loss_differs_from_autograd(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(name, None, "squared_hinge")
    wanted = torch_steps(case)
    monkeypatch.setitem(LOSSES, "squared_hinge", LOSSES["cross_entropy"])
    with pytest.raises(AssertionError, match="differs by"):
        compare(two_steps(case)[0], wanted)


@pytest.mark.parametrize(
    ("name", "target", "fault"),
    [
        ("ttq", "refldnq.baselines.ttq._gradients", "sign"),
        ("late", "refldnq.baselines.lat.Lat.pull", "moment"),
        ("distilquant", "refldnq.baselines.distilquant._loss", "images"),
        ("inq", "refldnq.baselines.inq.Inq.settle", "thawed"),
    ],
)
def test_planted_faults_differ_from_autograd(
    name: str, target: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = torch_steps(Case(name))
    if fault == "sign":

        def gradients(*arguments: Any) -> Any:
            dw, p, n = ttq.gradients(*arguments)
            return dw, p, -n

        monkeypatch.setattr(target, gradients)
    elif fault == "moment":
        # v never follows. Squares of gradients too small to change a code would hide it: make D uneven.
        monkeypatch.setattr(target, lambda self, latent, memory, gradients: (gradients, memory))
    elif fault == "thawed":
        monkeypatch.setattr(target, lambda self, before, after, memory: after)
    else:
        settings = distilquant.DistilQuantSettings(mean="images")
        monkeypatch.setattr(
            target, lambda y, t, labels, _, own: distilquant.loss(y, t, labels, settings, own)
        )
    with pytest.raises(AssertionError, match="differs by"):
        compare(two_steps(Case(name))[0], wanted)


EXNN = exnn.ExnnSettings(rho=3.0, predictor=0.5, corrector=2.0)
"""No two steps alike: an exchange of the two rates would show."""


def extragradient(loss: LossName) -> dict[tuple[str, str], Array]:
    twin = Twin(replace(plain_network(), loss=loss))
    x, y = torch.tensor(IMAGES), torch.tensor(LABELS)
    w = {key: leaf.detach().numpy() for key, leaf in twin.leaves.items() if leaf.requires_grad}
    G = {layer: exnn.proximal(w[layer, "weight"], 0 * w[layer, "weight"], 3).G for layer in LAYERS}
    lam = {layer: np.zeros_like(G[layer]) for layer in LAYERS}

    def gradient(at: Mapping[tuple[str, str], Array]) -> dict[tuple[str, str], Array]:
        leaves = {**twin.leaves, **{key: torch.tensor(a, requires_grad=True) for key, a in at.items()}}
        output = twin.forward(x, {layer: leaves[layer, "weight"] for layer in LAYERS}, leaves)
        value = twin.labelled(output, y)
        for layer in LAYERS:
            gap = leaves[layer, "weight"] - torch.tensor(G[layer]) + torch.tensor(lam[layer])
            value = value + 0.5 * EXNN.rho * (gap**2).sum()
        value.backward()
        return {key: leaves[key].grad.numpy() for key in at}

    for index in range(2):
        rate = STEP.rate(index, 0, 1)
        slopes = gradient(w)
        ahead = {key: array - EXNN.predictor * rate * slopes[key] for key, array in w.items()}
        slopes = gradient(ahead)
        w = {key: array - rate * (EXNN.corrector * slopes[key] + 0.01 * array) for key, array in w.items()}
        for layer in LAYERS:
            G[layer] = exnn.proximal(w[layer, "weight"], lam[layer], 3).G
            lam[layer] = lam[layer] + w[layer, "weight"] - G[layer]
    return w


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_exnns_extragradient_steps_are_those_of_autograd(loss: LossName) -> None:
    case = Case("exnn", EXNN, loss, replace(STEP, nesterov=False, momentum=0.0))
    state, _ = two_steps(case)
    wanted = extragradient(loss)
    compare(state, wanted)
    exchanged = exnn.ExnnSettings(rho=3.0, predictor=2.0, corrector=0.5)
    with pytest.raises(AssertionError, match="differs by"):
        compare(two_steps(replace(case, settings=exchanged))[0], wanted)


# ---------------------------------------------------------------------- retraining


def retraining(free: Free) -> Retrain:
    """Both convolutions quantized, with values away from any symmetry; the linear layer is free."""
    network, rng = plain_network(), np.random.default_rng(8)
    codes = {}
    for layer in LAYERS[:2]:
        weight = packed(network, layer, network.params[layer]["weight"])
        if free == "scale":
            codes[layer] = dq.encode(weight, 5, "mean")
        else:
            found = vq.quantize(weight, 4, rng)
            codes[layer] = replace(
                dq.encode(weight, 3, "mean"), codes=found.codes, alpha=np.array(0.5), values=2 * found.values
            )
    placed = {layer: code.arrays(network[layer], network.dtype) for layer, code in codes.items()}
    return Retrain(network=network.replace(placed), layers=LAYERS[:2], codes=codes, free=free)


def retrained(method: Retrain) -> LoopState:
    rng = np.random.default_rng(0)
    return fit(method, IMAGES, LABELS, STEP, rng, begin(method, STEP, rng))


def retrained_by_torch(method: Retrain) -> dict[tuple[str, str], Array]:
    twin, x, y = Twin(method.network), torch.tensor(IMAGES), torch.tensor(LABELS)
    moving = {key: leaf for key, leaf in twin.leaves.items() if key[0] in ("bn1", "bn2", "fc")}
    moving = {key: leaf for key, leaf in moving.items() if leaf.requires_grad}
    fixed = {key: leaf.detach() for key, leaf in twin.leaves.items() if key not in moving}
    for layer, code in method.codes.items():
        start = code.alpha * code.values if method.free == "values" else code.alpha
        if method.free != "nothing":
            moving[layer, method.free] = torch.tensor(start, requires_grad=True)
    optimizer = optimizer_of(STEP, list(moving.values()))
    for index in range(2):
        for group in optimizer.param_groups:
            group["lr"] = STEP.rate(index, 0, 1)
        weights = {"fc": moving["fc", "weight"]}
        for layer, code in method.codes.items():
            c_out, *rest = method.network.params[layer]["weight"].shape
            places = torch.tensor(code.codes[0].T.reshape(c_out, *rest).astype(np.int64))
            if method.free == "values":
                weights[layer] = moving[layer, "values"][places]
            elif method.free == "scale":
                weights[layer] = moving[layer, "scale"] * torch.tensor(code.values)[places]
            else:
                weights[layer] = twin.leaves[layer, "weight"].detach()
        loss = twin.labelled(twin.forward(x, weights, {**fixed, **moving}), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {key: leaf.detach().numpy() for key, leaf in moving.items()}


@pytest.mark.parametrize("free", ["nothing", "scale", "values"])
def test_two_steps_of_a_retraining_are_those_of_autograd(free: Free) -> None:
    method = retraining(free)
    wanted = retrained_by_torch(method)
    compare(retrained(method), wanted)
    for layer in LAYERS[:2]:
        assert free == "nothing" or not np.array_equal(wanted[layer, free], method.codes[layer].alpha)


@pytest.mark.parametrize("free", ["scale", "values"])
def test_a_retraining_that_climbs_is_seen(free: Free, monkeypatch: pytest.MonkeyPatch) -> None:
    method = retraining(free)
    wanted = retrained_by_torch(method)
    pull = Retrain.pull

    def climb(self: Retrain, latent: Any, memory: Any, gradients: Any) -> Any:
        pulled, memory = pull(self, latent, memory, gradients)
        return {
            name: {key: -g if key in ("scale", "values") else g for key, g in own.items()}
            for name, own in pulled.items()
        }, memory

    monkeypatch.setattr(Retrain, "pull", climb)
    with pytest.raises(AssertionError, match="differs by"):
        compare(retrained(method), wanted)
