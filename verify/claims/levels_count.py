r"""The notation "(2b+3)-bit": the number of values of Ω = α·{0, ±2⁰, ..., ±2^b}.

True as a count of values, which is what the paper says of it. It is not a number of bits: an index takes
⌈log₂(2b+3)⌉ bits, the integers themselves b + 2; and every value of the notation is odd, so 8, 16, 32 and
12.5 in the tables are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from refldnq.codebook import powers_of_two
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement


def values(b: int) -> set[int]:
    """The set, from its definition."""
    return {0} | {sign * 2**j for j in range(b + 1) for sign in (1, -1)}


def count(instance: Instance) -> bool:
    """2b + 3 values."""
    return len(values(int(instance["b"]))) == 2 * int(instance["b"]) + 3


def one_less(instance: Instance) -> bool:
    """2b + 2: an error."""
    return len(values(int(instance["b"]))) == 2 * int(instance["b"]) + 2


def index_bits(b: int) -> int:
    """⌈log₂(2b+3)⌉, without rounding."""
    return (2 * b + 2).bit_length()


def bits(instance: Instance) -> bool:
    """Indices need ⌈log₂(2b+3)⌉ bits and no fewer; integers in two's complement b + 2."""
    b = int(instance["b"])
    size, width = len(values(b)), index_bits(b)
    enough = 2 ** (width - 1) < size <= 2**width
    fits = all(-(2 ** (b + 1)) <= v < 2 ** (b + 1) for v in values(b))
    tight = not all(-(2**b) <= v < 2**b for v in values(b))
    return enough and fits and tight


def as_printed_bits(instance: Instance) -> bool:
    """2b + 3 bits needed: an error."""
    return index_bits(int(instance["b"])) == 2 * int(instance["b"]) + 3


def short_integers(instance: Instance) -> bool:
    """B + 1 bits for the integers: an error."""
    b = int(instance["b"])
    return all(-(2**b) <= v < 2**b for v in values(b))


def exponents() -> Iterator[Instance]:
    """B = 0, ..., 12."""
    return ({"b": b} for b in range(13))


def table(claim: Claim) -> Finding:
    """The package's sets, and the values of the tables that are not in the notation."""
    same = all(set(powers_of_two(2 * b + 3).points) == values(b) for b in range(7))
    notation = {2 * b + 3 for b in range(20)}
    outside = [v for v in (3, 7, 8, 9, 12.5, 15, 16, 32) if v not in notation]
    widths = [index_bits(b) for b in range(7)]
    text = f"values {[2 * b + 3 for b in range(7)]}, bits of an index {widths}, of the integers "
    text += f"{[b + 2 for b in range(7)]}; in the tables but not of the form 2b+3: {outside}"
    return Finding(ok=same and outside == [8, 12.5, 16, 32] and widths == [2, 3, 3, 4, 4, 4, 4], text=text)


PRINTED = Statement(
    latex=r"|\{0,\pm2^0,\pm2^1,\dots,\pm2^b\}|=2b+3",
    words="the total number of different values; the paper calls the set (2b+3)-bit",
    holds=count,
)

CORRECTED = Statement(
    latex=r"\text{bits of an index}=\lceil\log_2(2b+3)\rceil,\qquad\text{bits of the integers}=b+2",
    words="an index takes the rounded up logarithm of 2b+3 in bits, the integers b+2",
    holds=bits,
)

CLAIM = Claim(
    id="levels-count",
    title="(2b+3)-bit",
    source="Experimental Setup",
    printed=PRINTED,
    verdict="true",
    reason="as the number of values; it is no number of bits",
    corrected=CORRECTED,
    proof=r"""
The powers $2^0,\dots,2^b$ are $b+1$ distinct positive numbers; with their negatives and 0 these are
$2(b+1)+1=2b+3$ values. To tell $2b+3$ values apart takes $\lceil\log_2(2b+3)\rceil$ bits: 2, 3, 3, 4, 4, 4, 4
for $b=0..6$. As integers they reach from $-2^b$ to $2^b$, and $2^b$ needs $b+2$ bits in two's complement.
$2b+3$ is odd. $\square$
""",
    checks=(
        on_all("the count", exponents),
        on_all("the bits", exponents, which="corrected"),
        Check(name="the package's sets and the tables", kind="exact", run=table),
    ),
    mutations=(
        Mutation(name="2b+2 values", changes={"printed": replace(PRINTED, holds=one_less)}),
        Mutation(
            name="corrected: 2b+3 bits", changes={"corrected": replace(CORRECTED, holds=as_printed_bits)}
        ),
        Mutation(name="corrected: b+1 bits", changes={"corrected": replace(CORRECTED, holds=short_integers)}),
    ),
)
