"""What the experiments start from: published networks, the paper's numbers, settings given as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from refldnq import models
from refldnq.experiments.record import plain
from refldnq.experiments.reproduce.paper import paper
from refldnq.experiments.reproduce.sources import CHECKPOINTS
from refldnq.formats.torch import assign, load_state_dict
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.update import UpdateSettings

WEIGHTS = {name: CHECKPOINTS[name] for name in ("resnet20", "resnet32", "resnet56")}
"""Checkpoints of akamaster/pytorch_resnet_cifar10, in the folder ``weights`` beside the data."""

METHODS = {"L-DNQ": "ldnq", "L-DNQ⁻": "ldnq-", "DQ": "dq"}
"""What stands for methods of the paper."""

OUTER = (
    "solver",
    "target",
    "ridge",
    "absorb",
    "channel_weights",
    "closed_weight",
    "hessian_versions",
    "cascades",
    "final_epochs",
    "final_scales",
    "code_epochs",
    "code_rate",
    "code_mix",
    "code_intermediate",
    "correct_bias",
    "reestimate",
)
"""Fields of Algorithm 1's settings that experiments change, beside those of its weights update."""

PAPER_DROPS = {
    (row.name, METHODS[row.method]): -row.change[0]
    for row in paper().rows
    if row.table in (1, 4) and row.name in WEIGHTS and row.method in METHODS
}
"""Points of accuracy lost with 3 levels and 500 images: [LDNQ] tables 1 and 4, means of 5 runs on the
authors' own checkpoints. The paper's direct quantization is followed by retraining on the images."""


def published_model(data: Path, name: str) -> Model:
    """A published network.

    Parameters
    ----------
    data : Path
        Folder that holds ``weights/``.
    name : str
        One of `WEIGHTS`.

    Raises
    ------
    FileNotFoundError
        If the checkpoint is not there.
    FormatError
        If it is damaged.
    """
    network = models.build(name, np.random.default_rng(0))
    return Model(
        network=assign(network, load_state_dict(data / "weights" / WEIGHTS[name])),
        preprocess=models.preprocess(name),
    )


def ldnq_settings(changes: Iterable[str], base: LdnqSettings | None = None) -> LdnqSettings:
    """Algorithm 1's defaults, or `base`, with changes given as ``field=value``.

    A field is one of the weights update's or among `OUTER`.

    Raises
    ------
    ValueError
        If a change is not of that form, or names no field, or the value does not fit.

    Examples
    --------
    >>> ldnq_settings(["epochs=8", "statistics=running"]).update.epochs
    8
    >>> ldnq_settings(["solver=anneal", "target=drift"]).target
    'drift'
    """
    settings = base or LdnqSettings()
    update = settings.update or UpdateSettings()
    known = flat(settings)
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in known:
            raise ValueError(
                f"`changes` must be field=value with a field of {sorted(known)}, got {change!r}."
            )
        values[name] = _parse(known[name], text)
    outer = {name: values.pop(name) for name in OUTER if name in values}
    return replace(settings, update=replace(update, **values), **outer)


def flat(settings: LdnqSettings) -> dict[str, Any]:
    """The fields that `ldnq_settings` can change, by name; the update's are missing without an update."""
    own = settings.update
    update = {} if own is None else {field.name: plain(getattr(own, field.name)) for field in fields(own)}
    return {**{name: getattr(settings, name) for name in OUTER}, **update}


def _parse(default: Any, text: str) -> Any:
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"`changes` must have true or false for a switch, got {text!r}.")
        return text == "true"
    return type(default)(text)


def changes_from_defaults(
    settings: LdnqSettings | Mapping[str, Any], base: LdnqSettings | None = None
) -> str:
    """The fields that differ from the defaults, or from `base`, as ``field=value`` with commas.

    ``defaults`` if none does. Settings may be as a stored row has them: what is younger than the row has the
    default of `LdnqSettings`, not of `base`.

    Examples
    --------
    >>> changes_from_defaults(ldnq_settings(["epochs=8", "flip=false"]))
    'epochs=8,flip=false'
    >>> changes_from_defaults(LdnqSettings())
    'defaults'
    """
    start = base or LdnqSettings()
    record, wanted = plain(settings.explicit if isinstance(settings, LdnqSettings) else settings), flat(start)
    told = {**record, **(record["update"] or {})}
    own = {name: told.get(name, value) for name, value in flat(LdnqSettings()).items()}
    known = own if record["update"] is not None else OUTER
    changed = [f"{name}={_text(own[name])}" for name in known if own[name] != wanted.get(name)]
    if record["update"] is None and start.update is not None:
        changed.append("no update")
    if record["solver_settings"]["per_channel"]:
        changed.append("per channel")
    return ",".join([*changed, *solver_changes(record["solver"], record["solver_settings"])]) or "defaults"


def solver_changes(solver: str, settings: Mapping[str, Any]) -> list[str]:
    """The settings of a solver that differ from its own of today, as ``solver.field=value``.

    What a row lacks, because it is older, has the default of the settings' class. One scale a channel is not
    told: that is asked of every solver alike.

    Examples
    --------
    >>> own = plain(LdnqSettings(solver="anneal").resolved)
    >>> solver_changes("anneal", own), solver_changes("anneal", {**own, "rounds": 5, "per_channel": True})
    ([], ['anneal.rounds=5'])
    """
    today = LdnqSettings(solver=solver).resolved
    wanted = dict(_leaves(solver, plain(today)))
    told = {**dict(_leaves(solver, plain(type(today)()))), **dict(_leaves(solver, settings))}
    names = [name for name in told if name != f"{solver}.per_channel"]
    return [f"{name}={_text(told[name])}" for name in names if told[name] != wanted.get(name, _NOTHING)]


_NOTHING = object()


def _leaves(label: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, own in value.items():
            yield from _leaves(f"{label}.{name}", own)
    else:
        yield label, value


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
