"""Every option that decides a run, once. Commands take their options from here, and `--config` is checked by them.

This imports nothing slow. For that, choices repeat what lies behind slow imports; a test holds them equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anystride.lab.commands.choices import listed
from anystride.lab.commands.parsing import Parser, budget, grid, number, part, pattern, strides, whole
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

if TYPE_CHECKING:
    from anystride.lab.run.environment import RunEnvironment

Group = argparse._ArgumentGroup | Parser  # argparse has no public name for it


@dataclass(frozen=True)
class RunOption:
    """The option of one field of `RunConfig`.

    Args:
        help: what it decides.
        parse: turns a text into a value, and refuses what is out of range.
        metavar: what stands for the value in a help text.
        choices: all values, where they are few.
        is_flag: whether the option has no value; to give it means True.
    """

    help: str
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    is_flag: bool = False


MODELS = ("resnet18", "resnet18-imagenet", "resnet18-release", "densenet-bc", "efficientnet-b0", "audio", "series")

METHODS = ("strided", "spectral", "outer", "inner", "cosine", "average", "release", "release-spectral")

RUN_OPTIONS: dict[str, RunOption] = {
    "model": RunOption("the network", choices=MODELS),
    "method": RunOption("the downsampler", choices=METHODS),
    "strides": RunOption(
        "one per downsampler; vertical x horizontal (for sound time x frequency) as in 3x2", strides, "S,S,S"
    ),
    "smoothness": RunOption("ramp's width in bins", number(0, above=True), "R"),
    "shared_stride": RunOption("learn one stride for both axes", is_flag=True),
    "width": RunOption("channels of the first stage", whole(1), "N"),
    "epochs": RunOption("passes over the data", whole(1), "N"),
    "epoch_steps": RunOption("steps that count as an epoch (0: one pass)", whole(0), "N"),
    "batch_size": RunOption("examples per step, on all devices together", whole(2), "N"),
    "optimizer": RunOption("what changes the weights", choices=("sgd", "adam")),
    "lr": RunOption("peak learning rate", number(0, above=True), "X"),
    "stride_lr": RunOption("the strides' own learning rate", number(0), "X"),
    "stride_until": RunOption(
        "share of the epochs in which strides learn; then they stay, just within --budget-macs (0: all the time)",
        part,
        "SHARE",
    ),
    "schedule": RunOption(
        "how the learning rate follows the training", choices=("cosine", "step", "step-imagenet", "release", "constant")
    ),
    "weight_decay": RunOption("of the weights; strides have none", number(0), "X"),
    "decay": RunOption("what decays", choices=("all", "weights")),
    "lam": RunOption("weight of the complexity term, Eq. 6", number(0), "X"),
    "lam_over": RunOption("what has a term in Eq. 6", choices=("strides", "convolutions")),
    "mixup": RunOption("alpha of Mixup's Beta distribution (0: none)", number(0), "X"),
    "mixup_by": RunOption("what has one share in Mixup", choices=("batch", "pair")),
    "label_smoothing": RunOption("share spread over all classes", number(0, below=1), "X"),
    "seed": RunOption("of weights, stand-ins and order", whole(0), "N"),
    "precision": RunOption(
        "type of the numbers on the way through the network", choices=("32-true", "bf16-mixed", "16-mixed")
    ),
    "accumulate": RunOption("parts of a step, one after the other: less memory", whole(1), "N"),
    "compile": RunOption("torch.compile: recompiles when map sizes change", is_flag=True),
    "grid": RunOption("how the sizes of maps follow learned strides", grid, "G"),
    "data": RunOption(
        "a folder of images, sounds or series with one folder per class; a table of series; a data set; or data sets "
        "of sound, joined by +"
    ),
    "image_size": RunOption("for a folder and for CIFAR", whole(8), "N"),
    "train_size": RunOption("training examples of a stand-in", whole(1), "N"),
    "test_size": RunOption("test examples of a stand-in", whole(1), "N"),
    "validation": RunOption(
        "share of the training examples, by class, on which the best epoch is chosen (0: the last epoch is kept)",
        number(0, below=1),
        "X",
    ),
    "patience": RunOption("epochs without a better validation accuracy before it stops (0: none)", whole(0), "N"),
    "threads": RunOption("of one process on a CPU, whatever OMP_NUM_THREADS says; digits depend on it", whole(1), "N"),
    "init": RunOption("start from the weights of this run", metavar="RUN_DIR"),
    "budget_macs": RunOption(
        "spend these multiply-accumulates per example, and no more: 40e6; 0.5x, of those that --strides cost; or "
        "strided:2,2,2, those of strided convolutions",
        budget,
        "X",
    ),
    "augment": RunOption("what is done to training examples", choices=("auto", "crop", "release", "none")),
    "skip_bad": RunOption("leave out files that cannot be read", is_flag=True),
    "label_pattern": RunOption(
        r"class by file name instead of folder, as in '(\d)_.*' for 7_ann_3.wav", pattern, "REGEX"
    ),
    "label_column": RunOption("column of a table of series that names the class", metavar="NAME"),
}
"""By the field of `RunConfig`: a test holds that each field has one."""


def add_run_option(group: Group, field: str, default: Any = None, *, flag: str = "", note: str = "") -> None:
    """Add the option of a field of `RunConfig`.

    Args:
        group: where the option stands.
        field: the field, which is also the name of the parsed value.
        default: the value of an option that is not given.
        flag: the name of the option; without it, that of the field.
        note: what stands behind the help text.
    """
    option = RUN_OPTIONS[field]
    kind: dict[str, Any] = {"action": "store_true"}
    if option.choices:
        kind = {"choices": option.choices, "metavar": "NAME"}
    elif not option.is_flag:
        kind = {"type": option.parse, "metavar": option.metavar}
    name = flag or f"--{field.replace('_', '-')}"
    group.add_argument(name, dest=field, default=default, help=option.help + note + listed(field), **kind)


def check(config: RunConfig, where: str = "--config") -> RunConfig:
    """Check a configuration as the command line checks its options.

    Args:
        config: what is checked.
        where: it comes from, for the message of an error.

    Raises:
        UsageError: a value that no option could have given; the message names its field.
    """
    for field, option in RUN_OPTIONS.items():
        value = getattr(config, field)
        if field == "stride_lr" and value is None:
            continue
        if option.is_flag and not isinstance(value, bool):
            raise UsageError(f"{where}: {field} must be true or false, got {value!r}")
        if option.choices and value not in option.choices:
            raise UsageError(f"{where}: {field} must be one of {', '.join(option.choices)}, got {value!r}")
        if option.choices or option.is_flag:
            continue
        try:
            same = option.parse(_text(value)) == value
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{where}: {field} {error}") from None
        if not same:
            raise UsageError(f"{where}: {field} has a value of another type than its option gives, got {value!r}")
    return config


def _text(value: Any) -> str:
    """A value as a person would type it."""
    return ",".join("x".join(map(repr, pair)) for pair in value) if isinstance(value, tuple) else str(value)


def add_data_folder(group: Group) -> None:
    """The options about the folder of the data sets."""
    group.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder of the data sets (default $ANYSTRIDE_DATA, ~/.cache/anystride)",
    )
    group.add_argument("--download", action="store_true", help="fetch a data set that is not there")


def add_processes(group: Group) -> None:
    """The options about the processes of one run."""
    group.add_argument("--devices", type=whole(1), default=1, metavar="N", help="GPUs, or processes on CPUs, per node")
    group.add_argument("--nodes", type=whole(1), default=1, metavar="N", help="machines, under torchrun or SLURM")


def run_environment(options: argparse.Namespace) -> RunEnvironment:
    """What `add_data_folder` and `add_processes` parsed."""
    from anystride.lab.run.environment import RunEnvironment

    return RunEnvironment(options.root, options.download, options.devices, options.nodes)
