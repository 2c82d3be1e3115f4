"""A grid's tables in HTML: values beside the published ones, and the same at equal multiply-accumulates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from html import escape

from anystride.lab.paper.recipe import MEAN, Cell, Grid
from anystride.lab.paper.show import DIGITS, published_text, value_text
from anystride.lab.paper.values import difference, measured
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

RecordOf = Callable[[RunConfig], Record | None]
ACCURACIES = ("accuracy", "accuracies", "top5", "validation")
LIMITS = (1.0, 1.5, 2.0, 4.0, 8.0)
"""Costs at which methods are compared, relative to the strided convolution of the first row."""


def value_tables(grid: Grid, record_of: RecordOf, link: Callable[[RunConfig], str]) -> str:
    """One table per panel."""
    return "".join(_table(grid, panel, record_of, link) for panel in dict.fromkeys(cell.panel for cell in grid.cells))


def _table(grid: Grid, panel: str, record_of: RecordOf, link: Callable[[RunConfig], str]) -> str:
    cells = [cell for cell in grid.cells if cell.panel == panel]
    columns = list(dict.fromkeys(cell.column for cell in cells))
    body = []
    for row in dict.fromkeys(cell.row for cell in cells):
        line = {cell.column: cell for cell in cells if cell.row == row}
        means = {column: measured(cell, record_of).mean for column, cell in line.items()}
        known = [mean for mean in means.values() if mean is not None]
        kinds = {cell.value.partition(":")[0] for cell in line.values()}
        best = max(known) if known and kinds <= set(ACCURACIES) and len(line) > 1 else None
        entries = [
            _entry(line.get(column), record_of, link, bool(grid.stands_in_for), means.get(column) == best is not None)
            for column in columns
        ]
        body.append([escape(row), *entries])
    caption = escape(panel) or "Mean ± sd over the runs"
    return html_table(["", *map(escape, columns)], body, caption)


def _entry(
    cell: Cell | None, record_of: RecordOf, link: Callable[[RunConfig], str], stands_in: bool, best: bool
) -> str:
    if cell is None:
        return ""
    digits = DIGITS.get(cell.value.partition(":")[0], 1)
    value = measured(cell, record_of)
    text = escape(value_text(value, digits))
    text = f'<span class="best">{text}</span>' if best else text
    if cell.row != MEAN:
        made = [run for run in cell.runs if record_of(run) is not None]
        text += "".join(
            f' <a href="{escape(link(run), quote=True)}" aria-label="record of seed {run.seed}">{run.seed}</a>'
            for run in made
        )
    if cell.published is None:
        return text
    known = f"published {published_text(cell.published)}"
    gap = difference(cell, value)
    if gap is not None and not stands_in:
        known += f", difference {gap:+.{max(digits, cell.published.digits)}f}"
    return f'{text}<span class="known">{known}</span>'


def accuracies_and_costs(grid: Grid, record_of: RecordOf) -> dict[str, dict[str, tuple[float, float]]]:
    """(mean accuracy in %, mean multiply-accumulates) by column and row, over the runs that are finished."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    panels = {cell.panel for cell in grid.cells if cell.value == "accuracy"}
    for cell in grid.cells:
        records = [record for run in cell.runs if (record := record_of(run)) is not None]
        if cell.value != "accuracy" or cell.row == MEAN or not records:
            continue
        cost = statistics.fmean(record.multiply_accumulates for record in records)
        accuracy = 100 * statistics.fmean(record.accuracy for record in records)
        row = f"{cell.panel}: {cell.row}" if len(panels) > 1 else cell.row
        found.setdefault(cell.column, {})[row] = (accuracy, cost)
    return found


def cost_tables(found: dict[str, dict[str, tuple[float, float]]], reference: str, one_task: bool) -> str:
    """Tables of costs.

    Args:
        found: (accuracy, cost) by column and row, as `accuracies_and_costs` returns them.
        reference: the cheapest column.
        one_task: whether all rows have the same task; only then a second table compares methods at equal costs.
    """
    rows = list(dict.fromkeys(row for column in found.values() for row in column))
    base = found.get(reference, {})
    body = []
    for row in rows:
        line = [escape(row)]
        for column in found.values():
            if row not in column:
                line.append("-")
                continue
            cost = column[row][1]
            relative = f'<span class="known">{cost / base[row][1]:.2f} x strided</span>' if row in base else ""
            line.append(f"{cost / 1e6:.1f}{relative}")
        body.append(line)
    heads = ["", *map(escape, found)]
    text = html_table(heads, body, "Million multiply-accumulates per example after training, mean over the runs")
    if rows[0] not in base or not one_task:
        return text  # nothing that all methods start from, or rows whose accuracies do not compare
    first, unit = rows[0], base[rows[0]]
    body = [
        [f"{limit:g} x ({limit * unit[1] / 1e6:.1f})", *(_within(column, limit * unit[1]) for column in found.values())]
        for limit in LIMITS
    ]
    caption = (
        f"The best mean accuracy (%) of each method among its rows that cost at most so much, in multiples of the "
        f"strided convolution from {first} (million multiply-accumulates)"
    )
    return text + html_table(heads, body, escape(caption))


def _within(column: dict[str, tuple[float, float]], limit: float) -> str:
    affordable = {row: value for row, value in column.items() if value[1] <= limit * (1 + 1e-9)}
    if not affordable:
        return "-"
    best = max(affordable, key=lambda row: affordable[row][0])
    accuracy, cost = affordable[best]
    return f'{accuracy:.1f}<span class="known">{escape(best)}, {cost / 1e6:.1f}</span>'


def html_table(heads: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    """A table that scrolls on its own where it is wider than the page; all texts are HTML already."""
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    rows = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{text}</td>" for text in row[1:]) + "</tr>" for row in body
    )
    return (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
