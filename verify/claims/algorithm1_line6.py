r"""Algorithm 1 is called unsupervised and "without gradient-based training"; line 6 is "Retrain".

True with a fix: lines 1-5 need no label, lines 2 and 3 no gradient. Line 4 is gradient-based training without
labels; line 6 needs labels and gradients.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims import _admm
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims._networks_fc import activations
from refldnq.verify.claims._rational import Exact, exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement


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


def lines_1_to_5(instance: Instance, labels: Any) -> list[Any]:
    """H, the G of five iterations of ADMM, and line 4's gradient, of data that come with labels."""
    X, W, top = instance["X"], instance["W"], instance["top"]
    images = [X[:, [j]] for j, _ in enumerate(labels)]  # a data set: pairs of an image and a label
    Y = np.concatenate(images, axis=1)
    n = Y.shape[1]
    H = Fraction(2, n) * (Y @ Y.T)
    G = _admm.run(H, W, Fraction(1), _admm.free(0), W, 0 * W, 5)[-1].G
    student, teacher = (activations(Y, [weights.reshape(-1, 1)], EXACT)[-1] for weights in (G, W))
    slope = 2 * ((top * student - top * teacher) * student).sum()
    return [*H.ravel(), *G, slope]


def label_free(instance: Instance) -> bool:
    """Whether lines 1 to 5 give the same for labels that are all exchanged."""
    labels = list(instance["labels"])
    own = lines_1_to_5(instance, labels)
    return own == lines_1_to_5(instance, [1 - k for k in labels])


def all_label_free(instance: Instance) -> bool:
    """The same of all six lines: an error."""
    return label_free(instance) and no_labels(instance)


def without_gradient(instance: Instance) -> bool:
    """That line 4 has no gradient to follow: an error."""
    return bool(lines_1_to_5(instance, list(instance["labels"]))[-1] == 0)


def data() -> Iterator[Instance]:
    """Small labelled data sets."""
    rng = np.random.default_rng(4301)
    for _ in range(20):
        yield {
            "X": exact(rng.integers(0, 5, (2, 3))),
            "W": exact(rng.integers(1, 7, 2)) / 3,
            "top": Fraction(int(rng.integers(1, 4))),
            "labels": tuple(int(k) for k in rng.integers(0, 2, 3)),
            "p": exact(["1/4", "3/4"]),
        }


def signature(claim: Claim) -> Finding:
    """What the package's lines 1-5 and line 6 are given."""
    from refldnq.ldnq import ldnq
    from refldnq.train import train

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
    words="Hessians, quantized weights and the weights update are the same for all labels",
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
training" holds for lines 2 and 3, "unsupervised" for lines 1 to 5. $\square$
""",
    checks=(
        by_hand(),
        on_all("labels exchanged", data, which="corrected"),
        Check(name="the package's interfaces", kind="exact", run=signature),
    ),
    mutations=(
        Mutation(
            name="corrected: all six lines", changes={"corrected": replace(CORRECTED, holds=all_label_free)}
        ),
        Mutation(
            name="corrected: line 4 without a gradient",
            changes={"corrected": replace(CORRECTED, holds=without_gradient)},
        ),
        Mutation(name="printed: lines 1 to 5 only", changes={"printed": replace(PRINTED, holds=label_free)}),
    ),
)
