"""L-DNQ: layer-wise quantization of deep networks by ADMM, a reference implementation in NumPy.

The names below are loaded when they are first used (PEP 562), so ``import refldnq`` costs next to nothing:

>>> import refldnq
>>> refldnq.powers_of_two(3).values
array([-1.,  0.,  1.])

Algorithm 1 is the function `ldnq` in the module of the same name: ``from refldnq.ldnq import ldnq``. No name
here is that of a module, so what ``refldnq.<name>`` means never depends on what was imported before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refldnq.codebook import Codebook as Codebook
    from refldnq.codebook import powers_of_two as powers_of_two
    from refldnq.data.dataset import Dataset as Dataset
    from refldnq.data.load import load_dataset as load_dataset
    from refldnq.data.preprocess import Preprocess as Preprocess
    from refldnq.data.sampling import sample as sample
    from refldnq.errors import FormatError as FormatError
    from refldnq.formats.h5 import load_model as load_model
    from refldnq.formats.h5 import save_model as save_model
    from refldnq.hessian import Hessian as Hessian
    from refldnq.hessian import accumulate_hessian as accumulate_hessian
    from refldnq.hessian import layer_error as layer_error
    from refldnq.layer_report import LayerReport as LayerReport
    from refldnq.ldnq_settings import LdnqSettings as LdnqSettings
    from refldnq.model import Model as Model
    from refldnq.model import QuantizedWeight as QuantizedWeight
    from refldnq.network import Network as Network
    from refldnq.network import Node as Node
    from refldnq.progress import Progress as Progress
    from refldnq.projection import Projection as Projection
    from refldnq.projection import project as project
    from refldnq.solvers.admm_settings import AdmmSettings as AdmmSettings
    from refldnq.solvers.base import Solution as Solution
    from refldnq.solvers.base import get_solver as get_solver
    from refldnq.update import UpdateSettings as UpdateSettings

__version__ = "0.1.0"

_MODULES = {
    "refldnq.codebook": ("Codebook", "powers_of_two"),
    "refldnq.data.dataset": ("Dataset",),
    "refldnq.data.load": ("load_dataset",),
    "refldnq.data.preprocess": ("Preprocess",),
    "refldnq.data.sampling": ("sample",),
    "refldnq.errors": ("FormatError",),
    "refldnq.formats.h5": ("load_model", "save_model"),
    "refldnq.hessian": ("Hessian", "accumulate_hessian", "layer_error"),
    "refldnq.layer_report": ("LayerReport",),
    "refldnq.ldnq_settings": ("LdnqSettings",),
    "refldnq.model": ("Model", "QuantizedWeight"),
    "refldnq.network": ("Network", "Node"),
    "refldnq.progress": ("Progress",),
    "refldnq.projection": ("Projection", "project"),
    "refldnq.solvers.admm_settings": ("AdmmSettings",),
    "refldnq.solvers.base": ("Solution", "get_solver"),
    "refldnq.update": ("UpdateSettings",),
}

_SOURCE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _SOURCE:
        raise AttributeError(f"module 'refldnq' has no attribute {name!r}")
    value = getattr(import_module(_SOURCE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_SOURCE})
