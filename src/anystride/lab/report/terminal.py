"""Records of several runs in one table, and in one sentence."""

from __future__ import annotations

import statistics
import textwrap
from dataclasses import dataclass

from rich.table import Table

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.report.text import sizes_text, strides_text
from anystride.lab.run.record import Record

START = len("(3, 2, 3)")
"""Characters of a line of strides at the start."""

Start = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Group:
    """The runs of one method from one start: they differ by their seeds only."""

    method: str
    start: Start
    records: tuple[Record, ...]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies in per cent, one per seed."""
        return [100 * record.accuracy for record in self.records]

    @property
    def accuracy(self) -> float:
        """Mean test accuracy in per cent."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the accuracy over the seeds; None for a single one."""
        return statistics.stdev(self.accuracies) if len(self.records) > 1 else None

    @property
    def mega_macs(self) -> float:
        """Millions of multiply-accumulates per image after training, mean over the seeds."""
        return statistics.fmean(record.multiply_accumulates for record in self.records) / 1e6

    @property
    def accuracy_text(self) -> str:
        return f"{self.accuracy:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")

    @property
    def start_text(self) -> str:
        return f"({strides_text([list(pair) for pair in self.start])})"


def group(records: list[Record]) -> list[Group]:
    """Collect the seeds of each (start, method), in the order in which they first appear."""
    groups: dict[tuple[Start, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.config.strides, record.config.method), []).append(record)
    return [Group(method, start, tuple(runs)) for (start, method), runs in groups.items()]


def results_table(groups: list[Group]) -> Table:
    """Accuracy, cost, strides and map sizes, one row per group; strides and sizes are those of the first seed."""
    seeds = max(len(each.records) for each in groups)
    spread = f"mean ± sd, {seeds} seeds" if seeds > 1 else "1 seed"
    table = Table(title=f"Test accuracy by downsampler and start ({spread})", title_justify="left", title_style="bold")
    # A terminal of 80 columns has room for all words: long texts break between words, numbers never do. Rich makes
    # columns narrow without regard to their least width: two of them may change, of which each word has 9 characters.
    table.add_column("start", no_wrap=True)
    table.add_column("downsampler", width=len("raised cosine"))
    table.add_column("accuracy\n%", justify="right", no_wrap=True)
    table.add_column("MMAC per\nexample", justify="right", no_wrap=True)
    table.add_column("final strides" + ("\n(first seed)" if seeds > 1 else ""))
    table.add_column("map sizes")
    previous: Start | None = None
    for each in groups:
        if previous is not None and each.start != previous:
            table.add_section()
        best = max(other.accuracy for other in groups if other.start == each.start)
        first = each.records[0]
        table.add_row(
            textwrap.fill(each.start_text, START) if each.start != previous else "",
            DOWNSAMPLERS[each.method].title,
            f"[bold]{each.accuracy_text}[/bold]" if each.accuracy == best else each.accuracy_text,
            f"{each.mega_macs:,.1f}",
            strides_text(first.strides),
            sizes_text(first.map_sizes),
        )
        previous = each.start
    return table


def summary(groups: list[Group]) -> str:
    """What the comparison shows, from its records: how accuracy changes from the first start to the last."""
    good, poor = groups[0], groups[-1]
    by_key = {(each.method, each.start): each for each in groups}
    changes = []
    for method in dict.fromkeys(each.method for each in groups):
        change = by_key[method, poor.start].accuracy - by_key[method, good.start].accuracy
        changes.append(f"{change:+.1f} points with {DOWNSAMPLERS[method].title.replace(', ', ' ')}")
    listed = ", ".join(changes[:-1]) + " and " + changes[-1]
    return f"Starting from {poor.start_text} instead of {good.start_text} changes the accuracy by {listed}."
