"""A recipe's grid of runs: which are finished, which are to be made, by whom, and what came out."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from anystride.lab.commands.options import check
from anystride.lab.data.catalogue import open_source
from anystride.lab.errors import UsageError
from anystride.lab.paper.catalogue import MEASUREMENTS, RECIPES
from anystride.lab.paper.recipe import METHODS, Grid, check_changes, is_own
from anystride.lab.record import write
from anystride.lab.report.text import counted
from anystride.lab.run.config import RunConfig
from anystride.lab.run.defaults import slow_precision
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.folder import readable
from anystride.lab.run.job import Job, Outcome
from anystride.lab.run.progress import Display
from anystride.lab.run.ready import check_batch
from anystride.lab.run.record import Record

ONLY = "--only must be a part of a run's name, which --plan lists, got {!r}"
RUNS, GRIDS, MEASURED = "runs", "grids", "measurements"
LONGEST = 60
"""Characters of a path or a value in the name of a request's file."""
MOST_SEEDS, LARGEST = 1000, 10**9
"""Of a request: runs per cell, and any whole number among its changes."""
LARGEST_FILE = 2**20
"""Bytes of a request's file: it has about 150."""

Executor = Callable[[Sequence[Job], Display], Iterator[Outcome]]


@dataclass(frozen=True)
class GridRequest:
    """What somebody asked for: a recipe on a data set.

    Args:
        recipe: name of the recipe.
        dataset: what it is made on.
        budget: share of the epochs.
        seeds: runs per cell.
        changes: fields of `RunConfig` that every run has other than its protocol.
    """

    recipe: str
    dataset: str
    budget: float
    seeds: int
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of a file, as in `table3-scenes`, followed by what differs from the protocol."""
        data = self.dataset.replace("+", "-")
        if is_own(self.dataset):  # a path, of which folders of the same name must stay apart
            data = f"{_plain(Path(self.dataset).name)}-{_digest(self.dataset)}"
        parts = [self.recipe, data]
        parts += [] if self.budget == 1 else [f"budget{self.budget:g}"]
        parts += [_plain(f"{name}{value}".replace("_", "")) for name, value in sorted(self.changes.items())]
        return "-".join(parts)

    def grid(self) -> Grid:
        """The cells and runs that were asked for."""
        if self.recipe not in RECIPES:
            raise UsageError(f"the recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}")
        return RECIPES[self.recipe].grid(self.dataset, self.budget, self.seeds, **self.changes)


def _plain(text: str) -> str:
    """A text as a part of a file's name; a digest keeps texts apart that would then be equal."""
    plain = re.sub(r"[^\w.-]+", "-", text).strip("-")[:LONGEST]
    return plain if plain == text else f"{plain}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def run_folder(out: Path, config: RunConfig) -> Path:
    """Where a run lies. It follows from the configuration alone: recipes share their runs."""
    return out / RUNS / config.key


def record_in(out: Path) -> Callable[[RunConfig], Record | None]:
    """The record of a finished run under `out`; None where there is none that can be read: its own job says why."""

    return lambda config: readable(config, run_folder(out, config))


def save_request(request: GridRequest, out: Path) -> None:
    """Save what was asked for; a report makes its tables from this. More seeds replace fewer."""
    path = out / GRIDS / f"{request.name}.json"
    if path.is_file() and load_request(path).seeds >= request.seeds:
        return
    values = {"recipe": request.recipe, "dataset": request.dataset, "budget": request.budget, "seeds": request.seeds}
    write({"schema": 1, **values, "changes": request.changes}, path)


def load_request(path: Path) -> GridRequest:
    """Read a request that `save_request` wrote.

    Raises:
        UsageError: a file that holds none, or one with a value that no command could have asked for; the message names
            the file and the field.
    """
    try:
        request = GridRequest(**_read(path))
        _check(request)
        request.grid()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{str(path)!r} does not say which table was asked for ({_reason(error)}); remove it"
        ) from None
    return request


def _check(request: GridRequest) -> None:
    """ValueError for a field that has not the type or the range of its option."""
    for name in ("recipe", "dataset"):
        if not isinstance(getattr(request, name), str):
            raise UsageError(f"{name} must be a text, got {getattr(request, name)!r}")
    share, seeds, changes = request.budget, request.seeds, request.changes
    if type(share) not in (int, float) or not 0 < share <= 1:
        raise UsageError(f"budget must be a share above 0 and up to 1, got {share!r}")
    if type(seeds) is not int or not 1 <= seeds <= MOST_SEEDS:
        raise UsageError(f"seeds must be a whole number from 1 to {MOST_SEEDS}, got {seeds!r}")
    if not isinstance(changes, dict):
        raise UsageError(f"changes must be fields of a run's configuration, got {changes!r}")
    for name, value in changes.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UsageError(f"changes: {name} must be at most {LARGEST:,}, got {value}")
    check_changes(changes)
    check(replace(RunConfig(), **changes), "changes")


def saved_requests(out: Path) -> list[GridRequest]:
    """Everything that was asked for in a results folder.

    Raises:
        UsageError: as `load_request`.
    """
    return [load_request(path) for path in sorted((out / GRIDS).glob("*.json"))]


def execute(
    request: GridRequest, out: Path, environment: RunEnvironment, executor: Executor, console: Console, only: str = ""
) -> tuple[Grid, list[Outcome]]:
    """Make the runs of a request that are not finished; returns its grid and the outcomes without a record.

    `only` picks the runs whose name contains it. Runs that follow from other runs' results come second.
    """
    problems: list[Outcome] = []
    grid = request.grid()
    done: set[RunConfig] = set()
    while True:
        grid = grid.resolve(record_in(out))
        rest = [config for config in grid.runs if config not in done and only in config.key]
        if not rest:
            break
        if not done:  # what is wrong with the data is found out before anything is written
            _tell(rest, out, environment, console)
            save_request(request, out)
        done.update(rest)
        problems += _make(rest, out, environment, executor, console)
    if only and not done:
        raise UsageError(ONLY.format(only))
    return grid, problems


def _missing(configs: Sequence[RunConfig], out: Path) -> list[RunConfig]:
    record_of = record_in(out)
    return [config for config in configs if record_of(config) is None]


def _tell(configs: Sequence[RunConfig], out: Path, environment: RunEnvironment, console: Console) -> None:
    """Say what was found of the data that are needed; UsageError where they are missing."""
    sources = {config: open_source(config, environment.root, environment.download) for config in _missing(configs, out)}
    for counts in dict.fromkeys(source.counts for source in sources.values()):
        if counts:
            console.print(counts, highlight=False, markup=False)
    for warning in filter(None, dict.fromkeys(map(slow_precision, sources))):
        console.print(warning, highlight=False)
    for config, source in sources.items():
        check_batch(config, source, environment)  # here, since all runs of a folder that is too small would fail


def _make(
    configs: Sequence[RunConfig], out: Path, environment: RunEnvironment, executor: Executor, console: Console
) -> Iterable[Outcome]:
    missing = _missing(configs, out)
    before = len(configs) - len(missing)
    console.print(f"{counted(len(configs), 'run')}, {before} of them finished before.", highlight=False)
    started, problems = time.perf_counter(), []
    jobs = [
        Job(f"[{number}/{len(missing)}] {config.key}", config, run_folder(out, config), environment)
        for number, config in enumerate(missing, start=1)
    ]
    with Display(console) as display:
        for number, outcome in enumerate(executor(jobs, display), start=1):
            if outcome.record is None:
                problems.append(outcome)
                display.print_line(f"{outcome.job.label}  NOT MADE: {outcome.problem}")
                continue
            left = (time.perf_counter() - started) / number * (len(jobs) - number)
            accuracy = 100 * outcome.record.accuracy
            rest = f", {_duration(left)} left for {counted(len(jobs) - number, 'run')}" if number < len(jobs) else ""
            display.print_line(f"{outcome.job.label}  {accuracy:.1f} %{rest}")
    return problems


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"


def save_measurement(name: str, values: dict[str, Any], out: Path) -> Path:
    """Write a measurement; gives back its file."""
    path = out / MEASURED / f"{name}.json"
    write({"schema": 1, "recipe": name, "command": ["anystride", *sys.argv[1:]], **values}, path)
    return path


def load_measurement(path: Path) -> dict[str, Any]:
    """Read a measurement that `save_measurement` wrote.

    Raises:
        UsageError: a file that holds none; the message says what is wrong with it.
    """
    try:
        values = _read(path)
        if values["recipe"] not in MEASUREMENTS:
            raise ValueError(f"recipe must be one of {', '.join(MEASUREMENTS)}, got {values['recipe']!r}")
        settings: dict[str, Any] = values["settings"]
        for name in ("device", "width", "batch_size", "memory"):
            if not isinstance(settings[name], str | int):
                raise ValueError(f"settings: {name} must be a text or a number, got {settings[name]!r}")
        for row, ratios in values["ratios"].items():
            known = values["published"].get(row, {})
            for ratio in (*(ratios[method] for method in METHODS), *known.values()):
                if type(ratio) not in (int, float) or not 0 <= ratio <= LARGEST:
                    raise ValueError(f"ratios must be numbers of at least 0, got {ratio!r}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not a readable measurement ({_reason(error)}); remove it") from None
    return values


def _read(path: Path) -> dict[str, Any]:
    """The values of a small JSON file; a pipe is not waited for."""
    if not path.is_file() or path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"no regular file of at most {LARGEST_FILE:,} bytes")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if values.pop("schema") != 1:
        raise ValueError("another schema")
    return values


def _reason(error: Exception) -> str:
    """What is wrong with a file, in words: a KeyError alone is no sentence."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
