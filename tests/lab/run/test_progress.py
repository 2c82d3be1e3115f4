"""What a terminal and a log show of runs: everything that counts within 80 columns, and in lines of a log."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
from rich.console import Console

from anystride.lab.run.experiment import run
from anystride.lab.run.progress import Display, ProgressUpdate, RunProgress, epoch_line

from ..conftest import tiny

SEVEN = "1, 2, 2.3x1.9, 10.1x11.2, 2.1x5.6, 8.9x9.9, 10.1x10.3"
LONG = "[12/24] cosine-1.5_1.25x2.5_2.25x2x2x1x2x1-seed0-0e273f0a"


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(width=width, height=height, force_terminal=True, color_system=None, record=True)


def seen(updates: list[ProgressUpdate], width: int = 80, height: int = 24) -> list[str]:
    """The lines of the bars after some updates, a minute apart."""
    console = terminal(width, height)
    display = Display(console)
    clock = iter(range(0, 60_000, 60))
    display.progress.get_time = lambda: float(next(clock))
    for update in updates:
        display.show(update)
    now = next(clock)
    display.progress.get_time = lambda: float(now)
    console.print(display.progress.get_renderable())
    return [line.rstrip() for line in console.export_text().splitlines() if line.strip()]


def steps(name: str, status: str = "loss 0.234  test 87.3 %", strides: str = "") -> list[ProgressUpdate]:
    return [ProgressUpdate(name, done, 100, "4/10", status, strides, 12.4) for done in range(50)]


def test_eighty_columns_have_bar_epoch_loss_accuracy_and_time() -> None:
    line, below = seen(steps("outer-3x2x3-seed0", strides="2.3x1.9, 2, 3.1x2.7"))
    assert line.startswith("outer-3x2x3-seed0 ━━━━")
    assert "4/10 loss 0.234  test 87.3 %" in line
    assert line.endswith(" left")
    assert line.split()[-2].count(":") >= 1
    assert below == "  strides 2.3x1.9, 2, 3.1x2.7"


def test_several_runs_have_lines_of_their_own_and_none_is_wider_than_the_terminal() -> None:
    updates = [
        *steps(LONG, "loss 1.2e+04  val 100.0 %", SEVEN),
        *steps("strided-3x2x3-seed0"),
        *steps("b", strides="2"),
    ]
    for width in (80, 100, 160):
        lines = seen(updates, width)
        assert len(lines) == 5
        assert all(len(line) <= width for line in lines)
        assert "loss 1.2e+04  val 100.0 %" in lines[0]
        assert lines[0].startswith("[12/24]")
        assert "━" in lines[0]
        assert lines[0].endswith(" left")
        assert SEVEN in lines[1]
        assert [line.split()[0] for line in lines[1:]] == ["strides", "strided-3x2x3-seed0", "b", "strides"]


def test_many_runs_on_a_low_screen_have_one_line_each() -> None:
    lines = seen([update for number in range(8) for update in steps(f"run {number}", strides="2, 2")], height=12)
    assert [line.split()[1] for line in lines] == [str(number) for number in range(8)]


def test_a_run_that_is_over_leaves_its_last_epoch_in_a_line() -> None:
    console = terminal()
    with Display(console) as display:
        for update in steps("a", strides="2, 2.5"):
            display.show(update)
        display.show(ProgressUpdate("a", 50, 100, "4/10", is_over=True))
        display.show(ProgressUpdate("b", 0, 100, "1/10", is_over=True))
    assert console.export_text().count("a  epoch 4/10  loss 0.234  test 87.3 %  12 s  strides 2, 2.5") == 1
    assert not any(task.visible for task in display.progress.tasks)


@pytest.mark.parametrize("name", ["outer-3x2x3-seed0", LONG, "猫" * 80, "a\nb"])
@pytest.mark.parametrize("strides", ["", "2, 2, 2", SEVEN, "2.5x2.5, " * 30])
def test_a_line_of_a_log_is_short_and_has_what_counts(name: str, strides: str) -> None:
    line = epoch_line(ProgressUpdate(name, 1, 2, "100/1000", "loss 1.234  val 100.0 %", strides, 12345.6))
    assert len(line) <= 120
    assert "epoch 100/1000  loss 1.234  val 100.0 %  12346 s" in line
    assert ("strides" in line) == bool(strides)
    assert "\n" not in line


class Kept(pl.Callback):
    """Fails in the second epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("the end")


def test_updates_of_a_run(tmp_path: Path) -> None:
    for name, config, part, learns in (
        ("a", tiny(method="strided", epochs=1), "test", False),
        ("b", tiny(method="inner", epochs=1, validation=0.25), "val", True),
    ):
        updates: list[ProgressUpdate] = []
        run(config, tmp_path / name, callbacks=(RunProgress(name, updates.append),))
        (status,) = [update for update in updates if update.status]
        assert f"  {part} " in status.status
        assert bool(status.strides) == learns
        assert [update.is_over for update in updates] == [False] * (len(updates) - 1) + [True]
        assert {update.epoch for update in updates} == {"1/1"}
    updates = []
    with pytest.raises(RuntimeError, match="the end"):
        run(tiny(epochs=3), tmp_path / "c", callbacks=(RunProgress("c", updates.append), Kept()))
    assert updates[-1].is_over
