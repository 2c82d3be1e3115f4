"""`anystride report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from anystride.lab.commands.common import Commands, console
from anystride.lab.commands.parsing import Parser


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "report",
        help="one page of all runs in a folder, with the paper's tables where there are any",
        description="Make one self-contained page of what 'anystride train', 'demo' and 'paper' left in a folder and "
        "up to three levels below: a table of all runs, accuracy against cost, how strides moved, and every table of "
        "the paper that was asked for beside the published values. Files that cannot be read are listed.",
    )
    parser.add_argument(
        "results", type=Path, metavar="RESULTS_DIR", help="a folder of runs, such as runs or runs/paper"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default RESULTS_DIR/report.html")
    parser.set_defaults(command=execute, prog=parser.prog, go_on="nothing was written")


def execute(options: argparse.Namespace) -> int:
    from anystride.lab.report.html.page import report
    from anystride.lab.report.text import counted

    page = report(options.results, options.out or options.results / "report.html")
    screen = console()
    for problem in page.problems:
        screen.print(problem, highlight=False, markup=False, soft_wrap=True)
    counts = f"{counted(page.runs, 'run')} {'has' if page.runs == 1 else 'have'} ended"
    counts += f", {page.unfinished} have not" if page.unfinished else ""
    counts += f", {counted(len(page.problems), 'file')} could not be read" if page.problems else ""
    screen.print(f"{counts}. The page is {page.path}", highlight=False, markup=False, soft_wrap=True)
    return 1 if page.problems else 0
