"""`anystride train`."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from anystride.lab.commands.common import Commands, console, writable
from anystride.lab.commands.options import add_data_folder, add_processes, add_run_option, check, run_environment
from anystride.lab.commands.parsing import Parser
from anystride.lab.data.names import is_known
from anystride.lab.errors import UsageError
from anystride.lab.run.config import SCENES, RunConfig

if TYPE_CHECKING:
    from rich.console import Console

    from anystride.lab.run.environment import RunEnvironment

MODEL = ("model", "method", "strides", "smoothness", "shared_stride", "width")
TRAINING = (
    "epochs", "epoch_steps", "batch_size", "optimizer", "lr", "stride_lr", "schedule", "weight_decay", "lam", "mixup",
    "label_smoothing", "augment", "validation", "patience", "budget_macs", "init", "seed",
)  # fmt: skip
SPEED = ("precision", "accumulate", "compile", "grid", "threads")


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "train",
        help="train one network with chosen strides",
        description="Train one network with one downsampler. Leaves a record, checkpoint, pictures, TensorBoard log.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = RunConfig(method="cosine")  # as convert_ does; the paper's recipes say "outer" themselves
    for title, names in (("model", MODEL), ("training", TRAINING), ("speed and memory", SPEED)):
        group = parser.add_argument_group(title)
        for name in names:
            # The help shows the strides as a person types them.
            add_run_option(group, name, "2,2,2" if name == "strides" else getattr(default, name))
    add_processes(group)

    data = parser.add_argument_group("data and results")
    add_run_option(data, "data", default.data)
    add_run_option(data, "image_size", default.image_size)
    add_run_option(data, "label_pattern", default.label_pattern)
    add_run_option(data, "label_column", default.label_column)
    add_run_option(data, "skip_bad", default.skip_bad)
    add_run_option(data, "train_size", default.train_size, flag="--scenes")
    add_data_folder(data)
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
    train(config, folder, options.resume, run_environment(options), console())


def train(config: RunConfig, folder: Path, resume: bool, environment: RunEnvironment, console: Console) -> None:
    """Run `config` in `folder` and show what came out; of several processes only the first one shows."""
    from anystride.lab.report.gallery import draw_run
    from anystride.lab.report.terminal import group, results_table
    from anystride.lab.run.experiment import CHECKPOINT, RECORD, run
    from anystride.lab.run.progress import Display, RunProgress

    if not environment.is_first:
        run(config, folder, resume=resume, environment=environment)
        return
    with Display(console) as display:
        progress = RunProgress(config.name, display.show)
        record = run(config, folder, resume=resume, environment=environment, callbacks=(progress,))
    console.print(results_table(group([record])))
    drawn = draw_run(record, folder, environment.root)
    console.print(f"{record.seconds['train']:.0f} s of training. In {folder}:", highlight=False)
    for path in (folder / RECORD, folder / CHECKPOINT, *drawn):
        console.print(f"  {path.name}", highlight=False)
    console.print(f"Curves: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)


def read(path: Path) -> RunConfig:
    """Read a configuration: a file has it alone, or within the record of a run.

    Raises:
        UsageError: the file has none, or one with a value that no option could have given.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = RunConfig.from_json(values.get("configuration", values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"--config must be a record or a configuration in JSON, got {str(path)!r} ({error})") from None
    return check(config)
