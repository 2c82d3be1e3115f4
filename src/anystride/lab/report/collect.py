"""All results in a folder: runs, the paper's tables that were asked for, measurements, and what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from anystride.lab.errors import UsageError
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.grid import GRIDS, MEASURED, RUNS, GridRequest, load_measurement, load_request
from anystride.lab.report.costs import counted_anew
from anystride.lab.report.text import printable
from anystride.lab.run.config import RunConfig
from anystride.lab.run.folder import CONFIGURATION, RECORD
from anystride.lab.run.record import Record, load

DEEPEST = 3
"""How far below the results folder runs may lie, as in paper/runs/KEY."""
LONGEST_PROBLEM = 300
"""Characters of a line about a file that cannot be read."""


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Args:
        folder: where it lies, below the results folder.
        record: what it left.
    """

    folder: Path
    record: Record


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper that was asked for.

    Args:
        home: the folder that was --out of the command, below the results folder.
        request: what was asked for.
    """

    home: Path
    request: GridRequest


@dataclass
class Results:
    """What lies in a results folder.

    Args:
        root: the folder.
        runs: those that have ended, by their folders.
        tables: in the paper's order.
        measurements: what was measured at once, see `paper.grid.load_measurement`.
        unfinished: folders of runs that have not ended.
        problems: one line for each file that cannot be read.
    """

    root: Path
    runs: dict[Path, Run] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def _by_configuration(self) -> dict[tuple[Path, RunConfig], Run]:
        return {(run.folder.parent, run.record.config): run for run in self.runs.values()}

    def run_of(self, home: Path, config: RunConfig) -> Run | None:
        """The run of a configuration among those of `home`; None where it has not ended or cannot be read."""
        return self._by_configuration.get((home / RUNS, config))


def collect(root: Path) -> Results:
    """Read everything in a folder, and in those below it, that `anystride train`, `demo` and `paper` leave.

    Args:
        root: the folder.

    Raises:
        UsageError: there is nothing of the kind.
    """
    results = Results(root)
    for folder in _folders(root, DEEPEST, results.problems):
        below = folder.relative_to(root)
        if _exists(folder / RECORD):
            try:
                results.runs[below] = Run(below, counted_anew(load(folder / RECORD)))
            except UsageError as error:
                results.problems.append(_line(folder / RECORD, error, root))
        elif _exists(folder / CONFIGURATION):
            results.unfinished.append(below)
        for path in _files(folder / GRIDS):
            try:
                results.tables.append(Table(below, load_request(path)))
            except UsageError as error:
                results.problems.append(_line(path, error, root))
        for path in _files(folder / MEASURED):
            try:
                results.measurements.append(load_measurement(path))
            except UsageError as error:
                results.problems.append(_line(path, error, root))
    recipes = list(RECIPES)
    results.tables.sort(key=lambda table: recipes.index(table.request.recipe))
    if not (results.runs or results.tables or results.measurements or results.problems):
        raise UsageError(
            f"RESULTS_DIR must hold folders with a {RECORD}, at most {DEEPEST} levels below it, or {GRIDS}/, which "
            f"'anystride paper' leaves, got {str(root)!r}"
        )
    return results


def _folders(folder: Path, levels: int, problems: list[str]) -> Iterator[Path]:
    """A folder and those below it, in the order of their names; hidden ones are left out."""
    yield folder
    if levels == 0:
        return
    try:
        with os.scandir(folder) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            problems.append(f"{printable(str(folder))} could not be read: {error.strerror}")
        return
    for name in below:
        yield from _folders(folder / name, levels - 1, problems)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
    except OSError:
        return []


def _exists(path: Path) -> bool:
    """Whether there is anything of this name: a broken link or a pipe is told as what cannot be read."""
    return os.path.lexists(path)


def _line(path: Path, error: UsageError, root: Path) -> str:
    """One line about a file, by its place below the results folder."""
    reason = " ".join(str(error).removeprefix(repr(str(path))).removeprefix(" ").split())
    text = printable(f"{path.relative_to(root)} could not be read: it {reason}")
    return text if len(text) <= LONGEST_PROBLEM else f"{text[: LONGEST_PROBLEM - 1]}…"
