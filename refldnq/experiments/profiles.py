"""Named settings of Algorithm 1."""

from __future__ import annotations

from typing import Literal

from refldnq._checks import check_choice
from refldnq.codebook import Codebook, powers_of_two
from refldnq.ldnq_settings import LdnqSettings
from refldnq.update import UpdateSettings

Profile = Literal["paper", "released-2019", "best"]

PROFILES: tuple[Profile, ...] = ("paper", "released-2019", "best")


def profile_settings(name: Profile, codebook: Codebook | None = None) -> LdnqSettings:
    """The settings of a profile.

    Parameters
    ----------
    name : {'paper', 'released-2019', 'best'}
        The paper's algorithm; what its authors' released code does; what loses least (Notes).
    codebook : Codebook, optional
        Three levels by default.

    Returns
    -------
    LdnqSettings

    Raises
    ------
    ValueError
        If there is no such profile.

    Notes
    -----
    ``best`` was chosen by ``benchmarks/study.py`` on ResNet-20, on training images alone;
    ``benchmarks/README.md`` has its numbers: for every setting the runs that differ in it alone, or that
    there are none. They are of one network and nearly all of one seed, so small differences say little. How
    codes move at the end was chosen with one scale a channel, by single runs outside that store, before its
    rows with one scale a layer. Layers follow the reference network's pre-activations, and its sums behind
    residual branches, less closely where its ReLUs are closed, on four versions of every image; batch
    normalization takes over each channel's scale and mean, so it alone moves in the update; the solver is
    `anneal`, since `blocks` leaves less error in the layers but after all updates as much in the output. What
    the updates between the layers move is replaced, or moved again by the last one: they are short, and it is
    long. Behind it codes move too, few of them for good, on mixtures of the images. That part keeps the
    outputs of all blocks: gigabytes for 500 images of 224x224, which ``code_intermediate=0`` avoids.

    Examples
    --------
    >>> profile_settings("best").solver, profile_settings("paper").solver
    ('anneal', 'admm')
    """
    check_choice("name", name, PROFILES)
    codebook = codebook or powers_of_two(3)
    if name == "best":
        return LdnqSettings(
            codebook=codebook,
            solver="anneal",
            target="block",
            absorb=True,
            closed_weight=0.2,
            hessian_versions=4,
            update=UpdateSettings(weights=False, epochs=1, copies=1),
            final_epochs=96,
            code_epochs=96,
        )
    return LdnqSettings(codebook=codebook, profile=name)
