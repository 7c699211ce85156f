"""Metadata and package layout; the tables of the tools are in ``pyproject.toml``.

The packages ``models`` and ``verify`` lie at the top level of the repository and are installed as
``refldnq.models`` and ``refldnq.verify``. The links of these names inside ``refldnq/`` show the same layout
to tools that read the sources; they are not walked here, or every module would be found twice.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "refldnq/__init__.py").read_text("utf-8"), re.M)
assert VERSION is not None

PACKAGES = find_packages(
    str(HERE),
    include=["refldnq", "refldnq.*"],
    exclude=["refldnq.models", "refldnq.models.*", "refldnq.verify", "refldnq.verify.*"],
)
for outer in ("models", "verify"):
    PACKAGES += [
        f"refldnq.{outer}",
        *(f"refldnq.{outer}.{name}" for name in find_packages(str(HERE / outer))),
    ]

DATA = ["Pillow>=10.1", "scikit-learn"]
DIST = ["joblib", "dask", "distributed"]
ONNX = ["onnx"]
PLOT = ["matplotlib"]
VERIFY = ["hypothesis", "latex2mathml", "markdown-it-py", "mpmath", "python-flint", *PLOT]

setup(
    name="refldnq",
    version=VERSION[1],
    description="L-DNQ, layer-wise quantization of deep networks by ADMM: a reference in NumPy",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="refldnq developers",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=PACKAGES,
    package_dir={"refldnq": "refldnq", "refldnq.models": "models", "refldnq.verify": "verify"},
    package_data={
        "refldnq": ["py.typed", "experiments/reproduce/*.toml"],
        "refldnq.models": ["*.h5", "*.md"],
        "refldnq.verify": ["adapters/cpp/*.cpp", "adapters/rust/*.rs"],
    },
    include_package_data=False,
    install_requires=["numpy>=2", "scipy", "numba", "llvmlite", "h5py", "click", "rich", "threadpoolctl"],
    extras_require={
        "onnx": ONNX,
        "torch": ["torch"],
        # For the kit's adapter that drives the authors' code of 2019, which is not part of this project.
        "released": ["tensorflow", "torch", "scikit-learn"],
        "dist": DIST,
        "plot": PLOT,
        "data": DATA,
        "verify": VERIFY,
        # Not torch, whose default builds are gigabytes: tests that need it are skipped without it.
        "test": ["setuptools>=77", "pytest", "pytest-cov", "ruff", "mypy", *DATA, *DIST, *ONNX, *VERIFY],
        "docs": ["sphinx", "myst-parser", "furo", "sphinx-click", "sphinx-mathjax-offline", *DATA, *VERIFY],
    },
    entry_points={
        "console_scripts": ["refldnq = refldnq.cli:main"],
        # The name is the module's: -p with it loads the plugin once.
        "pytest11": ["refldnq.verify.kit.plugin = refldnq.verify.kit.plugin"],
    },
)
