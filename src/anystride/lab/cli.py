"""The command `anystride`. `--help` answers at once: heavy packages are imported inside the commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from anystride.lab.commands import bench, demo, export, paper, report, train
from anystride.lab.commands.parsing import Parser
from anystride.lab.errors import UsageError

LAB_PACKAGES = ("filelock", "lightning", "matplotlib", "numpy", "PIL", "rich", "sklearn", "tensorboard", "torchmetrics")
EXTRAS = {
    "lab": LAB_PACKAGES,
    "paper": ("soundfile", "soxr", "torchaudio", "torchvision"),
    "paper,cluster": ("ray",),
    "lab,export": ("onnx", "onnxruntime", "onnxscript"),
}
"""What to install where a package is missing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for wrong input (one line says what), 130 after an interruption."""
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except UsageError as error:
        return _fail(options.prog, str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        return _fail(options.prog, f"{error.name} is not installed; run: pip install 'anystride[{extra}]'")
    except KeyboardInterrupt:
        print(f"\n{options.prog}: interrupted; {options.go_on}", file=sys.stderr)
        return 130
    return 0


def _fail(prog: str, message: str) -> int:
    print(f"{prog}: error: {message}", file=sys.stderr)
    return 2


def build_parser() -> Parser:
    parser = Parser(prog="anystride", description="Convolutional networks that learn their strides.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (demo, train, paper, report, export, bench):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
