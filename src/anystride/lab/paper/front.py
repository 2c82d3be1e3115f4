"""Points of accuracy against costs, each a mean over seeds: which of them nothing beats, and who wins at which cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.paper.recipe import Grid
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

ACCURACY = "accuracy"
FITTED = "fitted"
"""The series of networks whose strides fit a budget by their costs alone, and never learn."""
SERIES = {name: kind.title for name, kind in DOWNSAMPLERS.items()} | {FITTED: "Low-pass, strides fitted, not learned"}
"""What a series is called."""


@dataclass(frozen=True)
class Point:
    """One configuration, over its seeds.

    Args:
        series: a downsampler, or `FITTED`.
        name: of the configuration in its table, such as "(2, 2, 2)".
        macs: multiply-accumulates per example at the end, the mean.
        accuracy: in %, the mean.
        sd: of the accuracy, the sample's; None for one seed.
        seeds: how many.
        hours: of training, the median of one run: a run that was held up would carry a mean away.
        config: of the first seed.
    """

    series: str
    name: str
    macs: float
    accuracy: float
    sd: float | None
    seeds: int
    hours: float
    config: RunConfig


def points(grid: Grid, record_of: Callable[[RunConfig], Record | None]) -> list[Point]:
    """A point for each cell of accuracies that has a finished run."""
    found = []
    for cell in grid.cells:
        records = [record for run in cell.runs if (record := record_of(run)) is not None]
        if cell.value == ACCURACY and records:
            found.append(_point(cell.row, records))
    return found


def _point(name: str, records: Sequence[Record]) -> Point:
    accuracies = [100 * record.accuracy for record in records]
    return Point(
        series=_series(records[0].config),
        name=name,
        macs=statistics.fmean(record.multiply_accumulates for record in records),
        accuracy=statistics.fmean(accuracies),
        sd=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        seeds=len(records),
        hours=statistics.median(record.seconds["train"] for record in records) / 3600,
        config=replace(records[0].config, seed=0),
    )


def _series(config: RunConfig) -> str:
    return FITTED if config.budget_macs and config.stride_until == 0 else config.method


def front(found: Iterable[Point]) -> list[Point]:
    """The points that no other is as cheap and as good as, by costs."""
    best: list[Point] = []
    for point in sorted(found, key=lambda each: (each.macs, -each.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def best_within(found: Iterable[Point], macs: float) -> Point | None:
    """The best point that costs at most so much."""
    return max((point for point in found if point.macs <= macs), key=lambda point: point.accuracy, default=None)


@dataclass(frozen=True)
class Rivals:
    """What one learned point is compared with.

    Args:
        learned: the point.
        limit: what it was allowed to cost.
        strided: the best strided network within that limit.
        spectral: the best network with spectral pooling within it.
        fitted: the network whose strides fit the same budget by their costs alone.
    """

    learned: Point
    limit: float
    strided: Point | None
    spectral: Point | None
    fitted: Point | None

    @property
    def gain(self) -> float | None:
        """Percentage points over the best strided network; None where there is none."""
        return None if self.strided is None else self.learned.accuracy - self.strided.accuracy


def rivals(found: Sequence[Point]) -> list[Rivals]:
    """For each learned point whose budget is what strided convolutions cost, the best fixed strides within it."""
    fixed = {series: [point for point in found if point.series == series] for series in ("strided", "spectral")}
    costs = {point.config.strides: point.macs for point in fixed["strided"]}
    fitted = {point.config.budget_macs: point for point in found if point.series == FITTED}
    made = []
    for point in found:
        limit = costs.get(point.config.budget_strides or ())
        if limit is not None and point.series != FITTED:
            strided, spectral = (best_within(fixed[series], limit) for series in ("strided", "spectral"))
            made.append(Rivals(point, limit, strided, spectral, fitted.get(point.config.budget_macs)))
    return made
