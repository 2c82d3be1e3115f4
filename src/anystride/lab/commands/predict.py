"""`anystride predict`."""

from __future__ import annotations

import argparse
from pathlib import Path

from anystride.lab.commands.common import Commands, console
from anystride.lab.commands.parsing import Parser


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "predict",
        help="say the classes of files, by a trained network",
        description="Classify images, sounds or series by the network of a run that 'anystride train' left, that of "
        "its best epoch where it has one. A sound is cut into windows, whose results are averaged. Shows a table and "
        "writes all probabilities into a file. The exit code is 1 if some files cannot be read.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files, or folders with files at any depth")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a .csv or .json file (default: RUN_DIR/predictions.csv)"
    )
    parser.add_argument("--task", default="", metavar="NAME", help="of a run on several tasks, the one to predict")
    parser.add_argument("--overwrite", action="store_true", help="replace --out even if it holds something else")
    parser.set_defaults(command=execute, prog=parser.prog, go_on="nothing was written")


def execute(options: argparse.Namespace) -> int:
    from anystride.lab.run.predict import predict

    given = options.run, options.files, options.out, console()
    return predict(*given, task=options.task, overwrite=options.overwrite)
