r"""The table of drops: "only bring a slight drop of the prediction performance", and more values help.

Empirical, about numbers that the paper prints: in each network of Table 3 the drop falls with the number of
values, as the text says. With 3 values it is 16 to 29 points, and it does not grow or fall with depth; with 9
values it is less than 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from refldnq.experiments.reproduce.paper import paper
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Figure, Finding, Instance, Mutation, Statement

VALUES = (3, 5, 7, 9)
"""Values in the set."""

TABLE: dict[str, tuple[str, ...]] = {
    name: tuple(f"{row.change[0]:.2f}" for row in paper().rows if (row.table, row.network) == (3, name))
    for name in ("ResNet18", "ResNet34", "ResNet50")
}
"""Table 3: change of top-1 accuracy in points, by network in the order of depth."""

SLIGHT = Fraction(3)
"""Points that are called slight here; chosen here, above all entries of the paper's last column."""


def rows() -> Iterator[Instance]:
    """The networks of Table 3."""
    return ({"network": name, "change": exact(changes)} for name, changes in TABLE.items())


def slight(count: int) -> Callable[[Instance], bool]:
    """A statement: the drop is slight for `count` values or more."""

    def holds(instance: Instance) -> bool:
        change = instance["change"]
        return all(-d <= SLIGHT for d, values in zip(change, VALUES, strict=True) if values >= count)

    return holds


def rises(instance: Instance) -> bool:
    """Whether the accuracy rises with the number of values."""
    return all(after > before for before, after in pairwise(instance["change"]))


def falls(instance: Instance) -> bool:
    """Whether it falls: an error."""
    return all(after < before for before, after in pairwise(instance["change"]))


def more_values(least: int) -> Callable[[Instance], bool]:
    """A statement: accuracy rises with the values, and the drop is slight from `least` values on."""
    return lambda instance: rises(instance) and slight(least)(instance)


def examined(claim: Claim) -> Finding:
    """The table, row by row and by depth."""
    printed = claim.printed.holds
    assert printed is not None
    held = [instance["network"] for instance in rows() if printed(instance)]
    first = [exact(changes)[0] for changes in TABLE.values()]
    steps = [after - before for before, after in pairwise(first)]
    monotone = all(step > 0 for step in steps) or all(step < 0 for step in steps)
    figure = Figure(
        title="Table 3: change of top-1 accuracy on ImageNet",
        x="values in the set",
        y="points",
        curves={
            name: (tuple(map(float, VALUES)), tuple(map(float, changes))) for name, changes in TABLE.items()
        },
    )
    text = (
        f"3 values: {', '.join(map(str, map(float, first)))} points by depth, not monotone; at most {SLIGHT} "
        f"points for all numbers of values in {len(held)} of {len(TABLE)} networks"
    )
    return Finding(ok=not held and not monotone, text=text, figures=(figure,))


def _column(place: int) -> str:
    return ",".join(changes[place] for changes in TABLE.values())


PRINTED = Statement(
    latex=r"\text{only bring a slight drop of the prediction performance}",
    words="read as: of at most 3 points, for all numbers of values",
    holds=slight(VALUES[0]),
)

CORRECTED = Statement(
    latex=rf"\text{{3 values: }}{_column(0)}\text{{ points}};\qquad\text{{9 values: }}{_column(-1)}",
    words="the accuracy rises with the number of values; the drop is at most 3 points for 9 values",
    holds=more_values(VALUES[-1]),
)

CLAIM = Claim(
    id="prose-slight-drop",
    title="A slight drop",
    source="Introduction and Table 3",
    printed=PRINTED,
    verdict="empirical",
    reason="the paper's own table: 16 to 29 points with 3 values, not monotone in depth; less than 3 with 9",
    corrected=CORRECTED,
    proof=r"""
What is compared are numbers that the paper prints; they are not measured anew here. "Slight" is no number, so
the limit of 3 points is a reading.
""",
    checks=(
        on_all("Table 3 by the number of values", rows, which="corrected"),
        Check(name="Table 3 by depth", kind="count", run=examined),
    ),
    mutations=(
        Mutation(
            name="corrected: slight from 7 values on",
            changes={"corrected": replace(CORRECTED, holds=more_values(7))},
        ),
        Mutation(
            name="corrected: accuracy falls with the values",
            changes={"corrected": replace(CORRECTED, holds=falls)},
        ),
        Mutation(name="printed: for 9 values", changes={"printed": replace(PRINTED, holds=slight(9))}),
    ),
)
