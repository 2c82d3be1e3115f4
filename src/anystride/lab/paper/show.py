"""A grid's results on a terminal: mean and deviation of each cell, the published value below it."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from anystride.lab.config import RunConfig
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.recipe import Cell, Grid, Published
from anystride.lab.paper.values import Measured, measured
from anystride.lab.record import Record

DIGITS = {"stride": 2, "cutoff": 3, "complexity": 3, "striding": 1, "macs": 0}
"""Decimals of a value by its kind; accuracies have one."""


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
    known = grid.stands_in_for or grid.dataset
    console.print(f"Below each value, in brackets: the published one ({known}).", highlight=False)


def _text(cell: Cell | None, record_of: Callable[[RunConfig], Record | None]) -> str:
    if cell is None:
        return ""
    digits = DIGITS.get(cell.value.partition(":")[0], 1)
    value = measured(cell, record_of)
    text = value_text(value, digits)
    return text if cell.published is None else f"{text}\n[dim]({published_text(cell.published, digits)})[/dim]"


def value_text(value: Measured, digits: int) -> str:
    """``92.4 ± 0.1``, with how many runs there are where some are missing, and a dash where all are."""
    if value.mean is None:
        return "-"
    spread = "" if value.sd is None else f" ± {value.sd:.{digits}f}"
    missing = "" if value.complete else f" ({len(value.numbers)} of {value.expected} runs)"
    return f"{value.mean:.{digits}f}{spread}{missing}"


def published_text(published: Published, digits: int) -> str:
    """``92.5 ± 0.1`` as the paper has it."""
    return f"{published.mean:.{digits}f}" + ("" if published.sd is None else f" ± {published.sd:.{digits}f}")
