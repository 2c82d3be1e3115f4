"""The display of runs: 80 columns hold everything on a terminal; a line per epoch elsewhere."""

import io

from rich.console import Console

from anystride.lab.run.progress import Display, ProgressUpdate, shortened

LONG = "[12/48] efficientnet-inner-3x2x3x1x2x3x2-seed2-1f0c9a2e"
STRIDES = "2.12x2.13, 2.3x4.44, 5.61x9.21, 3.1x3.2, 1.11x1.21"


def updates(run: str) -> list[ProgressUpdate]:
    running = ProgressUpdate(run, 123, 1560, "13/400", seconds=7.0)
    return [running, ProgressUpdate(run, 130, 1560, "13/400", "loss 12.345 val 100.0 %", STRIDES, 8.0)]


def test_eighty_columns_hold_bar_epoch_loss_accuracy_and_time() -> None:
    console = Console(width=80, force_terminal=True, file=io.StringIO(), legacy_windows=False)
    display = Display(console)
    for run in ("outer-2x2x2-seed0", LONG):
        for update in updates(run):
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


def test_elsewhere_an_epoch_is_a_line() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    with Display(console) as display:
        for update in updates("outer-2x2x2-seed0"):
            display.show(update)
    (line,) = console.export_text().splitlines()
    assert line == f"outer-2x2x2-seed0  13/400  loss 12.345 val 100.0 %  strides {STRIDES}  8 s"
    assert len(line) <= 120


def test_a_long_name_keeps_both_ends() -> None:
    assert len(shortened(LONG)) == 30
    assert shortened(LONG).startswith("[12/48]")
    assert shortened(LONG).endswith("1f0c9a2e")
