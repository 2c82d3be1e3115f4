"""`anystride report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from anystride.lab.commands.common import Commands, console
from anystride.lab.commands.parsing import Parser


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "report",
        help="one page of all results, beside the paper's",
        description="Make one self-contained page of what 'anystride paper' left: every table beside the published "
        "values, at the paper's protocol and at equal multiply-accumulates, and figures that answer to the mouse.",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR", help="the folder that was --out of the runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default RESULTS_DIR/report.html")
    parser.set_defaults(command=execute, prog=parser.prog, go_on="nothing was written")


def execute(options: argparse.Namespace) -> None:
    from anystride.lab.report.html.page import report

    path = report(options.results, options.out or options.results / "report.html")
    console().print(f"The page is {path}", highlight=False, soft_wrap=True)
