"""`anystride evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from anystride.lab.commands.common import Commands, console
from anystride.lab.commands.options import add_data_folder, add_run_option
from anystride.lab.commands.parsing import Parser


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a trained network on labelled files or a data set",
        description="Measure the network of a run that 'anystride train' left, that of its best epoch where it has "
        "one: accuracy, accuracy by class, and which classes it takes for which. Classes are matched by their names. "
        "Writes a JSON file with all numbers, and a picture of the confusion matrix beside it. The exit code is 1 if "
        "some files cannot be read.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="a folder with one folder per class, of which test/ is taken if it has train/ and test/; or a data set; "
        "of what the run learned from, the test examples that it kept apart (default: these)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .json file (default: RUN_DIR/evaluation-DATA.json)")
    parser.add_argument("--overwrite", action="store_true", help="replace --out even if it holds something else")
    add_run_option(parser, "label_pattern", note=" (default: that of the run)")
    add_data_folder(parser)
    parser.set_defaults(command=execute, prog=parser.prog, go_on="nothing was written")


def execute(options: argparse.Namespace) -> int:
    from anystride.lab.run.environment import RunEnvironment
    from anystride.lab.run.evaluate import Request, evaluate

    request = Request(
        run=options.run,
        data=options.data,
        out=options.out,
        overwrite=options.overwrite,
        label_pattern=options.label_pattern,
        environment=RunEnvironment(options.root, options.download),
    )
    return evaluate(request, console())
