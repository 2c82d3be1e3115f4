"""`anystride demo`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from anystride.lab.commands.common import Commands, console, writable
from anystride.lab.commands.options import add_run_option
from anystride.lab.commands.parsing import Parser, whole
from anystride.lab.run.config import RunConfig

QUICK = {"width": 4, "epochs": 4, "train_size": 1400, "test_size": 300}


def add(commands: Commands[Parser]) -> None:
    text = (
        "Train four downsamplers (strided convolution, spectral pooling, DiffStride with the outer and the inner ramp) "
        "from good strides (2, 2, 2) and from poor ones (3, 2, 3), on handwritten digits in clutter. "
        "Print a table, save pictures, records and checkpoints. Minutes on a CPU; finished runs are not repeated."
    )
    parser = commands.add_parser("demo", help="watch a network recover from badly chosen strides", description=text)
    usual = RunConfig()
    parser.add_argument(
        "--quick",
        action="store_true",
        help="see that it works, in about a minute: networks too small to learn, whose numbers mean nothing",
    )
    parser.add_argument("--seeds", type=whole(1), default=1, metavar="N", help="runs per method and start (default 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default runs/demo, with --quick runs/demo-quick")
    parser.add_argument("--fresh", action="store_true", help="repeat runs that are finished")
    for name, flag in (("width", ""), ("epochs", ""), ("train_size", "--scenes")):
        note = f" (default {getattr(usual, name)}, with --quick {QUICK[name]})"
        add_run_option(parser, name, flag=flag, note=note)
    parser.set_defaults(command=execute, prog=parser.prog, go_on="the same command goes on where it stopped")


def execute(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in ("width", "epochs", "train_size") if getattr(options, name)}
    settings = {**(QUICK if options.quick else {}), **given}
    folder = writable(options.out or Path("runs") / ("demo-quick" if options.quick else "demo"))
    from anystride.lab.paper.demo import Demo, demonstrate

    return demonstrate(
        Demo(replace(RunConfig(), **settings), options.seeds, folder, options.fresh, options.quick), console()
    )
