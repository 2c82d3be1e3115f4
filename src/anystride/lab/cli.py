"""The command `anystride`. `--help` answers at once: heavy packages are imported inside the commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from anystride import __version__
from anystride.lab.commands import bench, demo, evaluate, export, paper, predict, report, train
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
    """Run one command.

    Returns:
        The exit code: 0, or 1 if some of several runs or files failed, 2 for wrong input (one line says what), 3 for a
        run that another process works on, 130 after an interruption.
    """
    given = sys.argv[1:] if arguments is None else arguments
    for argument in given:
        if "\0" in argument or any("\ud800" <= character <= "\udfff" for character in argument):
            return _fail("anystride", f"arguments must be UTF-8 text without NUL, got {argument!r}; rename the file")
    options = build_parser().parse_args(given)
    command: Callable[[argparse.Namespace], int | None] = options.command
    try:
        return command(options) or 0
    except UsageError as error:
        return _fail(options.prog, str(error), error.exit_code)
    except OSError as error:
        where = f": {error.filename!r}" if error.filename else ""
        return _fail(options.prog, f"{error.strerror or error}{where}; {options.go_on}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        return _fail(options.prog, f"{error.name} is not installed; run: pip install 'anystride[{extra}]'")
    except KeyboardInterrupt:
        print(f"\n{options.prog}: interrupted; {options.go_on}", file=sys.stderr)
        return 130


def _fail(prog: str, message: str, exit_code: int = 2) -> int:
    print(f"{prog}: error: {message}", file=sys.stderr)
    return exit_code


def build_parser() -> Parser:
    parser = Parser(prog="anystride", description="Convolutional networks that learn their strides.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (demo, train, predict, evaluate, export, paper, report, bench):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
