"""The weights update: what moves, what stays, what it minimizes, and that it repeats bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from refldnq._typing import Array
from refldnq.batches import advance
from refldnq.cascade import Cascade, Copies
from refldnq.experiments.record import plain
from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, Linear, ReLU
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.loss import distillation, output_error
from refldnq.network import Live, Network, Node
from refldnq.update import (
    Copy,
    UpdateResult,
    UpdateSettings,
    intermediate_places,
    left_out,
    moving_arrays,
    update,
)
from refldnq.versions import Versions

Problem = tuple[Network, list[Copy], Array]
"""The student, the images at the cut with the teacher's outputs, the images."""

CUT = 2
SETTINGS = UpdateSettings(epochs=3, batch_size=8, learning_rate=1e-2, copies=1)


def residual_network(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    nodes = (
        Node("conv1", Conv2d(2, 4, 3, padding=1, bias=False), ("input",)),
        Node("relu1", ReLU(), ("conv1",)),
        Node("conv2", Conv2d(4, 4, 3, padding=1), ("relu1",)),
        Node("bn", BatchNorm(4), ("conv2",)),
        Node("add", Add(), ("bn", "relu1")),
        Node("flatten", Flatten(), ("add",)),
        Node("fc", Linear(4 * 16, 3), ("flatten",)),
    )
    params: dict[str, dict[str, Array]] = {}
    for node in nodes:
        shapes = node.layer.parameter_shapes()
        if shapes:
            params[node.name] = {key: 0.3 * rng.standard_normal(shape) for key, shape in shapes.items()}
    params["bn"]["running_var"] = rng.uniform(0.5, 2.0, 4)
    return Network(nodes, params, (2, 4, 4))


@pytest.fixture
def problem() -> Problem:
    network = residual_network()
    x = np.random.default_rng(1).standard_normal((24, 2, 4, 4))
    target = residual_network(2).forward(x)
    return network, [Copy(network.advance(network.start(x), 0, CUT), target)], x


def run(problem: Problem, settings: UpdateSettings = SETTINGS, seed: int = 0) -> UpdateResult:
    network, copies, _ = problem
    return update(network, CUT, copies, settings, np.random.default_rng(seed))


def same(a: Network, b: Network) -> bool:
    return all(np.array_equal(a.params[n][k], b.params[n][k]) for n in a.params for k in a.params[n])


@pytest.mark.parametrize("statistics", ["running", "batch"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_loss_falls_and_the_prefix_stays(
    problem: Problem, optimizer: Literal["adam", "sgd"], statistics: Literal["running", "batch"]
) -> None:
    network = problem[0]
    result = run(
        problem, replace(SETTINGS, epochs=15, optimizer=optimizer, statistics=statistics, learning_rate=3e-3)
    )
    assert result.losses[-1] < 0.7 * result.losses[0]
    assert result.images == 15 * 24 and result.steps == 15 * 3
    assert np.array_equal(result.network.params["conv1"]["weight"], network.params["conv1"]["weight"])
    moved = {
        n
        for n in network.params
        for k in network.params[n]
        if result.network.params[n][k] is not network.params[n][k]
    }
    assert moved == {"conv2", "bn", "fc"}
    frozen = np.array_equal(result.network.params["bn"]["running_mean"], network.params["bn"]["running_mean"])
    assert frozen == (statistics == "running")


def test_distillation_brings_the_class_probabilities_together(problem: Problem) -> None:
    network, copies, x = problem
    result = run(problem, replace(SETTINGS, epochs=15, loss="distillation", temperature=2.0))
    before, after = (
        distillation(net.forward(x), copies[0].target, temperature=2.0)[0]
        for net in (network, result.network)
    )
    assert after < 0.5 * before and result.losses[-1] < 0.7 * result.losses[0]
    assert not same(result.network, run(problem, replace(SETTINGS, epochs=15)).network)


def test_one_sgd_step_is_the_gradient_of_the_output_error(problem: Problem) -> None:
    network, copies, _ = problem
    rate = 1e-4
    settings = UpdateSettings(
        epochs=1,
        batch_size=24,
        optimizer="sgd",
        momentum=0.0,
        learning_rate=rate,
        statistics="running",
        copies=1,
    )
    moved = run(problem, settings).network

    def loss(key: str, index: tuple[int, ...], step: float) -> float:
        array = network.params["conv2"][key].copy()
        array[index] += step
        changed = network.replace({"conv2": {key: array}})
        live = changed.advance(copies[0].live, CUT, len(network.nodes))
        return output_error(live["fc"], copies[0].target)[0]

    for key, index in (("weight", (1, 2, 0, 1)), ("bias", (3,))):
        slope = (loss(key, index, 1e-5) - loss(key, index, -1e-5)) / 2e-5
        step = (network.params["conv2"][key] - moved.params["conv2"][key])[index] / rate
        assert abs(step - slope) <= 1e-6 * max(1.0, abs(slope))
        assert not abs(2 * step - slope) <= 1e-6 * max(1.0, abs(slope))  # a planted factor 2 is seen


def test_the_same_seed_gives_the_same_bits_and_another_does_not(problem: Problem) -> None:
    assert same(run(problem).network, run(problem).network)
    assert not same(run(problem).network, run(problem, seed=1).network)


@pytest.mark.parametrize(
    ("weights", "affine", "names"), [(True, False, {"conv2", "fc"}), (False, True, {"bn"})]
)
def test_the_settings_choose_what_moves(
    problem: Problem, weights: bool, affine: bool, names: set[str]
) -> None:
    arrays = moving_arrays(problem[0], CUT, replace(SETTINGS, weights=weights, affine=affine))
    assert set(arrays) == names
    assert all("running_mean" not in own for own in arrays.values())


def test_epochs_take_the_copies_in_turn(problem: Problem) -> None:
    network, (copy,), _ = problem
    zero = Copy(copy.live, np.zeros_like(copy.target))
    settings = replace(SETTINGS, epochs=2, learning_rate=1e-12, copies=2)
    first, second = update(network, CUT, [copy, zero], settings, np.random.default_rng(0)).losses
    alone = update(network, CUT, [copy], settings, np.random.default_rng(0)).losses
    assert first == pytest.approx(alone[0], rel=1e-9)
    assert abs(second - alone[1]) > 1e-3


def test_patience_stops_a_stalled_update(problem: Problem) -> None:
    # Running statistics: the loss of an epoch does not depend on how the images were batched.
    result = run(problem, replace(SETTINGS, epochs=50, learning_rate=1e-12, patience=3, statistics="running"))
    assert len(result.losses) == 4
    assert len(run(problem, replace(SETTINGS, epochs=6, patience=3, tolerance=0.0)).losses) == 6


def test_behind_the_last_layer_nothing_moves(problem: Problem) -> None:
    network, copies, x = problem
    end = len(network.nodes)
    result = update(
        network, end, [Copy({"fc": network.forward(x)}, copies[0].target)], SETTINGS, np.random.default_rng(0)
    )
    assert result.network is network and result.losses == ()


def test_divergence_is_an_error_that_names_the_learning_rate(problem: Problem) -> None:
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="`learning_rate` must be small enough"):
        run(problem, replace(SETTINGS, epochs=50, optimizer="sgd", learning_rate=1e6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "`epochs`"),
        ({"learning_rate": 0.0}, "`learning_rate`"),
        ({"learning_rate": float("nan")}, "`learning_rate`"),
        ({"optimizer": "lamb"}, "`optimizer` must be one of 'adam', 'sgd'"),
        ({"weights": False, "affine": False}, "nothing would move"),
        ({"copies": 0}, "`copies`"),
        ({"mix": 0.6}, "`mix`"),
        ({"loss": "kl"}, "`loss`"),
        ({"temperature": 0.0}, "`temperature`"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)


def test_no_copy_is_refused(problem: Problem) -> None:
    with pytest.raises(ValueError, match="`copies` must hold at least one version"):
        update(problem[0], CUT, [], SETTINGS, np.random.default_rng(0))


ONE_STEP = replace(
    SETTINGS,
    epochs=1,
    batch_size=24,
    optimizer="sgd",
    momentum=0.0,
    learning_rate=1e-4,
    schedule="constant",
    statistics="running",
    intermediate=0.7,
)


def intermediate_gradient_error(problem: Problem) -> float:
    """The step's gradient against central differences of the loss as it is defined, conv2's bias."""
    network, copies, x = problem
    teacher = residual_network(2)
    features = teacher.advance(teacher.start(x), 0, teacher.position("fc"))["flatten"]
    copy = replace(copies[0], features=(features,))
    result = update(network, CUT, [copy], ONE_STEP, np.random.default_rng(0))
    took = (network.params["conv2"]["bias"] - result.network.params["conv2"]["bias"]) / ONE_STEP.learning_rate
    unit = float(np.sum(copy.target**2) / np.sum(features**2))

    def loss(bias: Array) -> float:
        net = network.replace({"conv2": {"bias": bias}})
        h = net.advance(net.start(x), 0, net.position("fc"))["flatten"]
        own, other = output_error(net.forward(x), copy.target)[0], output_error(h, features)[0]
        return own + ONE_STEP.intermediate * unit * other

    if not np.isclose(result.losses[0], loss(network.params["conv2"]["bias"]), rtol=1e-12):
        return np.inf
    worst, step = 0.0, 1e-5
    for i in range(took.size):
        e = step * np.eye(took.size)[i]
        bias = network.params["conv2"]["bias"]
        slope = (loss(bias + e) - loss(bias - e)) / (2 * step)
        worst = max(worst, abs(took[i] - slope) / (1.0 + abs(slope)))
    return worst


def test_intermediate_outputs_count_as_they_should(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    error = intermediate_gradient_error(problem)
    if not error <= 1e-7:
        raise AssertionError(error)
    # Planted: the gradient from the features is dropped on the way down.
    right = Network.backward

    def wrong(self: Network, run: Any, dlive: Any, **options: Any) -> Any:
        if "flatten" in dlive:
            dlive = {**dlive, "flatten": 0.5 * dlive["flatten"]}
        return right(self, run, dlive, **options)

    monkeypatch.setattr(Network, "backward", wrong)
    assert intermediate_gradient_error(problem) > 1e-2


def block_network(seed: int = 0) -> Network:
    """Two ReLUs that nothing passes by, the first before the cut, and one that a sum passes by."""
    old = residual_network(seed)
    head = {"fc": Linear(4 * 16, 3)}
    nodes = (
        *old.nodes[:5],
        Node("relu2", ReLU(), ("add",)),
        Node("conv3", Conv2d(4, 4, 1, bias=False), ("relu2",)),
        Node("relu3", ReLU(), ("conv3",)),
        Node("add2", Add(), ("relu3", "relu2")),
        Node("relu4", ReLU(), ("add2",)),
        Node("flatten", Flatten(), ("relu4",)),
        Node("fc", head["fc"], ("flatten",)),
    )
    conv = np.random.default_rng([seed, 1]).standard_normal((4, 4, 1, 1))
    return Network(nodes, {**old.params, "conv3": {"weight": conv}}, (2, 4, 4))


BLOCKS = replace(ONE_STEP, features="blocks")


def block_gradient_error() -> float:
    """As `intermediate_gradient_error`, with every block's output."""
    network, teacher = block_network(), block_network(2)
    x = np.random.default_rng(1).standard_normal((24, 2, 4, 4))
    names = ("relu2", "relu4")
    cut = network.position("conv2")
    assert [name for _, name in intermediate_places(network, cut, BLOCKS)] == list(names)
    features = tuple(teacher.advance(teacher.start(x), 0, teacher.position(name) + 1)[name] for name in names)
    copy = Copy(network.advance(network.start(x), 0, cut), teacher.forward(x), features)
    result = update(network, cut, [copy], BLOCKS, np.random.default_rng(0))
    before = network.params["conv2"]["bias"]
    took = (before - result.network.params["conv2"]["bias"]) / BLOCKS.learning_rate

    def loss(bias: Array) -> float:
        net = network.replace({"conv2": {"bias": bias}})
        total = output_error(net.forward(x), copy.target)[0]
        for name, wanted in zip(names, features, strict=True):
            own = net.advance(net.start(x), 0, net.position(name) + 1)[name]
            unit = float(np.sum(copy.target**2) / np.sum(wanted**2))
            total += BLOCKS.intermediate * unit * output_error(own, wanted)[0]
        return total

    if not np.isclose(result.losses[0], loss(before), rtol=1e-12):
        return np.inf
    worst, step = 0.0, 1e-5
    for e in step * np.eye(took.size):
        slope = (loss(before + e) - loss(before - e)) / (2 * step)
        worst = max(worst, abs(took[np.flatnonzero(e)[0]] - slope) / (1.0 + abs(slope)))
    return worst


def test_outputs_of_blocks_count_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    error = block_gradient_error()
    if not error <= 1e-7:
        raise AssertionError(error)
    right = Network.backward

    def wrong(self: Network, run: Any, dlive: Any, **options: Any) -> Any:
        if "relu2" in dlive:  # planted: only the first of its two gradients
            dlive = {**dlive, "relu2": 0.5 * dlive["relu2"]}
        return right(self, run, dlive, **options)

    monkeypatch.setattr(Network, "backward", wrong)
    assert block_gradient_error() > 1e-2


def test_places_of_intermediate_outputs() -> None:
    network = block_network()
    assert intermediate_places(network, 0, replace(BLOCKS, intermediate=0.0)) == ()
    names = [name for _, name in intermediate_places(network, 0, BLOCKS)]
    assert names == ["relu1", "relu2", "relu4"]
    assert intermediate_places(network, 0, ONE_STEP) == ((network.position("fc"), "flatten"),)
    assert intermediate_places(network, len(network.nodes), BLOCKS) == ()
    with pytest.raises(ValueError, match="`features` must be"):
        replace(BLOCKS, features="all")  # type: ignore[arg-type]


def test_versions_keep_one_version_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = block_network(), np.random.default_rng(1).standard_normal((6, 2, 4, 4))
    settings = replace(BLOCKS, epochs=3, copies=3, pool=3, crop=1)
    versions = Versions(network, x, settings, 1, np.random.default_rng(0), 4)
    for number in (0, 1, 2, 1):
        live = network.start(versions.images(number))
        for (stop, name), own in zip(
            intermediate_places(network, 0, settings), versions.features(number), strict=True
        ):
            assert np.allclose(own, network.advance(live, 0, stop)[name], rtol=1e-12)
        assert np.allclose(versions.target(number), network.forward(versions.images(number)), rtol=1e-12)
        assert list(versions._features) == [number]


def test_intermediate_outputs_are_needed_if_they_count(problem: Problem) -> None:
    with pytest.raises(ValueError, match="`copies` must hold features"):
        run(problem, ONE_STEP)
    with pytest.raises(ValueError, match="`intermediate` must be"):
        replace(SETTINGS, intermediate=-1.0)


def test_versions_give_the_input_of_the_last_weighted_layer() -> None:
    network, x = residual_network(), np.random.default_rng(1).standard_normal((6, 2, 4, 4))
    versions = Versions(network, x, ONE_STEP, 1, np.random.default_rng(0), 4)
    live = network.advance(network.start(x), 0, network.position("fc"))
    (features,) = versions.features(0)
    assert np.allclose(features, live["flatten"], rtol=1e-12)
    assert np.allclose(versions.target(0), network.forward(x), rtol=1e-12)
    assert Versions(network, x, SETTINGS, 1, np.random.default_rng(0), 4).features(0) == ()


@pytest.mark.parametrize("mixed", [0.0, 0.5])
def test_the_teacher_labels_what_the_student_sees(mixed: float) -> None:
    network, x = residual_network(), np.random.default_rng(1).standard_normal((6, 2, 4, 4))
    settings = replace(SETTINGS, copies=3, pool=4, crop=1, mix=mixed)
    versions = Versions(network, x, settings, 2, np.random.default_rng(0), 4)
    assert np.array_equal(versions.images(0), x)
    for number in range(1, 4):
        own = versions.images(number)
        assert not np.array_equal(own, x) and np.array_equal(own, versions.images(number))
        assert np.allclose(versions.target(number), network.forward(own), rtol=1e-12)
        # A pixel of a version that is not mixed is one of its image's, or of the frame around it.
        known = np.isin(own, [0.0]) | (own.reshape(6, -1)[:, :, None] == x.reshape(6, 1, -1)).any(2).reshape(
            own.shape
        )
        assert known.all() == (mixed == 0)


@pytest.mark.parametrize(("copies", "epochs"), [(1, 1), (1, 3), (3, 3), (2, 5)])
def test_a_version_is_evaluated_up_to_the_cut_once(
    copies: int, epochs: int, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _, x = problem
    settings = replace(SETTINGS, epochs=epochs, copies=copies, pool=8, crop=1)
    versions = Versions(network, x, settings, 1, np.random.default_rng(0), 24)
    cascade = Cascade(network, network, x, 24)
    cascade.move(network, CUT)
    evaluated: list[int] = []

    def counted(student: Network, live: Live, start: int, stop: int, size: int) -> Live:
        evaluated.append(stop)
        return advance(student, live, start, stop, size)

    versions.target(0)  # the teacher's are counted apart
    for number in versions.of_step(0):
        versions.target(number)
    monkeypatch.setattr("refldnq.cascade.advance", counted)
    update(network, CUT, Copies(cascade, network, versions, 0, epochs), settings, np.random.default_rng(0))
    others = [number for number in versions.of_step(0) if number]  # the images themselves are there already
    assert evaluated == [CUT] * len(others)


# ------------------------------------------------------------------ the length by images that are left out

CHOSEN = replace(
    SETTINGS, statistics="running", epochs=12, learning_rate=2e-3, schedule="constant", validation=0.25
)


def part(copy: Copy, places: Array) -> Copy:
    return Copy({name: values[places] for name, values in copy.live.items()}, copy.target[places])


def chosen_length_error(problem: Problem, settings: UpdateSettings = CHOSEN) -> str:
    """What is wrong with the length of an update and what it returns; nothing if it is right."""
    network, (copy,), _ = problem
    left = left_out(24, settings.validation)
    result = update(network, CUT, [copy], settings, np.random.default_rng(0))
    rest = part(copy, np.delete(np.arange(24), left))
    bare = replace(settings, validation=0.0)
    states = [network]
    for epochs in range(1, settings.epochs + 1):  # a constant rate: shorter updates are the beginnings
        own = replace(bare, epochs=epochs)
        states.append(update(network, CUT, [rest], own, np.random.default_rng(0)).network)
    end = len(network.nodes)
    unseen = part(copy, left)
    losses = [output_error(state.advance(unseen.live, CUT, end)["fc"], unseen.target)[0] for state in states]
    best = int(np.argmin(losses))
    if not np.allclose(result.validation, losses, rtol=1e-12, atol=0):
        return f"losses {result.validation}, wanted {losses}"
    if len(result.losses) != best or not same(result.network, states[best]):
        return f"length {len(result.losses)}, wanted {best}"
    return ""


@pytest.mark.parametrize(("statistics", "optimizer"), [("running", "adam"), ("batch", "sgd")])
def test_the_length_is_that_of_the_least_loss_on_the_images_left_out(
    problem: Problem, statistics: Any, optimizer: Any
) -> None:
    # The targets are another network's: on few images the update soon learns what does not carry over.
    settings = replace(CHOSEN, statistics=statistics, optimizer=optimizer)
    assert chosen_length_error(problem, settings) == ""
    result = run(problem, settings)
    assert 0 < len(result.losses) < 12
    assert result.steps == 12 * 3 and result.images == 12 * 18


@pytest.mark.parametrize("planted", ["all learnt", "train mode", "last state"])
def test_planted_errors_in_the_length_are_seen(
    problem: Problem, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refldnq import update as module

    if planted == "all learnt":  # the images left out are learnt from
        monkeypatch.setattr(np, "setdiff1d", lambda every, _: every)
    elif planted == "train mode":  # the loss is not of the network as it is used
        right = Network.record
        monkeypatch.setattr(
            Network,
            "record",
            lambda self, *words, **options: right(self, *words, **{**options, "mode": "train"}),
        )
    else:

        def last(losses: list[float]) -> float:
            return np.inf

        monkeypatch.setattr(module, "min", last, raising=False)
    assert chosen_length_error(problem) != ""


def test_an_update_that_helps_no_image_left_out_is_not_made(problem: Problem) -> None:
    network, (copy,), x = problem
    target = copy.target.copy()
    left = left_out(24, 0.25)
    target[left] = network.forward(x)[left]  # they are right already
    result = update(network, CUT, [Copy(copy.live, target)], CHOSEN, np.random.default_rng(0))
    assert result.losses == () and same(result.network, network) and result.validation[0] < 1e-20


def test_images_left_out_are_always_the_same_ones() -> None:
    for count, share in ((500, 0.1), (7, 0.5), (2, 0.5), (50, 0.001)):
        left = left_out(count, share)
        assert left.size == len(set(left.tolist())) == max(1, int(share * count)) < count
        assert left.min() >= 0 and left.max() < count and (np.diff(left) > 0).all()
    assert left_out(500, 0.0).size == 0
    with pytest.raises(ValueError, match="`validation` must be 0 for a single image"):
        left_out(1, 0.5)


def test_features_count_in_the_loss_on_images_left_out(problem: Problem) -> None:
    network, (copy,), x = problem
    teacher = residual_network(2)
    features = teacher.advance(teacher.start(x), 0, teacher.position("fc"))["flatten"]
    settings = replace(CHOSEN, epochs=1, intermediate=0.7)
    first = update(
        network, CUT, [replace(copy, features=(features,))], settings, np.random.default_rng(0)
    ).validation[0]
    left, unit = left_out(24, 0.25), float(np.sum(copy.target**2) / np.sum(features**2))
    own = network.advance(network.start(x), 0, network.position("fc"))["flatten"]
    wanted = output_error(network.forward(x)[left], copy.target[left])[0]
    wanted += 0.7 * unit * output_error(own[left], features[left])[0]
    assert first == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("target", ["weights", "drift"])
def test_in_a_cascade_the_images_left_out_are_judged_as_they_are(
    target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import refldnq.final
    import refldnq.ldnq

    teacher, x = residual_network(), np.random.default_rng(1).standard_normal((24, 2, 4, 4))
    seen: list[bool] = []

    def watched(network: Network, cut: int, *words: Any, plain: Copy, **options: Any) -> Any:
        live = network.advance(network.start(x), 0, cut)
        seen.append(all(np.allclose(plain.live[name], live[name], rtol=1e-9, atol=1e-12) for name in live))
        seen.append(np.allclose(plain.target, teacher.forward(x), rtol=1e-12))
        return update(network, cut, *words, plain=plain, **options)

    monkeypatch.setattr(refldnq.ldnq, "update", watched)
    monkeypatch.setattr(refldnq.final, "update", watched)
    how = replace(CHOSEN, epochs=2, copies=2, pool=8, crop=1)
    settings = LdnqSettings(target=target, update=how, final_epochs=3)
    result = ldnq(teacher, x, settings, np.random.default_rng(0))
    assert seen == [True] * 6  # two layers and the last update
    assert result.reports[-1].update_images == 3 * 18  # also if no epoch of it is kept


def test_patience_looks_at_the_images_left_out(problem: Problem) -> None:
    network, (copy,), x = problem
    target = copy.target.copy()
    left = left_out(24, 0.25)
    target[left] = network.forward(x)[left]  # from the start on it can only get worse
    settings = replace(CHOSEN, patience=2)
    result = update(network, CUT, [Copy(copy.live, target)], settings, np.random.default_rng(0))
    assert len(result.validation) == 1 + 2 and result.losses == ()


@pytest.mark.parametrize("change", [{"validation": 0.6}, {"validation": -0.1}, {"mix": 0.5}])
def test_shares_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`validation` must be"):
        replace(CHOSEN, **change)


def test_a_setting_that_is_younger_than_stored_results_does_not_change_their_keys() -> None:
    assert "validation" not in plain(SETTINGS) and "tolerance" in plain(SETTINGS)
    assert plain(CHOSEN)["validation"] == 0.25
