"""A recipe's grid of runs: which are finished, which are to be made, by whom, and what came out."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from anystride.lab.data.catalogue import open_source
from anystride.lab.errors import UsageError
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.recipe import Grid, is_own
from anystride.lab.record import write
from anystride.lab.run.config import RunConfig
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.folder import finished
from anystride.lab.run.job import Job, Outcome
from anystride.lab.run.progress import Display
from anystride.lab.run.ready import check_batch
from anystride.lab.run.record import Record

RUNS, GRIDS, MEASURED = "runs", "grids", "measurements"
LONGEST = 60
"""Characters of a path or a value in the name of a request's file."""

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
    """The record of a finished run under `out`, or None."""
    return lambda config: finished(config, run_folder(out, config))


def save_request(request: GridRequest, out: Path) -> None:
    """Save what was asked for; a report makes its tables from this. More seeds replace fewer."""
    path = out / GRIDS / f"{request.name}.json"
    if path.is_file() and load_request(path).seeds >= request.seeds:
        return
    values = {"recipe": request.recipe, "dataset": request.dataset, "budget": request.budget, "seeds": request.seeds}
    write({"schema": 1, **values, "changes": request.changes}, path)


def load_request(path: Path) -> GridRequest:
    """Read a request that `save_request` wrote; UsageError for a file that holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("schema") != 1:
            raise ValueError("another schema")
        return GridRequest(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{str(path)!r} does not say which table was asked for ({error}); remove it") from None


def saved_requests(out: Path) -> list[GridRequest]:
    """Everything that was asked for in a results folder."""
    return [load_request(path) for path in sorted((out / GRIDS).glob("*.json"))]


def execute(
    request: GridRequest, out: Path, environment: RunEnvironment, executor: Executor, console: Console, only: str = ""
) -> tuple[Grid, list[Outcome]]:
    """Make the runs of a request that are not finished; returns its grid and the outcomes without a record.

    `only` picks the runs whose name contains it. Runs that follow from other runs' results come second.
    """
    save_request(request, out)
    problems: list[Outcome] = []
    grid = request.grid()
    done: set[RunConfig] = set()
    while True:
        grid = grid.resolve(record_in(out))
        rest = [config for config in grid.runs if config not in done and only in config.key]
        if not rest:
            break
        done.update(rest)
        problems += _make(rest, out, environment, executor, console)
    if only and not done:
        raise UsageError(f"--only must be a part of a run's name, which --plan lists, got {only!r}")
    return grid, problems


def _make(
    configs: Sequence[RunConfig], out: Path, environment: RunEnvironment, executor: Executor, console: Console
) -> Iterable[Outcome]:
    record_of = record_in(out)
    missing = [config for config in configs if record_of(config) is None]
    console.print(
        f"{len(configs)} runs, {len(configs) - len(missing)} of them finished before.", highlight=False, markup=False
    )
    sources = {config: open_source(config, environment.root, environment.download) for config in missing}
    for counts in dict.fromkeys(source.counts for source in sources.values()):
        if counts:
            console.print(counts, highlight=False, markup=False)
    for config, source in sources.items():
        check_batch(config, source, environment)  # here, since all runs of a folder that is too small would fail
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
            display.print_line(
                f"{outcome.job.label}  {accuracy:.1f} %, {_duration(left)} left for {len(jobs) - number} runs"
            )
    return problems


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"


def save_measurement(name: str, values: dict[str, Any], out: Path) -> Path:
    """Write a measurement; gives back its file."""
    path = out / MEASURED / f"{name}.json"
    write({"schema": 1, "recipe": name, "command": ["anystride", *sys.argv[1:]], **values}, path)
    return path
