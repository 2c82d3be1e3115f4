"""Sections about the paper's tables and figures, and about measurements."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from anystride.lab.errors import UsageError
from anystride.lab.paper.catalogue import MEASUREMENTS, RECIPES
from anystride.lab.paper.figure4 import known
from anystride.lab.paper.pareto import PARETO
from anystride.lab.paper.recipe import METHODS, TITLES, Grid, is_own
from anystride.lab.paper.values import numbers_of
from anystride.lab.report.collect import Results, Run, Table
from anystride.lab.report.html import figures, pareto
from anystride.lab.report.html.tables import accuracies_and_costs, cost_tables, html_table, value_tables
from anystride.lab.report.text import printable
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

Link = Callable[[Run], str]
LEARNED = ("outer", "inner", "cosine")
"""Methods whose windows can be drawn."""


@dataclass(frozen=True)
class Section:
    """A section of the page: its title, where links lead to it, and all of it in HTML."""

    title: str
    anchor: str
    html: str


def sections(results: Results, link: Link) -> list[Section]:
    """A section for each table that was asked for, then one for each measurement."""
    made: list[Section] = []
    for table in results.tables:
        title = printable(_title(table))
        anchor = re.sub(r"[^\w.+-]+", "-", printable(table.request.name), flags=re.ASCII)
        if any(section.anchor == anchor for section in made):
            anchor = f"{anchor}-{len(made)}"
        made.append(Section(title, anchor, _section(table, title, anchor, results, link)))
    for number, values in enumerate(results.measurements):
        measurement = MEASUREMENTS[values["recipe"]]
        title, anchor = f"{measurement.title} ({measurement.source})", f"measurement-{number}"
        made.append(Section(title, anchor, _measurement(values, title, anchor)))
    return made


def _title(table: Table) -> str:
    request = table.request
    short = "" if request.budget == 1 else f", {100 * request.budget:g} % of the epochs"
    changed = "".join(f", {name} {value}" for name, value in request.changes.items())
    home = "" if not table.home.parts else f", in {table.home}"
    return f"{RECIPES[request.recipe].title}: {request.dataset}{short}{changed}{home}"


def _usable(table: Table, results: Results) -> tuple[Grid, dict[RunConfig, Run]]:
    """The grid of a table and its runs that have ended; those without a value that the table needs are left out."""
    ended: dict[RunConfig, Run] = {}

    def record_of(config: RunConfig) -> Record | None:
        run = results.run_of(table.home, config)
        return None if run is None else run.record

    grid = table.request.grid().resolve(record_of)
    for cell in grid.cells:
        for config in dict.fromkeys((*cell.runs, *cell.follows)):
            run = results.run_of(table.home, config)
            if run is None:
                continue
            try:
                numbers_of(cell.value, run.record)
                ended[config] = run
            except UsageError as error:
                problem = printable(f"{run.folder} could not be used for {table.request.recipe}: {error}")
                results.problems += [] if problem in results.problems else [problem]
    return grid, ended


def _section(table: Table, title: str, anchor: str, results: Results, link: Link) -> str:
    grid, ended = _usable(table, results)

    def record_of(config: RunConfig) -> Record | None:
        return ended[config].record if config in ended else None

    def link_of(config: RunConfig) -> str:
        return link(ended[config]) if config in ended else ""

    found = [
        figures.Shown(config, ended[config].record, link(ended[config])) for config in grid.runs if config in ended
    ]
    parts = [
        f'<section><h2 id="{anchor}">{escape(title)}</h2>',
        f"<p>{escape(RECIPES[table.request.recipe].source)}. {len(found)} of {len(grid.runs)} runs.</p>",
    ]
    if grid.stands_in_for:
        warning = grid.note
        if any(cell.published for cell in grid.cells):
            warning += f" Published values are those of {grid.stands_in_for}, for orientation only."
        parts.append(f'<p class="note">{escape(warning)}</p>')
    elif grid.note:
        parts.append(f"<p>{escape(grid.note)}</p>")
    protocol = "a small" if grid.stands_in_for and not is_own(grid.dataset) else "the paper's"
    values = f"<h3>At {protocol} protocol</h3>{value_tables(grid, record_of, link_of)}"
    drawn = f'<div class="figures">{_figures(grid, record_of, found)}</div>' if found else ""
    if grid.recipe == PARETO:  # its many values behind what they come to
        parts += [pareto.tables(grid, record_of), drawn, f"<details><summary>All values</summary>{values}</details>"]
    else:
        parts += [values, *_costs(grid, record_of), drawn]
    return "".join([*parts, "</section>"])


def _costs(grid: Grid, record_of: Callable[[RunConfig], Record | None]) -> list[str]:
    found = accuracies_and_costs(grid, record_of)
    if len(found) < 2:
        return []
    one_task = len({run.data for run in grid.runs}) == 1
    return ["<h3>At equal multiply-accumulates</h3>", cost_tables(found, TITLES["strided"], one_task)]


def _figures(grid: Grid, record_of: Callable[[RunConfig], Record | None], found: figures.Runs) -> str:
    drawn = [pareto.figure(grid, record_of)] if grid.recipe == PARETO else []
    drawn.append(figures.accuracy_against(found, "cost"))
    if grid.recipe == "figure4":
        drawn.append(figures.accuracy_against(found, "J", known=known()))
    learned = [shown for shown in found if shown.config.method in LEARNED]
    if learned:
        drawn += [figures.final_strides(learned), figures.striding(learned)]
    for method in LEARNED:
        mine = [shown for shown in learned if shown.config.method == method]
        if mine:
            drawn += [figures.trajectories(mine[0]), figures.windows(mine[0])]
    return "".join(drawn)


def _measurement(values: dict[str, Any], title: str, anchor: str) -> str:
    settings = values["settings"]
    body = [
        [
            escape(printable(row)),
            *(
                f"{ratios[method]:.2f}"
                + (f'<span class="known">published {known[method]:.2f}</span>' if method in known else "")
                for method in METHODS
            ),
        ]
        for row, ratios in values["ratios"].items()
        for known in (values["published"].get(row, {}),)
    ]
    caption = f"Relative to the strided convolution; {settings['device']}, width {settings['width']}, "
    caption += f"batch {settings['batch_size']}; memory: {settings['memory']}"
    heads = ["", *(escape(TITLES[method]) for method in METHODS)]
    table = html_table(heads, body, escape(printable(caption)))
    return f'<section><h2 id="{anchor}">{escape(title)}</h2>{table}</section>'
