"""Training: whole-network gradients, determinism, overfitting, and step 6 of Algorithm 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refldnq._typing import Array, Int64Array, NetworkParams
from refldnq.layers import BatchNorm, Dropout, Linear, ReLU
from refldnq.loss import cross_entropy, squared_hinge
from refldnq.models.digits_cnn import cnn_digits
from refldnq.models.mlp import mlp_digits
from refldnq.network import Network, Node
from refldnq.train import Epoch, TrainSettings, fine_tune, train

PLAIN = TrainSettings(epochs=1, crop=0, weight_decay=0.0)


def digits_like(n: int, dtype: Any = np.float64, seed: int = 0) -> tuple[Array, Int64Array]:
    rng = np.random.default_rng(seed)
    return rng.random((n, 1, 8, 8)).astype(dtype), rng.integers(0, 10, n)


def flat(params: NetworkParams) -> dict[tuple[str, str], Array]:
    return {(name, key): array for name, own in params.items() for key, array in own.items()}


# ------------------------------------------------------------------ gradients


def generic(**how: Any) -> Network:
    """A small MLP away from the kinks: at the initial zeros a ReLU may stand exactly at 0."""
    rng = np.random.default_rng(1)
    network = mlp_digits(rng, hidden=(6, 5), **how)
    moved: dict[str, dict[str, Array]] = {name: {} for name in network.params}
    for (name, key), array in flat(network.params).items():
        if key != "weight":
            moved[name][key] = array + rng.uniform(0.1, 0.5, array.shape)
    return network.replace(moved)


def loss_of(network: Network, x: Array, labels: Int64Array, mode: Any) -> float:
    return cross_entropy(network.forward(x, mode=mode), labels)[0]


def check_gradients(network: Network, x: Array, labels: Int64Array, mode: Any) -> None:
    """Every entry of every gradient against a central difference."""
    run = network.record(network.start(x), 0, len(network.nodes), mode=mode)
    last = network.nodes[-1].name
    _, dy = cross_entropy(run.live[last], labels)
    _, gradients = network.backward(run, {last: dy})
    # Central differences: truncation step**2 = 1e-12, rounding 2e-16 / step = 2e-10, times factors of the
    # size of the third derivatives and of the loss.
    step, tolerance = 1e-6, 2e-8
    for (name, key), gradient in flat(gradients).items():
        array = network.params[name][key]
        numeric = np.empty_like(array)
        for index in np.ndindex(array.shape):
            sides = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * step
                sides.append(loss_of(network.replace({name: {key: moved}}), x, labels, mode))
            numeric[index] = (sides[0] - sides[1]) / (2 * step)
        error = float(np.abs(gradient - numeric).max())
        if not error <= tolerance:
            raise AssertionError(f"{name}.{key}: the gradient is off by {error:.2e}")


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_gradients_of_the_mlp_are_finite_differences(batch_norm: bool, mode: str) -> None:
    check_gradients(generic(batch_norm=batch_norm), *digits_like(7), mode)


def test_the_gradient_check_sees_still_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    # The classical mistake: mean and variance of the batch taken for constants.
    backward = BatchNorm.backward

    def still(self: BatchNorm, params: Any, dy: Array, tape: Any, **wanted: bool) -> Any:
        return backward(self, params, dy, tape._replace(train=False), **wanted)

    monkeypatch.setattr(BatchNorm, "backward", still)
    with pytest.raises(AssertionError, match="gradient is off"):
        check_gradients(generic(), *digits_like(7), "train")


# ------------------------------------------------------------------ the loop


def test_one_step_of_sgd_is_the_gradient() -> None:
    network = mlp_digits(np.random.default_rng(0), hidden=(6,), batch_norm=False)
    x, labels = digits_like(9)
    settings = TrainSettings(epochs=1, optimizer="sgd", learning_rate=0.1, weight_decay=0.01, crop=0)
    result = train(network, x, labels, settings, np.random.default_rng(0))
    run = network.record(network.start(x), 0, len(network.nodes))
    value, dy = cross_entropy(run.live["fc2"], labels)
    _, gradients = network.backward(run, {"fc2": dy})
    for (name, key), gradient in flat(gradients).items():
        old = network.params[name][key]
        want = old - 0.1 * (gradient + 0.01 * old)
        np.testing.assert_allclose(result.network.params[name][key], want, rtol=1e-12, atol=1e-14)
    assert result.history[0].loss == pytest.approx(value, rel=1e-12)


def test_running_statistics_follow_the_batch() -> None:
    network = mlp_digits(np.random.default_rng(0), hidden=(6,))
    x, labels = digits_like(9)
    z = x.reshape(9, -1) @ network.params["fc1"]["weight"].T
    new = train(network, x, labels, PLAIN, np.random.default_rng(0)).network.params["bn1"]
    np.testing.assert_allclose(new["running_mean"], 0.1 * z.mean(0), rtol=1e-12)
    np.testing.assert_allclose(new["running_var"], 0.9 + 0.1 * z.var(0, ddof=1), rtol=1e-12)
    still = TrainSettings(epochs=1, crop=0, statistics="running")
    new = train(network, x, labels, still, np.random.default_rng(0)).network.params["bn1"]
    np.testing.assert_array_equal(new["running_mean"], network.params["bn1"]["running_mean"])
    assert not np.array_equal(new["weight"], network.params["bn1"]["weight"])


@pytest.mark.parametrize("build", [mlp_digits, cnn_digits])
@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.01), ("sgd", 0.1)])
def test_overfits_a_few_images(build: Any, optimizer: Any, rate: float) -> None:
    x, labels = digits_like(12, np.float32)
    network = build(np.random.default_rng(0)).astype(np.float32)
    settings = TrainSettings(epochs=60, optimizer=optimizer, learning_rate=rate, crop=0)
    seen: list[Epoch] = []
    result = train(network, x, labels, settings, np.random.default_rng(1), on_epoch=seen.append)
    assert result.network.dtype == np.float32
    assert tuple(seen) == result.history and [epoch.index for epoch in seen] == list(range(60))
    assert result.history[-1].accuracy == 1.0
    assert result.history[-1].loss < 0.1 * result.history[0].loss
    assert np.mean(result.network.forward(x).argmax(1) == labels) == 1.0


def test_one_step_does_not_overfit() -> None:
    # So the test above can fail.
    x, labels = digits_like(12, np.float32)
    network = cnn_digits(np.random.default_rng(0)).astype(np.float32)
    result = train(network, x, labels, PLAIN, np.random.default_rng(1))
    assert np.mean(result.network.forward(x).argmax(1) == labels) < 1.0


def test_same_seed_same_bits() -> None:
    x, labels = digits_like(20, np.float32)
    network = cnn_digits(np.random.default_rng(0)).astype(np.float32)
    before = {place: array.copy() for place, array in flat(network.params).items()}
    settings = TrainSettings(epochs=2, batch_size=8, crop=1, flip=True)
    one, two, other = (train(network, x, labels, settings, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.history == two.history != other.history
    for place, array in flat(one.network.params).items():
        np.testing.assert_array_equal(array, two.network.params[place[0]][place[1]])
        assert not np.array_equal(array, other.network.params[place[0]][place[1]])
    for place, array in flat(network.params).items():
        np.testing.assert_array_equal(array, before[place])


def test_no_batch_is_left_with_one_image() -> None:
    # 9 images in batches of at most 4: 3 + 3 + 3, not 4 + 4 + 1, which batch normalization refuses.
    x, labels = digits_like(9)
    network = mlp_digits(np.random.default_rng(0), hidden=(6,))
    train(network, x, labels, TrainSettings(epochs=1, batch_size=4, crop=0), np.random.default_rng(0))


def test_dropout_draws_a_mask_a_batch() -> None:
    nodes = (
        Node("fc1", Linear(4, 50), ("input",)),
        Node("relu", ReLU(), ("fc1",)),
        Node("drop", Dropout(0.5), ("relu",)),
        Node("fc2", Linear(50, 2), ("drop",)),
    )
    rng = np.random.default_rng(0)
    params = {
        "fc1": {"weight": rng.standard_normal((50, 4)), "bias": np.zeros(50)},
        "fc2": {"weight": np.zeros((2, 50)), "bias": np.zeros(2)},
    }
    x = rng.standard_normal((1, 4))
    settings = TrainSettings(epochs=1, optimizer="sgd", weight_decay=0.0, crop=0)
    result = train(Network(nodes, params, (4,)), x, np.array([1]), settings, np.random.default_rng(0))
    active = (x @ params["fc1"]["weight"].T > 0)[0]
    moved = (result.network.params["fc2"]["weight"] != 0).any(axis=0)
    assert 0 < moved.sum() < active.sum() and not moved[~active].any()


# ------------------------------------------------------------------ errors


@pytest.mark.filterwarnings("error")
def test_the_squared_hinge_is_what_is_minimized() -> None:
    x, labels = digits_like(8)
    how = TrainSettings(
        epochs=1, batch_size=8, crop=0, optimizer="sgd", momentum=0, weight_decay=0, loss="squared_hinge"
    )
    start = mlp_digits(np.random.default_rng(0))
    result = train(start, x, labels, how, np.random.default_rng(1))
    assert result.history[0].loss == pytest.approx(
        squared_hinge(start.forward(x, mode="train"), labels)[0], rel=1e-12
    )
    plain = train(start, x, labels, replace(how, loss="cross_entropy"), np.random.default_rng(1))
    assert not np.array_equal(plain.network.params["fc1"]["weight"], result.network.params["fc1"]["weight"])
    many = train(start, x, labels, replace(how, epochs=30, optimizer="adam"), np.random.default_rng(1))
    assert many.history[-1].accuracy == 1.0


def test_divergence_is_an_error() -> None:
    x, labels = digits_like(8, np.float32)
    network = mlp_digits(np.random.default_rng(0), hidden=(6,), batch_norm=False).astype(np.float32)
    settings = TrainSettings(epochs=5, learning_rate=1e30, crop=0)
    with pytest.raises(ValueError, match=r"`learning_rate` must be small .* the loss is nan after 1 steps"):
        train(network, x, labels, settings, np.random.default_rng(0))


def test_refuses_what_does_not_fit() -> None:
    network = mlp_digits(np.random.default_rng(0), hidden=(6,))
    x, labels = digits_like(4)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"`images` must have shape \(any, 1, 8, 8\), got \(4, 64\)"):
        train(network, x.reshape(4, 64), labels, PLAIN, rng)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(4,\), got \(3,\)"):
        train(network, x, labels[:3], PLAIN, rng)
    with pytest.raises(ValueError, match=r"`labels` must lie in 0..9"):
        train(network, x, labels + 10, PLAIN, rng)
    with pytest.raises(TypeError, match=r"`labels` must be integers, got float64"):
        train(network, x, labels.astype(np.float64), PLAIN, rng)
    with pytest.raises(TypeError, match=r"`images` must have the network's type float64, got float32"):
        train(network, x.astype(np.float32), labels, PLAIN, rng)
    with pytest.raises(ValueError, match=r"`images` must be finite, got nan"):
        train(network, np.full_like(x, np.nan), labels, PLAIN, rng)
    with pytest.raises(ValueError, match=r"`n` must be an integer of at least 1"):
        train(network, x[:0], labels[:0], PLAIN, rng)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("optimizer", "lbfgs"),
        ("learning_rate", 0.0),
        ("schedule", "step"),
        ("momentum", -1.0),
        ("weight_decay", float("nan")),
        ("statistics", "both"),
        ("crop", -1),
        ("loss", "hinge"),
    ],
)
def test_settings_refuse_what_is_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        TrainSettings(**{name: value})


# ------------------------------------------------------------------ step 6


def check_untouched(before: Network, after: Network, quantized: list[str]) -> None:
    for name in quantized:
        if before.params[name]["weight"].tobytes() != after.params[name]["weight"].tobytes():
            raise AssertionError(f"{name}: a quantized weight moved")


def ternary(network: Network, names: list[str]) -> Network:
    weights = {name: network.params[name]["weight"] for name in names}
    return network.replace({name: {"weight": 0.1 * np.sign(weight)} for name, weight in weights.items()})


def test_fine_tuning_leaves_quantized_weights_untouched() -> None:
    names = ["fc1", "fc2"]
    network = ternary(mlp_digits(np.random.default_rng(0), hidden=(20, 10)), names)
    x, labels = digits_like(30)
    settings = TrainSettings(epochs=20, batch_size=10, learning_rate=0.02, crop=0)
    result = fine_tune(network, x, labels, names, settings, np.random.default_rng(1))
    check_untouched(network, result.network, names)
    for name in ("bn1", "bn2", "fc3"):
        for key, array in network.params[name].items():
            assert not np.array_equal(array, result.network.params[name][key]), (name, key)
    assert result.history[-1].loss < result.history[0].loss


def test_the_check_sees_a_weight_that_moved() -> None:
    network = ternary(mlp_digits(np.random.default_rng(0), hidden=(20, 10)), ["fc1", "fc2"])
    x, labels = digits_like(30)
    result = fine_tune(network, x, labels, ["fc1"], PLAIN, np.random.default_rng(1))
    with pytest.raises(AssertionError, match="fc2: a quantized weight moved"):
        check_untouched(network, result.network, ["fc1", "fc2"])


def test_fine_tuning_moves_biases_only_if_asked() -> None:
    names = ["fc1", "fc2", "fc3"]
    network = ternary(mlp_digits(np.random.default_rng(0), hidden=(20, 10)), names)
    x, labels = digits_like(30)
    still = fine_tune(network, x, labels, names, PLAIN, np.random.default_rng(1)).network
    np.testing.assert_array_equal(still.params["fc3"]["bias"], network.params["fc3"]["bias"])
    moved = fine_tune(network, x, labels, names, PLAIN, np.random.default_rng(1), biases=True).network
    check_untouched(network, moved, names)
    assert not np.array_equal(moved.params["fc3"]["bias"], network.params["fc3"]["bias"])


def test_fine_tuning_nothing_is_an_error() -> None:
    network = mlp_digits(np.random.default_rng(0), hidden=(6,), batch_norm=False)
    x, labels = digits_like(4)
    with pytest.raises(ValueError, match="`quantized` must leave an array to move"):
        fine_tune(network, x, labels, ["fc1", "fc2"], PLAIN, np.random.default_rng(0))
    with pytest.raises(KeyError, match="`quantized` must name layers with weights"):
        fine_tune(network, x, labels, ["relu1"], PLAIN, np.random.default_rng(0))


def test_training_is_fine_tuning_with_nothing_quantized() -> None:
    network = mlp_digits(np.random.default_rng(0), hidden=(6,))
    x, labels = digits_like(8)
    one = train(network, x, labels, PLAIN, np.random.default_rng(1)).network
    two = fine_tune(network, x, labels, [], PLAIN, np.random.default_rng(1)).network
    for (name, key), array in flat(one.params).items():
        np.testing.assert_array_equal(array, two.params[name][key])
