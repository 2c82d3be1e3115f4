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
        description="Freeze the strides of a run that 'anystride train' left, write the network with an open batch "
        "size, and compare its output with PyTorch's.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of the run, with its last.ckpt")
    parser.add_argument("--to", choices=TARGETS, default="onnx", help="ONNX, or torch.export's format (default onnx)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN_DIR/model.onnx or model.pt2")
    parser.set_defaults(command=execute, prog=parser.prog, go_on="nothing was written")


def execute(options: argparse.Namespace) -> None:
    from anystride.lab.run.export import export

    export(options.run, options.to, options.out, console())
