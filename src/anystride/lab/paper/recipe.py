"""What a table or figure of the paper consists of: cells, each with its runs and the published value."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anystride.lab.data.names import is_known
from anystride.lab.errors import UsageError
from anystride.lab.paper.protocols import NOTES
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

MEAN = "Mean accuracy"
"""The row that the paper puts below a comparison. Its runs are all runs of the column, and so is its deviation."""

TITLES = {
    "strided": "Strided Conv.",
    "average": "Average Pooling",
    "spectral": "Spectral",
    "outer": "DiffStride",
    "inner": "DiffStride inner",
    "cosine": "DiffStride cosine",
    "release": "DiffStride of the release",
    "release-spectral": "Spectral of the release",
}
"""The columns' headings in the paper, where they are in it. "inner" is ours: its maps are as small as strided ones."""

METHODS = ("strided", "spectral", "outer", "inner")
REAL_METHODS = (*METHODS, "cosine")
"""On the real data that small machines can train on, the ramp of `convert_` is compared, too."""

RESERVED = ("model", "method", "strides", "shared_stride", "lam", "seed", "data", "budget_macs")
"""What a recipe compares: changed, it would be another table."""


@dataclass(frozen=True)
class Published:
    """A value of the paper: the mean and the standard deviation over its runs, None where none is given.

    `digits` are the decimals that the paper prints.
    """

    mean: float
    sd: float | None = None
    digits: int = 1


@dataclass(frozen=True)
class Cell:
    """One number of a table, or one point of a figure.

    `runs` are those that it averages over, `value` says what it takes from their records (see `values`), and
    `panel` is the heading over a group of columns. A cell with `follows` repeats those runs as strided
    convolutions with the nearest whole strides: its own `runs` are known when theirs have ended (`Grid.resolve`).
    """

    row: str
    column: str
    runs: tuple[RunConfig, ...]
    value: str = "accuracy"
    published: Published | None = None
    panel: str = ""
    follows: tuple[RunConfig, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The cells of a recipe on one data set.

    `stands_in_for` names the data set of the published values where `dataset` is a stand-in for it, and `note`
    says in one sentence what is trained, and how.
    """

    recipe: str
    dataset: str
    budget: float
    seeds: int
    cells: tuple[Cell, ...]
    stands_in_for: str = ""
    note: str = ""

    @property
    def runs(self) -> tuple[RunConfig, ...]:
        """Every run once, ordered such that each seed completes the comparison before the next one starts."""
        once = dict.fromkeys(run for cell in self.cells for run in (*cell.follows, *cell.runs))
        return tuple(sorted(once, key=lambda run: run.seed))

    @property
    def pending(self) -> tuple[Cell, ...]:
        """The cells whose runs depend on results that are not there yet."""
        return tuple(cell for cell in self.cells if len(cell.runs) < len(cell.follows))

    def resolve(self, record_of: Callable[[RunConfig], Record | None]) -> Grid:
        """The same grid with the runs that follow from records; `record_of` gives None for a run without one."""
        return replace(self, cells=tuple(_resolved(cell, record_of) for cell in self.cells))


def _resolved(cell: Cell, record_of: Callable[[RunConfig], Record | None]) -> Cell:
    if not cell.follows:
        return cell
    found = [(run, record_of(run)) for run in cell.follows]
    return replace(cell, runs=tuple(nearest_whole(run, record) for run, record in found if record is not None))


def nearest_whole(run: RunConfig, record: Record) -> RunConfig:
    """The run with strided convolutions at the whole strides nearest to those that `record` says it learned.

    Section 3.2 rounds 10.51 to 11, 1.20 to 1 and 32.23 to 32.
    """
    strides = tuple((float(max(1, round(first))), float(max(1, round(second)))) for first, second in record.strides)
    return replace(run, method="strided", strides=strides, lam=0.0, shared_stride=False)


@dataclass(frozen=True)
class Setting:
    """One data set of a recipe: the cells with one run each (of seed 0), and what to tell about them."""

    cells: tuple[Cell, ...]
    note: str
    stands_in_for: str = ""


@dataclass(frozen=True)
class Recipe:
    """A table or figure. `settings` makes the cells of one of `datasets`, whose first is the default.

    Several of `joins`, joined by "+", are a data set, too. `compares` names fields of `RunConfig` that differ between
    runs besides those of RESERVED.
    """

    name: str
    title: str
    source: str
    datasets: tuple[str, ...]
    stand_in: str
    settings: Callable[[str], Setting]
    joins: frozenset[str] = frozenset()
    compares: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Of which kind of `tree.KINDS` the files of one's own folder must be."""
        return "sound" if self.stand_in == NOTES else "image"

    def grid(self, dataset: str | None = None, budget: float = 1.0, seeds: int = 3, **changes: Any) -> Grid:
        """The runs on `dataset`, with `budget` times the epochs (at least one) and `changes` of `RunConfig`.

        `dataset` may also be a folder of one's own images or sounds, which has the paper's protocol.

        Raises:
            UsageError: a data set that the recipe does not know, a budget that is not positive, no seed, or a change
                of what the recipe compares.
        """
        chosen = self.datasets[0] if dataset is None else dataset
        parts = chosen.split("+")
        joined = len(parts) > 1 and set(parts) <= self.joins and len(set(parts)) == len(parts)
        if chosen not in self.datasets and not joined and not is_own(chosen):
            raise UsageError(
                f"dataset must be one of {', '.join(self.datasets)} for {self.name}, or a folder of one's own, got "
                f"{dataset!r}"
            )
        if not 0 < budget < float("inf"):
            raise UsageError(f"budget must be a finite number greater than 0, got {budget}; 1 is the full protocol")
        if seeds < 1:
            raise UsageError(f"seeds must be at least 1, got {seeds}; the paper has 3")
        check_changes(changes, (*RESERVED, *self.compares))
        setting = self.settings(chosen)

        def repeat(runs: Iterable[RunConfig]) -> tuple[RunConfig, ...]:
            changed = [replace(run, **changes) for run in runs]
            shortened = [replace(run, epochs=max(1, round(budget * run.epochs))) for run in changed]
            return tuple(replace(run, seed=seed) for seed in range(seeds) for run in shortened)

        cells = tuple(replace(cell, runs=repeat(cell.runs), follows=repeat(cell.follows)) for cell in setting.cells)
        return Grid(self.name, chosen, budget, seeds, cells, setting.stands_in_for, setting.note)


def is_own(dataset: str) -> bool:
    """Whether a data set is somebody's folder: a path, not a name."""
    return not is_known(dataset) and (os.sep in dataset or Path(dataset).is_dir())


@dataclass(frozen=True)
class Measurement:
    """A table that is measured on this device, without a training."""

    name: str
    title: str
    source: str


def check_changes(changes: dict[str, Any], reserved: tuple[str, ...] = RESERVED) -> None:
    """Check names of fields that every run of a recipe is to have other than its protocol.

    Raises:
        UsageError: what the recipe compares, or no field of `RunConfig`.
    """
    free = [field.name for field in dataclasses.fields(RunConfig) if field.name not in reserved]
    for name, value in changes.items():
        if name in reserved:
            raise UsageError(f"{name} is what the recipe compares, got {value!r}; change one of {', '.join(free)}")
        if name not in free:
            raise UsageError(f"{name} is not a part of a run's configuration, got {value!r}; see {', '.join(free)}")


def start_text(strides: Iterable[float]) -> str:
    """Initial strides as the paper writes them: `(2, 2, 2)`."""
    return f"({', '.join(f'{stride:g}' for stride in strides)})"


def comparison(
    base: RunConfig,
    starts: Iterable[tuple[float, ...]],
    table: dict[str, dict[str, Published]],
    *,
    methods: Iterable[str] = METHODS,
    value: str = "accuracy",
    panel: str = "",
) -> tuple[Cell, ...]:
    """The paper's usual table: initial strides down, downsamplers across, and a row of means.

    `starts` has one stride per downsampler, for both axes; `table` holds the published values by row and method.
    """
    cells = []
    runs = {method: [replace(base, method=method, strides=both(start)) for start in starts] for method in methods}
    for number, start in enumerate(starts):
        row = start_text(start)
        cells += [
            Cell(row, TITLES[method], (runs[method][number],), value, table.get(row, {}).get(method), panel)
            for method in methods
        ]
    cells += [
        Cell(MEAN, TITLES[method], tuple(runs[method]), value, table.get(MEAN, {}).get(method), panel)
        for method in methods
    ]
    return tuple(cells)


def point(cell: Cell, value: str, across: str, up: str) -> list[Cell]:
    """A point of a figure: two cells with the same runs, `value` on the panel `across` and the cell's own on `up`."""
    return [replace(cell, value=value, published=None, panel=across), replace(cell, panel=up)]


def both(strides: Iterable[float]) -> tuple[tuple[float, float], ...]:
    """The same stride for both axes, as the paper starts from."""
    return tuple((float(stride), float(stride)) for stride in strides)


def _published(numbers: list[str]) -> Published:
    mean, sd = (*map(float, numbers), None)[:2]
    assert mean is not None
    return Published(mean, sd, max(len(number.partition(".")[2]) for number in numbers))


def transcribed(text: str, methods: Iterable[str]) -> dict[str, dict[str, Published]]:
    """A table as it is printed: a row per line, its name, a colon, and `mean sd` per method, separated by commas.

    Example:
        >>> transcribed("(2, 2): 92.3 0.2, 91.5 0.2", ["strided", "spectral"])["(2, 2)"]["spectral"]
        Published(mean=91.5, sd=0.2, digits=1)
    """
    columns = tuple(methods)
    table = {}
    for line in text.strip().splitlines():
        row, _, entries = line.partition(":")
        values = [_published(entry.split()) for entry in entries.split(",")]
        table[row.strip()] = dict(zip(columns, values, strict=True))
    return table
