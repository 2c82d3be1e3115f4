"""The command line: wrong input costs one line and exit code 2; the demo leaves everything it promises."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import anystride
from anystride.lab import cli
from anystride.lab.commands import demo
from anystride.lab.commands.choices import CHOICES, DATA_SETS
from anystride.lab.data.names import IMAGES, SOUND
from anystride.lab.paper.demo import Demo, demonstrate
from anystride.lab.paper.recipe import METHODS
from anystride.lab.run import local
from anystride.lab.run.folder import RECORD
from anystride.lab.run.progress import RunProgress
from anystride.lab.run.record import load

from .conftest import tiny

TINY = ["--width", "2", "--epochs", "1", "--scenes", "64"]


def exit_code(arguments: list[str]) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as done:
        return int(done.code or 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "COMMAND"),
        ("dance", "'dance'"),
        ("demo --seeds 0", "--seeds: must be at least 1, got 0"),
        ("demo --seeds many", "--seeds: must be a whole number, got 'many'"),
        ("demo --width -3", "--width: must be at least 1, got -3"),
        ("demo --epochs 1.5", "--epochs: must be a whole number, got '1.5'"),
        ("train --method maximum", "--method: invalid choice: 'maximum'"),
        ("train --strides 3,2", "--strides must have 3 entries (one for each block that shrinks the map, as in 2,2,2)"),
        ("train --strides 3,2,x", "--strides: must be strides"),
        ("train --strides 3,0.5,3", "--strides: must be finite strides of at least 1, got 0.5"),
        ("train --strides 3,nan,3", "got nan in '3,nan,3'"),
        ("train --strides 3x2x2,2,3", "--strides: must be strides"),
        ("train --strides 2.5,2,2 --method strided", "strided convolution must be whole numbers"),
        ("train --strides 2x3,2,2 --shared-stride", "equal along both axes"),
        ("train --strides 40,2,2", "must not exceed the map, 32x32 pixels before stride 1, got 40"),
        ("train --smoothness 0", "--smoothness: must be a finite number greater than 0, got 0"),
        ("train --lr nan", "--lr: must be a finite number"),
        ("train --lam -1", "--lam: must be a finite number at least 0, got -1"),
        ("train --batch-size 1", "--batch-size: must be at least 2, got 1"),
        ("train --batch-size 65 --scenes 72", "at most 62, the training examples, got 65; pass a smaller one"),
        ("train --seed -1", "--seed: must be at least 0"),
        ("train --data nowhere", "'nowhere', which does not exist"),
        ("train --image-size 4", "--image-size: must be at least 8, got 4"),
        ("train --model series", "--model series works along time, and --data scenes has inputs of shape (1, 32, 32)"),
        ("train --resume", "--resume finds no run in 'runs/scenes-resnet18-w8-cosine-2x2x2-seed0-"),
        (
            "train --unheard-of",
            "anystride train: error: unrecognized arguments: --unheard-of (see anystride train --help)",
        ),
        (
            "train --methd=cosine",
            "anystride train: error: unrecognized arguments: --methd=cosine; did you mean --method?",
        ),
        ("export", "RUN_DIR"),
        ("export nowhere", "the folder of a run must hold last.ckpt, as 'anystride train' leaves it, got 'nowhere'"),
        ("export . --to coreml", "--to: invalid choice: 'coreml'"),
        ("demo --out occupied", "--out must be a folder that can be made, got 'occupied'"),
    ],
)
def test_wrong_input(
    arguments: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "occupied").write_text("a file")
    assert exit_code(arguments.split()) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert printed.err.startswith("anystride")
    assert printed.err.count("\n") == 1


def test_a_corrupt_image_is_reported_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "data" / name / f"{number}.png").write_bytes(b"no image")
    assert exit_code(["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "--data holds 4 files that are not readable images; repair or remove them" in message
    assert all(f"{name}/{number}.png' (unknown format)" in message for name in "ab" for number in range(2))
    assert not (tmp_path / "out").exists()


COMMANDS = ("demo", "train", "predict", "evaluate", "export", "paper", "report", "bench")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_code([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"usage: anystride {command}".rstrip() in printed
    assert max(map(len, printed.splitlines())) < 80
    assert "None" not in printed


def test_help_names_data_sets_and_says_what_choices_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["train", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in (*IMAGES, *SOUND):
        assert f" {name}: {DATA_SETS[name]}" in printed
    for field in CHOICES:
        for name, text in CHOICES[field].items():
            assert f" {name}: {text}" in printed
    assert "is chosen (0: the last epoch is kept) (default: 0.1)" in printed


def test_help_imports_nothing_slow() -> None:
    code = "import sys, anystride.lab.cli as c; c.build_parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "PIL", "lightning", "matplotlib", "sklearn", "rich", "torchmetrics"} & set(modules)


def test_version_as_a_module() -> None:
    command = [sys.executable, "-W", "error", "-m", "anystride", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"anystride {anystride.__version__}\n"


@pytest.mark.parametrize("argument", ["a\0b", "b\udcffc"])
def test_an_argument_that_is_no_text(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["export", argument]) == 2
    printed = capsys.readouterr().err
    assert f"arguments must be UTF-8 text without NUL, got {argument!r}" in printed
    assert printed.count("\n") == 1


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command(_options: object) -> None:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch")

    monkeypatch.setattr(demo, "execute", command)
    assert exit_code(["demo"]) == 2
    assert "pip install 'anystride[lab]'" in capsys.readouterr().err


def test_train_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for name, value in (("dark", 40), ("light", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (20, 30), (value, number, number)).save(tmp_path / "data" / name / f"{number}.png")
    out = tmp_path / "out"
    arguments = [
        "train",
        "--data",
        str(tmp_path / "data"),
        "--image-size",
        "16",
        "--batch-size",
        "8",
        "--out",
        str(out),
    ]
    assert exit_code([*arguments, "--width", "2", "--epochs", "1", "--method", "inner", "--strides", "2,1.5x2,1"]) == 0
    record = load(out / RECORD)
    assert record.classes == ["dark", "light"]
    assert record.start_strides == [[2.0, 2.0], [1.5, 2.0], [1.0, 1.0]]
    assert {"strides.png", "windows.png", "maps.png", "examples.png", "last.ckpt"} <= {
        path.name for path in out.iterdir()
    }
    printed = capsys.readouterr()
    assert "accuracy" in printed.out
    assert printed.err == ""


@pytest.mark.slow
def test_demo_end_to_end_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--quick", *TINY, "--out", str(tmp_path)]
    assert exit_code(arguments) == 0
    first = capsys.readouterr()
    assert first.err == ""
    assert " ".join(first.out.split()).count("which method comes first here is noise") == 2
    assert "changes the accuracy by" not in first.out
    runs = sorted(tmp_path.glob("*/record.json"))
    assert [path.parent.name.partition("-")[0] for path in runs] == sorted(2 * list(METHODS))
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {
        "accuracy.png", "strides.png", "windows-outer.png", "windows-inner.png", "maps.png", "examples.png"
    }  # fmt: skip

    before = {path: path.stat().st_mtime_ns for path in runs}
    runs[0].unlink()
    assert exit_code(arguments) == 0
    again = capsys.readouterr().out
    assert again.count("finished before") == 7
    assert all(path.stat().st_mtime_ns == before[path] for path in runs[1:])
    assert runs[0].exists()


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(RunProgress, "on_train_batch_end", interrupt)
    monkeypatch.setattr(local, "processors", lambda: 1)  # one after the other, in this process
    assert exit_code(["demo", *TINY, "--out", str(tmp_path)]) == 130
    signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.slow
def test_several_seeds_give_a_mean_and_a_deviation(tmp_path: Path) -> None:
    console = Console(record=True, width=160)
    demonstrate(Demo(tiny(epochs=1, train_size=32, test_size=32), seeds=2, folder=tmp_path, fresh=False), console)
    text = console.export_text()
    assert "mean ± sd, 2 seeds" in text
    assert text.count(" ± ") >= 8


def test_what_was_found_and_what_is_trained_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (41, 30), (number * 20, 0, 0)).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "cats" / "bad.jpg").write_bytes(b"none")
    (tmp_path / "data" / "dogs" / "notes.txt").write_text("mine")
    options = ["--epochs", "1", "--width", "2", "--batch-size", "4", "--skip-bad", "--out", str(tmp_path / "out")]
    assert exit_code(["train", "--data", str(tmp_path / "data"), *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "20 training and 4 test images, 2 classes, 24x24; 1 unreadable image left out; 1 other file passed over (.txt)"
        in printed
    )
    assert "2 of the training examples for validation" in printed
    assert "resnet18 of width 2 at 24x24, 1 epoch, the best epoch on 10% set aside" in printed
    assert "Best epoch 1 of 1" in printed
