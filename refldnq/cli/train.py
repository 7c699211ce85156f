"""``refldnq train``: a network from random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refldnq.cli.options import data_option, given, json_option, output_option
from refldnq.cli.output import say, write_json

if TYPE_CHECKING:
    from refldnq.train import Epoch


@click.command()
@click.argument("arch", metavar="ARCH")
@data_option(required=False, help="As in quantize.  [default: digits]")
@click.option(
    "--preprocess", metavar="NAME|FILE", help="As in convert, but for none.  [default: the architecture's]"
)
@click.option(
    "--seed", default=0, show_default=True, help="Draws the weights, orders and augments the images."
)
@click.option("--epochs", type=int, help="Passes over the images.")
@click.option("--batch-size", type=int, help="Images a step.")
@click.option("--optimizer", type=click.Choice(["adam", "sgd"]), help="The rule.")
@click.option("--learning-rate", type=float, help="Rate of the first step.")
@click.option("--schedule", type=click.Choice(["cosine", "constant"]), help="How the rate falls.")
@click.option("--weight-decay", type=float, help="L2 penalty.")
@click.option("--crop", type=int, help="Pixels around an image before it is cropped.")
@click.option("--flip/--no-flip", default=None, help="Mirror half of the images.")
@click.option(
    "--loss",
    type=click.Choice(["cross_entropy", "squared_hinge"]),
    help="What is minimized.  [default: the network's own: cross_entropy, of cifarnet squared_hinge]",
)
@output_option()
@json_option
def train(
    arch: str,
    data: str | None,
    preprocess: str | None,
    seed: int,
    output: Path,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Train the architecture ARCH on labelled images by this package's own backpropagation.

    The defaults are those of the shipped networks for the digits. ARCH is one of those that `refldnq convert`
    knows, such as lenet5, cifarnet, vgg-distilquant, wrn28-10, resnet20.
    """
    from refldnq import models
    from refldnq.data import load_dataset, load_test, preprocess_from
    from refldnq.experiments.summary import model_json
    from refldnq.experiments.training import train_model
    from refldnq.formats.h5 import save_model
    from refldnq.train import TrainSettings

    source = data or "digits"
    settings = TrainSettings(**given(**options))
    how = models.preprocess(arch) if preprocess is None else preprocess_from(preprocess)
    changes = [
        _flag(name, value) for name, value in given(data=data, preprocess=preprocess, **options).items()
    ]

    def show(epoch: Epoch) -> None:
        score = f"loss {epoch.loss:.4f}, accuracy {100 * epoch.accuracy:.2f} %"
        click.echo(f"epoch {epoch.index + 1} of {settings.epochs}: {score}", err=True)

    model = train_model(
        arch,
        load_dataset(source, "train"),
        settings,
        seed,
        build=models.build,
        preprocess=how,
        test=load_test(source),
        command=" ".join(["refldnq train", arch, *changes, f"--seed {seed} -o {output.name}"]),
        on_epoch=show,
    )
    save_model(output, model)
    write_json(json_file, model_json(model))
    score = model.provenance.get("test")
    if score is not None:
        say(f"accuracy: {score['accuracy']:.2f} %  ({score['correct']} of {score['size']})", json_file)
    say(f"Wrote {output}.", json_file)


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"
