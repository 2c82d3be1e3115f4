"""Progress of runs: a bar for each on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from anystride.lab.report.text import strides_text
from anystride.lab.run.training import Classifier, strides_of


@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of one run: `done` of its `total` batches. `status` is set at the end of an epoch."""

    run: str
    done: int
    total: int
    epoch: str
    status: str = ""
    seconds: float = 0.0


class Display:
    """A context that shows the updates of runs from all processes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars: dict[str, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[epoch]}"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def show(self, update: ProgressUpdate) -> None:
        """Move the run's bar; without a terminal, print a line when an epoch ends."""
        if update.run not in self.bars:
            self.bars[update.run] = self.progress.add_task(update.run, total=update.total, epoch="", status="")
        bar = self.bars[update.run]
        self.progress.update(bar, completed=update.done)
        if update.status:
            self.progress.update(bar, epoch=update.epoch, status=update.status)
        if update.status and not self.console.is_terminal:
            self.print_line(f"{update.run}  epoch {update.epoch}  {update.status}  {update.seconds:.0f} s")

    def print_line(self, line: str) -> None:
        """Print a line that stays on the screen, above the bars."""
        self.console.print(line, highlight=False, markup=False)


class RunProgress(pl.Callback):
    """Sends a `ProgressUpdate` after each batch and each epoch of one run."""

    def __init__(self, run: str, send: Callable[[ProgressUpdate], None]) -> None:
        self.run, self.send = run, send

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._send_update(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        metrics = trainer.callback_metrics
        strides = strides_text(strides_of(pl_module), digits=1)
        part, name = ("val", "validation") if pl_module.config.validation else ("test", "test")
        accuracy = 100 * metrics[f"{part}/accuracy"]
        status = f"loss {metrics['train/loss']:.3f}  {name} {accuracy:5.1f} %  strides {strides}"
        self._send_update(trainer, status)

    def _send_update(self, trainer: pl.Trainer, status: str = "") -> None:
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        total = int(trainer.estimated_stepping_batches)
        self.send(
            ProgressUpdate(self.run, trainer.global_step, total, epoch, status, time.perf_counter() - self.started)
        )
