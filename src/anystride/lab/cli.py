"""The command ``anystride``. Heavy packages are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anystride.lab.config import SCENES, RunConfig
from anystride.lab.errors import UsageError
from anystride.lab.options import Parser, number, strides, whole

if TYPE_CHECKING:
    from rich.console import Console

METHODS = ("strided", "spectral", "outer", "inner")
SCHEDULES = ("cosine", "step")
TARGETS = ("onnx", "pt2")
"""All three repeat what lies behind slow imports; a test holds them equal."""

QUICK = {"width": 4, "epochs": 4, "train_size": 1400, "test_size": 300}
LAB_PACKAGES = ("lightning", "matplotlib", "numpy", "PIL", "rich", "sklearn", "tensorboard", "torchmetrics")
EXPORT_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for wrong input (one line says what), 130 after an interruption."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except UsageError as error:
        return _fail(options.prog, str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = "lab" if package in LAB_PACKAGES else "lab,export" if package in EXPORT_PACKAGES else None
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


def _parser() -> Parser:
    parser = Parser(prog="anystride", description="Convolutional networks that learn their strides.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (_add_demo, _add_train, _add_export):
        add(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[Parser]) -> None:
    text = (
        "Train four downsamplers (strided convolution, spectral pooling, DiffStride with the outer and the inner ramp) "
        "from good strides (2, 2, 2) and from poor ones (3, 2, 3), on handwritten digits in clutter. "
        "Print a table, save pictures, records and checkpoints. Minutes on a CPU; finished runs are not repeated."
    )
    parser = commands.add_parser("demo", help="watch a network recover from badly chosen strides", description=text)
    default = RunConfig()
    parser.add_argument("--quick", action="store_true", help="a smaller model, fewer scenes and epochs: see it work")
    parser.add_argument("--seeds", type=whole(1), default=1, metavar="N", help="runs per method and start (default 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default runs/demo, with --quick runs/demo-quick")
    parser.add_argument("--fresh", action="store_true", help="repeat runs that are finished")
    for name, attribute, low, text in (
        ("--width", "width", 1, "channels of the first stage; the paper's is 64"),
        ("--epochs", "epochs", 1, "passes over the training scenes"),
        ("--scenes", "train_size", 1, "training scenes"),
    ):
        both = f"{text} (default {getattr(default, attribute)}, with --quick {QUICK[attribute]})"
        parser.add_argument(name, dest=attribute, type=whole(low), metavar="N", help=both)
    parser.set_defaults(command=_demo, prog=parser.prog, go_on="the same command goes on where it stopped")


def _add_train(commands: argparse._SubParsersAction[Parser]) -> None:
    default = RunConfig()
    parser = commands.add_parser(
        "train",
        help="train one network with chosen strides",
        description="Train a ResNet-18 with one downsampler. Leaves a record, checkpoint, pictures, TensorBoard log.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model = parser.add_argument_group("model")
    model.add_argument("--method", choices=METHODS, default=default.method, help="the downsampler")
    model.add_argument(
        "--strides",
        type=strides,
        default="2,2,2",
        metavar="S,S,S",
        help="one per stage; vertical x horizontal as in 3x2",
    )
    model.add_argument(
        "--smoothness", type=number(0, above=True), default=default.smoothness, metavar="R", help="ramp's width in bins"
    )
    model.add_argument("--shared-stride", action="store_true", help="learn one stride for both axes")
    model.add_argument("--width", type=whole(1), default=default.width, metavar="N", help="channels of the first stage")

    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=whole(1), default=default.epochs, metavar="N", help="passes over the data")
    training.add_argument(
        "--batch-size", type=whole(2), default=default.batch_size, metavar="N", help="images per step"
    )
    training.add_argument(
        "--lr", type=number(0, above=True), default=default.lr, metavar="X", help="peak learning rate of SGD"
    )
    training.add_argument(
        "--stride-lr", type=number(0), metavar="X", help="the strides' own learning rate (None: that of --lr)"
    )
    training.add_argument("--schedule", choices=SCHEDULES, default=default.schedule, help="of the learning rate")
    training.add_argument(
        "--weight-decay",
        type=number(0),
        default=default.weight_decay,
        metavar="X",
        help="of the weights; strides have none",
    )
    training.add_argument(
        "--lam", type=number(0), default=default.lam, metavar="X", help="weight of the complexity term, Eq. 6"
    )
    training.add_argument(
        "--seed", type=whole(0), default=default.seed, metavar="N", help="of weights, scenes and order"
    )

    data = parser.add_argument_group("data and results")
    data.add_argument(
        "--data",
        default=default.data,
        metavar="scenes|DIR",
        help="the digit scenes, or a folder with one folder per class",
    )
    data.add_argument("--image-size", type=whole(8), default=default.image_size, metavar="N", help="for a folder")
    data.add_argument("--scenes", type=whole(1), default=default.train_size, metavar="N", help="training scenes")
    data.add_argument(
        "--out", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="default: runs/METHOD-STRIDES-seedN"
    )
    data.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    parser.set_defaults(command=_train, prog=parser.prog, go_on="the same command with --resume goes on")


def _add_export(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "export",
        help="take a trained network out of PyTorch",
        description="Freeze the strides of a run that 'anystride train' left, write the network with an open batch "
        "size, and compare its output with PyTorch's.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of the run, with its last.ckpt")
    parser.add_argument("--to", choices=TARGETS, default="onnx", help="ONNX, or torch.export's format (default onnx)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN_DIR/model.onnx or model.pt2")
    parser.set_defaults(command=_export, prog=parser.prog, go_on="nothing was written")


def _demo(options: argparse.Namespace) -> None:
    given = {name: getattr(options, name) for name in ("width", "epochs", "train_size") if getattr(options, name)}
    settings = {**(QUICK if options.quick else {}), **given}
    folder = _writable(options.out or Path("runs") / ("demo-quick" if options.quick else "demo"))
    from anystride.lab.demo import Demo, demonstrate

    demonstrate(Demo(replace(RunConfig(), **settings), options.seeds, folder, options.fresh), _console())


def _train(options: argparse.Namespace) -> None:
    config = RunConfig(
        method=options.method,
        strides=options.strides,
        smoothness=options.smoothness,
        shared_stride=options.shared_stride,
        lam=options.lam,
        width=options.width,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        stride_lr=options.stride_lr,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        seed=options.seed,
        data=options.data,
        image_size=options.image_size,
        train_size=options.scenes,
    )
    if config.data != SCENES and not Path(config.data).is_dir():
        raise UsageError(f"--data must be {SCENES!r} or a folder of images, got {config.data!r}, which is no folder")
    folder = _writable(getattr(options, "out", Path("runs") / config.name))
    from anystride.lab.train import train

    train(config, folder, options.resume, _console())


def _export(options: argparse.Namespace) -> None:
    from anystride.lab.export import export

    export(options.run, options.to, options.out, _console())


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out must be a folder that can be made, got {str(folder)!r} ({error.strerror})") from None
    return folder


def _console() -> Console:
    from rich.console import Console

    # A table needs its width where nobody sees a terminal: in a file or a log.
    return Console() if sys.stdout.isatty() else Console(width=140)


if __name__ == "__main__":
    sys.exit(main())
