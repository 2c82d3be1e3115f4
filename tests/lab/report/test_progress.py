"""The display of runs: 80 columns hold everything on a terminal; a line per epoch elsewhere."""

import io
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
from rich.console import Console

from anystride.lab.run.experiment import run
from anystride.lab.run.progress import Display, ProgressUpdate, RunProgress, epoch_line, told

from ..conftest import tiny

LONG = "[12/48] efficientnet-inner-3x2x3x1x2x3x2-seed2-1f0c9a2e"
STRIDES = "2.12x2.13, 2.3x4.44, 5.61x9.21, 3.1x3.2, 1.11x1.21"


def updates(run: str) -> list[ProgressUpdate]:
    running = ProgressUpdate(run, 123, 1560, "13/400", seconds=7.0)
    return [running, ProgressUpdate(run, 130, 1560, "13/400", "loss 12.345 val 100.0 %", STRIDES, 8.0)]


def test_eighty_columns_hold_bar_epoch_loss_accuracy_and_time() -> None:
    console = Console(width=80, force_terminal=True, file=io.StringIO(), legacy_windows=False)
    display = Display(console)
    for name in ("outer-2x2x2-seed0", LONG):
        for update in updates(name):
            display.show(update)
    page = Console(width=80, record=True, file=io.StringIO())
    page.print(display._shown())
    lines = page.export_text().splitlines()
    assert len(lines) == 4
    for line in lines[::2]:
        assert len(line.rstrip()) <= 80
        assert "13/400 loss 12.345 val 100.0 %" in line
        assert "-:--" in line or ":" in line.split("%")[1]
    assert lines[1].strip() == lines[3].strip() == f"strides {STRIDES}"


@pytest.mark.parametrize("width", [64, 80, 200])
def test_the_time_that_is_left_is_seen_on_narrow_terminals_too(width: int) -> None:
    console = Console(width=width, force_terminal=True, file=io.StringIO(), legacy_windows=False)
    display = Display(console)
    for update in updates(LONG):
        display.show(update)
    (task,) = display.progress.tasks
    task.finished_time = 36_000.0  # the longest form of a time
    page = Console(width=width, record=True, file=io.StringIO())
    page.print(display._shown())
    line = page.export_text().splitlines()[0]
    assert line.startswith("[12")
    assert "13/400 loss 12.345 val 100.0 % " in line
    assert "…" not in line.split("13/400")[1]


def test_elsewhere_an_epoch_is_a_line() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    with Display(console) as display:
        for update in updates("outer-2x2x2-seed0"):
            display.show(update)
    (line,) = console.export_text().splitlines()
    assert line == f"outer-2x2x2-seed0  13/400  loss 12.345 val 100.0 %  strides {STRIDES}  8 s"


def test_an_epoch_of_many_strides_is_a_line_of_120_characters() -> None:
    long = replace(updates(LONG)[1], strides=", ".join([STRIDES, STRIDES]))
    line = epoch_line(long)
    assert len(line) == 120
    assert line.startswith("[12/48] efficie")
    assert line.endswith(", 1.11x1.21  8 s")
    assert "loss 12.345 val 100.0 %  strides 2.12x2.13, " in line


def test_seven_strides_fit_below_a_bar() -> None:
    text = told([[1.234, 1.567]] * 7)
    assert text == ", ".join(["1.2x1.6"] * 7)
    assert len(f"  strides {text}") <= 80
    assert told([[1.234, 1.567]] * 3) == ", ".join(["1.23x1.57"] * 3)


@pytest.mark.parametrize("fails", [False, True])
def test_the_bar_of_a_run_goes_when_the_run_ends_or_fails(fails: bool, tmp_path: Path) -> None:
    class Failing(pl.Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            if fails:
                raise OSError("No space left on device")

    console = Console(width=80, force_terminal=True, file=io.StringIO(), legacy_windows=False)
    seen = 0
    display = Display(console)

    def send(update: ProgressUpdate) -> None:
        nonlocal seen
        display.show(update)
        seen = max(seen, len(display.bars))

    with pytest.raises(OSError, match="No space") if fails else nullcontext():
        run(tiny(epochs=1, train_size=32), tmp_path, callbacks=(RunProgress("mine", send), Failing()))
    assert seen == 1
    assert not display.bars
    assert not display.progress.tasks
