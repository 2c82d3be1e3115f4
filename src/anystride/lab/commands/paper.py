"""`anystride paper`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anystride.lab.commands.common import Commands, console, writable
from anystride.lab.commands.options import add_data_folder, add_processes, add_run_option, run_environment
from anystride.lab.commands.parsing import Parser, number, share, whole
from anystride.lab.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from anystride.lab.paper.grid import GridRequest
    from anystride.lab.paper.recipe import Grid, Recipe

CHANGES = (
    "width", "epochs", "image_size", "train_size", "test_size", "batch_size", "precision", "accumulate", "compile",
    "threads", "smoothness", "grid", "stride_lr", "stride_until", "decay", "lam_over", "label_smoothing",
    "augment",
    "label_pattern", "skip_bad",
)  # fmt: skip
"""Options that change every run of a recipe; without them the runs are the paper's, or the stand-in's."""
LIST = "list"
REPEATS = 20
"""Steps of a measurement."""


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "paper",
        help="the paper's tables and figures: plan them, make their runs, see their values",
        description="Make the runs of a table or figure of the paper that are not finished, and show its values beside "
        "the published ones. An interrupted run goes on where it stopped; the same command in several places, on a "
        "folder that they share, divides the runs. 'anystride paper list' names all recipes.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="such as table3 or figure4; list shows all")
    parser.add_argument(
        "--dataset",
        "--data",
        metavar="NAME",
        help="default: the paper's; scenes and notes stand in; or a folder of your own images (for table1, table2 and "
        "table-a7 of sounds)",
    )
    parser.add_argument("--plan", action="store_true", help="list runs, device time and disk; start nothing")
    parser.add_argument(
        "--rate",
        type=number(0, above=True),
        metavar="GMACS",
        help="with --plan: another device's speed in training, 10^9 multiply-accumulates per second",
    )
    parser.add_argument("--budget", type=share, default=1.0, metavar="SHARE", help="share of the epochs, as in 5%%")
    parser.add_argument("--seeds", type=whole(1), default=3, metavar="N", help="runs per cell (default 3)")
    parser.add_argument("--only", default="", metavar="NAME", help="only runs whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), metavar="DIR", help="default runs/paper")
    add_data_folder(parser)

    changes = parser.add_argument_group("changes of every run (default: the protocol's)")
    for name in CHANGES:
        add_run_option(changes, name)

    where = parser.add_argument_group("where")
    where.add_argument("--executor", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    where.add_argument(
        "--gpus-per-run", type=number(0), metavar="X", help="with ray; 0.25 puts four runs on one GPU (default 1, or 0)"
    )
    add_processes(where)
    parser.set_defaults(command=execute, prog=parser.prog, go_on="the same command goes on where it stopped")


def execute(options: argparse.Namespace) -> int:
    if options.recipe == LIST:
        _list()
        return 0
    from anystride.lab.paper.catalogue import MEASUREMENTS, RECIPES

    if options.recipe in MEASUREMENTS:
        _measure(options)
        return 0
    from anystride.lab.paper.grid import GridRequest

    if options.recipe not in RECIPES:
        known = ", ".join((*RECIPES, *MEASUREMENTS))
        raise UsageError(f"RECIPE must be {LIST} or one of {known}, got {options.recipe!r}")
    changes = {name: getattr(options, name) for name in CHANGES if getattr(options, name) is not None}
    recipe = RECIPES[options.recipe]
    dataset = _dataset(recipe, options.dataset) if options.dataset else recipe.datasets[0]
    request = GridRequest(options.recipe, dataset, options.budget, options.seeds, changes)
    if options.plan:
        _plan(request, options)
        return 0
    if options.rate is not None:
        raise UsageError("--rate is for --plan; runs take the time that they take")
    return _run(request, options)


def _dataset(recipe: Recipe, given: str) -> str:
    """The data set that `--data` names. A folder becomes an absolute path: its runs are found from everywhere."""
    from anystride.lab.data.names import is_there
    from anystride.lab.data.tree import kind_of
    from anystride.lab.paper.recipe import is_own

    if given in recipe.datasets or not is_there(given) or not is_own(given):
        return given
    kind = kind_of(Path(given))
    if kind != recipe.kind:
        raise UsageError(
            f"--data must be a folder of {recipe.kind}s for {recipe.name}, got {given!r}, where most files are of the "
            f"kind {kind}; 'anystride paper list' shows what each recipe takes"
        )
    return str(Path(given).resolve())


def _picture(grid: Grid, folder: Path, screen: Console) -> None:
    """Of the Pareto recipe, what the terminal cannot show."""
    from anystride.lab.paper.front import points
    from anystride.lab.paper.grid import record_in
    from anystride.lab.paper.pareto import PARETO

    found = points(grid, record_in(folder)) if grid.recipe == PARETO else []
    if found:
        from anystride.lab.report.pareto import draw

        path = folder / f"{PARETO}-{Path(grid.dataset).name}.png"
        draw(found, path, f"{Path(grid.dataset).name}, {grid.runs[0].model} of width {grid.runs[0].width}")
        screen.print(f"A picture of it: {path}", highlight=False, soft_wrap=True)


def _list() -> None:
    from rich.table import Column, Table

    from anystride.lab.paper.catalogue import MEASUREMENTS, RECIPES

    table = Table(
        "recipe",
        Column("what", overflow="fold"),
        Column("in the paper", overflow="fold"),
        Column("data sets; the last stands in", width=len("nsynth-instrument,")),
        Column("or your own", width=len("images")),
    )
    for recipe in RECIPES.values():
        table.add_row(recipe.name, recipe.title, recipe.source, ", ".join(recipe.datasets), f"{recipe.kind}s")
    for measurement in MEASUREMENTS.values():
        table.add_row(measurement.name, measurement.title, measurement.source, "a measurement on this machine", "")
    console().print(table)


def _measure(options: argparse.Namespace) -> None:
    import torch

    from anystride.lab.bench.table_a2 import measure
    from anystride.lab.paper.catalogue import MEASUREMENTS
    from anystride.lab.paper.grid import save_measurement
    from anystride.lab.paper.show import measurement_table

    measurement, screen, on_gpu = MEASUREMENTS[options.recipe], console(), torch.cuda.is_available()
    width, batch_size = options.width or (64 if on_gpu else 8), options.batch_size or (256 if on_gpu else 16)
    repeats = max(1, round(REPEATS * options.budget))
    if options.plan:
        text = f"{measurement.name}: {repeats} steps per method at width {width}, batch {batch_size}; minutes, no data."
        screen.print(text, highlight=False)
        return
    folder = writable(options.out)
    values = measure(width, batch_size, repeats)
    screen.print(measurement_table(measurement, values))
    screen.print(f"In {save_measurement(measurement.name, values, folder)}", highlight=False, soft_wrap=True)


def _plan(request: GridRequest, options: argparse.Namespace) -> None:
    from anystride.lab.paper.grid import ONLY, record_in
    from anystride.lab.paper.plan import estimate
    from anystride.lab.paper.show import plan_table
    from anystride.lab.report.text import counted

    record_of = record_in(options.out)
    grid = request.grid().resolve(record_of)
    chosen = [run for run in grid.runs if options.only in run.key]
    left = {run for run in chosen if record_of(run) is None}
    if not chosen:
        raise UsageError(ONLY.format(options.only))
    if not left:
        console().print(f"{grid.recipe} on {grid.dataset}: {counted(len(chosen), 'run')} finished, none left.")
        return
    rate = None if options.rate is None else 1e9 * options.rate
    cost = estimate(grid, rate=rate, is_left=left.__contains__)
    console().print(plan_table(grid, cost, len(chosen) - len(left), [run.key for run in chosen]))


def _run(request: GridRequest, options: argparse.Namespace) -> int:
    folder: Path = options.out
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out must be a folder, got {str(folder)!r}, which is a file")
    from anystride.lab.paper.demo import AGAIN
    from anystride.lab.paper.grid import Executor, record_in
    from anystride.lab.paper.grid import execute as make
    from anystride.lab.paper.show import show
    from anystride.lab.run.local import run_all, run_each_alone, run_in_turn
    from anystride.lab.run.ranks import launched

    environment = run_environment(options)
    run: Executor = run_all
    if options.executor == "ray":
        if environment.world > 1:
            raise UsageError("--executor ray gives each run one device, got --devices or --nodes; leave one out")
        from anystride.lab.run.on_ray import run_all_on_ray

        run = partial(run_all_on_ray, gpus=options.gpus_per_run)
    elif environment.world > 1:
        run = run_in_turn if launched() else run_each_alone
        if environment.nodes > 1 and not launched():
            raise UsageError(f"--nodes {environment.nodes} needs a launcher: torchrun or srun, one process per device")
    screen = console()
    screen.quiet = not environment.is_first
    grid, problems = make(request, folder, environment, run, screen, options.only)
    show(grid, record_in(folder), screen)
    if environment.is_first:
        _picture(grid, folder, screen)
    screen.print(f"Records in {folder}. A page of them: anystride report {folder}", highlight=False, soft_wrap=True)
    failed = [outcome for outcome in problems if not outcome.busy]
    if len(problems) > len(failed):
        screen.print(f"{len(problems) - len(failed)} runs are being made by other workers.", highlight=False)
    if not failed:
        return 0
    screen.print(f"{len(failed)} runs were not made. {AGAIN}", highlight=False)
    for outcome in failed:
        screen.print(f"  {outcome.job.config.key}: {outcome.problem}", highlight=False, markup=False, soft_wrap=True)
    return 1
