"""Progress of runs: a bar for each on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.report.text import IN_HOURS, duration_text, printable, shortened, strides_text
from anystride.lab.run.training import Classifier, strides_of

LINE = 120
"""Columns of a line in a log at most."""
NAME, SMALLEST_NAME = 40, 12
"""Columns of a run's name, at most and on a narrow terminal."""
BAR, SMALLEST_BAR = 10, 3
"""Columns of a bar: with fewer, names become shorter first."""


@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of one run.

    Args:
        run: its label.
        done: batches that are done.
        total: batches of the whole run.
        epoch: such as 3/20.
        status: loss and accuracy in words; set at the end of an epoch.
        strides: in words; empty where none is learned.
        seconds: since the training began.
        is_over: whether the training has ended, well or not.
    """

    run: str
    done: int
    total: int
    epoch: str
    status: str = ""
    strides: str = ""
    seconds: float = 0.0
    is_over: bool = False


class Display:
    """A context that shows the updates of runs from all processes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars: dict[str, TaskID] = {}
        self.latest: dict[str, ProgressUpdate] = {}
        self.progress = Bars(console)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def show(self, update: ProgressUpdate) -> None:
        """Move the run's bar, in whose place its last epoch stays in a line; without a terminal, print every epoch."""
        if update.run not in self.bars:
            name = printable(update.run)
            self.bars[update.run] = self.progress.add_task(name, total=update.total, epoch="", status="", strides="")
        bar = self.bars[update.run]
        self.progress.update(bar, completed=update.done, epoch=update.epoch)
        if update.status:
            self.latest[update.run] = update
            self.progress.update(bar, status=update.status, strides=update.strides)
            if not self.console.is_terminal:
                self.print_line(epoch_line(update))
        if update.is_over:
            self.progress.update(bar, visible=False)
            if self.console.is_terminal and update.run in self.latest:
                self.print_line(epoch_line(self.latest[update.run]))

    def print_line(self, line: str) -> None:
        """Print a line that stays on the screen, above the bars."""
        self.console.print(line, highlight=False, markup=False)


def epoch_line(update: ProgressUpdate) -> str:
    """One epoch of a run in a line of at most `LINE` columns: what does not fit is left out in the middle."""
    name = shortened(printable(update.run), NAME)
    line = f"{name}  epoch {update.epoch}  {update.status}  {update.seconds:.0f} s"
    if not update.strides:
        return line
    line += "  strides "
    return line + shortened(update.strides, LINE - len(line))


class Bars(Progress):
    """A line for each run: name, bar, epoch, loss and accuracy, time left; its strides stand on the line below."""

    def __init__(self, console: Console) -> None:
        self.screen = console
        self.bar, self.left = BarColumn(bar_width=None), TimeRemainingColumn(compact=True)
        # Speed is that of the last minutes: an epoch ends with an evaluation, in which no batch is done.
        super().__init__(
            self.bar, self.left, console=console, disable=not console.is_terminal, speed_estimate_period=300
        )

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Rich's table of tasks, in the layout of this class."""
        shown = [task for task in tasks if task.visible]
        width = self.screen.width - 1
        # On a low screen many runs have a line each, or the last ones would not be seen.
        with_strides = 2 * len(shown) < self.screen.height
        texts = [(task.fields["epoch"], task.fields["status"], self._time(task)) for task in shown]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        name = min(NAME, max(SMALLEST_NAME, width - sum(widths) - BAR - 4))
        name = min(name, max((len(task.description) for task in shown), default=0))
        table = Table.grid(padding=0)
        for task, each in zip(shown, texts, strict=True):
            table.add_row(self._line(task, each, [name, max(SMALLEST_BAR, width - name - sum(widths) - 4), *widths]))
            if task.fields["strides"] and with_strides:
                text = f"  strides {task.fields['strides']}"
                table.add_row(Text(shortened(text, width), style="dim"))
        return table

    def _time(self, task: Task) -> str:
        seconds = task.time_remaining
        if seconds is None:
            return ""
        return f"{self.left(task)} left" if seconds < IN_HOURS else f"{duration_text(seconds)} left"

    def _line(self, task: Task, texts: Sequence[str], widths: Sequence[int]) -> Table:
        line = Table.grid(padding=(0, 1, 0, 0))
        for width in widths:
            line.add_column(width=width, no_wrap=True)
        name = Text(shortened(task.description, widths[0]), style="bold")
        line.add_row(name, self.bar(task), *(Text(text) for text in texts))
        return line


class RunProgress(pl.Callback):
    """Sends a `ProgressUpdate` after each batch and each epoch of one run, and when it is over."""

    def __init__(self, run: str, send: Callable[[ProgressUpdate], None]) -> None:
        self.run, self.send = run, send

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._send_update(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        metrics, config = trainer.callback_metrics, pl_module.config
        part = "val" if config.validation else "test"
        status = f"loss {_loss_text(float(metrics['train/loss']))}  {part} {100 * metrics[f'{part}/accuracy']:.1f} %"
        strides = strides_text(strides_of(pl_module), digits=1) if DOWNSAMPLERS[config.method].learns else ""
        self._send_update(trainer, status, strides)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._send_update(trainer, is_over=True)

    def on_exception(self, trainer: pl.Trainer, *_: object) -> None:
        if hasattr(self, "started"):
            self._send_update(trainer, is_over=True)

    def _send_update(self, trainer: pl.Trainer, status: str = "", strides: str = "", is_over: bool = False) -> None:
        epoch = f"{min(trainer.current_epoch + 1, trainer.max_epochs or 1)}/{trainer.max_epochs}"
        total, seconds = int(trainer.estimated_stepping_batches), time.perf_counter() - self.started
        self.send(ProgressUpdate(self.run, trainer.global_step, total, epoch, status, strides, seconds, is_over))


def _loss_text(loss: float) -> str:
    return f"{loss:.3f}" if abs(loss) < 100 else f"{loss:.1e}"
