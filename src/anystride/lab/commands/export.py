"""`anystride export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from anystride.lab.commands.common import Commands, console
from anystride.lab.commands.parsing import Parser

TARGETS = ("onnx", "pt2")
"""Repeats what lies behind slow imports; a test holds them equal."""


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "export",
        help="take a trained network out of PyTorch",
        description="Freeze the strides of a run that 'anystride train' left, write the network of its best epoch "
        "where it has one, and compare outputs with PyTorch's. The batch size stays open, and so do the other sizes "
        "where the network takes any, as with strided convolutions. The file carries the names of the classes, the "
        "preprocessing and the run as metadata.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--to", choices=TARGETS, default="onnx", help="ONNX, or torch.export's format (default onnx)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN_DIR/model.onnx or model.pt2")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --out even if it is no earlier export of this run"
    )
    parser.set_defaults(command=execute, prog=parser.prog, go_on="nothing was written")


def execute(options: argparse.Namespace) -> None:
    from anystride.lab.run.export import export

    export(options.run, options.to, options.out, console(), overwrite=options.overwrite)
