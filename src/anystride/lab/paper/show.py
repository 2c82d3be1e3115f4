"""A grid's results on a terminal: mean and deviation of each cell, the published value below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.plan import Estimate
from anystride.lab.paper.recipe import METHODS, TITLES, Cell, Grid, Measurement, Published
from anystride.lab.paper.values import Measured, measured
from anystride.lab.report.text import duration_text
from anystride.lab.run.config import RunConfig
from anystride.lab.run.defaults import slow_precision
from anystride.lab.run.record import Record

DIGITS = {"stride": 2, "cutoff": 3, "complexity": 3, "striding": 1, "macs": 0, "mmacs": 2}
"""Decimals of a value by its kind; accuracies have one."""

LONG = 24 * 14
"""Hours from which on a plan says what takes less."""


def show(grid: Grid, record_of: Callable[[RunConfig], Record | None], console: Console) -> None:
    """Print one table per panel of the grid."""
    recipe = RECIPES[grid.recipe]
    for panel in dict.fromkeys(cell.panel for cell in grid.cells):
        cells = [cell for cell in grid.cells if cell.panel == panel]
        columns = list(dict.fromkeys(cell.column for cell in cells))
        heading = ", ".join(filter(None, (recipe.title, grid.dataset, panel)))
        table = Table(title=f"{heading} ({recipe.source})", title_justify="left", title_style="bold", show_lines=True)
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        by_place = {(cell.row, cell.column): cell for cell in cells}
        for row in dict.fromkeys(cell.row for cell in cells):
            table.add_row(row, *(_text(by_place.get((row, column)), record_of) for column in columns))
        console.print(table)
    if grid.note:
        console.print(grid.note, highlight=False)
    if any(cell.published for cell in grid.cells):
        known = grid.stands_in_for or grid.dataset
        console.print(f"Below each value, in brackets: the published one ({known}).", highlight=False)


def plan_table(grid: Grid, cost: Estimate, made: int, names: Sequence[str]) -> Table:
    """What those runs of a grid cost that are left; how many were `made` before, and the `names` of all."""
    table = Table(title=f"{grid.recipe} on {grid.dataset}: a plan, nothing was started", title_justify="left")
    table.add_column("")
    table.add_column("", overflow="fold")
    rates = ", ".join(f"{method} {rate / 1e9:.3g}" for method, rate in cost.rate.items())
    slow = "; ".join(filter(None, dict.fromkeys(map(slow_precision, grid.runs))))
    for name, text in (
        ("runs", f"{cost.runs + made}, {made} of them finished{'; what follows is for the others' if made else ''}"),
        ("training examples", f"{cost.examples:,}"),
        ("MMAC per example, at the start", _range(f"{each / 1e6:,.1f}" for each in cost.macs)),
        ("parameters", _range(f"{each:,}" for each in cost.parameters)),
        ("estimated device time", _time_text(cost)),
        ("speed behind it", f"GMAC/s in training: {rates}{'; ' if slow else ''}{slow}"),
        ("disk", f"checkpoints {_size(cost.checkpoint_bytes)}, data sets {_size(cost.data_bytes)}"),
        ("protocol", grid.note),
        ("names", ", ".join(names)),
    ):
        table.add_row(name, text)
    return table


def _range(texts: Iterable[str]) -> str:
    return " to ".join(dict.fromkeys(texts))


def _time_text(cost: Estimate) -> str:
    times = cost.hours.times(3600)
    text = f"{duration_text(times.middle)} on {cost.device}, one run after the other"
    low, high = duration_text(times.low), duration_text(times.high)
    text += "" if low == high else f" ({low} at its fastest step, {high} at its slowest)"
    text += "; without loading of data and evaluation"
    if cost.hours.middle > LONG:
        text += "; --budget 5% takes a twentieth of the epochs, and recipes on --dataset scenes or notes take hours"
    return text


def measurement_table(measurement: Measurement, values: dict[str, Any]) -> Table:
    """Ratios of a measurement beside the published ones."""
    settings = values["settings"]
    heading = f"{measurement.title} ({measurement.source}), on {settings['device']}, batch {settings['batch_size']}"
    table = Table(title=f"{heading}, width {settings['width']}; in brackets: published", title_justify="left")
    table.add_column("relative to strided convolution", min_width=12)
    for method in METHODS:
        table.add_column(TITLES[method], justify="right")
    for row, ratios in values["ratios"].items():
        known = values["published"].get(row, {})
        cells = [f"{ratios[method]:.2f}" + (f" ({known[method]:.2f})" if method in known else "") for method in METHODS]
        table.add_row(row, *cells)
    return table


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _text(cell: Cell | None, record_of: Callable[[RunConfig], Record | None]) -> str:
    if cell is None:
        return ""
    digits = DIGITS.get(cell.value.partition(":")[0], 1)
    value = measured(cell, record_of)
    text = value_text(value, digits)
    return text if cell.published is None else f"{text}\n[dim]({published_text(cell.published)})[/dim]"


def value_text(value: Measured, digits: int) -> str:
    """`92.4 ± 0.1`, with how many runs there are where some are missing, and a dash where all are."""
    if value.mean is None:
        return "-"
    spread = "" if value.sd is None else f" ± {value.sd:.{digits}f}"
    missing = "" if value.complete else f" ({len(value.numbers)} of {value.expected} runs)"
    return f"{value.mean:.{digits}f}{spread}{missing}"


def published_text(published: Published) -> str:
    """`92.5 ± 0.1` with the decimals of the paper."""
    digits = published.digits
    return f"{published.mean:.{digits}f}" + ("" if published.sd is None else f" ± {published.sd:.{digits}f}")
