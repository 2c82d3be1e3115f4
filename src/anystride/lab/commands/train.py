"""``anystride train``."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

from anystride.lab.commands.common import Commands, add_data, console, writable
from anystride.lab.commands.options import Parser, grid, number, strides, whole
from anystride.lab.data.names import is_known
from anystride.lab.errors import UsageError
from anystride.lab.run.config import SCENES, RunConfig

METHODS = ("strided", "spectral", "outer", "inner", "average")
SCHEDULES = ("cosine", "step", "step-imagenet", "release", "constant")
OPTIMIZERS = ("sgd", "adam")
MODELS = ("resnet18", "resnet18-imagenet", "resnet18-release", "densenet-bc", "efficientnet-b0", "audio")
"""All four repeat what lies behind slow imports; a test holds them equal."""
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def add(commands: Commands[Parser]) -> None:
    default = RunConfig()
    parser = commands.add_parser(
        "train",
        help="train one network with chosen strides",
        description="Train one network with one downsampler. Leaves a record, checkpoint, pictures, TensorBoard log.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def option(group: argparse._ArgumentGroup, flag: str, text: str, name: str = "", **more: object) -> None:
        attribute = name or flag.removeprefix("--").replace("-", "_")
        group.add_argument(flag, dest=attribute, default=getattr(default, attribute), help=text, **more)  # type: ignore[arg-type]

    model = parser.add_argument_group("model")
    option(model, "--model", "the architecture", choices=MODELS)
    option(model, "--method", "the downsampler", choices=METHODS)
    model.add_argument(
        "--strides",
        type=strides,
        default="2,2,2",
        metavar="S,S,S",
        help="one per downsampler; vertical x horizontal (for sound time x frequency) as in 3x2",
    )
    option(model, "--smoothness", "ramp's width in bins", type=number(0, above=True), metavar="R")
    model.add_argument("--shared-stride", action="store_true", help="learn one stride for both axes")
    option(model, "--width", "channels of the first stage", type=whole(1), metavar="N")

    training = parser.add_argument_group("training")
    option(training, "--epochs", "passes over the data", type=whole(1), metavar="N")
    option(training, "--epoch-steps", "steps that count as an epoch (0: one pass)", type=whole(0), metavar="N")
    option(training, "--batch-size", "examples per step, on all devices together", type=whole(2), metavar="N")
    option(training, "--optimizer", "SGD has momentum 0.9", choices=OPTIMIZERS)
    option(training, "--lr", "peak learning rate", type=number(0, above=True), metavar="X")
    option(training, "--stride-lr", "the strides' own learning rate (None: --lr)", type=number(0), metavar="X")
    option(training, "--schedule", "of the learning rate", choices=SCHEDULES)
    option(training, "--weight-decay", "of the weights; strides have none", type=number(0), metavar="X")
    option(training, "--lam", "weight of the complexity term, Eq. 6", type=number(0), metavar="X")
    option(training, "--mixup", "alpha of Mixup's Beta distribution (0: none)", type=number(0), metavar="X")
    option(training, "--label-smoothing", "share spread over all classes", type=number(0, below=1), metavar="X")
    option(training, "--seed", "of weights, stand-ins and order", type=whole(0), metavar="N")

    speed = parser.add_argument_group("speed and memory")
    option(speed, "--precision", "bf16-mixed halves the memory of maps; digits change", choices=PRECISIONS)
    option(speed, "--accumulate", "parts of a step, one after the other: less memory", type=whole(1), metavar="N")
    speed.add_argument("--compile", action="store_true", help="torch.compile: recompiles when map sizes change")
    option(speed, "--grid", "sizes follow strides: free, in steps of N, or fixed for an epoch", type=grid, metavar="G")
    speed.add_argument("--devices", type=whole(1), default=1, metavar="N", help="GPUs (or processes on CPUs) per node")
    speed.add_argument("--nodes", type=whole(1), default=1, metavar="N", help="machines, under torchrun or SLURM")

    data = parser.add_argument_group("data and results")
    option(data, "--data", "a data set, audio tasks joined by +, or a folder with one folder per class")
    option(data, "--image-size", "for a folder and for CIFAR", type=whole(8), metavar="N")
    option(data, "--scenes", "training examples of a stand-in", "train_size", type=whole(1), metavar="N")
    add_data(data)
    data.add_argument("--config", type=Path, metavar="FILE", help="a record or configuration to run again, as it is")
    data.add_argument(
        "--out", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="default: runs/METHOD-STRIDES-seedN"
    )
    data.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    parser.set_defaults(command=execute, prog=parser.prog, go_on="the same command with --resume goes on")


def execute(options: argparse.Namespace) -> None:
    if options.config:
        config = read(options.config)
    else:
        given = vars(options)
        config = RunConfig(**{field.name: given[field.name] for field in fields(RunConfig) if field.name in given})
    if not is_known(config.data) and not Path(config.data).is_dir():
        raise UsageError(
            f"--data must be {SCENES!r}, another data set (anystride train --help) or a folder of images, "
            f"got {config.data!r}, which is no folder"
        )
    folder = writable(getattr(options, "out", Path("runs") / config.name))
    from anystride.lab.run.environment import RunEnvironment
    from anystride.lab.train import train

    environment = RunEnvironment(options.root, options.download, options.devices, options.nodes)
    train(config, folder, options.resume, environment, console())


def read(path: Path) -> RunConfig:
    """The configuration in a file: alone, or within the record of a run."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunConfig.from_json(values.get("configuration", values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"--config must be a record or a configuration in JSON, got {str(path)!r} ({error})") from None
