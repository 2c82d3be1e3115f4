"""`anystride train`."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anystride.lab.commands.common import Commands, console
from anystride.lab.commands.options import add_data_folder, add_processes, add_run_option, check, run_environment
from anystride.lab.commands.parsing import Parser
from anystride.lab.data.names import is_known, is_there
from anystride.lab.errors import UsageError
from anystride.lab.run.config import SCENES, RunConfig
from anystride.lab.run.defaults import LIMITED, METHOD, VALIDATION, slow_precision, told, usual
from anystride.lab.run.environment import PARENT

if TYPE_CHECKING:
    from rich.console import Console

    from anystride.lab.run.environment import RunEnvironment
    from anystride.lab.run.folder import Mode
    from anystride.lab.run.record import Record

MODEL = ("model", "method", "strides", "smoothness", "shared_stride", "width")
TRAINING = (
    "epochs", "epoch_steps", "batch_size", "optimizer", "lr", "stride_lr", "stride_until", "schedule", "weight_decay",
    "decay", "lam", "lam_over", "mixup", "mixup_by", "label_smoothing", "augment", "validation", "patience",
    "budget_macs", "init", "seed",
)  # fmt: skip
DATA = ("data", "image_size", "label_pattern", "label_column", "skip_bad", "train_size", "test_size")
SPEED = ("precision", "accumulate", "compile", "grid", "threads")
RUN_FIELDS = {field.name for field in fields(RunConfig)}


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "train",
        help="train one network with chosen strides",
        usage="%(prog)s [--data DATA] [options]",
        description="Train one network with one downsampler. Leaves a record, checkpoint, pictures, TensorBoard log.",
    )
    for title, names in (("model", MODEL), ("training", TRAINING), ("speed and memory", SPEED)):
        group = parser.add_argument_group(title)
        for name in names:
            add_run_option(group, name, argparse.SUPPRESS, note=_default(name))
    add_processes(group)

    data = parser.add_argument_group("data and results")
    for name in DATA:
        flag = "--scenes" if name == "train_size" else ""
        add_run_option(data, name, argparse.SUPPRESS, flag=flag, note=_default(name))
    add_data_folder(data)
    data.add_argument("--config", type=Path, metavar="FILE", help="a record or configuration to run again")
    data.add_argument("--out", type=Path, metavar="DIR", help="default: runs/DATA-MODEL-WIDTH-METHOD-STRIDES-SEED-KEY")
    again = data.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, interrupted or, with more --epochs, finished; its options need no repeating",
    )
    again.add_argument("--overwrite", action="store_true", help="remove the run in --out first, whatever it is")
    parser.set_defaults(command=execute, prog=parser.prog, go_on="the same command with --resume goes on")


def _default(name: str) -> str:
    default = getattr(RunConfig(), name)
    by_data = {"model", "strides", "image_size", "width", "epochs", "optimizer", "lr", "weight_decay"}
    known = {"method": METHOD, "validation": VALIDATION, "threads": "all processors", "stride_lr": "that of --lr"}
    known["stride_until"] = f"1, with --budget-macs {LIMITED['stride_until']}"
    if name in by_data:
        return " (default: by the data)"
    value = known.get(name, default)
    return "" if value == "" or value is False else f" (default: {value})"


def execute(options: argparse.Namespace) -> None:
    if parent := os.environ.pop(PARENT, ""):
        from anystride.lab.run.ranks import end_with_parent

        end_with_parent(int(parent))
    config = configuration(options)
    folder = options.out or Path("runs") / config.title
    mode: Mode = "resume" if options.resume else "overwrite" if options.overwrite else "new"
    train(config, folder, mode, run_environment(options), console())


def configuration(options: argparse.Namespace) -> RunConfig:
    """The configuration that the options ask for: what is given, and for the rest what follows from it.

    The rest is that of a file (`--config`), of the run that goes on (`--resume`), of the network that is fine-tuned
    (`--init`), and finally what is usual for the data.

    Raises:
        UsageError: a file that cannot be read, or data that do not exist.
    """
    from anystride.lab.machine import processors

    given = {name: value for name, value in vars(options).items() if name in RUN_FIELDS}
    if options.config:
        return replace(read(options.config), **given)
    if options.resume and options.out and (there := configuration_in(options.out)):
        return check(replace(there, **given))
    base: dict[str, Any] = {}
    if given.get("init"):
        base = {name: value for name, value in _of_run(Path(given["init"])).items() if name in (*MODEL, "image_size")}
    data = given.get("data", SCENES)
    if not is_known(data) and not is_there(data):
        raise UsageError(
            f"--data must be {SCENES!r}, another data set (anystride train --help) or a folder of images, sounds or "
            f"series, got {data!r}, which does not exist"
        )
    suggested = usual(data, given.get("label_pattern", ""), given.get("model", base.get("model", "")))
    limited = LIMITED if given.get("budget_macs") else {}
    return replace(RunConfig(), **{"threads": processors(), **suggested, **limited, **base, **given})


def _of_run(folder: Path) -> dict[str, Any]:
    there = configuration_in(folder)
    if there is None:
        raise UsageError(f"--init must be the folder of a run, got {str(folder)!r}")
    return {field: getattr(there, field) for field in RUN_FIELDS}


def configuration_in(folder: Path) -> RunConfig | None:
    """The configuration of the run in a folder; None where there is none that can be read."""
    from anystride.lab.run.folder import inspect

    return inspect(folder).config


def train(config: RunConfig, folder: Path, mode: Mode, environment: RunEnvironment, console: Console) -> None:
    """Run `config` in `folder` and show what came out; of several processes only the first one shows."""
    from anystride.lab.data.catalogue import open_source
    from anystride.lab.run.experiment import run
    from anystride.lab.run.folder import decide, finished
    from anystride.lab.run.progress import Display, RunProgress

    if not environment.is_first:
        run(config, folder, mode=mode, environment=environment)
        return
    decide(config, folder, mode)
    before = finished(config, folder) if mode != "overwrite" else None
    if before is None:
        counts = open_source(config, environment.root, environment.download).counts
        console.print(f"{config.data}: {counts}", highlight=False, markup=False)
        console.print(told(config), highlight=False)
        if warning := slow_precision(config):
            console.print(warning, highlight=False)
    with Display(console) as display:
        progress = RunProgress(config.name, display.show)
        record = run(config, folder, mode=mode, environment=environment, callbacks=(progress,))
    if before is not None:
        console.print(f"{folder} holds this run, finished before; --overwrite makes it again.", highlight=False)
    _show(record, folder, environment, console, draw=before is None)


def _show(record: Record, folder: Path, environment: RunEnvironment, console: Console, draw: bool) -> None:
    from anystride.lab.report.gallery import draw_run
    from anystride.lab.report.terminal import group, results_table
    from anystride.lab.run.folder import BEST, CHECKPOINT, RECORD

    console.print(results_table(group([record])))
    if record.best_epoch is not None and record.validation_accuracy is not None:
        console.print(
            f"Best epoch {record.best_epoch} of {len(record.epochs)}: {100 * record.validation_accuracy:.1f} % on the "
            "validation examples.",
            highlight=False,
        )
    drawn = [] if draw else sorted(folder.glob("*.png"))
    if not drawn:
        drawn = draw_run(record, folder, environment.root, partial(console.print, highlight=False, markup=False))
    console.print(f"{record.seconds['train']:.0f} s of training. In {folder}:", highlight=False)
    for path in (folder / RECORD, folder / CHECKPOINT, folder / BEST, *drawn):
        if path.exists():
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
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"--config must be a record or a configuration in JSON, got {str(path)!r} ({error})") from None
    return check(config)
