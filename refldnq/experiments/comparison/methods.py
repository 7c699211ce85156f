"""What is compared: solvers by name, in the paper's algorithm, and profiles."""

from __future__ import annotations

from dataclasses import replace

from refldnq._checks import check_choice
from refldnq.codebook import powers_of_two
from refldnq.experiments.profiles import PROFILES, profile_settings
from refldnq.ldnq_settings import LdnqSettings
from refldnq.solvers.base import SOLVERS

METHODS = (*SOLVERS, *PROFILES)
"""Every name that `method_settings` knows."""


def method_settings(
    name: str,
    levels: int = 3,
    *,
    per_channel: bool = False,
    update: bool = True,
    epochs: int | None = None,
) -> LdnqSettings:
    """The settings of a method.

    Parameters
    ----------
    name : str
        A solver, which takes the place of ADMM in the paper's algorithm, or a profile.
    levels : int, optional
        Of every layer.
    per_channel : bool, optional
        Whether every output channel has its own scale.
    update : bool, optional
        Whether there is a weights update.
    epochs : int, optional
        Of each update, in place of the method's own number; at most so many of a last one, of one in which
        codes move (a third as many follow, at least one), and of those of ``released-2019``, which end by
        themselves.

    Returns
    -------
    LdnqSettings

    Raises
    ------
    ValueError
        If there is no such method, a number does not fit, or there are epochs of no update.

    Examples
    --------
    >>> method_settings("gptq", 5).solver, method_settings("best", 5).codebook.levels
    ('gptq', 5)
    """
    check_choice("methods", name, METHODS)
    if epochs is not None and not update:
        raise ValueError(f"`epochs` must go with an update, got {epochs} and no update.")
    codebook = powers_of_two(levels)
    if name in SOLVERS:
        settings = replace(profile_settings("paper", codebook), solver=name)
    else:
        settings = profile_settings(name, codebook)  # type: ignore[arg-type]
    if per_channel:
        settings = replace(settings, solver_settings=replace(settings.resolved, per_channel=True))
    if not update:
        return replace(settings, update=None, final_epochs=0, code_epochs=0)
    if epochs is not None and settings.profile == "released-2019":
        return replace(settings, released=replace(settings.released, max_epochs=epochs))
    if epochs is not None and settings.update is not None:
        last, code = (min(epochs, own) for own in (settings.final_epochs, settings.code_epochs))
        settings = replace(
            settings, update=settings.update.lasting(epochs), final_epochs=last, code_epochs=code
        )
    return settings
