"""Progress of runs: a bar for each on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import lightning.pytorch as pl
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.report.text import shortened, strides_text
from anystride.lab.run.training import Classifier, strides_of

LONGEST, SHORTEST = 30, 10
"""Characters of a name beside its bar, on wide and on narrow terminals; of longer ones the middle is left out."""
BESIDE = 53
"""Columns that bar, epoch, loss, accuracy and time take."""
LINE = 120
"""Characters of an epoch's line at most."""
MANY = 4
"""Strides from which on they are shown with one digit."""


@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of one run.

    Args:
        run: its name.
        done: optimiser steps that are taken.
        total: steps of the whole run.
        epoch: as in `3/20`.
        status: loss and accuracy, at the end of an epoch; empty at other times.
        strides: what it has learned, at the end of an epoch; empty where nothing is learned.
        seconds: since the run began.
        ended: whether the run has ended, in whatever way: its bar goes.
    """

    run: str
    done: int
    total: int
    epoch: str
    status: str = ""
    strides: str = ""
    seconds: float = 0.0
    ended: bool = False


class Display:
    """A context that shows the updates of runs from all processes.

    On a terminal each run has a line of 80 columns at most, with its epoch, loss, accuracy and the time that is left,
    and its strides on the line below.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars: dict[str, TaskID] = {}
        self.strides: dict[str, str] = {}
        self.progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[epoch]}"),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self.live = Live(console=console, get_renderable=self._shown, refresh_per_second=4)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()

    def _shown(self) -> RenderableType:
        """The bars, each above the strides of its run."""
        parts: list[RenderableType] = []
        for task in list(self.progress.tasks):
            parts.append(self.progress.make_tasks_table([task]))
            if strides := self.strides.get(str(task.fields["run"])):
                parts.append(Text(f"  strides {strides}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def show(self, update: ProgressUpdate) -> None:
        """Move the run's bar; without a terminal, print a line when an epoch ends."""
        if update.ended:  # what came out is printed by who made the run
            if update.run in self.bars:
                self.progress.remove_task(self.bars.pop(update.run))
            return
        if update.run not in self.bars:
            name = shortened(update.run, min(LONGEST, max(SHORTEST, self.console.width - BESIDE)))
            self.bars[update.run] = self.progress.add_task(
                name, total=update.total, epoch="", status="", run=update.run
            )
        bar = self.bars[update.run]
        self.progress.update(bar, completed=update.done, epoch=update.epoch)
        if update.status:
            self.progress.update(bar, status=update.status)
            self.strides[update.run] = update.strides
        if update.status and not self.console.is_terminal:
            self.print_line(epoch_line(update))

    def print_line(self, line: str) -> None:
        """Print a line that stays on the screen, above the bars."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def epoch_line(update: ProgressUpdate) -> str:
    """An epoch's line for a log: of a long name and of many strides, the middle is left out."""
    parts = [shortened(update.run, LONGEST), update.epoch, update.status, f"{update.seconds:.0f} s"]
    room = LINE - len("  ".join([*parts, "strides "]))
    strides = [f"strides {shortened(update.strides, room)}"] if update.strides else []
    return "  ".join([*parts[:3], *strides, parts[3]])


def told(strides: Sequence[Sequence[float]]) -> str:
    """Strides for a line of 80 columns: many have fewer digits."""
    return strides_text(strides, digits=2 if len(strides) < MANY else 1)


class RunProgress(pl.Callback):
    """Sends a `ProgressUpdate` after each batch and each epoch of one run."""

    def __init__(self, run: str, send: Callable[[ProgressUpdate], None]) -> None:
        self.run, self.send = run, send

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        self.send(ProgressUpdate(self.run, done=0, total=0, epoch="", ended=True))

    def on_exception(self, *_: object) -> None:
        self.on_train_end()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._send_update(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        metrics = trainer.callback_metrics
        part = "val" if pl_module.config.validation else "test"
        status = f"loss {metrics['train/loss']:.3f} {part} {100 * metrics[f'{part}/accuracy']:.1f} %"
        learns = DOWNSAMPLERS[pl_module.config.method].learns
        self._send_update(trainer, status, told(strides_of(pl_module)) if learns else "")

    def _send_update(self, trainer: pl.Trainer, status: str = "", strides: str = "") -> None:
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        total = int(trainer.estimated_stepping_batches)
        seconds = time.perf_counter() - self.started
        self.send(ProgressUpdate(self.run, trainer.global_step, total, epoch, status, strides, seconds))
