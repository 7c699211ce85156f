r"""Algorithm 1 is called unsupervised and "without gradient-based training"; line 6 is "Retrain".

True with a fix: lines 1-5 need no label, lines 2 and 3 no gradient. Line 4 is gradient-based training without
labels; line 6 needs labels and gradients.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from refldnq.data import Dataset
from refldnq.layers import Flatten, Linear, ReLU
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network, Node
from refldnq.train import train
from refldnq.update import UpdateSettings
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims._rational import Exact, exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement

UPDATE = UpdateSettings(epochs=1, batch_size=4, learning_rate=0.05, copies=1, pool=1, crop=0, flip=False)
"""A short line 4."""


def retraining_gradient(p: Exact, label: int) -> Exact:
    """The gradient of cross-entropy in the logits, p - onehot, for the probabilities p of one sample."""
    gradient = p.copy()
    gradient[label] = gradient[label] - 1
    return gradient


def no_labels(instance: Instance) -> bool:
    """Whether line 6 computes the same for all labels of the sample."""
    p = instance["p"]
    first = retraining_gradient(p, 0)
    return all(bool((retraining_gradient(p, k) == first).all()) for k in range(len(p)))


def lines_1_to_5(instance: Instance, labels: Any, **options: Any) -> dict[str, Any]:
    """All parameters after the package's Algorithm 1 on images drawn from a data set with these labels."""
    stratified = options.pop("stratified", False)
    given = instance["images"].astype(np.float64)
    data = Dataset(given, np.array(labels), ("no", "yes"), "drawn")
    chosen = data.take(data.sample(len(data) // 2, np.random.default_rng(1), stratified=stratified))
    rng = np.random.default_rng(2)
    nodes = (
        Node("flatten", Flatten(), ("input",)),
        Node("fc1", Linear(4, 3, bias=False), ("flatten",)),
        Node("relu", ReLU(), ("fc1",)),
        Node("fc2", Linear(3, 2, bias=False), ("relu",)),
    )
    weights = {name: {"weight": instance[name].astype(np.float64)} for name in ("fc1", "fc2")}
    settings = replace(LdnqSettings(update=UPDATE), **options)
    result = ldnq(Network(nodes, weights, (1, 2, 2)), chosen.images, settings, rng)
    return {name: own["weight"] for name, own in result.network.params.items() if "weight" in own}


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether all weights are equal, bit for bit."""
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def label_free(instance: Instance, **options: Any) -> bool:
    """Whether lines 1 to 5 give the same, bit for bit, for labels in another order and for exchanged ones."""
    labels = list(instance["labels"])
    own = lines_1_to_5(instance, labels, **options)
    others = (sorted(labels), [1 - k for k in labels])
    return all(equal(own, lines_1_to_5(instance, other, **options)) for other in others)


def all_label_free(instance: Instance) -> bool:
    """The same of all six lines: an error."""
    return label_free(instance) and no_labels(instance)


def without_gradient(instance: Instance) -> bool:
    """That line 4, which follows a gradient, changes nothing: an error."""
    labels = list(instance["labels"])
    return equal(lines_1_to_5(instance, labels), lines_1_to_5(instance, labels, update=None))


def data() -> Iterator[Instance]:
    """Small labelled data sets and networks."""
    rng = np.random.default_rng(4301)
    for _ in range(3):
        yield {
            "images": exact(rng.integers(0, 9, (16, 1, 2, 2))) / 4,
            "labels": tuple(int(k) for k in rng.permutation([0] * 10 + [1] * 6)),
            "fc1": exact(rng.integers(-8, 13, (3, 4))) / 8,
            "fc2": exact(rng.integers(-8, 13, (2, 3))) / 8,
            "p": exact(["1/4", "3/4"]),
        }


def other_images(claim: Claim) -> Finding:
    """With other images the weights are others, and quantized: that labels change nothing says something."""
    sets = list(data())
    weights = [lines_1_to_5({**sets[0], "images": own["images"]}, own["labels"]) for own in sets]
    different = sum(not equal(weights[0], own) for own in weights[1:])
    ternary = all(len(np.unique(abs(W[W != 0]))) == 1 for own in weights for W in own.values())
    text = f"the same network with other images: other weights in {different} of {len(sets) - 1} cases"
    return Finding(ok=ternary and different == len(sets) - 1, text=text)


def signature(claim: Claim) -> Finding:
    """What the package's lines 1-5 and line 6 are given."""
    unsupervised = set(inspect.signature(ldnq).parameters)
    supervised = set(inspect.signature(train).parameters)
    ok = "labels" not in unsupervised and "labels" in supervised
    return Finding(
        ok=ok, text=f"steps 1-5 take {sorted(unsupervised)[:3]}..., no labels; retraining takes labels"
    )


PRINTED = Statement(
    latex=r"\text{Algorithm 1 is unsupervised: no line needs labels}",
    words="no line of the algorithm needs labels",
    holds=no_labels,
)

CORRECTED = Statement(
    latex=r"\text{lines 1 to 5 need no labels; line 6 does}",
    words="whatever the labels of the images, lines 1 to 5 give the same weights, bit for bit",
    holds=label_free,
)

CLAIM = Claim(
    id="algorithm1-line6",
    title="Algorithm 1, line 6: retraining and labels",
    source="Algorithm 1, line 6, and its title",
    printed=PRINTED,
    verdict="true with a fix",
    reason="unsupervised are lines 1-5; retraining uses labels, and lines 4 and 6 use gradients",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={"p": exact(["1/2", "1/2"]), **{k: v for k, v in next(data()).items() if k != "p"}},
        shown="logits (0, 0), p = (1/2, 1/2): the retraining gradient p - y is (-1/2, 1/2) for label 0 and "
        "(1/2, -1/2) for label 1",
    ),
    proof=r"""
$H_l=\frac2n\hat Y\hat Y^\top$, the iterates (15)-(18) and $\epsilon_{[l+1..L]}$ with its gradient are
functions of the images and of the two networks. No label occurs. Line 6 minimizes a loss of outputs *and
labels*; the gradient of cross-entropy is $p-y$, which differs for different $y$. So "without gradient-based
training" holds for lines 2 and 3, "unsupervised" for lines 1 to 5, if the images are not chosen by their
labels. $\square$
""",
    checks=(
        by_hand(),
        on_all("labels of a data set permuted and exchanged", data, which="corrected"),
        Check(name="other images", kind="exact", run=other_images),
        Check(name="the package's interfaces", kind="exact", run=signature),
    ),
    mutations=(
        Mutation(
            name="corrected: all six lines", changes={"corrected": replace(CORRECTED, holds=all_label_free)}
        ),
        Mutation(
            name="corrected: images chosen by their labels",
            changes={"corrected": replace(CORRECTED, holds=partial(label_free, stratified=True))},
        ),
        Mutation(
            name="corrected: line 4 without a gradient",
            changes={"corrected": replace(CORRECTED, holds=without_gradient)},
        ),
        Mutation(name="printed: lines 1 to 5 only", changes={"printed": replace(PRINTED, holds=label_free)}),
    ),
)
