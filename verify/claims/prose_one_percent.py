r"""One percent: "1% of original dataset", which is 500 images of CIFAR-10 and 12,800 of ImageNet.

True as rounded: 500 of 50,000 are 1% exactly, 12,800 of the 1,281,167 of ILSVRC-2012 are 0.9991%.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement

SETS = {"CIFAR-10": (500, 50_000), "ImageNet": (12_800, 1_281_167)}
"""Images used, and training images of the data set."""


def share(instance: Instance) -> Fraction:
    """The share of images that are used."""
    return Fraction(int(instance["used"]), int(instance["all"]))


def rounds_to(percent: Fraction) -> Callable[[Instance], bool]:
    """A statement: to a tenth of a percent the share is `percent`."""
    return lambda instance: abs(100 * share(instance) - percent) <= Fraction(1, 20)


def differs(most: Fraction) -> Callable[[Instance], bool]:
    """A statement: the share is at most 1%, and less by at most `most` of it."""
    return lambda instance: 0 <= 1 - 100 * share(instance) <= most


def sets() -> Iterator[Instance]:
    """Both data sets."""
    return ({"used": used, "all": total} for used, total in SETS.values())


def shares(claim: Claim) -> Finding:
    """The shares, and the images that 1% would be."""
    parts, ok = [], True
    for name, (used, total) in SETS.items():
        percent = 100 * share({"used": used, "all": total})
        ok = ok and abs(used - total / 100) < 12
        parts.append(f"{name}: {used}/{total} = {float(percent):.5g}%, 1% is {total / 100:g}")
    return Finding(ok=ok, text="; ".join(parts))


PRINTED = Statement(
    latex=r"1\%\ \text{of original dataset: 500 training instances in CIFAR-10 and 12,800 in ImageNet}",
    words="read as: to a tenth of a percent",
    holds=rounds_to(Fraction(1)),
)

CORRECTED = Statement(
    latex=r"\tfrac{500}{50000}=1\%,\qquad\tfrac{12800}{1281167}=0.9991\%",
    words="at most 1%, and less by at most a thousandth of it",
    holds=differs(Fraction(1, 1000)),
)

CLAIM = Claim(
    id="prose-one-percent",
    title="1% of the training images",
    source="Abstract and Experimental Setup",
    printed=PRINTED,
    verdict="true",
    reason="500 of 50,000 exactly, 12,800 of 1,281,167 rounded",
    corrected=CORRECTED,
    proof=r"""
$100\cdot500=50000$; $100\cdot12800=1280000=1281167-1167$, and $\frac{1167}{1281167}<\frac1{1000}$. The sizes
of the training sets are those of CIFAR-10 and of ILSVRC-2012's classification task. $\square$
""",
    checks=(
        on_all("to a tenth of a percent", sets),
        on_all("to a thousandth of the share", sets, which="corrected"),
        Check(name="the shares", kind="count", run=shares),
    ),
    mutations=(
        Mutation(name="2%", changes={"printed": replace(PRINTED, holds=rounds_to(Fraction(2)))}),
        Mutation(
            name="corrected: exactly 1%",
            changes={"corrected": replace(CORRECTED, holds=differs(Fraction(0)))},
        ),
    ),
)
