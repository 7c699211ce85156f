"""``refldnq convert``: a published checkpoint to a model file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refldnq.cli.options import json_option, output_option
from refldnq.cli.output import say, write_json

if TYPE_CHECKING:
    from refldnq.network import Network


@click.command()
@click.argument("weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--arch", required=True, metavar="NAME", help="The weights' architecture, such as resnet20.")
@click.option(
    "--preprocess",
    metavar="NAME|FILE",
    help="From stored images to inputs: cifar-resnet, cifar-half, digits, imagenet, imagenet-bgr255, "
    "mnist, a JSON file, or none.  "
    "[default: the architecture's]",
)
@output_option()
@json_option
def convert(weights: Path, arch: str, preprocess: str | None, output: Path, json_file: Path | None) -> None:
    """Convert a PyTorch checkpoint or an ONNX file (.onnx) to a model file.

    A checkpoint's arrays must be those of the architecture, name by name and shape by shape; an ONNX file's
    layers with weights its layers, one by one. A model without preprocessing (--preprocess none) is refused
    by evaluate and quantize.
    """
    import numpy as np

    from refldnq import models
    from refldnq.data import preprocess_from
    from refldnq.experiments.summary import model_json
    from refldnq.formats.h5 import save_model
    from refldnq.model import Model

    network = models.build(arch, np.random.default_rng(0), dtype=np.float32)
    if preprocess == "none":
        how = None
    else:
        how = models.preprocess(arch) if preprocess is None else preprocess_from(preprocess)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    model = Model(
        network=_with_weights(network, weights),
        preprocess=how,
        provenance={"architecture": arch, "source": {"name": weights.name, "sha256": digest}},
    )
    save_model(output, model)
    write_json(json_file, model_json(model))
    say(f"preprocessing: {how if how is not None else 'none'}", json_file)
    say(f"Wrote {output}.", json_file)


def _with_weights(network: Network, weights: Path) -> Network:
    if weights.suffix.lower() == ".onnx":
        from refldnq.formats.onnx import assign_onnx, load_onnx

        return assign_onnx(network, load_onnx(weights))
    from refldnq.formats.torch import assign, load_state_dict

    return assign(network, load_state_dict(weights))
